"""The Zarr store: its format, writing whole shards, reading single trials. Knows no source."""
