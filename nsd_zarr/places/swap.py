"""Folders that change places as a whole, and files that are in two folders at once."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from nsd_zarr.places.durable import explain_write_error, make_place, sync_folder, write_partially

_AT_FDCWD = -100
_EXCHANGE = 2
"""RENAME_EXCHANGE of Linux's renameat2, and RENAME_SWAP of macOS's renamex_np."""
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM)
"""What file systems say that cannot do it."""
_CANNOT_LINK = (*_CANNOT, errno.EXDEV, errno.EMLINK, errno.EACCES)
_COPIED_BYTES = 2**22


def swap_folders(new: Path, old: Path, former: Path) -> None:
    """Put folder *new* at path *old*; what was there is at path *new* then. On disk when this returns.

    At every moment one of the two is at *old*, wholly. Where the file system cannot exchange two names, there is a
    moment without either: what was at *old* is at *former* then, and stays there. All three paths are on one file
    system. Raises StoreError, with *old* as it was.
    """
    try:
        if not exchange_names(new, old):
            os.rename(old, former)
            try:
                sync_folder(former.parent)
                sync_folder(old.parent)
                os.rename(new, old)
            except BaseException:
                os.rename(former, old)
                raise
        sync_folder(old.parent)
        sync_folder(new.parent)
    except OSError as error:
        raise explain_write_error(error, old) from error


def move_folder(old: Path, new: Path) -> None:
    """Give folder *old* the path *new*, where nothing is. On disk when this returns. Raises StoreError."""
    try:
        os.rename(old, new)
        sync_folder(new.parent)
        sync_folder(old.parent)
    except OSError as error:
        raise explain_write_error(error, new) from error


def exchange_names(one: Path, other: Path) -> bool:
    """Exchange two names at one moment; False, with nothing done, where the file system cannot. Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "darwin":
        call = getattr(library, "renamex_np", None)
        done = call is not None and call(*names, _EXCHANGE)
    else:
        call = getattr(library, "renameat2", None)
        done = call is not None and call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE)
    if call is None:
        return False
    if done == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def share_file(old: Path, folder: Path, key: str) -> None:
    """Have the file at *old* at *key* in *folder* as well: a second name, or a copy where there can be none.

    Nothing is written where it is there already. The name may be lost in a power cut until its folder is flushed.
    Raises OSError where *old* cannot be read, StoreError or DoesNotFit where *key* cannot be written.
    """
    path = make_place(folder, key)
    if _is_same(old, path):
        return
    with suppress(FileNotFoundError):
        os.unlink(path)
    try:
        os.link(old, path)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise explain_write_error(error, path) from error
        copy_file(old, path)


def copy_file(old: Path, path: Path) -> None:
    """Copy a file, on disk when this returns. Raises OSError, StoreError, DoesNotFit."""
    with open(old, "rb") as source, write_partially(path) as file:
        while data := source.read(_COPIED_BYTES):
            file.write(data)
    file.commit(keep_cached=False)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samestat(os.stat(one), os.lstat(other))
    except FileNotFoundError:
        return False


def copy_mode(old: Path, new: Path) -> None:
    """Let folder *new* be read and written by whom *old* is, as far as possible."""
    with suppress(OSError):
        shutil.copymode(old, new)
