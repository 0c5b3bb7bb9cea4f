"""Before a repair: whether the sources still hold the trials that were converted."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from nsd_zarr.config import Config
from nsd_zarr.conversion.context import RunContext
from nsd_zarr.conversion.events import Listener, SessionDone
from nsd_zarr.conversion.pipeline.passes import digest_session
from nsd_zarr.conversion.pipeline.work import Unit, announce
from nsd_zarr.conversion.unit import run_unit
from nsd_zarr.errors import ResumeRefused
from nsd_zarr.layout import SessionNumber
from nsd_zarr.maintenance.expected import ExpectedStore
from nsd_zarr.maintenance.sources import plan_memory
from nsd_zarr.source.protocol import SourcePart
from nsd_zarr.store.digest import join_digests
from nsd_zarr.store.record import ShardRecord


def compare_sources(
    expected: ExpectedStore,
    infos: Sequence[SourcePart],
    keys: set[str],
    config: Config,
    listen: Listener,
) -> tuple[ExpectedStore, tuple[Unit, ...]]:
    """What the store must hold, with the trial digests that it lost; and units that make the shards *keys* again.

    Raises ResumeRefused where the trials of *infos* are not those that were converted.
    """
    context = RunContext(listen)
    blind = {record.session for record in expected.records if not record.trial_digests}
    whole = [_make_unit(expected, info, config, ()) for info in infos if info.session in blind]
    if whole:
        announce("reading", whole, listen)
    for unit in whole:
        expected = expected.with_digests(unit.source.session, _digest_source(expected, unit, context))
    lost = select_shards(expected, keys)
    units = tuple(
        _make_unit(expected, info, config, shards) for info in infos if (shards := lost.get(info.session, ()))
    )
    if units:
        announce("comparing", units, listen)
    for unit in units:
        run_unit(replace(unit, expected_digests=expected.record_of(unit.source.session).trial_digests), context)
    return expected, units


def select_shards(expected: ExpectedStore, keys: set[str]) -> Mapping[SessionNumber, tuple[ShardRecord, ...]]:
    """Which of the files *keys* are shards, by session."""
    return {record.session: tuple(shard for shard in record.shards if shard.key in keys) for record in expected.records}


def _make_unit(expected: ExpectedStore, info: SourcePart, config: Config, shards: tuple[ShardRecord, ...]) -> Unit:
    memory = plan_memory(expected.store.geometry, [info], config, by_offset=info.by_offset)
    return Unit(
        expected.store.path,
        expected.settings,
        info,
        memory.trials_per_pass,
        memory.threads_per_session,
        shards=shards,
    )


def _digest_source(expected: ExpectedStore, unit: Unit, context: RunContext) -> tuple[str, ...]:
    """Digests of the trials of a session of which the store lost them: of its source, when they add up."""
    info, started = unit.source, time.perf_counter()
    with ThreadPoolExecutor(unit.threads, "nsd-zarr") as executor, info.open() as reader:
        how = reader.how
        found = tuple(digest_session(unit, reader, executor, context).values())
    if join_digests(found) != expected.session_digest(info.session):
        raise ResumeRefused(
            "the source changed since it was converted: the digest of its values is another",
            hint="Put the former file back, or convert to another store.",
            path=info.path,
            session=info.error_session,
        )
    context.listen(SessionDone(info.session, 0, time.perf_counter() - started, how))
    return found
