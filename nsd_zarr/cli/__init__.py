"""The command line: words in, words and an exit code out."""

from nsd_zarr.cli.main import main

__all__ = ["main"]
