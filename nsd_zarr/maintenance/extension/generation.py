"""The next generation of a store: made beside it, then put in its place as a whole.

In the run folder, while a store is extended:

extension.json   which store is extended, and to what; there as long as the extension is not over
next/            the next generation, made by a conversion like any other; files that stay have a second name here
next.run/        the records of that conversion
former/          for a moment, where the file system cannot exchange two names: the store that was
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from nsd_zarr.conversion.finish import create_skeleton
from nsd_zarr.conversion.ledger import MAX_RECORD_BYTES, Ledger, SessionRecord, make_run_folder
from nsd_zarr.conversion.lock import HeldLock
from nsd_zarr.conversion.root_copy import COPY_NAME, remove_copy
from nsd_zarr.conversion.settings import Settings
from nsd_zarr.conversion.subjects.root import update_root_above
from nsd_zarr.errors import StoreError
from nsd_zarr.layout import SessionNumber
from nsd_zarr.places.choose import choose_place, is_remote
from nsd_zarr.places.swap import copy_mode, move_folder, share_file, swap_folders
from nsd_zarr.source.identity import FileIdentity
from nsd_zarr.store.check import MAX_ROOT_BYTES
from nsd_zarr.store.format import encode_json, read_root_attributes
from nsd_zarr.store.record import FileRecord
from nsd_zarr.store.root import is_store, open_store, read_root

_RECORD_NAME = "extension.json"
_NEXT, _FORMER = "next", "former"


@dataclass(frozen=True, slots=True)
class Extension:
    """What an extension set out from."""

    base: str
    """Fingerprint of the store that is extended."""
    replaced: tuple[SessionNumber, ...]
    """Sessions that are converted again."""


_EXTENSION: TypeAdapter[Extension] = TypeAdapter(Extension)


@dataclass(frozen=True, slots=True)
class KeptSession:
    """A session that the next generation takes over."""

    record: SessionRecord
    """Its record there."""
    files: tuple[tuple[str, FileRecord], ...]
    """Each of its files: the path inside the store, and what it is in the next generation."""


class Generation:
    """The next generation of the store at a path."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self._folder = make_run_folder(store)
        self._place = choose_place(self._folder)
        self.path = self._folder / _NEXT
        """Its folder."""
        self._former = self._folder / _FORMER

    @property
    def ledger(self) -> Ledger:
        """The records of the conversion that makes it."""
        return Ledger(self.path)

    # -- what is there -------------------------------------------------------------------------------------------

    def read_extension(self) -> Extension | None:
        """What the extension that is not over set out from; None where there is none."""
        try:
            return _EXTENSION.validate_json(self._place.read(_RECORD_NAME, MAX_RECORD_BYTES))
        except (OSError, ValueError):  # pydantic's are ValueErrors
            return None

    @property
    def is_there(self) -> bool:
        """Whether anything of an extension is there, over or not."""
        names = (_RECORD_NAME, _NEXT, f"{_NEXT}.run", _FORMER)
        return not is_remote(self.store) and any(os.path.lexists(self._folder / name) for name in names)

    @property
    def is_cut(self) -> bool:
        """Whether neither store is in its place: a switch in two steps was stopped between them."""
        if is_remote(self.store):
            return False
        return os.path.isdir(self._former) and not os.path.lexists(self.store) and self.read_extension() is not None

    def is_of(self, extension: Extension) -> bool:
        """Whether what is there is a part of *extension*."""
        return self.read_extension() == extension and is_store(self.path)

    # -- making it -----------------------------------------------------------------------------------------------

    def begin(
        self,
        extension: Extension,
        settings: Settings,
        kept: Sequence[KeptSession],
        sources: Mapping[SessionNumber, FileIdentity],
    ) -> None:
        """Begin it, or what is missing of it after a kill: its skeleton, and all of *kept* sessions.

        *sources*: files of all its sessions, as they look now. Raises StoreError, DoesNotFit.
        """
        if not self.is_of(extension):
            self.discard()
            self._place.write(_RECORD_NAME, encode_json(_EXTENSION.dump_python(extension, mode="json")))
            self.ledger.begin(dict(sources))
            create_skeleton(self.path, settings)
        for session in kept:
            for key, record in session.files:
                self._take_over(key, record)
            if self.ledger.read_session(session.record.session) != session.record:
                self.ledger.write_session(session.record)

    def _take_over(self, key: str, record: FileRecord) -> None:
        """Have file *key* of the store as *record* says."""
        old = self.store / key
        try:
            size = old.stat().st_size
            if size == record.size:
                share_file(old, self.path, record.key)
                return
            problem = f"{size} bytes, expected {record.size}"
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            problem = error.strerror or str(error)
        raise StoreError(
            f"{key} of the store cannot be taken over: {problem}",
            hint="Repair the store first: nsd-zarr repair STORE --source SOURCE.",
            path=old,
        )

    # -- taking the store's place --------------------------------------------------------------------------------

    def take_place(self, lock: HeldLock) -> None:
        """Put it where the store is, as a whole; then its records. Whoever calls holds the store's *lock*.

        Raises StoreError where it is not whole, or the lock is lost; the store is as it was then.
        """
        made = open_store(self.path)
        for key, record in made.manifest.items():
            if choose_place(self.path).measure(key) != record.size:
                raise StoreError(
                    f"{key} of the next generation is not as it was written",
                    hint="Run the same command again with --fresh.",
                    path=self.path,
                )
        if made.fingerprint != open_store(self.store).fingerprint:
            # A copy of the former root document would vouch for files that are no longer there.
            remove_copy(self.store)
            real = Path(os.path.realpath(self.store))
            copy_mode(real, self.path)
            lock.check()
            swap_folders(self.path, real, self._former)
            lock.close()
            lock.cover_folder()  # The one that is there now.
        self._end()

    def recover(self, lock: HeldLock) -> None:
        """End what a kill left: a switch that was cut, records of one that was not, leftovers of one that was over.

        An extension that has not come so far stays as it is. Whoever calls holds the store's *lock*.
        """
        extension = self.read_extension()
        if extension is None:
            self.discard()
            return
        if self.is_cut:
            whole = self.path if _read_fingerprint(self.path) == self._made else self._former
            move_folder(whole, Path(os.path.realpath(self.store)))
            lock.close()
            lock.cover_folder()  # The one that is there now.
        found = _read_fingerprint(self.store)
        if found == extension.base:
            return
        if found is not None and found == self._made:
            self._end()
        else:  # Another store stands there by now.
            self.discard()

    @property
    def _made(self) -> str | None:
        """Fingerprint of the next generation, once it is whole; wherever it is."""
        try:
            return _find_fingerprint(self.ledger.place.read(COPY_NAME, MAX_ROOT_BYTES))
        except (OSError, ValueError):
            return None

    def _end(self) -> None:
        Ledger(self.store).adopt(self.ledger)
        update_root_above(self.store)
        self.discard()

    def discard(self) -> None:
        """Remove all that is left of an extension. Its record first: what is there without it counts for nothing."""
        self._place.remove(_RECORD_NAME)
        for name in (_NEXT, f"{_NEXT}.run", _FORMER):
            self._place.remove_below(name)


def _read_fingerprint(store: Path) -> str | None:
    """Fingerprint of the store at a path, unfinished or not; None where there is none."""
    try:
        return _find_fingerprint(read_root(store))
    except (OSError, ValueError):
        return None


def _find_fingerprint(root: bytes) -> str | None:
    found = read_root_attributes(root).get("checksum")
    return found if isinstance(found, str) else None
