"""Which place a path names. The only module that knows all kinds of place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nsd_zarr.places.local import LocalPlace
from nsd_zarr.places.place import Place


def choose_place(path: Path) -> Place:
    """The place at *path*: a folder, which need not exist, or what is below a URL. Touches nothing."""
    place: Place | None = getattr(path, "place", None)
    return LocalPlace(path) if place is None else place


def is_remote(path: Path) -> bool:
    """Whether *path* is a URL of objects (objects/path.py)."""
    return hasattr(path, "place")


def make_path(word: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Path:
    """*word* as an absolute path, or as the URL that it is, which knows how it is reached. Raises ConfigError."""
    return find_remote(word, storage_options) or Path(os.path.abspath(word))


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
