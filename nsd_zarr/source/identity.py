"""Whether a source file is still the one that was inspected."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nsd_zarr.errors import SourceError
from nsd_zarr.places.choose import is_remote, look_at_object


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Name, size and modification time of a file. Equal: taken for unchanged. Different: its values are compared."""

    name: str
    """File name without folder, so that a moved folder stays the same source."""
    size: int
    """Bytes, parts in other files (virtual, external) included."""
    mtime_ns: int
    """Latest modification of the file or one of its parts, nanoseconds since the epoch; 0 of an object."""
    tag: str = ""
    """ETag of an object behind a URL."""


def read_identity(path: Path, parts: Iterable[Path] = (), session: int | None = None) -> FileIdentity:
    """Identity of the file at *path* whose data also lie in *parts*. Raises SourceError when one is gone."""
    if is_remote(path):
        return _read_remote_identity(path, session)
    try:
        stats = [os.stat(file) for file in (path, *parts)]
    except OSError as error:
        raise SourceError(
            f"cannot read {os.path.basename(error.filename)}: {error.strerror}",
            hint="Check the file, then run again.",
            path=path,
            session=session,
        ) from error
    return FileIdentity(path.name, sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats))


def _read_remote_identity(path: Path, session: int | None) -> FileIdentity:
    try:
        found = look_at_object(path)
    except OSError as error:
        raise SourceError(
            f"cannot read {path.name}: {error.strerror or error}",
            hint="Check the URL, then run again.",
            path=path,
            session=session,
        ) from error
    return FileIdentity(path.name, found.size, 0, found.tag)
