"""Writing a volume beside `betas`: one compressed chunk, whole."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nsd_zarr.store.codec import BloscCodec
from nsd_zarr.store.digest import make_digest
from nsd_zarr.store.durable import make_folder, write_durably


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """One file of the store that is on disk."""

    key: str
    """Path inside the store."""
    size: int
    """Bytes."""
    digest: str
    """xxh3-128, hexadecimal."""


def write_file(store: Path, key: str, data: bytes) -> WrittenFile:
    """Write a whole file of the store, on disk when this returns. Raises StoreError or DoesNotFit."""
    make_folder((store / key).parent)
    write_durably(store / key, data)
    return WrittenFile(key, len(data), make_digest(data))


def write_volume(store: Path, key: str, values: np.ndarray, codec: BloscCodec) -> WrittenFile:
    """Compress *values* (any shape) to the one chunk *key*, with the settings of betas and a typesize of its own.

    Run it off the main thread (see BloscCodec.encode). Raises StoreError or DoesNotFit.
    """
    plain = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return write_file(store, key, b"".join(replace(codec, typesize=plain.itemsize).encode(plain)))
