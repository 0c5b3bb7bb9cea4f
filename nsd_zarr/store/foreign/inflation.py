"""How large a compressed chunk of another writer grows, found out before it is decoded.

zarr-python decodes whatever a chunk holds: 5 MB of gzip may become 5 GB. Here streams of zlib, bz2 and lzma are run
through in pieces that are thrown away, and formats that say their size are asked. That costs such a chunk a second
decoding; chunks too short to pass the bound, whatever they hold, cost nothing.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

_PIECE_BYTES = 2**20
_ZSTD_MAGIC = 0xFD2FB528
_ZSTD_BLOCK_BYTES = 2**17
"""No block becomes more: RFC 8878, 3.1.1.2.4."""
_STREAMS: dict[str, tuple[int, Callable[[], Any]]] = {
    "gzip": (1_100, lambda: zlib.decompressobj(31)),
    "zlib": (1_100, lambda: zlib.decompressobj(15)),
    "bz2": (1_200_000, bz2.BZ2Decompressor),
    "lzma": (10_000, lzma.LZMADecompressor),
}
"""By codec: how many times its bytes a stream can become, rounded up, and what reads one."""
COMPRESSORS = frozenset([*_STREAMS, "zstd", "blosc", "lz4"])
"""Codecs whose chunks can grow."""


def is_oversize(codec: str, data: bytes | memoryview, max_bytes: int) -> bool:
    """Whether *data*, a chunk compressed by *codec*, grows beyond *max_bytes*.

    Never raises: what is no such chunk does not grow, and the decoder says what is wrong with it.
    """
    try:
        if codec == "zstd":
            return _bound_zstd(data, max_bytes) > max_bytes
        if codec in ("blosc", "lz4"):  # Both state their size, little-endian; Blosc behind version and flags.
            start = 4 if codec == "blosc" else 0
            return int.from_bytes(data[start : start + 4], "little") > max_bytes
        ratio, open_stream = _STREAMS[codec]
        return len(data) * ratio > max_bytes and _count_bytes(open_stream, data, max_bytes) > max_bytes
    except (KeyError, ValueError, OSError, EOFError, zlib.error):
        return False
    except lzma.LZMAError:  # Damaged, or raw: that has no header, and only its decoder knows how to read it.
        return True


def _count_bytes(open_stream: Callable[[], Any], data: bytes | memoryview, max_bytes: int) -> int:
    """Bytes that *data* become, counted until they are more than *max_bytes*; streams may follow each other."""
    count, left = 0, bytes(data)
    while left and count <= max_bytes:
        stream = open_stream()
        count += len(stream.decompress(left, _PIECE_BYTES))
        while not stream.eof and count <= max_bytes:
            piece = stream.decompress(getattr(stream, "unconsumed_tail", b""), _PIECE_BYTES)
            count += len(piece)
            if not piece and not getattr(stream, "unconsumed_tail", b""):
                return count  # Cut short.
        left = stream.unused_data
    return count


def _bound_zstd(data: bytes | memoryview, max_bytes: int) -> int:
    """The most that the frames of *data* can become: what they say, or else by their blocks (RFC 8878, 3.1.1)."""
    bound, at = 0, 0
    while at + 4 <= len(data) and bound <= max_bytes:
        magic = int.from_bytes(data[at : at + 4], "little")
        if magic >> 4 == 0x184D2A5:  # A skippable frame.
            at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
            continue
        if magic != _ZSTD_MAGIC:
            break
        frame, at = _bound_frame(data, at + 4)
        bound += frame
    return bound


def _bound_frame(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """The most that the frame whose descriptor is at *at* can become, and where the next one begins."""
    descriptor = data[at]
    is_single, has_sum = bool(descriptor & 0x20), bool(descriptor & 0x04)
    at += 1 + (not is_single) + (0, 1, 2, 4)[descriptor & 3]
    size_bytes = (int(is_single), 2, 4, 8)[descriptor >> 6]
    stated = int.from_bytes(data[at : at + size_bytes], "little") + (256 if size_bytes == 2 else 0)
    at += size_bytes
    bound, is_last = 0, False
    while not is_last and at + 3 <= len(data):
        header = int.from_bytes(data[at : at + 3], "little")
        is_last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        at += 3 + (1 if kind == 1 else size)  # A block of kind 1 is one byte, repeated.
        bound += size if kind < 2 else _ZSTD_BLOCK_BYTES
    # numcodecs takes memory for what the frame says, whatever its blocks hold.
    return (stated if size_bytes else bound), at + 4 * has_sum
