"""A file of known size that is written piece by piece, over several runs, and then renamed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nsd_zarr.errors import NsdZarrError
from nsd_zarr.places.durable import PARTIAL_SUFFIX, explain_write_error, replace_file, sync_folder


class GrowingFile:
    """Its pieces may be written in any order; what was flushed is there in the next run. For one writer at a time.

    Until it is committed its name ends in PARTIAL_SUFFIX. Raises StoreError or DoesNotFit where writing fails.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(path.name + PARTIAL_SUFFIX)
        self._descriptor = -1

    @property
    def has_begun(self) -> bool:
        """Whether an earlier run began it, and did not commit it."""
        return self.partial.is_file() and not self.partial.is_symlink()

    def begin(self, create: Callable[[Path], None]) -> None:
        """Have *create* make the file with its head, under its partial name; what an earlier run left is removed."""
        with self._explaining():
            self.partial.unlink(missing_ok=True)
            create(self.partial)

    def write(self, offset: int, data: memoryview) -> None:
        """Write *data* at *offset*."""
        with self._explaining():
            if self._descriptor < 0:
                self._descriptor = os.open(self.partial, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            while data:
                written = os.pwrite(self._descriptor, data, offset)
                data, offset = data[written:], offset + written

    def flush(self) -> None:
        """Have on disk what was written."""
        with self._explaining():
            if self._descriptor >= 0:
                os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file, committed or not."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def commit(self) -> None:
        """Give it its name: flushed, whole. Nothing to do where that was done before."""
        self.flush()
        self.close()
        with self._explaining():
            if self.has_begun:
                replace_file(self.partial, self.path)
                sync_folder(self.path.parent)

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, NsdZarrError):
                raise
            raise explain_write_error(error, self.path) from error
