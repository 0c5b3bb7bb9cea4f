"""What a store must hold, as its root document and the digests of its trials say: for repair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nsd_zarr.conversion.contents import Contents
from nsd_zarr.conversion.experiment.files import Experiment
from nsd_zarr.conversion.finish import lay_out
from nsd_zarr.conversion.images import lay_out_images
from nsd_zarr.conversion.ledger import Ledger, SessionRecord
from nsd_zarr.conversion.settings import AnySettings, Settings, read_settings
from nsd_zarr.errors import DamageFound, ResumeRefused
from nsd_zarr.layout import SessionNumber
from nsd_zarr.source.identity import FileIdentity
from nsd_zarr.store.attributes import SourceFile
from nsd_zarr.store.digest import join_digests, make_digest
from nsd_zarr.store.format import METADATA_NAME, encode_json, make_shard_key
from nsd_zarr.store.record import ShardRecord
from nsd_zarr.store.root import Store
from nsd_zarr.store.small import read_array


@dataclass(frozen=True, slots=True)
class ExpectedStore:
    """What a store must hold."""

    store: Store
    """As its root document says, or the copy of it."""
    settings: AnySettings
    """With which it was made."""
    records: tuple[SessionRecord, ...]
    """Of its sessions, in order; without trial digests where these are lost."""
    root: bytes
    """The root document, where it has to be written again; else empty."""

    def record_of(self, session: SessionNumber) -> SessionRecord:
        """The record of *session*."""
        return next(record for record in self.records if record.session == session)

    def session_digest(self, session: SessionNumber) -> str:
        """Digest of all values of *session*, from the root document."""
        return next(source.digest for source in self.store.attributes.sources if source.part == session)

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
            lay_out(contents, self.store.path, self.settings, self.records, experiment)
        else:
            lay_out_images(contents, self.settings, self.records, ids)
        members = {
            f"{name}/{METADATA_NAME}": encode_json(member.make_document())
            for name, member in self.store.members.items()
        }
        return documents | members

    def check_bytes(self, key: str, data: bytes | None) -> None:
        """Refuse *data*, made again for file *key*, unless they are those of the manifest. Raises ResumeRefused."""
        if data is None or make_digest(data) != self.store.manifest[key].digest:
            raise ResumeRefused(
                f"{key} cannot be made again: other bytes came out than were recorded",
                hint="Give the files that the store was made of, and use the library versions that made it (nsd-zarr "
                "info shows them), or convert again.",
                path=self.store.path,
            )


def make_expected_store(store: Store, root: bytes = b"") -> ExpectedStore:
    """What *store* must hold; *root*: its root document, where this has to be written again."""
    settings = read_settings(store.attributes.settings, store.geometry.kind)
    records = tuple(_make_record(store, source) for source in store.attributes.sources)
    return ExpectedStore(store, settings, _find_digests(store, records), root)


def _make_record(store: Store, source: SourceFile) -> SessionRecord:
    session = SessionNumber(source.part)
    shards = []
    for number in store.geometry.session_shards(session):
        key = make_shard_key(store.geometry, number)
        file = store.manifest[key]
        shards.append(ShardRecord(key, file.size, file.digest, tail=file.tail))
    affine = None if source.affine is None else tuple(map(tuple, source.affine))
    return SessionRecord(session, "", FileIdentity(source.name, source.size, 0), tuple(shards), (), None, affine)


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
        expected = store.attributes.sources[place].digest
        right = [each for each in candidates if len(each) == len(trials) and join_digests(each) == expected]
        found.append(_add_digests(record, right[0]) if right else record)
    return tuple(found)
