"""Objects fetched to this machine, whole or in part: in memory that has no name, or in a file that has none.

Either goes when the process ends, however it ends. What was fetched is read by its descriptor, as a local file is.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType

from nsd_zarr.places.objects.file import Version
from nsd_zarr.places.objects.path import ObjectPath
from nsd_zarr.places.read_ahead import ReadAhead
from nsd_zarr.retry import read_again
from nsd_zarr.tasks import map_all

RANGE_BYTES = 16 * 2**20
"""Bytes of one request of a whole object; a session of the dataset is 66 of them."""
RANGES_AT_ONCE = 8
"""Requests of one object in flight: with 16 MiB each they filled every link that was tried."""
BLOCK_BYTES = 2**18
"""Bytes of one request where a part is asked for: what describes a session file takes two or three."""


def count_ranges(size: int) -> int:
    """Requests that fetch an object of *size* bytes whole; an empty one takes one, too."""
    return max(1, -(-size // RANGE_BYTES))


class FetchedObject(io.RawIOBase):
    """An object as a file: what is read of it is fetched first, unless it was fetched whole. For one thread.

    Every request is bound to the version of the first one.
    """

    def __init__(self, path: ObjectPath, *, whole: bool, scratch: str | None = None) -> None:
        """Fetch *path*: *whole*, or its beginning. Raises OSError, ValueError.

        *scratch*: a folder for what is fetched, "" for the system's own; None: memory.
        """
        super().__init__()
        self._place, self._key = path.parent.origin, path.name
        self._path, self._position = path, 0
        self._descriptor = _open_scratch(scratch)
        try:
            self.version = read_again(partial(self._begin, RANGE_BYTES if whole else BLOCK_BYTES), str(path))
            self._file = self._place.open_version(self._key, self.version)
            self._there = {0}
            self._is_whole = whole
            if whole:
                self._fetch_rest()
        except BaseException:
            os.close(self._descriptor)
            self._descriptor = -1
            raise

    def _begin(self, length: int) -> Version:
        version, parts = self._place.begin_reading(self._key, length)
        os.ftruncate(self._descriptor, version.size)
        _write(self._descriptor, 0, parts)
        return version

    def _fetch_rest(self) -> None:
        starts = range(RANGE_BYTES, self.version.size, RANGE_BYTES)
        if starts:
            with ThreadPoolExecutor(min(RANGES_AT_ONCE, len(starts)), "nsd-zarr fetch") as executor:
                map_all(executor, partial(self._fetch, length=RANGE_BYTES), starts)

    def _fetch(self, start: int, length: int) -> None:
        wanted = min(length, self.version.size - start)
        where = f"{self._path} from byte {start}"
        read_again(lambda: _write(self._descriptor, start, self._file.stream(start, wanted)), where)

    def _need(self, start: int, length: int) -> None:
        """Fetch what is missing of the *length* bytes from *start* on."""
        if self._is_whole:
            return
        for block in range(start // BLOCK_BYTES, (start + length - 1) // BLOCK_BYTES + 1):
            if block not in self._there:
                self._fetch(block * BLOCK_BYTES, BLOCK_BYTES)
                self._there.add(block)

    # -- as a file -----------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Descriptor of what was fetched; zeros where nothing was."""
        return self._descriptor

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.version.size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """The present byte."""
        return self._position

    def readinto(self, buffer: object) -> int:
        """Fill *buffer*; returns how many bytes. Raises OSError, ValueError."""
        out = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        length = max(0, min(len(out), self.version.size - self._position))
        if length:
            self._need(self._position, length)
            length = os.preadv(self._descriptor, [out[:length]], self._position)
            self._position += length
        return length

    def close(self) -> None:
        """Let what was fetched go."""
        if not self.closed and self._descriptor >= 0:
            os.close(self._descriptor)
        super().close()


def _open_scratch(folder: str | None) -> int:
    """A new file without a name: in memory, or in *folder*. Raises OSError."""
    if folder is None and hasattr(os, "memfd_create"):
        return os.memfd_create("nsd-zarr", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile(dir=folder or None) as file:
        return os.dup(file.fileno())


def _write(descriptor: int, start: int, parts: Iterator[bytes]) -> None:
    for part in parts:
        view = memoryview(part)
        while len(view):
            written = os.pwrite(descriptor, view, start)
            start, view = start + written, view[written:]


# -- the next one, while one is in work --------------------------------------------------------------------------

_ahead: dict[str, Future[FetchedObject]] = {}
"""Objects that are being fetched before anybody asked for them, by URL."""


@contextmanager
def open_whole(path: Path) -> Iterator[FetchedObject]:
    """The object at *path*, fetched whole, maybe ahead. Raises OSError, ValueError."""
    assert isinstance(path, ObjectPath)
    future, fetched = _ahead.pop(str(path), None), None
    if future is not None:
        with suppress(OSError, ValueError):  # Tried once more.
            fetched = future.result()
    with fetched or FetchedObject(path, whole=True, scratch=path.access.scratch) as file:
        yield file


@contextmanager
def open_parts(path: Path) -> Iterator[FetchedObject]:
    """The object at *path*, of which parts are fetched as they are read. Raises OSError, ValueError."""
    assert isinstance(path, ObjectPath)
    with FetchedObject(path, whole=False) as file:
        yield file


class FetchAhead(ReadAhead):
    """Fetches *paths* ahead, in their order: the next one while one is in work. Files are left to ReadAhead."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__([path for path in paths if not isinstance(path, ObjectPath)])
        self._objects = [path for path in paths if isinstance(path, ObjectPath)]
        self._asked_for: set[str] = set()
        self._executor = ThreadPoolExecutor(1, "nsd-zarr fetch ahead")

    def begin(self, path: Path) -> None:
        """Called when *path* begins to be read: it is fetched now, and the next one after it."""
        if path not in self._objects:
            super().begin(path)
            return
        self._asked_for.add(str(path))
        following = self._objects[self._objects.index(path) + 1 :][:1]
        for each in following:
            if str(each) not in self._asked_for:
                self._asked_for.add(str(each))
                fetch: Callable[[], FetchedObject] = partial(
                    FetchedObject, each, whole=True, scratch=each.access.scratch
                )
                _ahead[str(each)] = self._executor.submit(fetch)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)
        for url in self._asked_for:
            future = _ahead.pop(url, None)
            if future is not None and not future.cancelled() and future.exception() is None:
                future.result().close()
        super().__exit__(kind, error, trace)
