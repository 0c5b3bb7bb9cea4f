"""Mean, standard deviation and rails of each voxel over one session, taken while its trials are in memory."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nsd_zarr.buffers import BufferPool
from nsd_zarr.conversion.settings import Settings
from nsd_zarr.layout import COUNTS_PER_PERCENT, SessionNumber
from nsd_zarr.store.format import SESSION_MEAN, SESSION_STD, make_chunk_key
from nsd_zarr.store.record import FileRecord
from nsd_zarr.store.volume import write_volume
from nsd_zarr.tasks import map_all

ROW_VALUES = 96 * 1024
"""Values of rows summed at a time. On a busy machine, a session of (750, 83, 104, 81) int16 takes 0.40 s of processor
time to read, 0.68 s with sums of its rows before they are transposed, 0.75 s with sums just after, 0.76 s with sums of
the whole block. A quarter as many values 0.85 s, twice as many 0.81 s."""
TILE_VOXELS, TILE_TRIALS = 2048, 128
"""Values of a block summed at a time. On a busy machine 0.36 s of processor time; 512 voxels 0.43 s, 32 trials 0.40 s,
4,096 voxels 0.40 s and more; sums in float64 instead of int32 0.60 s."""
VOXELS_PER_TASK = 16_384
"""Voxels between two looks at the stop signal: about 10 ms."""
ACCUMULATOR_BYTES_PER_VOXEL = 3 * 8 + 1
"""Kept from the first trial to the last."""
RESULT_BYTES_PER_VOXEL = 2 * 4 + 2 * 4
"""Mean and standard deviation, and both compressed."""
RAILS = np.iinfo(np.int16)
"""Where int16 saturates: -109.23 and +109.22 percent. Both occur in the dataset."""


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """What is known of each voxel over one session."""

    mean: np.ndarray
    """Percent signal change, float32 of shape (voxel,)."""
    std: np.ndarray
    """Percent signal change, ddof 0, float32 of shape (voxel,); exactly 0 where all trials are equal."""
    rail_count: int | None
    """Voxels that reach an int16 rail in any trial; None where the stored dtype is another."""


class SessionSums:
    """Sums over the trials of one session, which come in any number of blocks, in order, or as rows of voxels.

    int16 and 8-bit integers: sums of values and of squares, exact, so neither rows, tiles, passes nor threads
    change a bit. Floats, and other integers: sums of what each trial differs from the first, one trial after the other,
    in float64; the order is that of the trials however they come. NaN and infinity come out as NaN.
    """

    def __init__(self, voxels: int, dtype: Any) -> None:
        self._dtype = np.dtype(dtype)
        self.is_exact = self._dtype.name in ("int16", "int8", "uint8")
        self._trials = 0
        kind = np.int64 if self.is_exact else np.float64
        self._sums, self._squares = np.zeros(voxels, kind), np.zeros(voxels, kind)
        self._first = np.zeros(0 if self.is_exact else voxels)
        self._rails = np.zeros(voxels, bool)
        self._tiles = BufferPool()

    def add(self, block: np.ndarray, executor: Executor, check_stop: Callable[[], None] = lambda: None) -> None:
        """Add the session's next trials: shape (trial, voxel), C order. *check_stop* may raise between two tasks."""
        borders = [*range(0, len(self._sums), VOXELS_PER_TASK), len(self._sums)]

        def add(first: int, last: int) -> None:
            check_stop()
            for start in range(first, last, TILE_VOXELS):
                stop = min(start + TILE_VOXELS, last)
                (self._add_exact if self.is_exact else self._add_floats)(block[:, start:stop], start)

        map_all(executor, add, borders[:-1], borders[1:])
        self._trials += len(block)

    def add_rows(self, rows: np.ndarray, voxels: slice) -> None:
        """Add values of shape (voxel, trial) of some *voxels*; only where is_exact, which makes their order no matter.

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
                if self._dtype == np.int16 and (largest == RAILS.max or least == RAILS.min):
                    self._rails[place] |= ((part == RAILS.min) | (part == RAILS.max)).any(axis=1)

    def _add_exact(self, tile: np.ndarray, start: int) -> None:
        largest, least = np.maximum.reduce(tile, axis=0), np.minimum.reduce(tile, axis=0)
        live = np.flatnonzero(largest | least)
        if not live.size:
            return
        if self._dtype == np.int16:
            self._rails[start : start + len(largest)] |= (largest == RAILS.max) | (least == RAILS.min)
        # As many trials at a time as keep a sum of squares within int32: all of them, but where a rail is near.
        most = max(int(largest.max()), -int(least.min()))
        step = min(TILE_TRIALS, (2**31 - 1) // (most * most))
        tile, start = tile[:, live[0] : live[-1] + 1], start + int(live[0])
        place = slice(start, start + tile.shape[1])
        with self._tiles.borrow((TILE_TRIALS, tile.shape[1]), np.int32) as buffer:
            for first in range(0, len(tile), step):
                values = buffer[: min(step, len(tile) - first)]
                values[...] = tile[first : first + step]
                self._sums[place] += np.add.reduce(values, axis=0, dtype=np.int32)
                self._squares[place] += np.einsum("ij,ij->j", values, values)

    def _add_floats(self, tile: np.ndarray, start: int) -> None:
        place = slice(start, start + tile.shape[1])
        with np.errstate(invalid="ignore", over="ignore"):
            for number, values in enumerate(tile, self._trials):
                if number == 0:
                    self._first[place] = values
                difference = values - self._first[place]
                self._sums[place] += difference
                self._squares[place] += difference * difference

    def make_statistics(self, trials: int) -> SessionStatistics:
        """The statistics of the session, of whose *trials* each was added once."""
        self._trials = trials
        mean, std = np.empty(len(self._sums), np.float32), np.empty(len(self._sums), np.float32)
        for start in range(0, len(mean), VOXELS_PER_TASK):
            place = slice(start, start + VOXELS_PER_TASK)
            mean[place], std[place] = (self._finish_exact if self.is_exact else self._finish_floats)(place)
        rails = int(np.count_nonzero(self._rails)) if self._dtype == np.int16 else None
        return SessionStatistics(mean, std, rails)

    def _finish_exact(self, place: slice) -> tuple[np.ndarray, np.ndarray]:
        sums, squares = self._sums[place], self._squares[place]
        # n squares - sum * sum stays below 2**60 for 32,767 trials, the most that a store can hold.
        spread = np.sqrt((self._trials * squares - sums * sums).astype(np.float64))
        return sums / (COUNTS_PER_PERCENT * self._trials), spread / (COUNTS_PER_PERCENT * self._trials)

    def _finish_floats(self, place: slice) -> tuple[np.ndarray, np.ndarray]:
        scale = COUNTS_PER_PERCENT if self._dtype.kind in "iu" else 1
        with np.errstate(invalid="ignore", over="ignore"):
            shift = self._sums[place] / self._trials
            variance = np.maximum(self._squares[place] / self._trials - shift * shift, 0)
            return (self._first[place] + shift) / scale, np.sqrt(variance) / scale


def row_bytes(voxels: int, trials: int) -> int:
    """Bytes that one thread takes beside the sums of rows, for sessions of so many *voxels* and *trials*."""
    return 8 * min(voxels * trials, max(ROW_VALUES, trials)) + 8 * trials


def tile_bytes(voxels: int) -> int:
    """Bytes that one thread takes beside the sums of a block, for volumes of *voxels* voxels."""
    return min(TILE_VOXELS, voxels) * (TILE_TRIALS * 4 + 8 * 8)


def write_statistics(
    store: Path, settings: Settings, session: SessionNumber, statistics: SessionStatistics, executor: Executor
) -> tuple[FileRecord, ...]:
    """The chunks of session_mean and session_std of one session, on disk when this returns."""
    place = (settings.sessions.index(session), *(0 for _ in settings.geometry.volume_shape))
    names, volumes = (SESSION_MEAN, SESSION_STD), (statistics.mean, statistics.std)

    def write(name: str, values: np.ndarray) -> FileRecord:
        return write_volume(store, make_chunk_key(name, place), values, settings.blosc)

    return tuple(map_all(executor, write, names, volumes))
