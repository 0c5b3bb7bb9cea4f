"""What stands where the store shall be, and how far an earlier run came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from nsd_zarr.conversion.ledger import Ledger, SessionRecord
from nsd_zarr.conversion.settings import AnySettings, make_byte_versions
from nsd_zarr.errors import ResumeRefused, StoreError
from nsd_zarr.layout import Kind, SessionNumber
from nsd_zarr.places.choose import choose_place
from nsd_zarr.source.identity import FileIdentity
from nsd_zarr.source.protocol import SourcePart
from nsd_zarr.store.root import Store, is_store, is_vacant, open_store


class TargetState(Enum):
    """What stands where the store shall be."""

    NEW = "new"
    UNFINISHED = "unfinished"
    FINISHED = "finished"
    EXTENDED = "to be extended"
    """A finished store, of which the source has more sessions, or other ones."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an earlier run came."""

    state: TargetState
    """What stands there."""
    done: frozenset[SessionNumber] = frozenset()
    """Sessions that are wholly on disk."""
    doubtful: frozenset[SessionNumber] = frozenset()
    """Those among them whose file looks different since, or unknown: read again before they are trusted."""


def find_progress(store: Path, settings: AnySettings, sources: Sequence[SourcePart], *, fresh: bool) -> Progress:
    """Look at what stands at *store*. Reads only.

    Raises StoreError (something else, or finished with other settings) or ResumeRefused (settings or sources changed
    since an unfinished run began).
    """
    kind = settings.geometry.kind
    if fresh:
        return _forget(store, kind)
    if is_vacant(store):
        Ledger(store).exists()
        return Progress(TargetState.NEW)
    if not is_store(store, kind):
        raise StoreError(
            "something else stands where the store shall be",
            hint="Choose another path for the store, or move it away.",
            path=store,
        )
    opened = open_store(store, allow_unfinished=True, kind=kind)
    if opened.is_complete:
        return _progress_of_finished(opened, settings, sources)
    return _progress_of_unfinished(opened, settings, sources)


def _forget(store: Path, kind: Kind) -> Progress:
    Ledger(store).exists()
    if is_vacant(store):
        return Progress(TargetState.NEW)
    if is_store(store, kind) and not open_store(store, allow_unfinished=True, kind=kind).is_complete:
        return Progress(TargetState.NEW)
    raise StoreError(
        "--fresh forgets an unfinished run, and this is not one",
        hint="Remove it yourself if you mean to, or leave out --fresh.",
        path=store,
    )


def _progress_of_finished(opened: Store, settings: AnySettings, sources: Sequence[SourcePart]) -> Progress:
    refuse_other_settings(opened, settings.list_differences(opened.attributes.settings))
    sessions = frozenset(settings.sessions)
    known = Ledger(opened.path).read_sources()
    doubtful = (info.session for info in sources if known.get(info.session) != info.identity)
    return Progress(TargetState.FINISHED, sessions, frozenset(doubtful))


def refuse_other_settings(opened: Store, differences: Sequence[str]) -> None:
    """Refuse to go on with a finished store whose settings differ, as *differences* say. Raises StoreError."""
    if differences:
        raise StoreError(
            f"the store is finished, with other settings: {'; '.join(differences)}",
            hint="Choose another path for the new store, or give the settings that it has.",
            path=opened.path,
        )


def _progress_of_unfinished(opened: Store, settings: AnySettings, sources: Sequence[SourcePart]) -> Progress:
    differences = settings.list_differences(opened.attributes.settings)
    before = opened.attributes.libraries
    differences += [
        f"{name} {before.get(name)}, now {version}"
        for name, version in make_byte_versions().items()
        if before.get(name) != version
    ]
    if differences:
        raise ResumeRefused(
            f"the run began with other settings: {'; '.join(differences)}",
            hint="Give the settings that it began with, or start again with --fresh.",
            path=opened.path,
        )
    ledger = Ledger(opened.path)
    records = {info.session: ledger.read_session(info.session) for info in sources}
    done = {
        session: record
        for session, record in records.items()
        if record is not None and record.settings == settings.make_fingerprint() and has_files(opened.path, record)
    }
    _check_untouched(ledger, sources, done)
    doubtful = (info.session for info in sources if info.session in done and done[info.session].source != info.identity)
    return Progress(TargetState.UNFINISHED, frozenset(done), frozenset(doubtful))


def has_files(store: Path, record: SessionRecord) -> bool:
    """Whether all shards and statistics of a recorded session are there, of the size that was written."""
    files = {file.key: file.size for file in (*record.shards, *record.statistics)}
    return choose_place(store).measure_all(files) == files


def _check_untouched(
    ledger: Ledger, sources: Sequence[SourcePart], done: Mapping[SessionNumber, SessionRecord]
) -> None:
    """Refuse a session that is not done yet and whose file is no longer the one from which the run set out.

    Done sessions can be compared by value; of these nothing is stored, and mixing versions would go unseen. A file
    that the run itself found faulty may be replaced.
    """
    known = ledger.read_sources()
    for info in sources:
        before = known.get(info.session, info.identity)
        if info.session not in done and before != info.identity and not ledger.had_fault(info.session):
            raise ResumeRefused(
                f"the source changed since the run began: {_describe_change(before, info.identity)}",
                hint="Put the former file back (copy with its times kept), or start again with --fresh.",
                path=info.path,
                session=info.error_session,
                expected=before,
                found=info.identity,
            )


def _describe_change(before: FileIdentity, now: FileIdentity) -> str:
    if before.size != now.size:
        return f"{now.size} bytes, expected {before.size}"
    if before.name != now.name:
        return f"file {now.name}, expected {before.name}"
    return "its modification time is another" if before.tag == now.tag else "it is another version, by its ETag"
