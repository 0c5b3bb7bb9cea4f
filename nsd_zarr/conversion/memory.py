"""How much memory a conversion takes, and how many passes that allows. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from nsd_zarr.conversion.pipeline.in_order import EXTRA_BLOCKS
from nsd_zarr.conversion.pipeline.session_statistics import RESULT_BYTES_PER_VOXEL
from nsd_zarr.errors import DoesNotFit
from nsd_zarr.layout import Geometry, format_bytes
from nsd_zarr.places.choose import choose_place, is_remote
from nsd_zarr.places.direct import WRITING_BYTES
from nsd_zarr.science.moments import ACCUMULATOR_BYTES_PER_VOXEL, row_bytes, tile_bytes
from nsd_zarr.source.hdf5.gather import TILE_BYTES
from nsd_zarr.source.hdf5.reader import SLAB_BYTES
from nsd_zarr.source.protocol import SourcePart

BASE_BYTES = 160 * 2**20
"""The process with everything imported, and its small change."""
EXPERIMENT_BYTES = 64 * 2**20
"""What comes on top where an experiment is read: pandas, SciPy and nibabel, tables as text and as columns (45 MB)."""
INDEX_BYTES_PER_VOXEL = 80
"""Reading and sorting a session's chunk index: 50 bytes a voxel at its peak, and the library's own cache of it; 16 for
that of the session that is compressed meanwhile."""
KEPT_BYTES_PER_VOXEL = 48
"""What is left of that once the index is sorted, and rows are read: the index, and the library's cache."""
STREAM_BYTES = 2 * 2**20
"""Pieces of a file that is read in order, packed and unpacked."""
H5PY_SLAB_FACTOR = 3
"""What the library keeps beside a slab that is read through it: selections of one-voxel chunks, filter buffers."""

CACHED_PASSES = 2, 3
"""Passes over a file that the page cache holds: the first if their trials take at most TOUCHED_BYTES, else the other.
One more takes 0.1 s a GB on two cores; memory that nobody used before costs 0.25 s a GB where the kernel clears it, and
2.5 s where a virtual machine has to ask its host for it."""
TOUCHED_BYTES = 640 * 2**20
"""As much is touched by a core that has nothing else to do, while the experiment is read."""
LEAST_SPARED_BYTES = 2**28
"""Memory for which that is worth while."""
FEW_SESSIONS = 8
"""As few as do not make up for memory that is touched once by one pass over each of them."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How sessions share threads and memory."""

    limit_bytes: int
    """What the run may take."""
    peak_bytes: int
    """What it takes at most: anonymous and shared memory of the process tree."""
    sessions_at_once: int
    """Sessions converted side by side."""
    threads_per_session: int
    """Threads of each."""
    trials_per_pass: int
    """Trials of a session held at a time; whole shards."""
    passes: int
    """Times that each session file is read."""


@dataclass(frozen=True, slots=True)
class Need:
    """What one session's conversion takes, apart from the trials that it holds."""

    geometry: Geometry
    """Of the store."""
    by_offset: bool
    """Whether every session is read by offset."""
    chunk_bytes: int
    """Largest decoded HDF5 chunk among sessions that are read through h5py."""
    extra_bytes: int = 0
    """What the process takes on top of BASE_BYTES before the first session."""
    in_order: bool = False
    """Whether every session holds one trial after the other, so that some shards at a time read it once."""
    fetched_bytes: int = 0
    """Of a session file that was fetched into memory."""
    unsent_shards: int = 0
    """Of a store behind a URL: shards that wait in memory to be sent, beside the one of each thread."""

    @property
    def trial_bytes(self) -> int:
        """Decoded bytes of a trial."""
        return self.geometry.trial_bytes

    def find_most_trials(self, threads: int) -> int:
        """Trials of a session that *threads* threads make use of: all, or a few shards where that reads it once."""
        whole, shard = self.geometry.trials_per_session, self.geometry.trials_per_shard
        return min(whole, (threads + EXTRA_BLOCKS) * shard) if self.in_order else whole

    def session_bytes(self, trials: int, threads: int) -> int:
        """Peak of one session that holds *trials* trials, with *threads* threads."""
        rows = row_bytes(self.geometry.voxels, self.geometry.trials_per_session)
        tiles = self.geometry.voxels * KEPT_BYTES_PER_VOXEL + threads * (TILE_BYTES + rows)
        read = max(self.geometry.voxels * INDEX_BYTES_PER_VOXEL, tiles)
        if self.in_order:
            read = STREAM_BYTES
        elif not self.by_offset:
            read += H5PY_SLAB_FACTOR * (SLAB_BYTES + self.chunk_bytes)
        voxels = self.geometry.voxels
        # A thread that encodes holds one compressed trial, at worst as large as the trial, and the one before it.
        work = max(read, threads * 2 * self.trial_bytes, threads * tile_bytes(voxels), voxels * RESULT_BYTES_PER_VOXEL)
        unsent = (threads + self.unsent_shards) * self.geometry.trials_per_shard * self.trial_bytes
        held = self.fetched_bytes + (unsent if self.unsent_shards else threads * writing_bytes(self.geometry))
        return held + trials * self.trial_bytes + voxels * ACCUMULATOR_BYTES_PER_VOXEL + work


def writing_bytes(geometry: Geometry) -> int:
    """What is held of a shard that is being written to a folder."""
    return min(WRITING_BYTES, geometry.trials_per_shard * geometry.trial_bytes)


def make_need(
    geometry: Geometry, sources: Iterable[SourcePart], extra_bytes: int = 0, store: Path | None = None
) -> Need:
    """What the conversion of one of *sources* takes; to *store*, where it is behind a URL."""
    parts = list(sources)
    slow = [source.chunk_bytes for source in parts if not (source.by_offset or source.in_order)]
    in_order = all(source.in_order for source in parts)
    unsent = 0 if store is None or not is_remote(store) else choose_place(store).max_uncommitted
    return Need(geometry, not slow, max(slow, default=0), extra_bytes, in_order, unsent_shards=unsent)


def make_worker_plan(need: Need, threads: int, limit_bytes: int | None) -> MemoryPlan:
    """One session at a time, as a worker of a cluster takes it; None: as much as one pass takes. Raises DoesNotFit."""
    one_pass = BASE_BYTES + need.extra_bytes + need.session_bytes(need.find_most_trials(threads), threads)
    return make_memory_plan(need, 1, threads, one_pass if limit_bytes is None else limit_bytes)


def make_memory_plan(need: Need, sessions: int, workers: int, limit_bytes: int) -> MemoryPlan:
    """Share *workers* threads and *limit_bytes* among *sessions* sessions.

    As many sessions side by side as leave each two threads and one pass; one thread where a session is one shard, or
    has a thread of its own that reads it in order. Else one session, in as few passes as fit, with fewer threads where
    that saves one: each pass reads the whole file. Raises DoesNotFit when one shard does not fit.
    """
    least_threads = 1 if need.in_order else min(2, need.geometry.shards_per_session)
    for at_once in range(max(1, min(sessions, workers // least_threads)), 0, -1):
        threads = math.ceil(workers / at_once)
        most = need.find_most_trials(threads)
        peak = BASE_BYTES + need.extra_bytes + at_once * need.session_bytes(most, threads)
        if peak <= limit_bytes:
            return MemoryPlan(limit_bytes, peak, at_once, threads, most, 1)
    return _plan_passes(need, workers, limit_bytes)


def hold_less(plan: MemoryPlan, need: Need) -> MemoryPlan:
    """*plan* with several passes over each file, where that saves much memory: for files in the page cache.

    Every thread has as many shards to compress as the others, but in the last pass.
    """
    shards, shard, threads = need.geometry.shards_per_session, need.geometry.trials_per_shard, plan.threads_per_session

    def count_trials(passes: int) -> int:
        return min(math.ceil(shards / (passes * threads)) * threads, shards) * shard

    trials = count_trials(CACHED_PASSES[0])
    if trials * need.trial_bytes > TOUCHED_BYTES:
        trials = count_trials(CACHED_PASSES[1])
    spared = (plan.trials_per_pass - trials) * need.trial_bytes
    if plan.passes > 1 or not need.by_offset or need.in_order or spared < LEAST_SPARED_BYTES:
        return plan
    peak = BASE_BYTES + need.extra_bytes + plan.sessions_at_once * need.session_bytes(trials, threads)
    passes = math.ceil(shards * shard / trials)
    return replace(plan, trials_per_pass=trials, passes=passes, peak_bytes=peak)


def make_image_memory_plan(
    geometry: Geometry, chunk_images: int, blocks: int, workers: int, limit_bytes: int
) -> MemoryPlan:
    """How many of *blocks* blocks of images are converted side by side, one thread each. Raises DoesNotFit.

    Each holds its block, one chunk of the source (of *chunk_images* images), what the library keeps beside it, what
    is kept for another block, two compressed images, and what is being written of the shard.
    """
    slab = 0 if chunk_images == 1 else 2 * chunk_images * geometry.trial_bytes
    library = min(SLAB_BYTES, geometry.trials_per_shard * geometry.trial_bytes)
    block = (geometry.trials_per_shard + 2) * geometry.trial_bytes + slab + library + writing_bytes(geometry)
    most = max(1, min(workers, blocks))
    at_once = min(most, (limit_bytes - BASE_BYTES) // block)
    if at_once < 1:
        least = BASE_BYTES + block
        raise DoesNotFit(
            f"memory: {format_bytes(limit_bytes)} allowed, and one shard of {geometry.trials_per_shard} images, read "
            f"in chunks of {chunk_images}, needs {format_bytes(least)}",
            hint=f"Allow more with --memory {math.ceil(least / 2**20)}MiB, or make shards smaller with "
            "--images-per-shard.",
            expected=least,
            found=limit_bytes,
        )
    peak = BASE_BYTES + at_once * block
    return MemoryPlan(limit_bytes, peak, at_once, 1, geometry.trials_per_shard, 1)


def _plan_passes(need: Need, workers: int, limit_bytes: int) -> MemoryPlan:
    """The plan of fewest passes; of those, the one with most threads."""
    shard, shards = need.geometry.trials_per_shard, need.geometry.shards_per_session
    plans: list[MemoryPlan] = []
    for threads in range(workers, 0, -1):
        fixed = BASE_BYTES + need.extra_bytes + need.session_bytes(0, threads)
        shards_that_fit = (limit_bytes - fixed) // (shard * need.trial_bytes)
        if shards_that_fit >= 1:
            passes = 1 if need.in_order else math.ceil(shards / shards_that_fit)
            trials = math.ceil(shards / passes) * shard
            if need.in_order:
                trials = min(need.find_most_trials(threads), shards_that_fit * shard)
            peak = BASE_BYTES + need.extra_bytes + need.session_bytes(trials, threads)
            plans.append(MemoryPlan(limit_bytes, peak, 1, threads, trials, passes))
    if plans:
        return min(plans, key=lambda plan: plan.passes)
    least = BASE_BYTES + need.extra_bytes + need.session_bytes(shard, 1)
    raise DoesNotFit(
        f"memory: {format_bytes(limit_bytes)} allowed, and one shard of {shard} trials needs {format_bytes(least)}",
        hint=f"Allow more with --memory {math.ceil(least / 2**20)}MiB, or make shards smaller with --trials-per-shard.",
        expected=least,
        found=limit_bytes,
    )
