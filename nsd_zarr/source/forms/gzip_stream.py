"""A gzip file as one stream of bytes, unpacked on the way by the fastest library that is installed.

Measured on a simulated session of subject 1's shape (150 trials, 210 MB, packed to 80 MB by gzip level 6), one busy
core, unpacked bytes a second of processor time, medians of three: zlib-ng 334 MB, isal 229 MB, Python's zlib 182 MB.
Pieces of 256 KiB that become 1 MiB: quarters of these are unpacked as fast by themselves, and cost a conversion of four
sessions 7.0 s instead of 7.6 s, because whoever unpacks waits for the interpreter's lock between two of them.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

from nsd_zarr.retry import read_again
from nsd_zarr.source.bounded import GZIP_MAGIC

try:
    from zlib_ng import zlib_ng as _library

    LIBRARY = "zlib-ng"
    """Which library unpacks. Each releases the interpreter's lock."""
except ImportError:  # Not built for this system.
    import zlib as _library  # type: ignore[no-redef]

    LIBRARY = "zlib"

_ERRORS: tuple[Any, ...] = (zlib.error, _library.error)
PACKED_PIECE, PLAIN_PIECE = 2**18, 2**20
"""Bytes read, and bytes unpacked, at a time."""
_GZIP_WBITS = 31
"""Tells zlib to expect gzip, and to compare its checksum."""


class StreamError(OSError):
    """The stream is damaged, ends early, or goes on where it was to end."""


class GzipStream:
    """The unpacked bytes of the gzip file behind a descriptor, once, from the first to the last."""

    def __init__(self, descriptor: int) -> None:
        self.position = 0
        """Unpacked bytes that were handed out."""
        self._descriptor = descriptor
        self._offset = 0
        self._packed = b""
        self._plain = memoryview(b"")
        self._unpack = _start()

    def read_into(self, out: memoryview, check_stop: Callable[[], None] = lambda: None) -> None:
        """Fill *out*, bytes, with those that come next. Raises StreamError, and what *check_stop* raises."""
        while out:
            check_stop()
            piece = self._next()
            if not piece:
                raise StreamError(f"it ends after {self.position} bytes, unpacked, and {len(out)} more were expected")
            count = min(len(piece), len(out))
            out[:count] = piece[:count]
            self._plain, out = piece[count:], out[count:]
            self.position += count

    def skip(self, count: int, check_stop: Callable[[], None] = lambda: None) -> None:
        """Pass over *count* bytes. Raises as read_into."""
        buffer = memoryview(bytearray(min(count, PLAIN_PIECE)))
        while count > 0:
            part = buffer[: min(count, len(buffer))]
            self.read_into(part, check_stop)
            count -= len(part)

    def finish(self) -> None:
        """Refuse a stream that goes on, or whose checksum is not that of what was read. Raises StreamError."""
        if self._next():
            raise StreamError(f"it goes on after {self.position} bytes, unpacked, where it was to end")

    def _next(self) -> memoryview:
        """Unpacked bytes, as many as come; none at the end, behind which nothing lies."""
        while not self._plain:
            if self._unpack.eof and not self._begin_member():
                break
            if not self._packed:
                self._packed = self._read()
                if not self._packed:
                    raise StreamError(f"it ends early: {self.position} bytes could be unpacked")
            self._plain = memoryview(self._inflate())
        return self._plain

    def _inflate(self) -> bytes:
        try:
            plain: bytes = self._unpack.decompress(self._packed, PLAIN_PIECE)
        except _ERRORS as error:
            raise StreamError(f"it is damaged behind {self.position} bytes, unpacked ({error})") from error
        self._packed = self._unpack.unused_data if self._unpack.eof else self._unpack.unconsumed_tail
        return plain

    def _begin_member(self) -> bool:
        """Begin the next member of a file of several; whether there is one. Raises StreamError for anything else."""
        self._packed = self._packed or self._read()
        if len(self._packed) == 1:
            self._packed += self._read()
        if not self._packed:
            return False
        if self._packed[:2] != GZIP_MAGIC:
            raise StreamError(f"other bytes lie behind its end, after {self.position} bytes unpacked")
        self._unpack = _start()
        return True

    def _read(self) -> bytes:
        data = read_again(
            partial(os.pread, self._descriptor, PACKED_PIECE, self._offset), f"reading at byte {self._offset}"
        )
        self._offset += len(data)
        return data


def _start() -> Any:
    return _library.decompressobj(wbits=_GZIP_WBITS)


def check_length(descriptor: int, length: int) -> None:
    """Refuse a gzip file that does not hold *length* bytes. Raises StreamError, which says what it holds.

    Its last four bytes say how many its last member holds. Where they say *length*, nothing more is read; else, as of a
    file that was cut short, everything is.
    """
    size = os.fstat(descriptor).st_size
    last = os.pread(descriptor, 4, max(0, size - 4))
    if len(last) == 4 and struct.unpack("<I", last)[0] == length % 2**32:
        return
    stream = GzipStream(descriptor)
    stream.skip(length)
    stream.finish()
