"""Sessions whose file holds one trial after the other: the next shard is read while those before are written.

One thread reads, so that a stream that only one thread can unpack is never waited for longer than it takes; the others
compress. Few shards are held: one that is read, and one for each thread that writes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

import numpy as np

from nsd_zarr.science.moments import Moments
from nsd_zarr.source.protocol import OnRead, PartReader

Result = TypeVar("Result")
EXTRA_BLOCKS = 1
"""Blocks beside one for each thread that writes: that which is read. More take longer to touch for the first time than
they save."""


class _Blocks(Generic[Result]):
    """Which blocks are free, and which are still written from."""

    def __init__(self, blocks: Sequence[np.ndarray]) -> None:
        self.tasks: list[Future[Result]] = []
        self._free = list(blocks)
        self._busy: deque[tuple[np.ndarray, Future[Result]]] = deque()

    def can_take(self) -> bool:
        """Whether one is free, or will be."""
        return bool(self._free or self._busy)

    def take(self) -> np.ndarray:
        """A free block; waits for the one that has been written from longest, and raises what went wrong there."""
        if self._free:
            return self._free.pop()
        block, task = self._busy.popleft()
        task.result()
        return block

    def give(self, block: np.ndarray, task: Future[Result]) -> None:
        """*block* is free once *task* is done."""
        self.tasks.append(task)
        self._busy.append((block, task))


def write_in_order(
    shards: Sequence[tuple[int, range]],
    blocks: np.ndarray,
    reader: PartReader,
    executor: Executor,
    write: Callable[[int, np.ndarray], Result],
    moments: Moments | None,
    check_stop: Callable[[], None],
    on_read: OnRead,
) -> list[Result]:
    """Results of *write* (shard number, its trials) for all *shards* (number, trials in the session), in order.

    *blocks*, shape (block, trial, voxel): at least one. *reader* is used by a thread of its own; the trials of each
    shard are added to *moments* in order; *write* runs on *executor*. *check_stop* may raise, *on_read* counts values.
    After an error no task is left. Raises the first error.
    """
    pool: _Blocks[Result] = _Blocks(list(blocks))
    with ThreadPoolExecutor(1, "nsd-zarr read") as reading:

        def start(trials: range) -> tuple[np.ndarray, Future[None]]:
            block = pool.take()
            part = block[: len(trials)]
            return block, reading.submit(reader.read_into, trials, part, executor, check_stop, None, on_read)

        try:
            ahead = start(shards[0][1])
            for place, (number, trials) in enumerate(shards):
                block, task = ahead
                task.result()
                rest = shards[place + 1 : place + 2]
                is_early = bool(rest) and pool.can_take()
                if is_early:
                    ahead = start(rest[0][1])
                part = block[: len(trials)]
                if moments is not None:
                    moments.add_block(part, executor, check_stop)
                pool.give(block, executor.submit(write, number, part))
                if rest and not is_early:
                    ahead = start(rest[0][1])
            return [task.result() for task in pool.tasks]
        finally:
            wait([task for task in pool.tasks if not task.cancel()])
