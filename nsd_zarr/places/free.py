"""Bytes and inodes that are free where a folder is, or shall be."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """What this user may still write."""

    bytes: int
    """Bytes."""
    inodes: int | None
    """Files and folders; None where the file system does not count them."""


def read_free_space(folder: Path) -> FreeSpace:
    """What is free where *folder* lies, which need not exist. Raises OSError."""
    status = os.statvfs(next(place for place in (folder, *folder.parents) if place.is_dir()))
    return FreeSpace(status.f_bavail * status.f_frsize, status.f_favail if status.f_files else None)


def find_unwritable(folder: Path) -> Path | None:
    """The folder in which *folder* would be made, or itself, where this user may not write there; None otherwise."""
    place = next(place for place in (folder, *folder.parents) if place.is_dir())
    return None if os.access(place, os.W_OK | os.X_OK) else place


def is_read_only(folder: Path) -> bool:
    """Whether the file system of *folder* takes no writes from anybody. Raises OSError."""
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
