"""The unit of work: one session, all its shards, one durable record. The same function in every scheduler."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from threading import Semaphore

import numpy as np

from nsd_zarr.conversion.context import RunContext, Stopped
from nsd_zarr.conversion.events import ReadCounter, SessionDone
from nsd_zarr.conversion.ledger import Ledger, SessionRecord
from nsd_zarr.conversion.pipeline.in_order import write_in_order
from nsd_zarr.conversion.pipeline.passes import choose_shards, compare_session, read_passes
from nsd_zarr.conversion.pipeline.session_statistics import (
    make_session_moments,
    make_session_statistics,
    write_statistics,
)
from nsd_zarr.conversion.pipeline.work import Unit
from nsd_zarr.conversion.settings import Settings
from nsd_zarr.errors import DoesNotFit, NsdZarrError, ResumeRefused, SourceError
from nsd_zarr.places.choose import choose_place
from nsd_zarr.science.moments import Moments
from nsd_zarr.source.protocol import PartReader, check_unchanged
from nsd_zarr.store.format import make_shard_key
from nsd_zarr.store.record import FileRecord, ShardRecord
from nsd_zarr.store.shard import PendingShard, write_shard
from nsd_zarr.tasks import map_all

Write = Callable[[int, np.ndarray], Future[ShardRecord]]
"""Writes the shard of a number, given its trials; on disk when what it returns is done."""
MAX_UNCOMMITTED = 32
"""Shards of one session that may wait for the disk: each is an open file, of which a process commonly has 1,024."""


def run_unit(unit: Unit, context: RunContext | None = None) -> SessionDone:
    """Convert one session, or compare it with its record. Raises what went wrong, with the session named."""
    context = context or RunContext()
    started = time.perf_counter()
    context.read_ahead.begin(unit.source.path)
    try:
        stored, how = _run(unit, context)
    except SourceError as error:
        if not unit.shards and not context.is_lost.is_set():
            _note_fault(unit, error)
        raise
    except NsdZarrError as error:
        error.session = error.session or unit.source.error_session
        raise
    except MemoryError as error:
        raise DoesNotFit(
            f"memory ran out ({error or type(error).__name__})",
            hint="Read sessions in more passes with --memory, then run the same command again: it goes on.",
            path=unit.source.path,
            session=unit.source.error_session,
        ) from error
    context.read_ahead.end(unit.source.path)
    done = SessionDone(unit.source.session, stored, time.perf_counter() - started, how)
    context.listen(done)
    return done


def _run(unit: Unit, context: RunContext) -> tuple[int, str]:
    if not unit.source.in_order:
        context.blocks.begin_touching(unit.block_shape, unit.source.dtype)
    context.read_ahead.wait(unit.source.path, context.check_stop)
    # One thread more waits for the disk, so that those that compress need not: 3.0 to 3.1 s for three sessions on a
    # quiet disk rather than 3.2 to 3.5 s, and more on a slow one. Left last: whatever stops a run, each shard that was
    # written whole is still committed, and no file stays open.
    with (
        ThreadPoolExecutor(choose_place(unit.store).commits_at_once, "nsd-zarr commit") as committer,
        ThreadPoolExecutor(unit.threads_beside_reading, "nsd-zarr") as executor,
        context.opener.open(unit.source, context.trial_cache) as reader,
    ):
        if unit.expected_digests:
            compare_session(unit, reader, executor, context)
            return 0, reader.how
        if unit.shards:
            shards = _write_session(unit, reader, executor, committer, context)
            check_unchanged(unit.source)
            return sum(shard.size for shard in shards), reader.how
        files: tuple[FileRecord, ...] = ()
        rail_count = None
        if isinstance(unit.settings, Settings):
            moments = make_session_moments(unit.source.voxels, unit.source.dtype)
            shards = _write_session(unit, reader, executor, committer, context, moments)
            statistics = make_session_statistics(moments, unit.source.trials)
            rail_count = statistics.rail_count
            context.check_lost()
            files = write_statistics(unit.store, unit.settings, unit.source.session, statistics, executor)
        else:
            shards = _write_session(unit, reader, executor, committer, context)
        check_unchanged(unit.source)
    fingerprint, identity = unit.settings.make_fingerprint(), unit.source.identity
    part = unit.source
    record = SessionRecord(part.session, fingerprint, identity, shards, files, rail_count, part.affine)
    context.check_lost()
    Ledger(unit.store).write_session(record)
    return sum(shard.size for shard in shards), reader.how


def _write_session(
    unit: Unit,
    reader: PartReader,
    executor: Executor,
    committer: Executor,
    context: RunContext,
    moments: Moments | None = None,
) -> tuple[ShardRecord, ...]:
    """The wanted shards of the session, on disk when this returns: each written once, whole, by one thread.

    Adds every trial to *moments*, where there are any, while it is in memory.
    """
    geometry, codec = unit.settings.geometry, unit.settings.blosc
    commits: list[Future[ShardRecord]] = []
    room = Semaphore(min(MAX_UNCOMMITTED, unit.threads + choose_place(unit.store).max_uncommitted))

    def write(number: int, part: np.ndarray) -> Future[ShardRecord]:
        room.acquire()
        try:
            context.check_lost()
            key, slots = make_shard_key(geometry, number), geometry.trials_per_shard
            pending = write_shard(unit.store, key, part, codec, context.count_trial, slots)
            _check_as_recorded(unit, pending)
            commit = _submit_commit(pending, committer, context)
        except BaseException:
            room.release()
            raise
        commit.add_done_callback(lambda _: room.release())
        return commit

    if unit.source.in_order:
        commits = _write_in_order(unit, reader, executor, write, context, moments)
        return tuple(commit.result() for commit in commits)
    by_rows = moments is not None and moments.is_exact and reader.can_hand_rows
    on_rows = moments.add_rows if moments is not None and by_rows else None
    for numbers, span in read_passes(unit, reader, executor, context, on_rows):
        if moments is not None and not by_rows:
            moments.add_block(span.reshape(-1, geometry.voxels), executor, context.check_stop)
        commits += map_all(executor, write, numbers, choose_shards(unit, span, numbers))
    return tuple(commit.result() for commit in commits)


def _write_in_order(
    unit: Unit, reader: PartReader, executor: Executor, write: Write, context: RunContext, moments: Moments | None
) -> list[Future[ShardRecord]]:
    """As _write_session, for a file that holds one trial after the other."""
    geometry, counter = unit.settings.geometry, ReadCounter(unit.settings.geometry.voxels, context.listen)
    passes = replace(unit, trials_per_pass=geometry.trials_per_shard).passes
    shards = [(numbers[0], trials) for numbers, trials in passes]
    count = min(unit.trials_per_pass // geometry.trials_per_shard, len(shards))
    with context.blocks.borrow((count, geometry.trials_per_shard, geometry.voxels), unit.source.dtype) as blocks:
        return write_in_order(shards, blocks, reader, executor, write, moments, context.check_stop, counter.add)


def _submit_commit(pending: PendingShard, committer: Executor, context: RunContext) -> Future[ShardRecord]:
    try:
        return committer.submit(_commit, pending, context)
    except BaseException:  # No thread could be started for it.
        pending.file.discard()
        raise


def _commit(pending: PendingShard, context: RunContext) -> ShardRecord:
    try:
        context.check_lost()
    except Stopped:
        pending.file.discard()
        raise
    return pending.commit()


def _check_as_recorded(unit: Unit, pending: PendingShard) -> None:
    """Discard a shard whose bytes are not those that were recorded of it. Raises ResumeRefused."""
    recorded = {shard.key: shard for shard in unit.shards}.get(pending.record.key, pending.record)
    if recorded != pending.record:
        pending.file.discard()
        same_values = recorded.trial_digests == pending.record.trial_digests
        raise ResumeRefused(
            f"{recorded.key} cannot be made again: "
            + ("the same values give other bytes" if same_values else "the source has other values"),
            hint="Use the library versions that made the store (nsd-zarr info shows them), or convert to another store."
            if same_values
            else "Put the former file back, or convert to another store.",
            path=unit.source.path,
            session=unit.source.error_session,
        )


def _note_fault(unit: Unit, error: SourceError) -> None:
    try:
        Ledger(unit.store).note_fault(unit.source.session, str(error))
    except NsdZarrError:
        return  # The source's error is the one to report.
