"""What a store ought to hold, told by what is left of it: its root document, its digests, the record of its run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nsd_zarr.conversion.contents import Contents
from nsd_zarr.conversion.experiment import Experiment
from nsd_zarr.conversion.finish import lay_out
from nsd_zarr.conversion.images import lay_out_images
from nsd_zarr.conversion.ledger import Ledger, SessionRecord
from nsd_zarr.conversion.settings import AnySettings, Settings, read_settings
from nsd_zarr.errors import DamageFound, StoreError
from nsd_zarr.layout import SessionNumber
from nsd_zarr.places.files import open_file, read_file
from nsd_zarr.source.identity import FileIdentity
from nsd_zarr.store.check import MAX_ROOT_BYTES
from nsd_zarr.store.digest import digest_file, join_digests
from nsd_zarr.store.format import (
    BETAS,
    METADATA_NAME,
    decode_root_metadata,
    encode_json,
    make_shard_key,
    read_members,
)
from nsd_zarr.store.root import FileRecord, Store
from nsd_zarr.store.shard import ShardRecord
from nsd_zarr.store.small import read_array


@dataclass(frozen=True, slots=True)
class ExpectedStore:
    """A store as it ought to be."""

    store: Store
    """As its root document says, or would say."""
    settings: AnySettings
    """With which it was made."""
    records: tuple[SessionRecord, ...]
    """Of its sessions, in order; without trial digests where these are lost."""
    root: bytes
    """The root document."""

    def record_of(self, session: SessionNumber) -> SessionRecord:
        """The record of *session*."""
        return next(record for record in self.records if record.session == session)

    def session_digest(self, session: SessionNumber) -> str:
        """Digest of all values of *session*, from the root document."""
        sources, part = self.store.attributes["sources"], self.store.geometry.kind.part
        return next(str(source["digest"]) for source in sources if source[part] == session)

    def with_digests(self, session: SessionNumber, digests: Sequence[str]) -> ExpectedStore:
        """The same, with the trial digests of one session."""
        records = [_add_digests(record, digests) if record.session == session else record for record in self.records]
        return replace(self, records=tuple(records))

    def make_documents(self, experiment: Experiment | None, ids: Sequence[int] = ()) -> dict[str, bytes]:
        """Every file but shards, statistics and root, by path inside the store, as far as they can be made.

        *ids*: of a store of images, its 0-based 73k ids.
        """
        documents: dict[str, bytes] = {}
        contents = Contents(documents.__setitem__)
        if isinstance(self.settings, Settings):
            lay_out(contents, self.settings, self.records, experiment)
        else:
            lay_out_images(contents, self.settings, self.records, ids)
        members = {f"{name}/{METADATA_NAME}": encode_json(member) for name, member in self.store.members.items()}
        return documents | members


def make_expected_store(store: Store) -> ExpectedStore:
    """Of a store whose root document is right."""
    settings = read_settings(store.attributes["settings"], store.geometry.kind)
    records = tuple(_make_record(store, source) for source in store.attributes["sources"])
    return ExpectedStore(store, settings, _find_digests(store, records), b"")


def _make_record(store: Store, source: dict[str, Any]) -> SessionRecord:
    session = SessionNumber(source[store.geometry.kind.part])
    shards = []
    for number in store.geometry.session_shards(session):
        key = make_shard_key(store.geometry, number)
        file = store.manifest[key]
        shards.append(ShardRecord(key, file.size, file.digest, (), file.tail))
    return SessionRecord(session, "", FileIdentity(source["name"], source["size"], 0), tuple(shards), (), None)


def _add_digests(record: SessionRecord, digests: Sequence[str]) -> SessionRecord:
    count = len(digests) // len(record.shards)
    shards = (
        replace(shard, trial_digests=tuple(digests[place * count : (place + 1) * count]))
        for place, shard in enumerate(record.shards)
    )
    return replace(record, shards=tuple(shards))


def _find_digests(store: Store, records: Sequence[SessionRecord]) -> tuple[SessionRecord, ...]:
    """The records with trial digests that add up to their session's: of the store, else of the run beside it."""
    try:
        digests = read_array(store, store.geometry.kind.digests).tolist()
    except DamageFound:
        digests = []
    found = []
    for place, record in enumerate(records):
        run = Ledger(store.path).read_session(record.session)
        trials = store.geometry.session_trials(record.session)
        candidates = [digests[trials.start : trials.stop], [] if run is None else run.trial_digests]
        expected = store.attributes["sources"][place]["digest"]
        right = [each for each in candidates if len(each) == len(trials) and join_digests(each) == expected]
        found.append(_add_digests(record, right[0]) if right else record)
    return tuple(found)


def recover_expected_store(
    path: Path, settings: Settings, experiment: Experiment | None, error: DamageFound
) -> ExpectedStore:
    """Of a store of *settings* whose root document is lost or damaged: from the record of its run.

    Raises StoreError that names what is missing.
    """
    ledger = Ledger(path)
    sessions = sorted(ledger.read_sources())
    records = [ledger.read_session(session) for session in sessions]
    whole = tuple(record for record in records if record is not None)
    problem = ""
    if not sessions or len(whole) < len(sessions):
        problem = f"the record of its run ({ledger.folder.name}) lacks a session, or is lost"
    elif any(record.settings != settings.make_fingerprint() for record in whole):
        problem = "its run was made with other settings or library versions"
    elif not any(_is_as_recorded(path, shard) for record in whole for shard in record.shards):
        problem = "none of the shards that its run recorded is in it"
    if problem:
        raise explain_loss(path, problem, error) from error
    root = lay_out(Contents(lambda key, data: None), settings, whole, experiment)
    attributes = decode_root_metadata(root)
    manifest = {key: FileRecord(*record) for key, record in attributes.pop("manifest").items()}
    store = Store(path, attributes, read_members(root), manifest, settings.geometry)
    return ExpectedStore(store, settings, whole, root)


def explain_loss(path: Path, problem: str, error: DamageFound) -> StoreError:
    """The error that says why the root document, damaged as *error* tells, cannot be made again."""
    return StoreError(
        f"the root document cannot be made again ({error.problem}): {problem}",
        hint="Restore zarr.json from a backup, or move the store away and convert again.",
        path=path,
    )


def _is_as_recorded(path: Path, shard: ShardRecord) -> bool:
    try:
        with open(open_file(path, shard.key), "rb") as file:
            return digest_file(file) == shard.digest
    except (OSError, ValueError):
        return False


def recover_settings(path: Path, sessions: Sequence[SessionNumber], dataset: str) -> Settings | None:
    """The settings, from the metadata of `betas`; None where these are lost."""
    try:
        betas = json.loads(read_file(path, f"{BETAS}/{METADATA_NAME}", MAX_ROOT_BYTES))
        (sharding,) = betas["codecs"]
        blosc = next(codec for codec in sharding["configuration"]["codecs"] if codec["name"] == "blosc")
        trials, *volume = betas["shape"]
        return Settings(
            dataset=dataset,
            sessions=tuple(sessions),
            trials_per_shard=betas["chunk_grid"]["configuration"]["chunk_shape"][0],
            codec=blosc["configuration"]["cname"],
            clevel=blosc["configuration"]["clevel"],
            shape=(trials // len(sessions), *volume),
            dtype=betas["data_type"],
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, StopIteration):
        return None
