"""The operating system's lock on an open file or folder: held by one process, or shared; ends with its process."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

_OPENING = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""A link is not followed, a pipe is not waited for."""


class OddLock(ValueError):
    """What is there in place of a lock file is a link, or no regular file."""


def open_lock_file(path: Path) -> int:
    """Open a lock file to read and write, made where there is none; never through a link. Raises OddLock, OSError."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _OPENING, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise OddLock(path) from error
        raise
    return _check_regular(descriptor, path)


def look_at_lock_file(path: Path) -> int:
    """Open a lock file to read; never through a link. Raises OddLock, OSError (FileNotFoundError: there is none)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _OPENING)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OddLock(path) from error
        raise
    return _check_regular(descriptor, path)


def _check_regular(descriptor: int, path: Path) -> int:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OddLock(path)
    return descriptor


def open_folder(path: Path) -> int:
    """Open a folder, to lock it. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def is_at(path: Path, descriptor: int, *, follow_symlinks: bool = True) -> bool:
    """Whether *path* leads to the file or folder that was opened as *descriptor*. Raises OSError."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=follow_symlinks), os.fstat(descriptor))
    except (FileNotFoundError, NotADirectoryError):
        return False


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file or folder, without waiting; whether that succeeded. Closing the descriptor ends the lock.

    *shared*: several processes may hold it so at once. Raises OSError (other than BlockingIOError) on a file system
    that has no locks.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_lock(descriptor: int, *, shared: bool = False) -> None:
    """As try_lock, but waits until nobody else holds it. On a file system that has no locks it is taken as held."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise
