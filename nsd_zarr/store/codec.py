"""One chunk of a store: Blosc, then crc32c."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numcodecs import blosc

from nsd_zarr.store.digest import CRC_BYTES, make_crc

HEADER_BYTES = 16
"""Length of a Blosc header: version, versionlz, flags, typesize, nbytes, blocksize, cbytes.
Source: c-blosc, README_CHUNK_FORMAT."""
MAX_FRAME_BYTES = 2**31 - 1 - HEADER_BYTES
"""Decoded bytes that fit one frame. Source: c-blosc, BLOSC_MAX_BUFFERSIZE."""
MAX_BLOCK_BYTES = 16 * 2**20
"""A frame with larger blocks is refused: Blosc takes three blocks of memory and does not look whether it got them. It
chooses at most 1 MiB itself."""
IMAGE_SHUFFLE = "bitshuffle"
"""Shuffle of images; see ImageSettings.blosc."""
SHUFFLES = {"noshuffle": blosc.NOSHUFFLE, "shuffle": blosc.SHUFFLE, "bitshuffle": blosc.BITSHUFFLE}
_BLOSCLZ, _LZ4, _ZLIB, _ZSTD = 0, 1, 3, 4
"""Compressors as the three highest bits of a frame's flags name them."""
_LONG_MATCH_BYTES = 8_421_504
"""So many bytes of 255 in a row, and c-blosc's blosclz overflows a 32-bit length and writes out of its memory. Source:
c-blosc issue 405; tests/hostile/test_frames.py crashes a process with one."""
_STRIDE = 4096


class ChunkError(ValueError):
    """A chunk is not what its codec wrote. The caller knows trial and shard, and says so."""


@dataclass(frozen=True, slots=True)
class BloscCodec:
    """How a chunk is compressed: the configuration of Zarr's `blosc` codec."""

    cname: str
    """Compressor inside Blosc, one of CNAMES."""
    clevel: int
    """Compression level, 0 to 9."""
    typesize: int
    """Bytes of one value, which byte shuffle puts apart."""
    shuffle: str = "shuffle"
    """One of SHUFFLES."""
    blocksize: int = 0
    """Bytes of a Blosc block; 0 lets Blosc choose."""

    def encode(self, values: np.ndarray) -> tuple[bytes, bytes]:
        """Compress one C-contiguous trial. Returns the Blosc frame and its crc32c, to be written one behind the other.

        Deterministic off the main thread only: there numcodecs gives each call a context of its own, while on the
        main thread Blosc's thread pool splits the work as it comes.
        """
        frame = blosc.compress(
            values, self.cname.encode(), self.clevel, SHUFFLES[self.shuffle], self.blocksize, self.typesize
        )
        return frame, make_crc(frame)


def overhead_bytes() -> int:
    """What a chunk of incompressible values takes beside them: Blosc stores these as they are, behind its header."""
    return HEADER_BYTES + CRC_BYTES


def decode_chunk(chunk: np.ndarray, out: np.ndarray) -> None:
    """Check and decompress one chunk (uint8: Blosc frame, crc32c) into *out*, whose size it must have exactly.

    *out*: C-contiguous, any shape. Raises ChunkError when the checksum, the header or the frame is wrong; the
    header is never trusted to say how much is written.
    """
    check_crc(chunk)
    decode_unchecked(chunk, out)


def check_crc(chunk: np.ndarray) -> None:
    """Compare a chunk with the crc32c at its end. Raises ChunkError."""
    if make_crc(chunk[:-CRC_BYTES]) != chunk[-CRC_BYTES:].tobytes():
        raise ChunkError("its crc32c does not match")


def decode_unchecked(chunk: np.ndarray, out: np.ndarray) -> None:
    """As decode_chunk, without a look at the crc32c: for a caller that compares the values with a digest.

    Memory is as safe as with it, because a frame that was made on purpose has a right crc32c too. Where bits changed,
    it raises ChunkError, or leaves other values in *out*.
    """
    frame = chunk[:-CRC_BYTES]
    if frame.size < HEADER_BYTES:
        raise ChunkError(f"{chunk.size} bytes are too few for a chunk")
    _check_header(frame, out)
    try:
        blosc.decompress(frame, out)
    except RuntimeError as error:
        raise ChunkError(f"Blosc cannot decompress it ({error})") from error


def _check_header(frame: np.ndarray, out: np.ndarray) -> None:
    """Refuse what Blosc itself does not check; a frame made on purpose has a right checksum too. Raises ChunkError.

    Blosc checks versions, block starts and the lengths of streams (c-blosc 1.21.7, fuzzed under a memory checker).
    Left to us: sizes, which it takes from the header; blocks of a part of a value, of which it leaves bytes unwritten;
    memory; and one of its compressors.
    """
    _, _, flags, typesize, decoded, block, stored = struct.unpack_from("<BBBBIII", frame.data)
    if (decoded, stored, typesize) != (out.nbytes, frame.size, out.itemsize):
        raise ChunkError(
            f"its Blosc header says {decoded} decoded and {stored} stored bytes of {typesize}-byte values, "
            f"expected {out.nbytes}, {frame.size} and {out.itemsize}"
        )
    if block % typesize or not 0 < block <= min(decoded, MAX_BLOCK_BYTES):
        raise ChunkError(f"its Blosc header says blocks of {block} bytes")
    if flags >> 5 not in (_BLOSCLZ, _LZ4, _ZLIB, _ZSTD):
        raise ChunkError(f"its Blosc header says compressor {flags >> 5}, which is none that is supported")
    if flags >> 5 == _BLOSCLZ and frame.size > _LONG_MATCH_BYTES and _has_long_match(frame):
        raise ChunkError("it holds a length that overflows in blosclz")


def _has_long_match(frame: np.ndarray) -> bool:
    """Whether a run of LONG_MATCH_BYTES may be in *frame*: it shows in so many samples, compressed values never do."""
    return bool(np.count_nonzero(frame[::_STRIDE] == 255) >= _LONG_MATCH_BYTES // _STRIDE)
