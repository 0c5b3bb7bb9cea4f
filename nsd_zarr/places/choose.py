"""Which place a path names. The only module that knows all kinds of place."""

from __future__ import annotations

from pathlib import Path

from nsd_zarr.places.local import LocalPlace
from nsd_zarr.places.place import Place


def choose_place(path: Path) -> Place:
    """The place at *path*: a folder, which need not exist. Touches nothing."""
    return LocalPlace(path)
