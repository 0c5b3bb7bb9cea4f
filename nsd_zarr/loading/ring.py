"""A ring of batch slots that threads fill ahead of a consumer.

Threads of this process, no worker processes: a decoded batch is handed over, not copied between processes. Each thread
takes one row at a time, so that a batch is ready as soon as its rows are, whatever the number of threads.

Python raises KeyboardInterrupt in the main thread anywhere, also inside the locks that `threading` writes in Python
(Condition, Event), which then stay taken. So the thread that iterates uses only SimpleQueue and the raw start of one
thread, both of C; locks belong to the ring's own threads, which no signal interrupts. They hold a weak reference to the
iteration, whose callback is the queue's own `put`: whatever happens to the iteration, its end wakes and stops them.
"""

from __future__ import annotations

import _thread
import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, NamedTuple

from nsd_zarr.buffers import Slot, Slots
from nsd_zarr.errors import DoesNotFit
from nsd_zarr.loading.order import Batch

Fill = Callable[[Slot, int, Batch], None]
"""Fills a row of a slot with that row of a batch: fill(slot, row, batch)."""

_NO_THREAD = "no thread could be started to read batches: allow more (ulimit -u), or stop some"
MAX_JOIN_SECONDS = 5.0
"""How long who leaves early waits for threads that are in the middle of a row; they stop after it by themselves."""


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


@dataclass(slots=True, eq=False)
class _Lap:
    """A batch on its way."""

    batch: Batch
    slot: Slot
    rows_left: int
    ready: SimpleQueue[BaseException | None] = field(default_factory=SimpleQueue)


class _Row(NamedTuple):
    """Work for a thread: fill a row."""

    lap: _Lap
    row: int


class _Free(NamedTuple):
    """Work for a thread: begin the next batch in a slot; None for one to be taken."""

    slot: Slot


class _Lent(weakref.ref[Any]):
    """Work for a thread, put in its queue when an object that was handed out is gone: see whether its slot is free."""

    __slots__ = ("lap_number",)
    lap_number: int


class _Asked(NamedTuple):
    """Work for a thread: somebody waits for a batch of their own, and has received so many."""

    handed: int


class _Crew:
    """The threads of one iteration. Its consumer uses `tasks`, `laps` and `handed`, and no lock."""

    def __init__(self, fill: Fill, slots: Slots, batches: Iterator[Batch], stats: RingStats) -> None:
        self.tasks: SimpleQueue[Any] = SimpleQueue()
        self.laps: SimpleQueue[_Lap | BaseException | None] = SimpleQueue()
        self.begun = self.completed = self.handed = 0
        self.free: list[Slot] = []
        self.lent: dict[int, tuple[Slot, list[_Lent]]] = {}
        self.stopped = self._ended = False
        self._fill, self._slots, self._batches, self._stats = fill, slots, batches, stats
        self._lock, self._started = threading.Lock(), threading.Lock()
        self._threads: list[threading.Thread] = []
        self._running, self.process = 1, os.getpid()  # One that starts the others.

    def start(self, iteration: object, threads: int) -> None:
        """Start the threads. They end with *iteration* at the latest. Raises DoesNotFit where no thread starts."""
        self._started.acquire()
        try:
            _thread.start_new_thread(self._start, (weakref.ref(iteration, self.tasks.put), threads))
        except RuntimeError as error:
            raise DoesNotFit(_NO_THREAD) from error

    def hand_out(self, lap: _Lap) -> Any:
        """What the consumer receives of a batch that is ready."""
        self.handed += 1
        if self._slots.lend is None:
            return lap.slot
        handed = self._slots.lend(lap.slot)
        lent = [_Lent(each, self.tasks.put) for each in handed if each is not None]
        for each in lent:
            each.lap_number = self.handed
        self.lent[self.handed] = (lap.slot, lent)
        return handed

    def stop(self) -> None:
        """Have the threads stop after the row that each is filling."""
        self.stopped = True
        self.tasks.put(None)

    def join(self, seconds: float) -> None:
        """Wait until the threads have stopped, or *seconds* have passed."""
        deadline = time.monotonic() + seconds
        if os.getpid() == self.process and self._started.acquire(timeout=seconds):
            self._started.release()
            for thread in self._threads:
                thread.join(max(0.0, deadline - time.monotonic()))

    def _start(self, iteration: weakref.ref[Any], threads: int) -> None:
        """In a thread of its own: an interrupt inside Thread.start would leave a thread that waits for ever."""
        _CREWS.add(self)
        try:
            for number in range(threads):
                self._count(1)
                name = f"nsd-zarr read {number}"
                thread = threading.Thread(target=self._work, args=(iteration,), name=name, daemon=True)
                thread.start()
                self._threads.append(thread)
        except BaseException:  # Fewer threads do as well.
            self._count(-1)
            if not self._threads:
                self.laps.put(DoesNotFit(_NO_THREAD))
        finally:
            self._count(-1)
            self._started.release()

    def _work(self, iteration: weakref.ref[Any]) -> None:
        while not self.stopped and iteration() is not None and self._handle(self.tasks.get()):
            pass
        self.tasks.put(None)  # The next thread stops as well.
        self._count(-1)

    def _count(self, threads: int) -> None:
        with self._lock:
            self._running += threads
            if not self._running:
                _CREWS.discard(self)

    def _handle(self, task: Any) -> bool:
        """Do what *task* says; False when it says to stop."""
        if isinstance(task, _Row):
            self._fill_row(task.lap, task.row)
            return True
        with self._lock:
            if isinstance(task, _Free):
                self._begin(task.slot)
            elif isinstance(task, _Lent):
                self._take_back(task.lap_number)
            elif isinstance(task, _Asked):
                self._keep_ahead(task.handed)
            else:
                return False
        return True

    def _fill_row(self, lap: _Lap, row: int) -> None:
        started = time.perf_counter()
        try:
            self._fill(lap.slot, row, lap.batch)
        except BaseException as error:  # Raised where the batch is asked for.
            lap.ready.put(error)
            return
        with self._lock:
            self._stats.fill_seconds += time.perf_counter() - started
            self._stats.samples += 1
            lap.rows_left -= 1
            if not lap.rows_left:
                self.completed += 1
                lap.ready.put(None)

    def _begin(self, slot: Slot) -> None:
        """Begin the next batch in *slot*, or in one to be taken. With the lock held, as all below."""
        try:
            batch = None if self._ended else next(self._batches, None)
            if batch is None:
                self.laps.put(None)
                self._ended = True
                self.free += [] if slot is None else [slot]
                return
            lap = _Lap(batch, self._slots.take() if slot is None else slot, len(batch.samples))
        except BaseException as error:  # Raised where the batch is asked for.
            self._ended = True
            self.laps.put(error)
            return
        self.begun += 1
        self.laps.put(lap)
        for row in range(lap.rows_left):
            self.tasks.put(_Row(lap, row))

    def _keep_ahead(self, handed: int) -> None:
        """Begin batches, in new memory where the consumer keeps the old."""
        for lap_number in list(self.lent):  # Another thread may have the news that memory is free, and not the lock.
            self._take_back(lap_number)
        while not self._ended and self.begun - handed < max(1, self._slots.prefetch):
            self._begin(self.free.pop() if self.free else None)

    def _take_back(self, lap_number: int) -> None:
        """Use a slot again when nobody refers to any of what was handed out in its place."""
        slot, lent = self.lent.get(lap_number, (None, []))
        if any(each() is not None for each in lent) or self.lent.pop(lap_number, None) is None:
            return
        ahead = self.begun - self.handed
        if ahead < self._slots.prefetch:
            self._begin(slot)
        elif ahead + len(self.free) <= self._slots.prefetch:
            self.free.append(slot)


class Ring:
    """Fills slots with batches in order, ahead of who iterates.

    An error in a thread is raised where its batch is asked for. Leaving the iteration (end, break, exception) stops the
    threads, and lets the slots go unless it came to its end.
    """

    def __init__(self, fill: Fill, slots: Slots, threads: int, stats: RingStats | None = None) -> None:
        self._fill, self._slots, self._threads = fill, slots, threads
        self.stats = stats or RingStats()

    def iterate(self, batches: Iterator[Batch]) -> Generator[tuple[Any, Batch], None, None]:
        """What is handed out (see Slots), and the batch, of each of *batches*, in order."""
        crew = _Crew(self._fill, self._slots, batches, self.stats)
        iteration: set[Any] = set()  # An object that lives as long as this frame.
        crew.start(iteration, self._threads)
        reused = self._slots.lend is None
        try:
            for _ in range(self._slots.prefetch + 1 if reused else 0):
                crew.tasks.put(_Free(None))
            while (lap := self._take(crew)) is not None:
                handed = time.perf_counter()
                yield crew.hand_out(lap), lap.batch
                self.stats.consume_seconds += time.perf_counter() - handed
                if reused:
                    crew.tasks.put(_Free(lap.slot))
        finally:
            del iteration
            crew.stop()
            crew.join(MAX_JOIN_SECONDS)
        left = [crew.tasks.get() for _ in range(crew.tasks.qsize())]
        crew.free += [task.slot for task in left if isinstance(task, _Free) and task.slot is not None]
        self._slots.spare[:] = [*self._slots.spare, *crew.free][: self._slots.prefetch + 1]

    def _take(self, crew: _Crew) -> Any:
        """The next _Lap, when all its rows are filled; None at the end. Raises what a thread raised."""
        if os.getpid() != crew.process:  # The threads stayed in the other.
            raise RuntimeError("the iteration began before the process forked: begin another with iter(loader)")
        started = time.perf_counter()
        self.stats.depth_sum += crew.completed - crew.handed
        if self._slots.lend is not None:
            crew.tasks.put(_Asked(crew.handed))
        lap: Any = crew.laps.get()
        error = lap.ready.get() if isinstance(lap, _Lap) else lap
        if error is not None:
            try:
                raise error
            finally:  # The error refers to this frame: each would keep the other.
                del error, lap
        self.stats.wait_seconds += time.perf_counter() - started
        self.stats.batches += lap is not None
        return lap


_CREWS: set[_Crew] = set()  # Those with threads that run; changed by such threads alone.


@atexit.register
def _stop_all() -> None:
    """Before the interpreter ends: a thread that it freezes inside a library's lock, as h5py's, hangs or crashes it."""
    for crew in list(_CREWS):
        crew.stop()
        crew.join(threading.TIMEOUT_MAX / 2)
