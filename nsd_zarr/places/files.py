"""Files of a store as they are read: inside its folder, regular, and no larger than they may be."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from nsd_zarr.places.open_files import open_with_room


def open_file(store: Path, key: str) -> int:
    """Open file *key* of the store at *store* for reading; returns its descriptor, which the caller closes.

    The store's folder may be a link, and links inside it are followed as long as they stay inside (a store that is a
    DataLad dataset of its own is made of such). What a link shows outside is not read: a store from somebody else could
    name any file. Raises ValueError for that and for what is no regular file (a pipe would wait for ever), and
    OSError.
    """
    if leads_out(store, key):
        raise ValueError("it is a link that leads out of the store")
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    descriptor = open_with_room(os.path.join(store, key), flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("it is no regular file")
    return descriptor


def read_file(store: Path, key: str, most_bytes: int) -> bytes:
    """All bytes of file *key* of the store. Raises ValueError when there are more than *most_bytes*, else as open_file.

    Bounded before anything is read: a sparse file of a terabyte costs nothing to send.
    """
    descriptor = open_file(store, key)
    with open(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        if size > most_bytes:
            raise ValueError(f"it has {size} bytes, expected at most {most_bytes}")
        return file.read(most_bytes)


def leads_out(store: Path, key: str) -> bool:
    """Whether the path *key* in the store's folder is, by links on the way or at its end, a place outside."""
    path, steps = os.fspath(store), key.split("/")
    for step in steps:
        path = f"{path}/{step}"
        # Commonly there is none: 10 us for a shard rather than 40 us.
        if step == ".." or os.path.islink(path):
            break
    else:
        return False
    inside = os.path.join(os.path.realpath(store), "")
    return not os.path.realpath(os.path.join(store, key)).startswith(inside)
