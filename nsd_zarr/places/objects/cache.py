"""Whole objects kept in a local folder from their first touch on: a second epoch asks the server for nothing.

A process holds the shared lock of a store's folder as long as it lives, and the lock of a file while it fetches that.
Where there is no room, objects of stores that nobody uses make room, those that were not touched for longest first;
never those of a store in use, which a shuffled epoch would fetch again and again. What does not fit is read by ranges.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from nsd_zarr.errors import ConfigError, StoreError
from nsd_zarr.places.free import read_free_space
from nsd_zarr.places.local import LocalObject
from nsd_zarr.places.locks import is_at, open_lock_file, try_lock, wait_for_lock
from nsd_zarr.places.objects.access import CacheChoice
from nsd_zarr.places.objects.file import ObjectFile
from nsd_zarr.places.objects.place import ObjectPlace
from nsd_zarr.places.place import NewObject, OpenObject

TOP = "nsd-zarr-cache"
"""Folder in the cache's folder in which everything is that this module writes, and may remove."""
_NAME = re.compile(r"[\w.-]+\.(?:object|fetching)")
SHARE_OF_FREE = 0.9
"""Of what is free, what a cache takes when nobody says how much."""
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}

logger = logging.getLogger(__name__)
_used: dict[str, int] = {}
"""Descriptors whose shared locks say which stores' folders this process uses. Held until it ends."""


def make_cache(folder: str | os.PathLike[str] | None, limit: int | str | None) -> CacheChoice | None:
    """Where objects are kept; None without a folder. Raises ConfigError."""
    if folder is None:
        if limit is not None:
            raise ConfigError("cache_limit without a cache", hint='Say cache="/a/local/folder" as well.')
        return None
    path = os.path.abspath(os.path.expanduser(os.fsdecode(folder)))
    if limit is None:
        return CacheChoice(path, int(read_free_space(Path(path)).bytes * SHARE_OF_FREE))
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?", str(limit).strip().lower())
    if isinstance(limit, bool) or match is None or match[2] not in _UNITS:
        raise ConfigError(f"cache_limit = {limit!r}, expected bytes, or such as 100GB", found=limit)
    return CacheChoice(path, int(float(match[1]) * _UNITS[match[2]]))


@dataclass(frozen=True, slots=True)
class CachedPlace:
    """A place behind a URL, of which opened objects are kept whole in a local folder. Small and picklable."""

    origin: ObjectPlace
    """Where the objects are."""
    choice: CacheChoice
    """Where they are kept."""

    @property
    def location(self) -> str:
        """The URL."""
        return self.origin.location

    def locate(self, key: str) -> str:
        """URL of object *key*."""
        return self.origin.locate(key)

    @property
    def requests_at_once(self) -> int:
        """As without a cache."""
        return self.origin.requests_at_once

    @property
    def commits_at_once(self) -> int:
        """As ObjectPlace."""
        return self.origin.commits_at_once

    @property
    def max_uncommitted(self) -> int:
        """As ObjectPlace."""
        return self.origin.max_uncommitted

    @property
    def folder(self) -> Path:
        """Where objects of this URL are kept. By the URL: what it holds is checked by whoever reads."""
        return Path(self.choice.folder) / TOP / hashlib.sha256(self.origin.url.encode()).hexdigest()[:32]

    def open(self, key: str, size: int | None = None) -> OpenObject:
        """Object *key*: its copy, fetched now where there is none; by ranges where it does not fit, or has no *size*.

        Raises OSError, ValueError; StoreError where nothing can be written there.
        """
        if size is None or not self._fetch(key, size):
            return self.origin.open(key, size)
        return LocalObject(self.folder, _name(key))

    def drop_copy(self, key: str) -> bool:
        """Remove the copy of *key*, which is fetched again when it is opened. True."""
        (self.folder / _name(key)).unlink(missing_ok=True)
        return True

    def _fetch(self, key: str, size: int) -> bool:
        """Whether a copy of *key* with *size* bytes is there now."""
        path = self.folder / _name(key)
        self._use_folder()
        with _hold(path.with_suffix(".fetching")) as descriptor:
            if _measure(path) == size:
                return True
            if not self._reserve(descriptor, size):
                path.with_suffix(".fetching").unlink(missing_ok=True)
                return False
            try:
                _download(self.origin.open(key, size), descriptor)
                os.replace(path.with_suffix(".fetching"), path)
            except BaseException:
                path.with_suffix(".fetching").unlink(missing_ok=True)
                raise
            return True

    def _use_folder(self) -> None:
        """Make the folder, and hold its shared lock as long as this process lives."""
        name = str(self.folder)
        if name in _used:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = open_lock_file(self.folder / "in-use")
        except OSError as error:
            raise StoreError(
                f"the cache cannot be written: {error.strerror}", hint="Give another folder.", path=self.choice.folder
            ) from error
        wait_for_lock(descriptor, shared=True)
        _used[name] = descriptor

    def _reserve(self, descriptor: int, size: int) -> bool:
        """Take room for *size* bytes as *descriptor*, an empty file; whether there is any."""
        with _hold(self.folder.parent / "lock"):
            room = self.choice.limit_bytes - sum(found.size for found in _list_kept(self.folder.parent)) - size
            if room < 0:
                room += _make_room(self.folder, -room)
            try:
                if room < 0 or read_free_space(self.folder).bytes < size:
                    return False
                os.ftruncate(descriptor, size)
            except OSError as error:
                logger.warning("%s: no room for a copy: %s", self.folder, error.strerror)
                return False
            return True

    # -- as the place itself -------------------------------------------------------------------------------------

    def read(self, key: str, max_bytes: int) -> bytes:
        """As ObjectPlace."""
        return self.origin.read(key, max_bytes)

    def measure(self, key: str) -> int:
        """As ObjectPlace."""
        return self.origin.measure(key)

    def measure_all(self, keys: Collection[str]) -> dict[str, int]:
        """As ObjectPlace."""
        return self.origin.measure_all(keys)

    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """As ObjectPlace."""
        return self.origin.list_keys(prefix)

    def write(self, key: str, data: bytes) -> None:
        """As ObjectPlace."""
        self.origin.write(key, data)

    def create(self, key: str, data: bytes) -> bool:
        """As ObjectPlace."""
        return self.origin.create(key, data)

    def begin(self, key: str) -> AbstractContextManager[NewObject]:
        """As ObjectPlace."""
        return self.origin.begin(key)

    def remove(self, *keys: str) -> None:
        """As ObjectPlace."""
        self.origin.remove(*keys)

    def remove_below(self, prefix: str) -> None:
        """As ObjectPlace."""
        self.origin.remove_below(prefix)

    def count_partials(self) -> int:
        """As ObjectPlace."""
        return self.origin.count_partials()

    def remove_partials(self) -> int:
        """As ObjectPlace."""
        return self.origin.remove_partials()


@dataclass(frozen=True, slots=True)
class _Kept:
    """A file of the cache."""

    path: Path
    size: int
    touched: float


def _list_kept(top: Path) -> Iterator[_Kept]:
    """Every file that this module wrote, of all stores."""
    for folder in top.iterdir():
        if re.fullmatch(r"[0-9a-f]{32}", folder.name) and folder.is_dir():
            for path in folder.iterdir():
                with suppress(FileNotFoundError):
                    status = path.stat()
                    if _NAME.fullmatch(path.name):
                        yield _Kept(path, status.st_size, max(status.st_atime, status.st_mtime))


def _make_room(mine: Path, size: int) -> int:
    """Remove objects of stores that no process uses until *size* bytes are free; returns how many became free."""
    freed = 0
    others = [kept for kept in _list_kept(mine.parent) if kept.path.parent != mine]
    for kept in sorted(others, key=lambda kept: kept.touched):
        if freed < size and _is_unused(kept.path.parent):
            kept.path.unlink(missing_ok=True)
            freed += kept.size
    return freed


def _is_unused(folder: Path) -> bool:
    if str(folder) in _used:
        return False
    descriptor = open_lock_file(folder / "in-use")
    try:
        return try_lock(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _hold(path: Path) -> Iterator[int]:
    """The lock of the file at *path*, made where there is none; its descriptor."""
    while True:
        descriptor = open_lock_file(path)
        try:
            wait_for_lock(descriptor)
            if is_at(path, descriptor):  # Else it became a copy, or was removed, while this waited.
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _download(source: ObjectFile, descriptor: int) -> None:
    """Write all bytes of *source* into an open file. Raises OSError, ValueError."""
    offset = 0
    for part in source.stream():
        offset += os.pwrite(descriptor, part, offset)
    if offset != source.size:
        raise ValueError(f"{offset} bytes came, expected {source.size}")


def _measure(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def _name(key: str) -> str:
    """Name of the copy of object *key*."""
    return f"{key.replace('/', '.')}.object"
