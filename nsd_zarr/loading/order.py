"""Which trials come when: a pure function of seed and epoch, the same for any number of threads or ranks."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nsd_zarr.errors import ConfigError

PADDING = -1
"""Stands for "no trial" in the rows that fill up a batch."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's share of one step."""

    step: int
    """Step in the epoch, from 0."""
    samples: np.ndarray
    """Numbers in the selection, int64, one a row; PADDING where there is none. Of one shape for all steps and ranks."""
    group: int = PADDING
    """The group that all samples of the step are of, on every rank; PADDING where groups are mixed."""


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
        object.__setattr__(self, "seed", check_whole("seed", self.seed, 0))
        size, rank, world = (find_whole(value) for value in (self.batch_size, self.rank, self.world_size))
        if size is None or rank is None or world is None or size < 1 or world < 1 or not 0 <= rank < world:
            raise ConfigError(
                f"batch_size {self.batch_size!r}, rank {self.rank!r} of {self.world_size!r}: expected at least one row"
                ", and a rank from 0 to world_size - 1",
                hint="Take rank and world_size from torch.distributed: get_rank(), get_world_size().",
            )
        for name, value in (("batch_size", size), ("rank", rank), ("world_size", world)):
            object.__setattr__(self, name, value)

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

    def cut(self, epoch: int) -> Iterator[tuple[int, np.ndarray]]:
        """Group and samples of each global batch of *epoch*."""
        order = self.permute(epoch)
        for step in range(self.steps):
            yield PADDING, order[step * self.batch_size : (step + 1) * self.batch_size]

    def iterate(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Batches of this rank in *epoch*, from step *first_step* on.

        The global batch is cut into consecutive shares, rank 0's first: put together in the order of ranks they are
        the global order, whatever the world size.
        """
        for step, (group, samples) in enumerate(self.cut(epoch)):
            if step >= first_step:
                padded = np.full(self.rows * self.world_size, PADDING)
                padded[: len(samples)] = samples
                yield Batch(step, padded[self.rank * self.rows : (self.rank + 1) * self.rows], group)


@dataclass(frozen=True, slots=True, eq=False)
class GroupedOrder(TrialOrder):
    """The order of an epoch whose batches are of one group each: samples are shuffled, and so are the batches.

    The last batch of each group may not be full.
    """

    groups: np.ndarray = field(default_factory=lambda: np.array([], np.intp))
    """Group of each sample, from 0, intp."""

    @property
    def steps(self) -> int:
        """Steps of an epoch, the same on every rank."""
        full, rest = np.divmod(np.bincount(self.groups), self.batch_size)
        return int(full.sum()) + (0 if self.drop_last else int((rest > 0).sum()))

    def permute(self, epoch: int) -> np.ndarray:
        """All samples in the order of *epoch* (from 0), int64: an exact permutation, the same on every rank."""
        batches = [samples for _, samples in self._list_batches(epoch)]
        return np.concatenate(batches) if batches else np.arange(0)

    def cut(self, epoch: int) -> Iterator[tuple[int, np.ndarray]]:
        """Group and samples of each global batch of *epoch*."""
        for group, samples in self._list_batches(epoch):
            if len(samples) == self.batch_size or not self.drop_last:
                yield group, samples

    def _list_batches(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(self.count) if self.shuffle else np.arange(self.count)
        batches = []
        for group in range(int(self.groups.max(initial=-1)) + 1):
            mine = order[self.groups[order] == group]
            batches += [(group, mine[at : at + self.batch_size]) for at in range(0, len(mine), self.batch_size)]
        return [batches[place] for place in random.permutation(len(batches))] if self.shuffle else batches


def find_whole(value: Any) -> int | None:
    """*value* as a whole number; None for what is none, such as True, 1.5 or "a"."""
    try:
        return None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        return None


def check_whole(name: str, value: Any, least: int) -> int:
    """*value* of option *name* as a whole number. Raises ConfigError below *least*, and for what is no whole number."""
    number = find_whole(value)
    if number is None or number < least:
        raise ConfigError(
            f"{name} {value!r}: expected a whole number from {least}",
            hint=f"Say {name}={least}, for example.",
            expected=f"a whole number from {least}",
            found=value,
        )
    return number
