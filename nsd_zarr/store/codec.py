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
SHUFFLES = {"noshuffle": blosc.NOSHUFFLE, "shuffle": blosc.SHUFFLE, "bitshuffle": blosc.BITSHUFFLE}


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


def decode_chunk(chunk: np.ndarray, out: np.ndarray) -> None:
    """Check and decompress one chunk (uint8: Blosc frame, crc32c) into *out*, whose size it must have exactly.

    *out*: C-contiguous, any shape. Raises ChunkError when the checksum, the header or the frame is wrong; the
    header is never trusted to say how much is written.
    """
    frame = chunk[:-CRC_BYTES]
    if frame.size < HEADER_BYTES:
        raise ChunkError(f"{chunk.size} bytes are too few for a chunk")
    if make_crc(frame) != chunk[-CRC_BYTES:].tobytes():
        raise ChunkError("its crc32c does not match")
    decoded, _, stored = struct.unpack_from("<III", frame.data, 4)
    if (decoded, stored, frame[3]) != (out.nbytes, frame.size, out.itemsize):
        raise ChunkError(
            f"its Blosc header tells {decoded} decoded and {stored} stored bytes of {frame[3]}-byte values, "
            f"expected {out.nbytes}, {frame.size} and {out.itemsize}"
        )
    try:
        blosc.decompress(frame, out)
    except RuntimeError as error:
        raise ChunkError(f"Blosc cannot decompress it ({error})") from error
