"""Rows of trials by byte offset, turned into trials: the fast path of the dataset's own layout.

Reads in physical order with preadv into a small buffer (no memory map, so that a file that shrinks is an error and
not a signal, and its pages are not ours), and transposes while the rows are in the processor's second-level cache.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from itertools import chain, pairwise, zip_longest

import numpy as np

from nsd_zarr.retry import read_again
from nsd_zarr.source.hdf5.chunk_index import ChunkIndex
from nsd_zarr.source.protocol import OnRead, OnRows, ignore_read
from nsd_zarr.tasks import map_all

TILE_BYTES = 768 * 1024
"""Bytes of rows read and transposed at a time. Measured on 750-trial rows: tiles of 256 to 2,048 rows (0.4 to 3 MB)
run within 10 % of each other at 3.5 to 3.9 GB/s of one core, 128 rows at 2.6, 8,192 and more at a third."""
MAX_GAP_BYTES = 64 * 1024
"""Rows farther apart are read by calls of their own. In files as MATLAB leaves them a node of the index (2 kB) lies
behind each 57 rows or so."""
MAX_GAPS = 500
"""In one call: POSIX systems take 1,024 buffers and more."""
ROWS_PER_TASK = 16_384
"""Rows between two looks at the stop signal: about 10 ms."""


EmptyTiles = set[int]
"""Numbers, in the index, of the first row of each tile whose bytes are all zero. Half of a volume lies outside the
brain, where betas are zero; a quarter of it in tiles that hold nothing else. Source: data manual."""


class ShortRead(OSError):
    """The file ends before a row that its index names."""


def gather_trials(
    descriptor: int,
    index: ChunkIndex,
    trials: range,
    out: np.ndarray,
    executor: Executor,
    check_stop: Callable[[], None],
    on_rows: OnRows | None = None,
    on_read: OnRead = ignore_read,
    empty: EmptyTiles | None = None,
) -> None:
    """Fill *out*, shape (len(trials), voxels), with consecutive *trials* of every stored row; others stay as they are.

    *on_rows* is given each tile that is not zero in every trial as it lies in the file, all its trials, while it is in
    the processor's cache. *empty* knows those that are, and learns them: they are not read again. Raises ShortRead, and
    what *check_stop* raises; either way no task is left. Cost: the whole file once, the next time the rest of it;
    memory: one tile a thread.
    """
    empty = set() if empty is None else empty
    borders = [*range(0, len(index.offsets), ROWS_PER_TASK), len(index.offsets)]

    def gather(first: int, last: int) -> None:
        check_stop()
        for rows, voxels in _read_tiles(descriptor, index, first, last, out.dtype, empty):
            if rows is None:
                out[:, voxels] = 0
                continue
            if on_rows is not None:
                on_rows(rows, voxels)
            out[:, voxels] = rows[:, trials.start : trials.stop].T
        on_read((last - first) * len(trials))

    map_all(executor, gather, borders[:-1], borders[1:])


def _read_tiles(
    descriptor: int, index: ChunkIndex, first: int, last: int, dtype: np.dtype, empty: EmptyTiles
) -> Iterator[tuple[np.ndarray | None, slice]]:
    """Rows first .. last - 1 of the index as (rows, trials) arrays, each for one slice of consecutive voxels.

    The arrays are views of a buffer that the next step reuses; None where all is zero.
    """
    row_bytes, offsets, voxels = index.row_bytes, index.offsets[first:last], index.voxels[first:last]
    tile = np.empty((max(1, TILE_BYTES // row_bytes), row_bytes), np.uint8)
    waste = np.empty(MAX_GAP_BYTES, np.uint8)
    gaps = np.diff(offsets) - row_bytes
    apart = np.flatnonzero((gaps < 0) | (gaps > MAX_GAP_BYTES)) + 1
    breaks = np.flatnonzero(np.diff(voxels) != 1) + 1
    for start, stop in _cut(len(offsets), apart, np.flatnonzero(gaps) + 1, len(tile)):
        rows = tile[: stop - start]
        if first + start not in empty:
            _read_rows(descriptor, rows, gaps[start : stop - 1], waste, int(offsets[start]))
            if not _holds_any(rows):
                empty.add(first + start)
        is_empty = first + start in empty
        inside = breaks[np.searchsorted(breaks, start, "right") : np.searchsorted(breaks, stop)]
        for begin, end in pairwise([start, *inside.tolist(), stop]):
            voxel = int(voxels[begin])
            part = None if is_empty else rows[begin - start : end - start].view(dtype)
            yield part, slice(voxel, voxel + end - begin)


def _holds_any(rows: np.ndarray) -> bool:
    """Whether any byte is not zero. As a maximum, of the first and last row before all: 5 us a tile, any() takes 17."""
    ends = rows[:: max(1, len(rows) - 1)]
    return bool(np.maximum.reduce(ends, axis=None) or np.maximum.reduce(rows, axis=None))


def _cut(rows: int, apart: np.ndarray, behind_gaps: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """First row and end of what is read at a time: at most *most* rows, and no more gaps than one call takes.

    *apart*: rows that lie too far behind the one before. *behind_gaps*: rows that lie not right behind it.
    """
    for begin, end in pairwise([0, *apart.tolist(), rows]):
        while begin < end:
            stop = min(begin + most, end)
            later = behind_gaps[np.searchsorted(behind_gaps, begin, "right") :][MAX_GAPS : MAX_GAPS + 1]
            stop = min(stop, int(later[0])) if later.size else stop
            yield begin, stop
            begin = stop


def _read_rows(descriptor: int, rows: np.ndarray, gaps: np.ndarray, waste: np.ndarray, offset: int) -> None:
    """Fill *rows*, of which the first lies at *offset* and the others *gaps* bytes behind each other, in one call.

    What lies in the gaps (nodes of the file's index) goes to *waste*: so the rows come together without being copied.
    """
    behind = np.flatnonzero(gaps)
    runs = [rows[begin:end].reshape(-1).data for begin, end in pairwise([0, *(behind + 1).tolist(), len(rows)])]
    between = [waste[:gap].data for gap in gaps[behind].tolist()]
    views = [*chain.from_iterable(zip(runs, between, strict=False)), runs[-1]]
    wanted = rows.size + int(gaps.sum())
    if read_again(partial(os.preadv, descriptor, views, offset), f"reading at byte {offset}") == wanted:
        return
    for run, gap in zip_longest(runs, between, fillvalue=memoryview(b"")):
        _read_exactly(descriptor, run, offset)
        offset += len(run) + len(gap)


def _read_exactly(descriptor: int, view: memoryview, offset: int) -> None:
    while view:
        count = read_again(partial(os.preadv, descriptor, [view], offset), f"reading at byte {offset}")
        if count == 0:
            raise ShortRead(f"the file ends at byte {offset}, inside a row that its index names")
        view, offset = view[count:], offset + count
