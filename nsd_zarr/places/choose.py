"""Which place a path names. The only module that knows all kinds of place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsd_zarr.places.local import LocalPlace
from nsd_zarr.places.place import Place
from nsd_zarr.places.read_ahead import ReadAhead

if TYPE_CHECKING:
    from nsd_zarr.places.objects.fetch import FetchedObject
    from nsd_zarr.places.objects.file import Version


def choose_place(path: Path) -> Place:
    """The place at *path*: a folder, which need not exist, or what is below a URL. Touches nothing."""
    place: Place | None = getattr(path, "place", None)
    return LocalPlace(path) if place is None else place


def is_remote(path: Path) -> bool:
    """Whether *path* is a URL of objects (objects/path.py)."""
    return hasattr(path, "place")


def as_path(word: str | os.PathLike[str]) -> Path:
    """*word* as a path; one that is a path already stays what it is."""
    return word if isinstance(word, Path) else Path(word)


def make_path(word: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Path:
    """*word* as an absolute path, or as the URL that it is, which knows how it is reached. Raises ConfigError."""
    return find_remote(word, storage_options) or Path(os.path.abspath(word))


def look_at_object(path: Path) -> Version:
    """Which version of an object is at the URL *path* now. Raises OSError."""
    from nsd_zarr.places.objects.path import ObjectPath

    assert isinstance(path, ObjectPath)
    return path.look()


def open_object(path: Path, *, whole: bool) -> AbstractContextManager[FetchedObject]:
    """The object at the URL *path* as a file: fetched *whole*, or what is read of it. Raises OSError, ValueError."""
    from nsd_zarr.places.objects.fetch import open_parts, open_whole

    return open_whole(path) if whole else open_parts(path)


def make_read_ahead(paths: Sequence[Path]) -> ReadAhead:
    """What reads sources ahead of who needs them: into the page cache, or to this machine."""
    if not any(map(is_remote, paths)):
        return ReadAhead(paths)
    from nsd_zarr.places.objects.fetch import FetchAhead

    return FetchAhead(paths)


def set_scratch(path: Path, folder: str | None) -> Path:
    """The URL *path*, fetched into *folder* where it is fetched whole; None: into memory."""
    from nsd_zarr.places.objects.path import ObjectPath

    return path.with_scratch(folder) if isinstance(path, ObjectPath) else path


def is_fetched_to_disk(path: Path) -> bool:
    """Whether the URL *path* is fetched into a folder where it is fetched whole, rather than into memory."""
    from nsd_zarr.places.objects.path import ObjectPath

    return isinstance(path, ObjectPath) and path.access.scratch is not None


def find_biller(path: Path) -> str:
    """Who sends a bill for requests to the URL *path*, as far as that is known: "nobody", "s3" or "somebody"."""
    from nsd_zarr.places.objects import client
    from nsd_zarr.places.objects.path import ObjectPath

    assert isinstance(path, ObjectPath)
    return client.find_biller(str(path), path.access)


def walk_names(top: Path) -> Iterator[tuple[Path, list[str]]]:
    """Each folder below *top*, itself among them, that holds files, and their names. Raises OSError for a URL."""
    if not is_remote(top):
        yield from ((Path(folder), names) for folder, _, names in os.walk(top))
        return
    names: dict[str, list[str]] = {}
    for key in choose_place(top).list_keys():
        folder, _, name = key.rpartition("/")
        names.setdefault(folder, []).append(name)
    yield from ((top / folder if folder else top, found) for folder, found in sorted(names.items()))


def keep_copies(
    word: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None,
    folder: str | os.PathLike[str] | None,
    limit: int | str | None,
) -> str | os.PathLike[str]:
    """*word*; a URL as a path whose objects are kept in *folder* once they were touched, up to *limit* bytes.

    Raises ConfigError: a limit without a folder, or of no size.
    """
    remote = find_remote(word, storage_options)
    if remote is None:
        return word
    from nsd_zarr.places.objects.cache import make_cache
    from nsd_zarr.places.objects.path import ObjectPath

    assert isinstance(remote, ObjectPath)
    return remote.keep_copies(make_cache(folder, limit))


def find_remote(word: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Path | None:
    """The path of a URL of objects (s3://, gs://, az://, https://); None for anything else. Raises ConfigError.

    A path that came from here stays as it is, unless there are options.
    """
    if isinstance(word, Path) and is_remote(word) and not storage_options:
        return word
    text = os.fsdecode(word)
    if "://" not in text:
        return None
    from nsd_zarr.places.objects.access import make_access
    from nsd_zarr.places.objects.client import is_url
    from nsd_zarr.places.objects.path import ObjectPath

    return ObjectPath.make(text, make_access(text, storage_options)) if is_url(text) else None
