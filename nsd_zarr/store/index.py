"""The index at the end of a shard: where each of its chunks lies. Of Zarr's `sharding_indexed` codec."""

from __future__ import annotations

import numpy as np

from nsd_zarr.store.codec import MAX_FRAME_BYTES, overhead_bytes
from nsd_zarr.store.digest import CRC_BYTES, make_crc, make_digest

ABSENT = 2**64 - 1
"""Offset and length in a shard index of a chunk that was never written. Source: Zarr v3, sharding_indexed."""


def shard_index_bytes(trials: int) -> int:
    """Length of the index at the end of a shard of *trials* trials: offset and length of each, crc32c."""
    return 16 * trials + CRC_BYTES


def encode_shard_index(lengths: list[int], slots: int | None = None) -> bytes:
    """Index of a shard whose chunks of *lengths* bytes follow each other from byte 0.

    *slots*: chunks that a shard of the array has room for, when these are fewer; the rest is absent.
    """
    entries = np.full((len(lengths) if slots is None else slots, 2), ABSENT, "<u8")
    entries[: len(lengths), 1] = lengths
    entries[: len(lengths), 0] = np.cumsum([0, *lengths[:-1]])
    body = entries.tobytes()
    return body + make_crc(body)


def decode_shard_index(
    data: bytes, trials: int, shard_bytes: int, trial_bytes: int = MAX_FRAME_BYTES, slots: int | None = None
) -> np.ndarray:
    """Offsets and lengths, int64 of shape (trials, 2), of a shard file of *shard_bytes* bytes.

    *slots*: chunks that a shard has room for, where this one reaches beyond the array. Raises ValueError on a wrong
    checksum, an absent chunk (every chunk of ours is written, so absent means lost), one beyond the array, an entry
    outside the part of the file before the index, chunks that do not fill it one behind the other, or one that is
    larger than a trial of *trial_bytes* can be.
    """
    body, crc, slots = data[:-CRC_BYTES], data[-CRC_BYTES:], trials if slots is None else slots
    if len(data) != shard_index_bytes(slots) or make_crc(body) != crc:
        raise ValueError("the crc32c of its index does not match")
    entries = np.frombuffer(body, "<u8").reshape(slots, 2)
    if (entries[trials:] != ABSENT).any():
        raise ValueError("an entry of its index is of a chunk beyond the array")
    entries = entries[:trials]
    if (entries == ABSENT).any():
        raise ValueError(f"chunk {int((entries == ABSENT).any(1).argmax())} was never written")
    limit = np.uint64(shard_bytes - len(data))
    # Compared as subtraction from the limit, so that no hostile sum wraps around.
    if (entries[:, 0] > limit).any() or (entries[:, 1] > limit - entries[:, 0]).any():
        raise ValueError("an entry of its index points outside the file")
    # Overlapping or swapped entries are no damage that happens, and would show one trial as another.
    if (entries[:, 0] != np.concatenate([[0], entries[:-1].sum(1)])).any() or entries[-1].sum() != limit:
        raise ValueError("the chunks of its index do not lie one behind the other")
    if entries[:, 1].max() > trial_bytes + overhead_bytes():
        raise ValueError("a chunk of its index is larger than a trial")
    return entries.astype(np.int64)


def make_shard_tail(last_crc: bytes, index: bytes) -> str:
    """Digest of the end of a shard: the crc32c of its last chunk, and its index with every chunk's length.

    What a reader has read of a shard anyway, before its first trial: by this it knows the file for the one that was
    written here, and not another shard or an older one of the same size, whose own checksums are right.
    """
    return make_digest(last_crc + index)
