"""The arrays beside `betas`, one chunk at a time: whole, or one session's volume."""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from nsd_zarr.errors import DamageFound, StoreError
from nsd_zarr.retry import read_again
from nsd_zarr.store.check import find_max_bytes
from nsd_zarr.store.digest import make_digest
from nsd_zarr.store.foreign.group import read_zarr_rows
from nsd_zarr.store.format import decode_small, make_chunk_key
from nsd_zarr.store.meta import ArrayMeta
from nsd_zarr.store.replaced import explain_replacement
from nsd_zarr.store.root import Store


def find_chunk_rows(metadata: ArrayMeta) -> int:
    """Rows along the first axis that one chunk of an array holds: 1, or all. The other axes are never cut."""
    shape, chunk = metadata.shape, metadata.chunk_shape
    if chunk[1:] != shape[1:] or (shape and not chunk[0] > 0):
        raise ValueError(f"its chunks of shape {chunk} cut more than the first axis of {shape}")
    return int(chunk[0]) if shape else 1


def read_chunk(store: Store, name: str, row: int = 0) -> np.ndarray:
    """The chunk of array *name* that begins at row *row* times its length; checked against crc32c and manifest.

    Returns all rows of that chunk: shape (rows, ...), or the whole array where it has one chunk. Text as fixed-width
    unicode. Raises DamageFound, naming the file, when it is lost or damaged; StoreError when another store has taken
    the place of this one.
    """
    metadata = store.members[name]
    if store.zarr_location:
        rows = find_chunk_rows(metadata)
        return read_zarr_rows(store, name, slice(row * rows, (row + 1) * rows))
    key = make_chunk_key(name, (row, *(0 for _ in metadata.shape[1:]))[: len(metadata.shape)])
    try:
        data = read_again(partial(store.place.read, key, find_max_bytes(metadata)), store.place.locate(key))
        expected = store.manifest.get(key)
        if expected is not None and make_digest(data) != expected.digest:
            raise ValueError("its digest is not the manifest's")
        return decode_small(data, metadata)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise StoreError(f"array {name} cannot be read: {error.strerror}", path=store.path / key) from error
        if (replaced := explain_replacement(store, f"array {name}", store.path / key)) is not None:
            raise replaced from error
        raise DamageFound(
            f"array {name} is lost or damaged: {error}",
            hint=f"See what else is: nsd-zarr verify {store.path}.",
            path=store.path / key,
        ) from error


def read_array(store: Store, name: str) -> np.ndarray:
    """All values of array *name*. Raises DamageFound, StoreError."""
    parts = [chunk for _, chunk in iterate_chunks(store, name)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def iterate_chunks(store: Store, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """First row and values of each chunk of array *name*, one at a time. Raises DamageFound, StoreError."""
    rows = find_chunk_rows(store.members[name])
    for chunk in range(count_chunks(store, name)):
        yield chunk * rows, read_chunk(store, name, chunk)


def count_chunks(store: Store, name: str) -> int:
    """Chunks of array *name*: one, or one a session."""
    shape = store.members[name].shape
    return max(1, math.ceil(shape[0] / find_chunk_rows(store.members[name]))) if shape else 1
