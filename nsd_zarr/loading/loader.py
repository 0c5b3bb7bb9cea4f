"""Batches of trials, decoded by threads straight into a ring of reused slots. Arrays in and out: no PyTorch here."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from nsd_zarr.loading.images import PairedImages
from nsd_zarr.loading.order import PADDING, Batch, TrialOrder
from nsd_zarr.loading.ring import Ring, RingStats
from nsd_zarr.read.lazy import ReadsTrials
from nsd_zarr.store.reader import StageSeconds

STALL_PERCENT = 5.0
"""A consumer that waits less than this is what limits the loop."""


@dataclass(frozen=True, slots=True)
class TrialBatch:
    """One batch of this rank."""

    slot: int
    """Which slot holds its values."""
    trials: np.ndarray
    """Trial in the store of each row, int64; PADDING where a row only fills up."""

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


class BatchLoader:
    """Iterates over batches in slots that it was given."""

    def __init__(
        self,
        reader: ReadsTrials,
        selection: np.ndarray | None,
        order: TrialOrder,
        threads: int,
        images: PairedImages | None = None,
    ) -> None:
        """*images*: to be read beside the trials."""
        self.images = images
        self.reader = reader
        self.selection = selection
        self.order = order
        self.threads = threads

    def iterate(
        self,
        slots: Sequence[np.ndarray],
        epoch: int,
        first_step: int,
        stats: LoaderStats | None = None,
        image_slots: Sequence[np.ndarray] = (),
    ) -> Generator[TrialBatch, None, None]:
        """Batches of *epoch* from *first_step* on, decoded into *slots*, each of shape (rows, *volume).

        *image_slots*: as many, uint8 (rows, *image), for the images; a repeated one is read once in a batch.

        A batch's slot is filled again once the next batch is asked for. Raises DamageFound, naming the trial.
        """
        stats = stats or LoaderStats()
        local = threading.local()

        def fill(slot: int, row: int, batch: Batch) -> None:
            sample = int(batch.samples[row])
            if not hasattr(local, "stages"):
                local.stages = StageSeconds()
                stats.threads.append(local.stages)
            if sample == PADDING:
                slots[slot][row] = 0
            else:
                self.reader.read_into(self.find_trial(sample), slots[slot][row], local.stages)
            if self.images is not None:
                self.images.fill_row(image_slots[slot], row, self._find_trials(batch.samples), local.stages)

        ring = Ring(fill, len(slots), self.threads, stats.ring)
        with closing(ring.iterate(self.order.iterate(epoch, first_step))) as laps:
            for slot, batch in laps:
                yield TrialBatch(slot, self._find_trials(batch.samples))

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
