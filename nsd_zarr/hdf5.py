"""Opening HDF5 files that others may have open."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nsd_zarr.libraries import check_library

if TYPE_CHECKING:
    import h5py


def open_hdf5(path: str | os.PathLike[str]) -> h5py.File:
    """Open a file for reading, with the library's own file locking as everybody does. Raises OSError.

    The library refuses to open one file twice in a process with different locking: a file that is open in a notebook
    could not be converted, nor one that we read be opened there. Where a lock cannot be had (a file system without
    locks, or a file that is open without), it is opened without one: we only read.
    """
    # Here: who reads stores has no h5py.
    check_library("h5py", "reading an HDF5 file")
    import h5py

    for locking in (None, False):
        try:
            return h5py.File(path, "r", locking=locking)
        except OSError as error:
            if "lock" not in str(error):
                raise
    return h5py.File(path, "r", locking=True)
