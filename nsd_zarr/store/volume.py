"""A volume beside `betas`: one compressed chunk, written and read whole."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from nsd_zarr.errors import DamageFound
from nsd_zarr.places.choose import choose_place
from nsd_zarr.retry import read_again
from nsd_zarr.store.codec import BloscCodec, decode_chunk, overhead_bytes
from nsd_zarr.store.record import FileRecord, make_file_record


def write_file(store: Path, key: str, data: bytes) -> FileRecord:
    """Write a whole file of the store, on disk when this returns. Raises StoreError or DoesNotFit."""
    choose_place(store).write(key, data)
    return make_file_record(key, data)


def write_volume(store: Path, key: str, values: np.ndarray, codec: BloscCodec) -> FileRecord:
    """Write *values* as the one chunk *key*. Run it off the main thread. Raises StoreError or DoesNotFit."""
    return write_file(store, key, encode_volume(values, codec))


def read_volume(store: Path, key: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The one chunk *key* as it was written. Raises DamageFound, naming the file, when it is lost or damaged."""
    place, values = choose_place(store), np.empty(shape, np.dtype(dtype).newbyteorder("<"))
    try:
        data = read_again(partial(place.read, key, values.nbytes + overhead_bytes()), place.locate(key))
        decode_chunk(np.frombuffer(data, np.uint8), values)
    except (OSError, ValueError) as error:
        raise DamageFound(
            f"it is lost or damaged: {error}",
            hint="Repair it: nsd-zarr repair STORE --source SOURCE. An unfinished store: convert it with --fresh.",
            path=store / key,
        ) from error
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def encode_volume(values: np.ndarray, codec: BloscCodec) -> bytes:
    """*values* (any shape) as one chunk, with the settings of betas and a typesize of its own.

    Run it off the main thread (see BloscCodec.encode).
    """
    plain = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return b"".join(replace(codec, typesize=plain.itemsize).encode(plain))
