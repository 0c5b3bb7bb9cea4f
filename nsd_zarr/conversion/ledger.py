"""The durable record of a run, in `<store>.run`: what it set out from, and which sessions are on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from nsd_zarr.errors import StoreError
from nsd_zarr.layout import SessionNumber
from nsd_zarr.places.choose import choose_place, is_remote
from nsd_zarr.source.identity import FileIdentity
from nsd_zarr.store.digest import make_digest
from nsd_zarr.store.format import encode_json
from nsd_zarr.store.record import FileRecord, ShardRecord
from nsd_zarr.store.tree.groups import find_tree

LEDGER_FORMAT = "nsd_zarr run"
_RUN_NAME = "run.json"
_ARRAYS_NAME = "arrays.json"
MAX_RECORD_BYTES = 2**28
"""Larger records are not read. A session has some 20 KB: a digest of each trial, and its shards."""


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One session that is wholly on disk."""

    session: SessionNumber
    """Session number."""
    settings: str
    """Fingerprint of the settings under which it was written."""
    source: FileIdentity
    """The file that was read, as it looked then."""
    shards: tuple[ShardRecord, ...]
    """Its shards, in order."""
    statistics: tuple[FileRecord, ...]
    """Its chunks of session_mean and session_std."""
    rail_count: int | None
    """Voxels that reach an int16 rail in any trial; None where the stored dtype is another."""
    affine: tuple[tuple[float, ...], ...] | None = None
    """Where voxels lie, by the source itself; None where it does not say."""

    @property
    def trial_digests(self) -> tuple[str, ...]:
        """Digest of every trial's values, in order."""
        return tuple(digest for shard in self.shards for digest in shard.trial_digests)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run set out from."""

    format: str
    """LEDGER_FORMAT."""
    sources: dict[SessionNumber, FileIdentity]
    """The files that are converted, as they looked then."""
    parts: int | None = None
    """Into how many parts the sessions are divided, where processes share them."""


_SESSION: TypeAdapter[SessionRecord] = TypeAdapter(SessionRecord)
_RUN: TypeAdapter[RunRecord] = TypeAdapter(RunRecord)
_ARRAYS: TypeAdapter[dict[str, list[str]]] = TypeAdapter(dict[str, list[str]])


class Ledger:
    """The records of one store's run. Each is one file, written whole and flushed: there or not there."""

    def __init__(self, store: Path) -> None:
        self.folder = make_run_folder(store)
        self.place = choose_place(self.folder)

    # -- the run ---------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether a run was begun. Raises StoreError when the folder is something else's."""
        return self._read_run() is not None

    def begin(self, sources: dict[SessionNumber, FileIdentity], parts: int | None = None) -> None:
        """Note the sources from which a run sets out, and forget what an earlier one recorded."""
        self.place.remove(_ARRAYS_NAME, *(stale.name for stale in self.folder.glob("session-*")))
        self._write_run(sources, parts)

    def read_sources(self) -> dict[SessionNumber, FileIdentity]:
        """The sources from which the run set out; empty when there is no run."""
        run = self._read_run()
        return {} if run is None else run.sources

    def update_sources(self, sources: dict[SessionNumber, FileIdentity], parts: int | None = None) -> None:
        """Take *sources* for the run's own from now on: they were shown to hold the same values."""
        self._write_run(self.read_sources() | sources, parts)

    def read_parts(self) -> int | None:
        """Into how many parts the sessions of the run are divided; None where they are not."""
        run = self._read_run()
        return None if run is None else run.parts

    def adopt(self, other: Ledger) -> None:
        """Take the records of *other*, a run that has made the next generation of this store, in place of its own."""
        names = {path.name for path in other.folder.iterdir() if path.name.endswith(".json")}
        for name in sorted(names):
            self.place.write(name, other.place.read(name, MAX_RECORD_BYTES))
        stale = {path.name for path in self.folder.glob("session-*")} - names
        self.place.remove(_ARRAYS_NAME, *stale)

    # -- arrays of an experiment -------------------------------------------------------------------------------

    def note_arrays(self, names: Iterable[str]) -> None:
        """Note arrays of an experiment before they are written or removed, beside those that are noted already.

        So that, after a kill, the next run knows which folders of the store are not its user's.
        """
        if noted := sorted(self.read_arrays().union(names)):
            self.place.write(_ARRAYS_NAME, encode_json({"arrays": noted}))

    def read_arrays(self) -> frozenset[str]:
        """The arrays that were noted; none where there is no note that can be read."""
        try:
            return frozenset(_ARRAYS.validate_json(self.place.read(_ARRAYS_NAME, MAX_RECORD_BYTES))["arrays"])
        except (OSError, ValueError, KeyError):
            return frozenset()

    def forget_arrays(self) -> None:
        """Remove the note, once the store holds the arrays that its root document lists and none of the others."""
        self.place.remove(_ARRAYS_NAME)

    # -- sessions --------------------------------------------------------------------------------------------

    def write_session(self, record: SessionRecord) -> None:
        """Record a session as wholly on disk; durable when this returns."""
        values = _SESSION.dump_python(record, mode="json")
        document = values | {"checksum": make_digest(encode_json(values))}
        self.place.write(_name_session(record.session), encode_json(document))
        self.place.remove(_name_fault(record.session))

    def forget_sessions(self, sessions: Iterable[SessionNumber]) -> None:
        """Remove records that no longer hold, so that none is taken for a record of shards that a later run writes."""
        self.place.remove(*map(_name_session, sessions))

    def read_session(self, session: SessionNumber) -> SessionRecord | None:
        """The record of *session*; None when there is none, or none that can be read and agrees with its checksum."""
        try:
            values = json.loads(self.place.read(_name_session(session), MAX_RECORD_BYTES))
            # What it says of digests becomes part of the store: a flipped bit must not.
            if values.pop("checksum") != make_digest(encode_json(values)) or values["session"] != session:
                return None
            return _SESSION.validate_python(values)
        # pydantic's errors are ValueErrors; a document nested 100,000 deep is a RecursionError.
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None

    def note_fault(self, session: SessionNumber, problem: str) -> None:
        """Note that the source of *session* was found faulty, so that another file in its place is welcome."""
        self.place.write(_name_fault(session), encode_json({"problem": problem}))

    def had_fault(self, session: SessionNumber) -> bool:
        """Whether the source of *session* was found faulty in this run."""
        return (self.folder / _name_fault(session)).exists()

    def _read_run(self) -> RunRecord | None:
        """The run's document; None when there is no run."""
        if not self.folder.exists():
            return None
        try:
            run = _RUN.validate_json(self.place.read(_RUN_NAME, MAX_RECORD_BYTES))
            if run.format == LEDGER_FORMAT:
                return run
        except FileNotFoundError:
            if self.folder.is_dir() and _all_ours(path.name for path in self.folder.iterdir()):
                return None
        except (OSError, ValueError):  # pydantic's are ValueErrors
            pass
        raise StoreError(
            "the folder beside the store is not the record of a run of nsd-zarr, or it is damaged",
            hint="Move it away, then run again.",
            path=self.folder,
        )

    def _write_run(self, sources: dict[SessionNumber, FileIdentity], parts: int | None = None) -> None:
        run = RunRecord(LEDGER_FORMAT, dict(sorted(sources.items())), parts)
        self.place.write(_RUN_NAME, encode_json(_RUN.dump_python(run, mode="json", exclude_none=True)))


def _name_session(session: SessionNumber) -> str:
    return f"session-{session:02d}.json"


def _name_fault(session: SessionNumber) -> str:
    return f"session-{session:02d}.fault"


def make_run_folder(store: Path) -> Path:
    """Path of the folder beside *store* that holds its run. The only place of this rule.

    Beside the folder that links lead to, so that every name of a store has the same lock and the same records. That of
    a group of a tree lies beside the tree, in the tree's own: `nsd.zarr.run/subj01`.
    """
    if is_remote(store):
        return store.with_name(store.name + ".run")
    real = Path(os.path.realpath(store))
    of_tree = real.parent.with_name(real.parent.name + ".run") / real.name
    # It stays where it is when the root document of the tree is lost.
    if find_tree(store) is not None or of_tree.is_dir():
        return of_tree
    return real.with_name(real.name + ".run")


def find_run_files(folder: Path, pattern: str) -> list[Path]:
    """Files of a run folder; none where it may not be looked at: whoever writes there is refused."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _all_ours(names: Iterable[str]) -> bool:
    return all(
        name == "lock"
        or name.startswith(("run.json", "session-", "root.json", "arrays.json", "next", "extension", "part-"))
        for name in names
    )
