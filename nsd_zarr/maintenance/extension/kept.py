"""The sessions of a store that stay when it is extended: their files, under the names that they have from then on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from nsd_zarr.conversion.ledger import Ledger, SessionRecord
from nsd_zarr.conversion.settings import Settings
from nsd_zarr.errors import StoreError
from nsd_zarr.layout import Geometry, SessionNumber
from nsd_zarr.maintenance.expected import make_expected_store
from nsd_zarr.maintenance.extension.generation import KeptSession
from nsd_zarr.source.identity import FileIdentity
from nsd_zarr.store.format import RAIL_COUNT, SESSION_MEAN, SESSION_STD, make_chunk_key, make_shard_key
from nsd_zarr.store.record import FileRecord, ShardRecord
from nsd_zarr.store.root import Store
from nsd_zarr.store.small import read_array


def find_identities(store: Store) -> dict[SessionNumber, FileIdentity]:
    """The file of each session, as the run beside the store knows it; without one, by name and size alone."""
    named = {
        record.session: FileIdentity(record.source.name, record.source.size, 0)
        for record in make_expected_store(store).records
    }
    return named | {number: found for number, found in Ledger(store.path).read_sources().items() if number in named}


def make_kept_sessions(store: Store, settings: Settings, replaced: Collection[SessionNumber]) -> list[KeptSession]:
    """Sessions of *store* but for those *replaced*, in a store with *settings*. Raises DamageFound, StoreError."""
    identities, rails = find_identities(store), _read_rails(store)
    kept = []
    for record in make_expected_store(store).records:
        if record.session in replaced:
            continue
        if not record.trial_digests:
            raise StoreError(
                "the digests of its trials are lost",
                hint="Repair the store first: nsd-zarr repair STORE --source SOURCE.",
                path=store.path,
                session=record.session,
            )
        shards = _move_shards(record, store.geometry, settings.geometry)
        statistics = _move_statistics(record.session, store, settings.geometry)
        moved = SessionRecord(
            session=record.session,
            settings=settings.make_fingerprint(),
            source=identities[record.session],
            shards=tuple(shard for _, shard in shards),
            statistics=tuple(file for _, file in statistics),
            rail_count=rails.get(record.session),
            affine=record.affine,
        )
        kept.append(KeptSession(moved, (*shards, *statistics)))
    return kept


def _move_shards(record: SessionRecord, old: Geometry, new: Geometry) -> list[tuple[str, ShardRecord]]:
    """Shards of a session with their paths inside the store, under the names that they have in the next one."""
    numbers = zip(record.shards, new.session_shards(record.session), strict=True)
    return [(shard.key, replace(shard, key=make_shard_key(new, number))) for shard, number in numbers]


def _move_statistics(session: SessionNumber, store: Store, new: Geometry) -> list[tuple[str, FileRecord]]:
    zeros = tuple(0 for _ in new.volume_shape)
    moved = []
    for name in (SESSION_MEAN, SESSION_STD):
        old = store.manifest[make_chunk_key(name, (store.geometry.sessions.index(session), *zeros))]
        moved.append((old.key, replace(old, key=make_chunk_key(name, (new.sessions.index(session), *zeros)))))
    return moved


def _read_rails(store: Store) -> dict[SessionNumber, int]:
    if RAIL_COUNT not in store.members:
        return {}
    return dict(zip(store.geometry.sessions, read_array(store, RAIL_COUNT).tolist(), strict=True))
