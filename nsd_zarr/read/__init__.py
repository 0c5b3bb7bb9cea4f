"""Reading a store lazily: percent signal change, xarray. Knows the store."""
