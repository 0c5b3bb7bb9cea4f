"""Mean and standard deviation of each voxel over trials, added up as the trials come.

The only place where trials are added up: a conversion gives whole blocks or rows of a session, a z-score over chosen
trials gives them one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from nsd_zarr.buffers import BufferPool
from nsd_zarr.tasks import map_all

ROW_VALUES = 384 * 1024
"""Values of rows added at a time: a whole tile of the gather. Reading a cached session of (750, 83, 104, 81) int16 and
adding it up takes one thread 0.38 s with any number of them; two threads 0.23 s with so many, 0.26 s with half, 0.30 s
with a quarter: small pieces let go of the interpreter's lock so often that the threads wait for each other. Adding up
what was just transposed, or the whole block, takes a tenth more processor time than adding up rows before that."""
TILE_VOXELS, TILE_TRIALS = 16_384, 32
"""Values of a block added at a time. 75 trials of 699,192 voxels on two threads: int16 in 13 to 20 ms (2,048 voxels
23 ms, 1,024 voxels 37 ms), float32 in 41 ms (147 and 229 ms). Threads with small tiles wait for each other."""
ACCUMULATOR_BYTES_PER_VOXEL = 3 * 8 + 1
"""Kept from the first trial to the last."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Mean and standard deviation of each voxel over some trials, in the unit of the values."""

    mean: np.ndarray
    """float32 (float64 for float64 values), shape (voxel,) or any other."""
    std: np.ndarray
    """Of the same shape and dtype."""


class Moments:
    """Adds up trials, then gives mean and standard deviation.

    int16 and 8-bit integers: sums of values and of squares, exact, so that neither the order of trials nor rows, blocks
    or threads change a bit; up to 46,000 trials. Everything else: sums of the difference between each trial and the
    first, in float64, in the order of the trials. Either way a constant voxel has std 0 to the last bit, and NaN and
    infinity give NaN in their voxel alone.

    >>> moments = Moments((2,), np.int16)
    >>> for trial in ([300, 7], [600, 7]):
    ...     moments.add(np.array(trial, np.int16))
    >>> moments.finish(scale=300)
    Statistics(mean=array([1.5       , 0.02333333], dtype=float32), std=array([0.5, 0. ], dtype=float32))
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, *, note_limits: bool = False) -> None:
        """*note_limits*: note also which voxels reach a limit of the dtype, where that is_exact."""
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.is_exact = self.dtype.name in ("int16", "int8", "uint8")
        self.count = 0
        voxels, kind = math.prod(shape), np.int64 if self.is_exact else np.float64
        self._sums, self._squares = np.zeros(voxels, kind), np.zeros(voxels, kind)
        self._first = np.zeros(0 if self.is_exact else voxels)
        self._limits = np.iinfo(self.dtype) if self.is_exact and note_limits else None
        self.at_limit = np.zeros(0 if self._limits is None else voxels, bool)
        self._tiles = BufferPool()

    def add(self, trial: np.ndarray) -> None:
        """Add one trial, of the shape and dtype given before."""
        values = trial.reshape(-1)
        if self.is_exact:
            # Without the tiles of a block, of which one trial makes no use: 0.8 ms a volume instead of 2.7 ms.
            wide = values.astype(np.int64)
            self._sums += wide
            self._squares += np.square(wide, out=wide)
        else:
            self._add_floats(values[None], 0)
        if self._limits is not None:
            self.at_limit |= (values == self._limits.max) | (values == self._limits.min)
        self.count += 1

    def add_block(self, block: np.ndarray, executor: Executor, check_stop: Callable[[], None] = lambda: None) -> None:
        """Add the next trials: shape (trial, voxel), C order. *check_stop* may raise between two tasks."""
        borders = [*range(0, len(self._sums), TILE_VOXELS), len(self._sums)]

        def add(first: int, last: int) -> None:
            check_stop()
            (self._add_exact if self.is_exact else self._add_floats)(block[:, first:last], first)

        map_all(executor, add, borders[:-1], borders[1:])
        self.count += len(block)

    def add_rows(self, rows: np.ndarray, voxels: slice) -> None:
        """Add values of shape (voxel, trial) of some *voxels*; only where is_exact. The caller counts the trials.

        Thread-safe where no two threads have the same voxels.
        """
        step = max(1, ROW_VALUES // rows.shape[1])
        with self._tiles.borrow((step, rows.shape[1]), np.float64) as buffer:
            ones = np.ones(rows.shape[1])
            for first in range(0, len(rows), step):
                part = rows[first : first + step]
                largest, least = np.maximum.reduce(part, axis=None), np.minimum.reduce(part, axis=None)
                # Half of a volume lies outside the brain: its voxels are zero in every trial, and cost only this look.
                if largest == least == 0:
                    continue
                values = buffer[: len(part)]
                values[...] = part
                # In float64, and exact: integers below 2**53, whatever the order in which they are added.
                place = slice(voxels.start + first, voxels.start + first + len(part))
                self._sums[place] += np.vecdot(values, ones).astype(np.int64)
                self._squares[place] += np.vecdot(values, values).astype(np.int64)
                limits = self._limits
                if limits is not None and (largest == limits.max or least == limits.min):
                    self.at_limit[place] |= ((part == limits.min) | (part == limits.max)).any(axis=1)

    def _add_exact(self, tile: np.ndarray, start: int) -> None:
        largest, least = np.maximum.reduce(tile, axis=0), np.minimum.reduce(tile, axis=0)
        live = np.flatnonzero(largest | least)
        if not live.size:
            return
        if self._limits is not None:
            reached = (largest == self._limits.max) | (least == self._limits.min)
            self.at_limit[start : start + len(largest)] |= reached
        # As many trials at a time as keep a sum of squares within int32: all of them, but where a limit is near.
        most = max(int(largest.max()), -int(least.min()))
        step = min(TILE_TRIALS, len(tile), (2**31 - 1) // (most * most))
        tile, start = tile[:, live[0] : live[-1] + 1], start + int(live[0])
        place = slice(start, start + tile.shape[1])
        with self._tiles.borrow((step, tile.shape[1]), np.int32) as buffer:
            for first in range(0, len(tile), step):
                values = buffer[: min(step, len(tile) - first)]
                values[...] = tile[first : first + step]
                self._sums[place] += np.add.reduce(values, axis=0, dtype=np.int32)
                self._squares[place] += np.einsum("ij,ij->j", values, values)

    def _add_floats(self, tile: np.ndarray, start: int) -> None:
        place = slice(start, start + tile.shape[1])
        with np.errstate(invalid="ignore", over="ignore"):
            for number, values in enumerate(tile, self.count):
                if number == 0:
                    self._first[place] = values
                difference = values - self._first[place]
                self._sums[place] += difference
                self._squares[place] += difference * difference

    def finish(self, scale: int = 1, ddof: int = 0, trials: int | None = None) -> Statistics:
        """Statistics of what was added, divided by *scale* (300: counts to percent).

        *trials*: how many were added, where they came as rows. Raises ValueError without any.
        """
        count = self.count if trials is None else trials
        if not count:
            raise ValueError("statistics of no trial: expected at least one")
        wide = np.float64 if self.dtype == np.float64 else np.float32
        mean, std = np.empty(len(self._sums), wide), np.empty(len(self._sums), wide)
        finish = self._finish_exact if self.is_exact else self._finish_floats
        for start in range(0, len(mean), TILE_VOXELS):
            place = slice(start, start + TILE_VOXELS)
            mean[place], spread = finish(place, scale, count)
            std[place] = correct_std(spread, count, ddof)
        return Statistics(mean.reshape(self.shape), std.reshape(self.shape))

    def _finish_exact(self, place: slice, scale: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        sums, squares = self._sums[place], self._squares[place]
        # In integers: below 2**63 for 46,000 trials; a session of a store has at most 32,767.
        spread = np.sqrt((count * squares - sums * sums).astype(np.float64))
        return sums / (scale * count), spread / (scale * count)

    def _finish_floats(self, place: slice, scale: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(invalid="ignore", over="ignore"):
            shift = self._sums[place] / count
            variance = np.maximum(self._squares[place] / count - shift * shift, 0)
            return (self._first[place] + shift) / scale, np.sqrt(variance) / scale


def correct_std(std: Any, trials: int, ddof: int) -> Any:
    """A standard deviation of ddof 0 over so many *trials* as one of *ddof*; of a single trial it stays 0.

    >>> float(correct_std(1.0, 2, 1) ** 2)
    2.0000000000000004
    """
    return std if ddof == 0 else std * math.sqrt(trials / max(1, trials - ddof))


def compute_statistics(trials: np.ndarray, scale: int = 1, ddof: int = 0) -> Statistics:
    """Mean and standard deviation of *trials*, shape (trial, ...), divided by *scale*. See Moments."""
    moments = Moments(trials.shape[1:], trials.dtype)
    for values in trials:
        moments.add(values)
    return moments.finish(scale, ddof)


def row_bytes(voxels: int, trials: int) -> int:
    """Bytes that one thread takes beside the sums of rows, for sessions of so many *voxels* and *trials*."""
    return 8 * min(voxels * trials, max(ROW_VALUES, trials)) + 8 * trials


def tile_bytes(voxels: int) -> int:
    """Bytes that one thread takes beside the sums of a block, for volumes of *voxels* voxels."""
    return min(TILE_VOXELS, voxels) * (TILE_TRIALS * 4 + 8 * 8)
