"""Fingerprints of bytes: xxh3-128 for values and files, crc32c for chunks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import google_crc32c
import numpy as np
import xxhash

from nsd_zarr.places.place import OpenObject

CRC_BYTES = 4
"""Length of a crc32c as the Zarr codec of that name appends it, little-endian."""
_BLOCK_BYTES = 2**20


def make_digest(data: Any) -> str:
    """xxh3-128 of *data* (any C-contiguous buffer) as 32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(data)


def make_raw_digest(data: Any) -> bytes:
    """As make_digest, but its 16 bytes, as the digits have them."""
    return xxhash.xxh3_128_digest(data)


def digest_object(opened: OpenObject) -> str:
    """xxh3-128 of an object of a place, a block at a time. Raises OSError."""
    digest = xxhash.xxh3_128()
    for offset in range(0, opened.size, _BLOCK_BYTES):
        digest.update(opened.read_range(offset, _BLOCK_BYTES))
    return digest.hexdigest()


def join_digests(digests: Iterable[str]) -> str:
    """One xxh3-128 over a sequence of them, as hexadecimal digits: the value digest of a session."""
    return make_digest(b"".join(bytes.fromhex(digest) for digest in digests))


def make_crc(data: bytes | np.ndarray) -> bytes:
    """crc32c of *data*, as four little-endian bytes. Takes bytes or a read-only uint8 array without a copy."""
    return int(google_crc32c.value(data)).to_bytes(CRC_BYTES, "little")
