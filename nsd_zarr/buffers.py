"""Memory that is used again: touching fresh pages costs more than filling them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


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
