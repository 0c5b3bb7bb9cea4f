"""What the page cache holds of a file, and giving back what was read for one use, so that others' cache survives.

That also spares the kernel's search for pages to give up, which it does while somebody waits: reading the 21 GB of a
subject's store once, on a machine of 24 GB, took 32 s of system time without and 2 s with it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

SAMPLES = 16
"""Places of somebody else's file at which the page cache is asked whether it has them. What it has not, it may fetch:
few, then, and other ones each time. So read, a file of 50 MB takes half as long again afterwards."""
WINDOWS, WINDOW_BYTES = 64, 2**18
"""Of a file of one's own that is larger, as much is asked about: a whole gigabyte takes the kernel 20 to 40 ms."""
CACHED_SHARE = 0.5
"""A file of which so much is cached counts as cached."""


@contextmanager
def open_for_advice(path: Path) -> Iterator[int]:
    """A descriptor to ask, or to give back by. Waits for no pipe. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_cached(descriptor: int, unknown: bool = True) -> bool:
    """Whether the page cache holds most of an open file; *unknown* where that cannot be asked."""
    try:
        status = os.fstat(descriptor)
        # Of files of others mincore says that all is there.
        own = os.geteuid() in (0, status.st_uid)
        share = (_estimate_cached if own else _sample_cached)(descriptor, status.st_size)
    except (OSError, ValueError, AttributeError):  # Not of this file system, or not of this system.
        return unknown
    return share >= CACHED_SHARE


def is_file_cached(path: Path, unknown: bool = True) -> bool:
    """The same of the file at *path*; *unknown* also where it cannot be opened."""
    try:
        with open_for_advice(path) as descriptor:
            return is_cached(descriptor, unknown)
    except OSError:
        return unknown


def measure_cached(descriptor: int, size: int) -> float:
    """Share of the pages of a file of one's own that the page cache holds; 0 of an empty one. Raises OSError."""
    return _ask_mincore(descriptor, size, [(0, size)]) if size else 0.0


def _estimate_cached(descriptor: int, size: int) -> float:
    """The same, of windows that lie evenly in the file."""
    if size <= WINDOWS * WINDOW_BYTES:
        return measure_cached(descriptor, size)
    starts = [(size - WINDOW_BYTES) * number // (WINDOWS - 1) for number in range(WINDOWS)]
    return _ask_mincore(descriptor, size, [(start - start % mmap.PAGESIZE, WINDOW_BYTES) for start in starts])


def _ask_mincore(descriptor: int, size: int, windows: Sequence[tuple[int, int]]) -> float:
    """Share of the pages in *windows* (first byte, at a page's begin, and length) that the page cache holds."""
    mincore, cached, pages = ctypes.CDLL(None, use_errno=True).mincore, 0, 0
    # Private, because ctypes takes the address of writable memory only; nothing is written.
    with mmap.mmap(descriptor, size, mmap.MAP_PRIVATE) as view:
        for first, length in windows:
            flags = (ctypes.c_ubyte * -(-length // mmap.PAGESIZE))()
            start = ctypes.c_char.from_buffer(view, first)
            failed = mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(length), flags)
            del start  # The map cannot be closed before.
            if failed:
                raise OSError(ctypes.get_errno(), "mincore")
            cached, pages = cached + bytes(flags).count(1), pages + len(flags)
    return cached / pages


def _sample_cached(descriptor: int, size: int) -> float:
    """The same of anybody's file, by samples. What the cache has not, it may fetch."""
    found, byte = 0, bytearray(1)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # Nothing around those places is fetched.
    for _ in range(SAMPLES if size else 0):
        with suppress(BlockingIOError):
            found += os.preadv(descriptor, [byte], random.randrange(size), os.RWF_NOWAIT)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_NORMAL)
    return found / SAMPLES


def read_in_order(descriptor: int) -> None:
    """Say that an open file will be read front to back. Where that cannot be said, nothing."""
    _advise(descriptor, "POSIX_FADV_SEQUENTIAL")


def give_back(descriptor: int) -> None:
    """Let the page cache forget an open file; what is not on disk yet stays. Where that cannot be said, nothing."""
    _advise(descriptor, "POSIX_FADV_DONTNEED")


def _advise(descriptor: int, advice: str) -> None:
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, getattr(os, advice))


def drop_from_cache(path: Path) -> None:
    """Let the page cache forget a file; what is not on disk yet is written first. Raises OSError."""
    with open_for_advice(path) as descriptor:
        os.fsync(descriptor)
        give_back(descriptor)
