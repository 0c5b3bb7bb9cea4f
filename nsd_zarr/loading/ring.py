"""A ring of batch slots that threads fill ahead of a consumer.

Threads of this process, no worker processes: a decoded batch is handed over, not copied between processes. Each thread
takes one trial at a time, so that a batch is ready as soon as its trials are, whatever the number of threads.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

from nsd_zarr.loading.order import Batch

Fill = Callable[[int, int, Batch], None]
"""Fills a row of a slot with that row of a batch: fill(slot, row, batch)."""


@dataclass(slots=True)
class RingStats:
    """Where the time of a ring went."""

    batches: int = 0
    """Batches handed out."""
    samples: int = 0
    """Samples filled."""
    fill_seconds: float = 0.0
    """Time that threads spent filling, added up over threads."""
    wait_seconds: float = 0.0
    """Time that the consumer waited for a batch."""
    consume_seconds: float = 0.0
    """Time that the consumer spent between batches."""
    depth_sum: int = 0
    """Batches that were ready when one was asked for, added up over batches."""


@dataclass(slots=True)
class _Lap:
    """A batch on its way."""

    batch: Batch
    slot: int
    next_row: int = 0
    rows_left: int = field(init=False)

    def __post_init__(self) -> None:
        self.rows_left = len(self.batch.samples)


class Ring:
    """Fills slots with batches in order, ahead of who iterates.

    A slot belongs to the consumer until the next batch is asked for; then it is filled again. An error in a thread is
    raised by the iteration. Leaving the iteration (end, break, exception) stops and joins the threads.
    """

    def __init__(self, fill: Fill, slots: int, threads: int, stats: RingStats | None = None) -> None:
        self._fill = fill
        self._free = deque(range(slots))
        self._laps: deque[_Lap] = deque()
        self._change = threading.Condition()
        self._error: BaseException | None = None
        self._stopped = False
        self._threads = threads
        self.stats = stats or RingStats()

    def iterate(self, batches: Iterator[Batch]) -> Generator[tuple[int, Batch], None, None]:
        """Slot and batch of each of *batches*, in order."""
        self._batches = batches
        workers = [
            threading.Thread(target=self._work, name=f"nsd-zarr read {number}", daemon=True)
            for number in range(self._threads)
        ]
        for worker in workers:
            worker.start()
        try:
            while (lap := self._take()) is not None:
                handed = time.perf_counter()
                yield lap.slot, lap.batch
                self.stats.consume_seconds += time.perf_counter() - handed
                with self._change:
                    self._free.append(lap.slot)
                    self._change.notify_all()
        finally:
            with self._change:
                self._stopped = True
                self._change.notify_all()
            for worker in workers:
                worker.join()

    def _take(self) -> _Lap | None:
        """The next batch, when all its rows are filled; None at the end. Raises what a thread raised."""
        started = time.perf_counter()
        with self._change:
            self.stats.depth_sum += sum(not lap.rows_left for lap in self._laps)
            while not self._error:
                if not self._laps and self._start_lap() is None:
                    return None
                if not self._laps[0].rows_left:
                    self.stats.wait_seconds += time.perf_counter() - started
                    self.stats.batches += 1
                    return self._laps.popleft()
                self._change.wait()
            raise self._error

    def _start_lap(self) -> _Lap | None:
        """Begin the next batch in a free slot; None when there is no slot or no batch. Called with the lock held."""
        if not self._free:
            return None
        batch = next(self._batches, None)
        if batch is None:
            return None
        lap = _Lap(batch, self._free.popleft())
        self._laps.append(lap)
        self._change.notify_all()
        return lap

    def _claim(self) -> tuple[_Lap, int] | None:
        """A row to fill; None when the ring is stopped."""
        with self._change:
            while not (self._stopped or self._error):
                for lap in (*self._laps, None):
                    lap = lap or self._start_lap()
                    if lap is not None and lap.next_row < len(lap.batch.samples):
                        lap.next_row += 1
                        return lap, lap.next_row - 1
                self._change.wait()
        return None

    def _work(self) -> None:
        while (claim := self._claim()) is not None:
            lap, row = claim
            started = time.perf_counter()
            try:
                self._fill(lap.slot, row, lap.batch)
            except BaseException as error:  # Raised where the batch is asked for.
                with self._change:
                    self._error = self._error or error
                    self._change.notify_all()
                return
            with self._change:
                self.stats.fill_seconds += time.perf_counter() - started
                self.stats.samples += 1
                lap.rows_left -= 1
                if not lap.rows_left:
                    self._change.notify_all()
