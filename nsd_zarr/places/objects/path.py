"""URLs where the package takes paths: a Path whose questions are answered by the objects behind it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path, PosixPath
from typing import Any

from nsd_zarr.places.objects.access import Access, CacheChoice
from nsd_zarr.places.objects.cache import CachedPlace
from nsd_zarr.places.objects.file import Version
from nsd_zarr.places.objects.place import ObjectPlace
from nsd_zarr.places.place import Place

_START = re.compile(r"^([A-Za-z0-9]+):/+")


class ObjectPath(PosixPath):
    """A URL as a path: parts, names and parents as of any path; folders are what objects' names have before a slash.

    It knows how it is reached, and so does every path that is made of it. What would open it as a local file raises.
    """

    access = Access()
    """How it is reached."""

    @classmethod
    def make(cls, url: str, access: Access) -> ObjectPath:
        """The path of *url*."""
        path = cls(url)
        path.access = access
        return path

    def __str__(self) -> str:
        return _START.sub(r"\1://", super().__str__(), count=1)

    def __fspath__(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (str(self), self.access)

    def __deepcopy__(self, memo: Any) -> ObjectPath:
        return self

    @property
    def place(self) -> Place:
        """Where it is read and written."""
        place = self.origin
        return place if self.access.cache is None else CachedPlace(place, self.access.cache)

    @property
    def origin(self) -> ObjectPlace:
        """Where the objects themselves are."""
        return ObjectPlace(str(self), self.access)

    def with_scratch(self, folder: str | None) -> ObjectPath:
        """The same, fetched into *folder* where it is fetched whole; None: into memory."""
        return ObjectPath.make(str(self), self.access.with_scratch(folder))

    def keep_copies(self, cache: CacheChoice | None) -> ObjectPath:
        """The same, whose objects are kept in a local folder."""
        return ObjectPath.make(str(self), self.access.with_cache(cache))

    def look(self) -> Version:
        """The present version of the object. Raises OSError."""
        return self.parent.origin.look(self.name)

    # -- other paths, reached as this one ------------------------------------------------------------------------

    def _keep(self, path: Path) -> ObjectPath:
        return ObjectPath.make(str(path), self.access)

    def __truediv__(self, key: str | os.PathLike[str]) -> ObjectPath:
        return self._keep(super().__truediv__(key))

    def joinpath(self, *keys: str | os.PathLike[str]) -> ObjectPath:
        """The path below."""
        return self._keep(super().joinpath(*keys))

    @property
    def parent(self) -> ObjectPath:
        """The path above."""
        return self._keep(super().parent)

    @property
    def parents(self) -> Any:
        """The paths above, nearest first; the last one is the bucket."""
        above, path = [], self
        while len(path.parts) > 2:
            path = path.parent
            above.append(path)
        return tuple(above)

    def with_name(self, name: str) -> ObjectPath:
        """The path beside, of another name."""
        return self._keep(super().with_name(name))

    def with_suffix(self, suffix: str) -> ObjectPath:
        """The path beside, of another suffix."""
        return self._keep(super().with_suffix(suffix))

    def resolve(self, strict: bool = False) -> ObjectPath:
        """Itself: there are no links."""
        return self

    def absolute(self) -> ObjectPath:
        """Itself."""
        return self

    def expanduser(self) -> ObjectPath:
        """Itself."""
        return self

    def is_absolute(self) -> bool:
        """True."""
        return True

    # -- what is there -------------------------------------------------------------------------------------------

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is an object of this name, or one below it. Raises OSError where that cannot be found out."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether there is an object of this name. Raises OSError where that cannot be found out."""
        try:
            self.look()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Whether there is an object below. Raises OSError where that cannot be found out."""
        return self.origin.holds_any()

    def is_symlink(self) -> bool:
        """False."""
        return False

    def iterdir(self) -> Iterator[ObjectPath]:  # type: ignore[override]
        """Folders and objects right below."""
        folders, objects = self.origin.list_folder()
        yield from (self / name for name in sorted({*folders, *objects}))

    def glob(self, pattern: str, **_: Any) -> Iterator[ObjectPath]:  # type: ignore[override]
        """Objects right below whose names match *pattern*, which has no slash."""
        found = re.compile(_translate(pattern))
        yield from (self / name for name in self.origin.list_folder()[1] if found.fullmatch(name))

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Raises OSError: an object has a version, and no status of a file."""
        raise OSError(errno.ENOTSUP, "an object behind a URL is no local file", str(self))

    def open(self, *_: Any, **__: Any) -> Any:
        """Raises OSError: an object is read through its place."""
        raise OSError(errno.ENOTSUP, "an object behind a URL is no local file", str(self))


def _translate(pattern: str) -> str:
    from fnmatch import translate

    return translate(pattern)


def _make(url: str, access: Access) -> ObjectPath:
    return ObjectPath.make(url, access)
