"""Descriptors of files that readers keep open: a share of what the process may have, the least recently used closed."""

from __future__ import annotations

import errno
import os
import resource
from collections import OrderedDict
from contextlib import suppress

MAX_OPEN_FILES = 4096
"""Files kept open where the limit of the process allows more: ten subjects of 400 shards."""


class Descriptor:
    """The descriptor of an open file. Closed when nobody refers to it any more, so never while a thread reads."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


_open: OrderedDict[int, Descriptor] = OrderedDict()
"""Descriptors by the number of their file, the least recently used first. Touched by single operations, without a lock:
none can be held when a process forks."""


def find(file: int) -> Descriptor | None:
    """The descriptor of file *file*, which is now the last one used; None when it was closed."""
    try:
        _open.move_to_end(file)
        return _open[file]
    except KeyError:
        return None


def keep(file: int, descriptor: Descriptor) -> None:
    """Keep *descriptor* open for file *file*; others are closed where there are too many."""
    while len(_open) >= count_allowed() and _close_one():
        pass
    # Replaces none: it would be closed inside the operation, where another thread might come in between.
    _open.setdefault(file, descriptor)


def forget(file: int) -> None:
    """Close what is open for file *file*."""
    _open.pop(file, None)


def count_allowed() -> int:
    """Files that may be kept open: half of the limit of the process (`ulimit -n`), the rest is for everything else."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_OPEN_FILES if limit == resource.RLIM_INFINITY else max(1, min(MAX_OPEN_FILES, limit // 2))


def open_with_room(path: str, flags: int) -> int:
    """As os.open; where too many files are open, some of those that are kept are closed, and it is tried again."""
    while True:
        try:
            return os.open(path, flags)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not _close_one():
                raise
            for _ in range(len(_open) // 4):
                _close_one()


def _close_one() -> bool:
    """Let go of the least recently used descriptor; whether there was one."""
    with suppress(KeyError):
        _open.popitem(last=False)
        return True
    return False
