"""Writing a new file past the page cache, in large pieces, each while the next one is made.

What is written once and not read soon has no use for the cache. There its pages are taken (dear where nobody used that
memory before), filled, looked after and given up, and whoever writes waits while another file is flushed: three cached
sessions took 4.77 s through the cache, 4.31 s past it (medians of nine in turn).
"""

from __future__ import annotations

import errno
import fcntl
import os
from concurrent.futures import Future, ThreadPoolExecutor
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from pathlib import Path
from types import TracebackType

PIECE_BYTES = 2 * 2**20
"""Bytes written at a time. Twice as many take as long."""
WRITING_BYTES = 2 * PIECE_BYTES
"""Memory for a file that is being written: one piece is filled, one is written."""
_REFUSED = {errno.EINVAL, errno.EOPNOTSUPP}
"""Errors of a file system that cannot, or not at these lengths."""
_free: list[mmap] = []
"""Pieces that nobody uses. They begin with a page, as the system wants it; private, so that no fork shares one. Taken
and given back by single operations, which no other thread comes between."""


class DirectFile:
    """A new file that is written front to back, and flushed when all of it is.

    Past the cache go whole pieces, on file systems of this machine's disks; those of networks, memory and user space
    are left to theirs. Where one refuses a piece, that and the rest are written as in any other file. Used by one
    thread at a time. Everything raises OSError, writing also that of earlier pieces; close it whatever happens.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115 - closed by close
        # Devices of file systems that have none of their own, such as networks', are numbered from (0, 1) on.
        self._may_pass = hasattr(os, "O_DIRECT") and os.major(os.fstat(self._file.fileno()).st_dev) != 0
        self._is_direct = False
        self._writer = ThreadPoolExecutor(1, "nsd-zarr write")
        self._pieces: list[mmap] = []
        self._filled = 0
        self._task: Future[None] | None = None

    def __enter__(self) -> DirectFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Its descriptor."""
        return self._file.fileno()

    def write(self, data: bytes, /) -> int:
        """Write *data* behind what was written so far, now or later; returns its length."""
        rest = memoryview(data)
        while rest:
            if not self._pieces:
                self._pieces = [_take_piece()]
            taken = rest[: PIECE_BYTES - self._filled]
            self._pieces[0][self._filled : self._filled + len(taken)] = taken
            rest = rest[len(taken) :]
            self._filled += len(taken)
            if self._filled == PIECE_BYTES:
                self._begin_piece()
        return len(data)

    def flush(self) -> None:
        """Hand the system all that was written. What comes after that goes through the cache."""
        self._wait()
        self._set_direct(False)
        if self._filled:
            self._write_all(self._filled, self._pieces[0])
        self._give_back()

    def close(self) -> None:
        """Close it, flushed or not. Of one that is closed, nothing happens."""
        self._writer.shutdown()
        self._give_back()
        self._file.close()

    def _begin_piece(self) -> None:
        """Have the full piece written by the other thread, and go on with the piece before it."""
        self._wait()
        if self._task is None:
            self._set_direct(self._may_pass)
        full, *free = self._pieces
        self._task = self._writer.submit(self._write_all, PIECE_BYTES, full)
        self._pieces, self._filled = [*(free or [_take_piece()]), full], 0

    def _wait(self) -> None:
        if self._task is not None:
            self._task.result()

    def _write_all(self, length: int, piece: mmap) -> None:
        rest = memoryview(piece)[:length]
        while rest:
            try:
                written = self._file.write(rest)
            except OSError as error:
                if error.errno not in _REFUSED or not self._is_direct:
                    raise
                written = 0
            rest = rest[written:]
            if rest:  # Refused, or less than a piece: from here on no place in the file need be one to go on directly.
                self._set_direct(False)

    def _set_direct(self, is_direct: bool) -> None:
        if is_direct == self._is_direct:
            return
        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self._file, fcntl.F_SETFL, flags ^ os.O_DIRECT)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            return
        self._is_direct = is_direct

    def _give_back(self) -> None:
        _free.extend(self._pieces)
        self._pieces, self._filled = [], 0


def _take_piece() -> mmap:
    try:
        return _free.pop()
    except IndexError:
        return mmap(-1, PIECE_BYTES, MAP_PRIVATE | MAP_ANONYMOUS)
