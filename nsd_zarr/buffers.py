"""Memory that is used again: touching fresh pages costs more than filling them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Slot = Any
"""Memory of one batch, whatever its form."""

PAGE_BYTES = 4096
"""Of memory, at least: touching one byte of each takes all of it."""


class BufferPool:
    """Buffers that users hand on to each other, as many as are in use at once. Thread-safe, fork-safe.

    Not one for each thread: threads come and go with epochs and executors, buffers stay.
    """

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []

    @contextmanager
    def borrow(self, shape: tuple[int, ...], dtype: Any) -> Iterator[np.ndarray]:
        """An array of *shape* and *dtype*, C order, content arbitrary, until the block ends."""
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

    def touch(self, shape: tuple[int, ...], dtype: Any) -> None:
        """Take memory for such an array beforehand, unless there is some. For a thread that has nothing else to do."""
        if not self._free:
            with self.borrow(shape, dtype) as buffer:
                buffer.reshape(-1).view(np.uint8)[::PAGE_BYTES] = 0


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
