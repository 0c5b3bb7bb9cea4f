"""A store as a whole: what its root document says, checked before anything else is believed."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nsd_zarr.errors import DamageFound, StoreError
from nsd_zarr.layout import IMAGES, TRIALS, Geometry, Kind
from nsd_zarr.places.choose import choose_place, is_remote
from nsd_zarr.places.durable import PARTIAL_SUFFIX
from nsd_zarr.places.place import Place
from nsd_zarr.retry import read_again
from nsd_zarr.store.attributes import COMPLETE, RootAttributes, parse_attributes
from nsd_zarr.store.check import (
    MAX_ROOT_BYTES,
    check_attributes,
    check_manifest,
    check_members,
    make_geometry,
)
from nsd_zarr.store.format import (
    FORMAT_VERSION,
    FORMATS,
    ID_ARRAYS,
    METADATA_NAME,
    decode_root_metadata,
    read_members,
    read_root_attributes,
)
from nsd_zarr.store.meta import ArrayMeta, parse_array
from nsd_zarr.store.record import FileRecord
from nsd_zarr.store.tree.groups import explain_tree, is_tree, says_tree

_COMMANDS = {TRIALS: "convert", IMAGES: "images"}
"""The command that makes a store of each kind."""


@dataclass(frozen=True, slots=True)
class Store:
    """An opened store: its checked root document. Picklable; holds no handle."""

    path: Path
    """The store's folder."""
    attributes: RootAttributes
    """What the root document says of the store as a whole."""
    members: dict[str, ArrayMeta]
    """Metadata of every array by name."""
    manifest: dict[str, FileRecord]
    """Every other file of the store; empty while it is incomplete."""
    geometry: Geometry
    """How sessions, trials and shards lie."""
    zarr_location: str = ""
    """Where zarr-python opens it, for a store of another layout or place (foreign/); empty for our own."""

    @property
    def place(self) -> Place:
        """Where its files are read and written."""
        return choose_place(self.path)

    @property
    def location(self) -> str:
        """Path or URL under which it is opened again."""
        return self.zarr_location or str(self.path)

    def read_through_zarr(self, location: str) -> Store:
        """The same store, read through zarr-python at *location*."""
        return replace(self, zarr_location=location)

    @property
    def is_complete(self) -> bool:
        """Whether everything was on disk when the status was written."""
        return self.attributes.status == COMPLETE

    @property
    def fingerprint(self) -> str:
        """Identifies this store: the checksum of its root document, which covers every file's digest."""
        return self.attributes.checksum


def find_id_array(store: Store) -> str:
    """Name of the array of the ids of a store of images."""
    return ID_ARRAYS[store.attributes.experiment]


def is_store(path: Path, kind: Kind | None = TRIALS) -> bool:
    """Whether *path* looks like a store of *kind* (None: any) made by this package.

    Never raises: other readers' stores pass by.
    """
    found = read_kind(path)
    return found is not None and kind in (None, found)


def read_kind(path: Path) -> Kind | None:
    """What the store at *path* holds, as its root says; None when it is none of ours. Never raises."""
    try:
        found = read_root_attributes(read_root(path)).get("format")
    except (OSError, ValueError):
        return None
    return next((kind for kind, name in FORMATS.items() if name == found), None)


def read_root(path: Path) -> bytes:
    """The root document of the store at *path*. Raises ValueError (larger than any, no regular file), OSError."""
    place = choose_place(path)
    return read_again(lambda: place.read(METADATA_NAME, MAX_ROOT_BYTES), place.locate(METADATA_NAME))


def is_vacant(path: Path) -> bool:
    """Whether a store can be created at *path*: nothing there, or a folder with leftovers of a killed start alone.

    Raises StoreError where one may not even look.
    """
    try:
        if is_remote(path):
            return next(choose_place(path).list_keys(), None) is None
        os.lstat(path)
        return path.is_dir() and all(entry.name.endswith(PARTIAL_SUFFIX) for entry in path.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError as error:
        raise _explain_no_look(error, path) from error


def open_store(path: Path, *, allow_unfinished: bool = False, kind: Kind | None = TRIALS) -> Store:
    """Open the store at *path*: reads and checks one small file.

    *kind*: what it must hold; None: anything. Raises StoreError: missing, something else, made by a later version, or
    unfinished (unless *allow_unfinished*); DamageFound when its root document is damaged.
    """
    if not is_store(path, kind):
        raise _explain_absence(path, kind)
    try:
        data = read_root(path)
    except ValueError as error:
        raise _explain_damage(error, path) from error
    store = make_store(path, data)
    check_complete(store, allow_unfinished)
    return store


def make_store(path: Path, data: bytes) -> Store:
    """The store at *path* whose root document is *data*. Raises StoreError (a later version), DamageFound."""
    try:
        attributes = decode_root_metadata(data)
        check_version(attributes, path)
        store = _make_store(path, attributes, read_members(data))
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        if isinstance(error, DamageFound):
            raise
        if says_tree(data):
            raise explain_tree(path) from error
        raise _explain_damage(error, path) from error
    return store


def check_complete(store: Store, allow_unfinished: bool) -> None:
    """Refuse a store whose conversion has not finished, unless *allow_unfinished*. Raises StoreError."""
    if not store.is_complete and not allow_unfinished:
        raise StoreError(
            "the conversion of this store has not finished: its status is incomplete",
            hint=f"Run the nsd-zarr {_COMMANDS[store.geometry.kind]} command that began it again: it goes on where it "
            "was.",
            path=store.path,
        )


def _make_store(path: Path, attributes: dict[str, Any], members: dict[str, dict[str, Any]]) -> Store:
    """A store, of what its root document says once that was found possible. Raises ValueError and its like."""
    manifest = attributes.pop("manifest", {})
    check_attributes(attributes)
    geometry = make_geometry(attributes, members)
    check_members(members, geometry)
    arrays = {name: parse_array(document) for name, document in members.items()}
    check_manifest(manifest, arrays, geometry)
    return Store(path, parse_attributes(attributes), arrays, make_manifest(manifest), geometry)


def make_manifest(manifest: dict[str, list[Any]]) -> dict[str, FileRecord]:
    """The files of a manifest, by their path inside the store."""
    return {
        key: FileRecord(key, size, digest, tail=tails[0] if tails else "")
        for key, (size, digest, *tails) in manifest.items()
    }


def check_version(attributes: dict[str, Any], path: Path) -> None:
    """Refuse a store of a later format. Raises StoreError."""
    version = attributes.get("format_version")
    if version != FORMAT_VERSION:
        raise StoreError(
            f"format version {version}, expected {FORMAT_VERSION}",
            hint="Update nsd-zarr: pip install --upgrade nsd-zarr.",
            path=path,
            expected=FORMAT_VERSION,
            found=version,
        )


def _explain_damage(error: Exception, path: Path) -> DamageFound:
    return DamageFound(
        f"the root document is damaged: {error}",
        hint="Make it again: nsd-zarr repair STORE --source SOURCE; or restore it from a backup.",
        path=path / METADATA_NAME,
    )


def _explain_no_look(error: OSError, path: Path) -> StoreError:
    return StoreError(
        f"cannot look whether a store is there: {error.strerror or error}",
        hint="See to the path and its permissions.",
        path=path,
    )


def _explain_absence(path: Path, kind: Kind | None) -> StoreError:
    try:
        if is_remote(path):  # Read, because servers say more of what they refuse there.
            read_root(path)
        else:
            os.lstat(path / METADATA_NAME)
        is_there = path.exists()
    except (FileNotFoundError, NotADirectoryError):
        is_there = not is_vacant(path) if is_remote(path) else path.exists()
    except ValueError:
        is_there = True
    except OSError as error:
        return _explain_no_look(error, path)
    if not is_there:
        hint = f"Check the path, or make it: nsd-zarr {_COMMANDS[kind or TRIALS]} SOURCE STORE."
        return StoreError("no such store", hint=hint, path=path)
    found = read_kind(path)
    if found is not None and kind is not None:
        return StoreError(
            f"a store of {found.array}, expected one of {kind.array}", hint="Give the path of the other.", path=path
        )
    if is_tree(path):
        return explain_tree(path)
    if (path / METADATA_NAME).exists():
        return StoreError(
            "a Zarr store that nsd-zarr did not make, or a damaged one", hint="Open it with zarr.", path=path
        )
    return StoreError("this is no Zarr v3 store: it has no zarr.json", hint="Check the path.", path=path)
