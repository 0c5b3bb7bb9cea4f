"""Groups and arrays of stores that are read through zarr-python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nsd_zarr.errors import DamageFound
from nsd_zarr.places.choose import choose_place, is_remote
from nsd_zarr.store.foreign.bounded import bound_array
from nsd_zarr.store.root import Store


def open_group(location: str, path: Path) -> Any:
    """The zarr.Group at a folder, a zip file or a URL. *path*: the store's, which knows how a URL is reached."""
    import zarr

    if is_remote(path) and not location.startswith("http"):
        client: Any = choose_place(path)
        return zarr.open_group(zarr.storage.ObjectStore(client.make_client(), read_only=True), mode="r")
    place: Any = zarr.storage.ZipStore(location, mode="r") if location.endswith(".zip") else location
    return zarr.open_group(place, mode="r")


def open_array(location: str, path: Path, name: str) -> Any:
    """The zarr.Array *name* of the group there, of which no chunk grows beyond its bounds."""
    return bound_array(open_group(location, path)[name])


def read_zarr_rows(store: Store, name: str, rows: slice) -> np.ndarray:
    """Rows of array *name* of a store that is read by slices; all of an array without axes. Raises DamageFound."""
    try:
        array = open_array(store.zarr_location, store.path, name)
        return np.asarray(array[rows] if array.shape else array[...])
    except Exception as error:  # The border to stores of all kinds: each has errors of its own.
        raise DamageFound(
            f"array {name} cannot be read: {error or type(error).__name__}", path=store.zarr_location
        ) from error


def read_size(location: str, path: Path, key: str) -> int | None:
    """Bytes of a file of the store; None when it is not there."""
    import fsspec

    if is_remote(path):
        try:
            return choose_place(path).measure(key)
        except FileNotFoundError:
            return None
    files, root = fsspec.core.url_to_fs(location)
    try:
        return int(files.info(f"{root}/{key}")["size"])
    except FileNotFoundError:
        return None
