"""The unit of work: one session, all its shards, one durable record. The same function in every scheduler."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as StopSignal
from threading import Semaphore

import numpy as np

from nsd_zarr.buffers import BufferPool
from nsd_zarr.conversion.events import Listener, SessionDone, TrialsDone, ignore_event
from nsd_zarr.conversion.ledger import Ledger, SessionRecord
from nsd_zarr.conversion.settings import AnySettings, Settings
from nsd_zarr.conversion.statistics import SessionStatistics, SessionSums
from nsd_zarr.errors import DoesNotFit, NsdZarrError, ResumeRefused, SourceError
from nsd_zarr.layout import SessionNumber
from nsd_zarr.source.gather import OnRows
from nsd_zarr.source.images import AnySource, BlockReader, Shelf, open_source
from nsd_zarr.source.reader import SessionReader
from nsd_zarr.source.session import check_unchanged
from nsd_zarr.store.digest import make_digest
from nsd_zarr.store.format import SESSION_MEAN, SESSION_STD, make_chunk_key, make_shard_key
from nsd_zarr.store.shard import ShardRecord, write_shard
from nsd_zarr.store.volume import WrittenFile, write_volume
from nsd_zarr.tasks import map_all

MOST_UNCOMMITTED = 32
"""Shards of one session that may wait for the disk: each is an open file, of which a process commonly has 1,024."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One session to convert, or to compare with what was recorded. Picklable: travels to where it is done."""

    store: Path
    """The store's folder; must exist."""
    settings: AnySettings
    """What affects values or bytes."""
    source: AnySource
    """The session, or the block of images."""
    trials_per_pass: int
    """Trials held at a time; whole shards."""
    threads: int
    """Threads that read and compress."""
    expected_digests: tuple[str, ...] = ()
    """Compare these with the source's trials instead of writing; empty: convert."""


class Stopped(Exception):
    """The run was told to stop."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a unit shares with others in its process. The default is right for a process of its own."""

    listen: Listener = ignore_event
    """Told of progress, from any thread."""
    stop: StopSignal = field(default_factory=StopSignal)
    """Set to stop between two trials."""
    blocks: BufferPool = field(default_factory=BufferPool)
    """Where blocks of trials come from."""
    shelf: Shelf = field(default_factory=Shelf)
    """Where images lie that were read with those of another block."""

    def check_stop(self) -> None:
        """Raise Stopped when told to stop."""
        if self.stop.is_set():
            raise Stopped

    def count_trial(self) -> None:
        """Called before each trial is compressed."""
        self.check_stop()
        self.listen(TrialsDone(1))


def run_unit(unit: Unit, surroundings: Surroundings | None = None) -> SessionDone:
    """Convert one session, or compare it with its record. Raises what went wrong, with the session named."""
    surroundings = surroundings or Surroundings()
    started = time.perf_counter()
    try:
        stored, how = _run(unit, surroundings)
    except SourceError as error:
        _note_fault(unit, error)
        raise
    except NsdZarrError as error:
        error.session = error.session or unit.source.session
        raise
    except MemoryError as error:
        raise DoesNotFit(
            f"memory ran out: {error}",
            hint="Take less at a time with --memory, then run the same command again: it goes on.",
            path=unit.source.path,
            session=unit.source.session,
        ) from error
    done = SessionDone(unit.source.session, stored, time.perf_counter() - started, how)
    surroundings.listen(done)
    return done


def _run(unit: Unit, surroundings: Surroundings) -> tuple[int, str]:
    # One thread more waits for the disk, so that those that compress need not: 3.0 to 3.1 s for three sessions on a
    # quiet disk rather than 3.2 to 3.5 s, and more on a slow one. Left last: whatever stops a run, each shard that was
    # written whole is still committed, and no file stays open.
    with (
        ThreadPoolExecutor(1, "nsd-zarr commit") as committer,
        ThreadPoolExecutor(unit.threads, "nsd-zarr") as executor,
        open_source(unit.source, surroundings.shelf) as reader,
    ):
        how = "by offset" if reader.by_offset else "through h5py"
        if unit.expected_digests:
            compare_session(unit, reader, executor, surroundings)
            return 0, how
        files: tuple[WrittenFile, ...] = ()
        rail_count = None
        if isinstance(unit.settings, Settings):
            sums = SessionSums(unit.source.voxels, unit.source.dtype)
            shards = _write_session(unit, reader, executor, committer, surroundings, sums)
            statistics = sums.make_statistics(unit.source.trials)
            rail_count = statistics.rail_count
            files = write_statistics(unit.store, unit.settings, unit.source.session, statistics, executor)
        else:
            shards = _write_session(unit, reader, executor, committer, surroundings)
        check_unchanged(unit.source)
    fingerprint, identity = unit.settings.make_fingerprint(), unit.source.identity
    record = SessionRecord(unit.source.session, fingerprint, identity, shards, files, rail_count)
    Ledger(unit.store).write_session(record)
    return sum(shard.size for shard in shards), how


def write_statistics(
    store: Path, settings: Settings, session: SessionNumber, statistics: SessionStatistics, executor: Executor
) -> tuple[WrittenFile, ...]:
    """The chunks of session_mean and session_std of one session, on disk when this returns."""
    place = (settings.sessions.index(session), *(0 for _ in settings.geometry.volume_shape))
    names, volumes = (SESSION_MEAN, SESSION_STD), (statistics.mean, statistics.std)

    def write(name: str, values: np.ndarray) -> WrittenFile:
        return write_volume(store, make_chunk_key(name, place), values, settings.blosc)

    return tuple(map_all(executor, write, names, volumes))


def _write_session(
    unit: Unit,
    reader: SessionReader | BlockReader,
    executor: Executor,
    committer: Executor,
    surroundings: Surroundings,
    sums: SessionSums | None = None,
) -> tuple[ShardRecord, ...]:
    """All shards of the session, on disk when this returns: each written once, whole, by one thread.

    Adds every trial to *sums* while it is in memory, where statistics are made.
    """
    geometry, codec = unit.settings.geometry, unit.settings.blosc
    first = geometry.session_shards(unit.source.session).start
    commits: list[Future[ShardRecord]] = []
    room = Semaphore(MOST_UNCOMMITTED)

    def write(number: int, part: np.ndarray) -> Future[ShardRecord]:
        room.acquire()
        try:
            key, slots = make_shard_key(geometry, number), geometry.trials_per_shard
            pending = write_shard(unit.store, key, part, codec, surroundings.count_trial, slots)
            commit = committer.submit(pending.commit)
        except BaseException:
            room.release()
            raise
        commit.add_done_callback(lambda _: room.release())
        return commit

    by_rows = sums is not None and sums.is_exact and reader.can_hand_rows
    on_rows = sums.add_rows if sums is not None and by_rows else None
    for trials, block in _read_passes(unit, reader, executor, surroundings, on_rows):
        if sums is not None and not by_rows:
            sums.add(block, executor, surroundings.check_stop)
        # The last shard of a store of images may be short.
        parts = np.split(block, range(geometry.trials_per_shard, len(block), geometry.trials_per_shard))
        start = first + trials.start // geometry.trials_per_shard
        commits += map_all(executor, write, range(start, start + len(parts)), parts)
    return tuple(commit.result() for commit in commits)


def compare_session(
    unit: Unit, reader: SessionReader | BlockReader, executor: Executor, surroundings: Surroundings
) -> None:
    """Compare each trial's values with the digest that was recorded. Raises ResumeRefused, naming the first."""
    for trials, block in _read_passes(unit, reader, executor, surroundings):

        def digest(values: np.ndarray) -> str:
            surroundings.count_trial()
            return make_digest(values)

        found = map_all(executor, digest, block)
        expected = unit.expected_digests[trials.start : trials.stop]
        differing = [trial for trial, now, then in zip(trials, found, expected, strict=True) if now != then]
        if differing:
            raise ResumeRefused(
                f"the source changed since it was converted: {unit.source.tell_trial(differing[0])} and "
                f"{len(differing) - 1} others of {len(trials)} have other values",
                hint="Put the former file back, or convert to another store.",
                path=unit.source.path,
            )


def _read_passes(
    unit: Unit,
    reader: SessionReader | BlockReader,
    executor: Executor,
    surroundings: Surroundings,
    on_rows: OnRows | None = None,
) -> Iterator[tuple[range, np.ndarray]]:
    """The session's trials, as many at a time as were planned, each lot in a block that the next one reuses."""
    total, step = unit.source.trials, unit.trials_per_pass
    with surroundings.blocks.borrow((min(step, total), unit.source.voxels), unit.source.dtype) as block:
        for first in range(0, total, step):
            trials = range(first, min(first + step, total))
            part = block[: len(trials)]
            reader.read_into(trials, part, executor, surroundings.check_stop, on_rows)
            yield trials, part


def _note_fault(unit: Unit, error: SourceError) -> None:
    try:
        Ledger(unit.store).note_fault(unit.source.session, str(error))
    except NsdZarrError:
        return  # The source's error is the one to tell.
