"""Which trials come when: a pure function of seed and epoch, the same for any number of threads or ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

PADDING = -1
"""Stands for "no trial" in the rows that fill up a batch."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's share of one step."""

    step: int
    """Step in the epoch, from 0."""
    samples: np.ndarray
    """Numbers in the selection, int64, one a row; PADDING where there is none. Of one shape for all steps and ranks."""


@dataclass(frozen=True, slots=True)
class TrialOrder:
    """The order of an epoch, cut into steps and shared among ranks."""

    count: int
    """Samples to order."""
    batch_size: int
    """Rows of the global batch, that of all ranks together."""
    shuffle: bool
    """Whether each epoch is a permutation of its own."""
    seed: int
    """Enters the permutation together with the epoch."""
    rank: int = 0
    """This rank, from 0."""
    world_size: int = 1
    """Ranks that share each batch."""
    drop_last: bool = False
    """Whether a last batch that is not full is left out; otherwise it is filled up with PADDING."""

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.world_size < 1 or not 0 <= self.rank < self.world_size:
            raise ValueError(
                f"batch_size {self.batch_size}, rank {self.rank} of {self.world_size}: expected at least one row, and "
                "a rank from 0 to world_size - 1"
            )

    @property
    def steps(self) -> int:
        """Steps of an epoch, the same on every rank."""
        full, rest = divmod(self.count, self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    @property
    def rows(self) -> int:
        """Rows of this rank's share: as many on every rank, so that all run the same shapes."""
        return -(-self.batch_size // self.world_size)

    def permute(self, epoch: int) -> np.ndarray:
        """All samples in the order of *epoch* (from 0), int64: an exact permutation, the same on every rank."""
        if not self.shuffle:
            return np.arange(self.count)
        return np.random.default_rng([self.seed, epoch]).permutation(self.count)

    def iterate(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Batches of this rank in *epoch*, from step *first_step* on.

        The global batch is cut into consecutive shares, rank 0's first: put together in the order of ranks they are
        the global order, whatever the world size.
        """
        order = self.permute(epoch)
        for step in range(first_step, self.steps):
            padded = np.full(self.rows * self.world_size, PADDING)
            samples = order[step * self.batch_size : (step + 1) * self.batch_size]
            padded[: len(samples)] = samples
            yield Batch(step, padded[self.rank * self.rows : (self.rank + 1) * self.rows])
