"""Batches of trials, decoded by threads straight into the slots of a ring. Arrays in and out: no PyTorch here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from nsd_zarr.buffers import Slots
from nsd_zarr.loading.images import PairedImages
from nsd_zarr.loading.order import PADDING, Batch, TrialOrder
from nsd_zarr.loading.ring import Ring, RingStats
from nsd_zarr.read.lazy import ReadsTrials
from nsd_zarr.store.reader import StageSeconds

STALL_PERCENT = 5.0
"""A consumer that waits less than this is what limits the loop."""


class BatchMemory(NamedTuple):
    """Memory of one batch."""

    betas: np.ndarray
    """Values of trials, of shape (rows, *volume)."""
    images: np.ndarray | None = None
    """Images that they showed, uint8 of shape (rows, *image)."""

    def view(self) -> BatchMemory:
        """The same memory through new arrays: when they are gone, nobody refers to it any more."""
        return BatchMemory(self.betas.view(), None if self.images is None else self.images.view())


@dataclass(frozen=True, slots=True)
class TrialBatch:
    """One batch of this rank."""

    memory: BatchMemory
    """Its values."""
    trials: np.ndarray
    """Trial in the store of each row, int64; PADDING where a row only fills up."""
    group: int = PADDING
    """The group that all of them are of; PADDING where groups are mixed."""

    @property
    def valid(self) -> np.ndarray:
        """Whether each row holds a trial, bool."""
        valid: np.ndarray = self.trials != PADDING
        return valid


@dataclass(slots=True)
class LoaderStats:
    """Where the time of one iteration went."""

    ring: RingStats = field(default_factory=RingStats)
    """Of handing batches over."""
    threads: list[StageSeconds] = field(default_factory=list)
    """Of reading, for each thread."""
    copy_seconds: float = 0.0
    """Time that the consumer waited for copies to its device."""


def make_slots(make: Callable[[], BatchMemory], prefetch: int, *, reuse: bool) -> Slots:
    """Slots whose memory *make* takes, for *prefetch* batches ahead and one in use.

    With *reuse* a batch is valid until the next one is asked for; without, as long as anybody refers to it.
    """
    return Slots(make, prefetch, None if reuse else _lend)


def _lend(memory: BatchMemory) -> BatchMemory:
    return memory.view()


FindRow = Callable[[np.ndarray, int, int], np.ndarray]
"""The memory of a row: of a batch's betas, the row's number, and the group of the batch."""


def _find_row(betas: np.ndarray, row: int, group: int) -> np.ndarray:
    values: np.ndarray = betas[row]
    return values


class BatchLoader:
    """Iterates over batches in the memory that it was given."""

    def __init__(
        self,
        reader: ReadsTrials,
        selection: np.ndarray | None,
        order: TrialOrder,
        threads: int,
        images: PairedImages | None = None,
        find_row: FindRow | None = None,
    ) -> None:
        """*images*: to be read beside the trials. *find_row*: where in a batch's memory a row lies."""
        self.images = images
        self.find_row = find_row or _find_row
        self.reader = reader
        self.selection = selection
        self.order = order
        self.threads = threads

    def iterate(
        self, slots: Slots, epoch: int, first_step: int, stats: LoaderStats | None = None
    ) -> Generator[TrialBatch, None, None]:
        """Batches of *epoch* from *first_step* on, decoded into *slots* (of BatchMemory).

        An image that is repeated in a batch is read once. Raises DamageFound, naming the trial.
        """
        stats = stats or LoaderStats()
        local = threading.local()

        def fill(memory: BatchMemory, row: int, batch: Batch) -> None:
            sample, values = int(batch.samples[row]), self.find_row(memory.betas, row, batch.group)
            if not hasattr(local, "stages"):
                local.stages = StageSeconds()
                stats.threads.append(local.stages)
            if sample == PADDING:
                values[...] = 0
            else:
                self.reader.read_into(self.find_trial(sample), values, local.stages)
            if self.images is not None and memory.images is not None:
                self.images.fill_row(memory.images, row, self._find_trials(batch.samples), local.stages)

        ring = Ring(fill, slots, self.threads, stats.ring)
        with closing(ring.iterate(self.order.iterate(epoch, first_step))) as laps:
            # No variable of this frame may refer to a batch while somebody else has it: its memory would count as used.
            yield from map(self._make_batch, laps)

    def _make_batch(self, lap: tuple[BatchMemory, Batch]) -> TrialBatch:
        memory, batch = lap
        return TrialBatch(memory, self._find_trials(batch.samples), batch.group)

    def find_trial(self, sample: int) -> int:
        """Trial in the store of a sample of the selection."""
        return sample if self.selection is None else int(self.selection[sample])

    def _find_trials(self, samples: np.ndarray) -> np.ndarray:
        trials = samples if self.selection is None else self.selection[samples]
        return np.where(samples == PADDING, PADDING, trials)


def describe_stats(stats: LoaderStats) -> dict[str, Any]:
    """Where the time went, for people and logs.

    Seconds of read, decode and cast are added up over threads. "stall_percent": of the time, how much the consumer
    waited for batches or their copies;
    "queue_depth": batches ready when one was asked for, on average; "limited_by": the stage to improve, "consumer"
    when it hardly waited.
    """
    ring = stats.ring
    stages = {name: sum(asdict(thread)[name] for thread in stats.threads) for name in ("read", "decode", "cast")}
    total = ring.wait_seconds + ring.consume_seconds
    stall = 100 * (ring.wait_seconds + stats.copy_seconds) / total if total else 0.0
    slowest = max(stages, key=lambda name: stages[name])
    limit = "copy" if stats.copy_seconds > ring.wait_seconds else slowest
    return {
        "batches": ring.batches,
        "rows": ring.samples,
        "seconds": total,
        **{f"{name}_seconds": seconds for name, seconds in stages.items()},
        "copy_seconds": stats.copy_seconds,
        # The ring sees copies as part of what its consumer does.
        "consumer_seconds": max(0.0, ring.consume_seconds - stats.copy_seconds),
        "stall_percent": stall,
        "queue_depth": ring.depth_sum / ring.batches if ring.batches else 0.0,
        "threads": len(stats.threads),
        "limited_by": limit if stall > STALL_PERCENT else "consumer",
    }
