"""Writing a volume beside `betas`: one compressed chunk, whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from nsd_zarr.places.choose import choose_place
from nsd_zarr.store.codec import BloscCodec
from nsd_zarr.store.record import FileRecord, make_file_record


def write_file(store: Path, key: str, data: bytes) -> FileRecord:
    """Write a whole file of the store, on disk when this returns. Raises StoreError or DoesNotFit."""
    choose_place(store).write(key, data)
    return make_file_record(key, data)


def write_volume(store: Path, key: str, values: np.ndarray, codec: BloscCodec) -> FileRecord:
    """Write *values* as the one chunk *key*. Run it off the main thread. Raises StoreError or DoesNotFit."""
    return write_file(store, key, encode_volume(values, codec))


def encode_volume(values: np.ndarray, codec: BloscCodec) -> bytes:
    """*values* (any shape) as one chunk, with the settings of betas and a typesize of its own.

    Run it off the main thread (see BloscCodec.encode).
    """
    plain = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return b"".join(replace(codec, typesize=plain.itemsize).encode(plain))
