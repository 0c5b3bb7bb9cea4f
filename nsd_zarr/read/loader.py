"""Batches of trials, decoded by threads straight into a ring of reused slots. Arrays in and out: no PyTorch here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nsd_zarr.read.lazy import ReadsTrials
from nsd_zarr.read.order import PADDING, TrialOrder
from nsd_zarr.read.ring import Ring, RingStats


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


class BatchLoader:
    """Iterates over batches in slots that it was given."""

    def __init__(self, reader: ReadsTrials, selection: np.ndarray | None, order: TrialOrder, threads: int) -> None:
        self.reader = reader
        self.selection = selection
        self.order = order
        self.threads = threads

    def iterate(
        self, slots: Sequence[np.ndarray], epoch: int, first_step: int, stats: RingStats | None = None
    ) -> Iterator[TrialBatch]:
        """Batches of *epoch* from *first_step* on, decoded into *slots*, each of shape (rows, *volume).

        A batch's slot is filled again once the next batch is asked for. Raises DamageFound, naming the trial.
        """

        def fill(slot: int, row: int, sample: int) -> None:
            if sample == PADDING:
                slots[slot][row] = 0
            else:
                self.reader.read_into(self.find_trial(sample), slots[slot][row])

        ring = Ring(fill, len(slots), self.threads, stats)
        for slot, batch in ring.iterate(self.order.iterate(epoch, first_step)):
            yield TrialBatch(slot, self._find_trials(batch.samples))

    def find_trial(self, sample: int) -> int:
        """Trial in the store of a sample of the selection."""
        return sample if self.selection is None else int(self.selection[sample])

    def _find_trials(self, samples: np.ndarray) -> np.ndarray:
        trials = samples if self.selection is None else self.selection[samples]
        return np.where(samples == PADDING, PADDING, trials)


def describe_stats(stats: RingStats, threads: int) -> dict[str, Any]:
    """Where the time went, for people and logs: seconds, percent of the time that the consumer waited, what limits."""
    total = stats.wait_seconds + stats.consume_seconds
    stall = 100 * stats.wait_seconds / total if total else 0.0
    return {
        "batches": stats.batches,
        "trials": stats.samples,
        "seconds": total,
        "wait_seconds": stats.wait_seconds,
        "decode_seconds": stats.fill_seconds,
        "stall_percent": stall,
        "queue_depth": stats.depth_sum / stats.batches if stats.batches else 0.0,
        "threads": threads,
        "limited_by": "decode" if stall > 5 else "consumer",
    }
