"""Memory that is used again: touching fresh pages costs more than filling them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

import numpy as np

Slot = Any
"""Memory of one batch, whatever its form."""

PAGE_BYTES = 4096
"""Of memory, at least: touching one byte of each takes all of it."""
_TOUCHED_AT_ONCE = 8 * 2**20
"""Bytes touched before it is asked again whether the memory is needed: 2 to 20 ms."""


class BufferPool:
    """Buffers that users hand on to each other, as many as are in use at once. Thread-safe, fork-safe.

    Not one for each thread: threads come and go with epochs and executors, buffers stay.
    """

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []
        self._touching: tuple[Thread, Event] | None = None

    @contextmanager
    def borrow(self, shape: tuple[int, ...], dtype: Any) -> Iterator[np.ndarray]:
        """An array of *shape* and *dtype*, C order, content arbitrary, until the block ends."""
        self.end_touching()
        length = int(np.prod(shape)) * np.dtype(dtype).itemsize
        # Single operations on a list, so that no lock can be held when a process forks.
        try:
            buffer = self._free.pop()
        except IndexError:
            buffer = np.empty(length, np.uint8)
        if buffer.size < length:
            buffer = np.empty(length, np.uint8)
        try:
            yield buffer[:length].view(dtype).reshape(shape)
        finally:
            self._free.append(buffer)

    def begin_touching(self, shape: tuple[int, ...], dtype: Any) -> None:
        """Take memory for such an array beforehand, unless there is some: in a thread, until somebody borrows.

        For a time in which cores have nothing else to do: touching may take longer than filling.
        """
        if self._free or self._touching is not None:
            return
        is_needed, length = Event(), int(np.prod(shape)) * np.dtype(dtype).itemsize

        def touch() -> None:
            with suppress(MemoryError):  # Whoever borrows meets it too, and says so.
                buffer = np.empty(length, np.uint8)
                for start in range(0, length, _TOUCHED_AT_ONCE):
                    if is_needed.is_set():
                        break
                    buffer[start : start + _TOUCHED_AT_ONCE : PAGE_BYTES] = 0
                self._free.append(buffer)

        thread = Thread(target=touch, name="nsd-zarr touch", daemon=True)
        with suppress(RuntimeError):  # No thread may be started: then there is none to wait for either.
            thread.start()
            self._touching = thread, is_needed

    def end_touching(self) -> None:
        """Let that thread come to its end, and wait for it."""
        if self._touching is not None:
            thread, is_needed = self._touching
            is_needed.set()
            thread.join()


@dataclass(slots=True)
class Slots:
    """Where batches are decoded to, and when that memory is used again."""

    make: Callable[[], Slot]
    """Takes new memory for a batch."""
    prefetch: int
    """Batches decoded ahead; there are prefetch + 1 slots."""
    lend: Callable[[Slot], Sequence[Any]] | None = None
    """Makes objects that refer to the slot's memory, which are handed out in its place. The memory is used again when
    nobody refers to them any more; a consumer that keeps them keeps the memory, and the ring takes new memory. None:
    the slot itself is handed out, and used again when the next batch is asked for."""
    spare: list[Slot] = field(default_factory=list)
    """Slots of an iteration that came to its end, for the next one."""

    def take(self) -> Slot:
        """A slot that nobody uses."""
        try:
            return self.spare.pop()
        except IndexError:
            return self.make()
