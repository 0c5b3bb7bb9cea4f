"""Whether a session file is still the one that was read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nsd_zarr.errors import SourceError
from nsd_zarr.layout import SessionNumber


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What a file looks like from outside. Equal identities: taken for unchanged. Different: compare values."""

    name: str
    """File name without folder, so that a moved folder stays the same source."""
    size: int
    """Bytes, parts in other files (virtual, external) included."""
    mtime_ns: int
    """Latest modification of the file or one of its parts, nanoseconds since the epoch."""


class Inspected(Protocol):
    """What was inspected: a session, or a block of images."""

    @property
    def error_session(self) -> SessionNumber | None:
        """The session that errors name; None where there is none."""

    @property
    def path(self) -> Path:
        """The HDF5 file."""

    @property
    def parts(self) -> tuple[Path, ...]:
        """Other files that hold its values."""

    @property
    def identity(self) -> FileIdentity:
        """What the file looked like."""


def read_identity(path: Path, parts: Iterable[Path] = (), session: int | None = None) -> FileIdentity:
    """Identity of the file at *path* whose data also lie in *parts*. Raises SourceError when one is gone."""
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
