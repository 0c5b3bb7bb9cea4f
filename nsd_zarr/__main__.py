"""`python -m nsd_zarr`: the command line, where its script is not on the path."""

from nsd_zarr.cli import main

if __name__ == "__main__":
    main()
