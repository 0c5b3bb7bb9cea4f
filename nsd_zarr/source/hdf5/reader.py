"""Trials of one dataset, by byte offset where the layout is known, through h5py otherwise."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise, product

import h5py
import numpy as np

from nsd_zarr.errors import NsdZarrError, SourceError
from nsd_zarr.retry import read_again
from nsd_zarr.source.hdf5.chunk_index import ChunkIndex, NotRecognised, read_chunk_index
from nsd_zarr.source.hdf5.dataset import BinaryFile, explain_hdf5_errors, open_dataset, open_source
from nsd_zarr.source.hdf5.gather import EmptyTiles, gather_trials
from nsd_zarr.source.protocol import OnRead, OnRows, SourcePart, check_not_cut, ignore_read
from nsd_zarr.tasks import is_lack_of_threads

SAMPLE_ROWS = 32
"""Rows compared with h5py before the fast path is trusted."""
SLAB_BYTES = 64 * 2**20
"""Decoded bytes that one read through h5py asks for, chunks permitting: large enough to amortise the call, small
enough that a stop is heard."""


MAX_CHUNKS = 8192
"""Chunks that one read through h5py touches: HDF5 takes about 6.5 kB for each while it reads."""


class DatasetReader:
    """The open dataset of a part. Made by open_reader; one thread at a time."""

    def __init__(self, part: SourcePart, data: h5py.Dataset, descriptor: int, index: ChunkIndex | None) -> None:
        self.part = part
        self._data = data
        self._descriptor = descriptor
        self._index = index
        self._empty: EmptyTiles = set()

    @property
    def by_offset(self) -> bool:
        """Whether rows are read by byte offset."""
        return self._index is not None

    @property
    def how(self) -> str:
        """How values are read, for people."""
        return "through h5py" if self._index is None else "by offset"

    @property
    def can_hand_rows(self) -> bool:
        """Whether read_into can hand on, as rows, all voxels but those that are zero in every trial."""
        is_whole = self._index is not None and len(self._index.offsets) == self.part.voxels
        return is_whole or (self._index is not None and not self._data.fillvalue)

    def read_into(
        self,
        trials: range,
        out: np.ndarray,
        executor: Executor,
        check_stop: Callable[[], None] = lambda: None,
        on_rows: OnRows | None = None,
        on_read: OnRead = ignore_read,
    ) -> None:
        """Read consecutive *trials* (0-based, in the session) into *out*, shape (len(trials), voxels), stored dtype.

        Every value of *out* is written. *executor* runs the fast path's tasks; *check_stop* is called between
        pieces of work and may raise; *on_rows*, only where can_hand_rows, is given every stored row that is not zero;
        *on_read* counts the values of *out* while they come. Raises SourceError. Cost: each pass reads the whole file,
        but for what is known to be zero.
        """
        with explain_read_errors(f"trials {trials.start} to {trials.stop - 1}", self.part):
            if self._index is None:
                read_by_h5py(self._data, trials, out, check_stop, on_read)
                check_not_cut(self.part)
                return
            absent = self.part.voxels - len(self._index.offsets)
            if absent:
                out[:] = self._data.fillvalue
                on_read(absent * len(trials))
            index, empty = self._index, self._empty
            gather_trials(self._descriptor, index, trials, out, executor, check_stop, on_rows, on_read, empty)


@contextmanager
def open_reader(part: SourcePart, dataset: str, *, by_offset: bool) -> Iterator[DatasetReader]:
    """Open the dataset of an inspected part again. *by_offset* False reads through h5py alone. Raises SourceError."""
    path, session = part.path, part.error_session
    with (
        open_source(path, session, whole=True) as (fetched, descriptor),
        open_dataset(path, dataset, session, fetched) as data,
    ):
        check_same_dataset(data, part, part.shape)
        _check_same_object(part, fetched)
        with explain_hdf5_errors(path, session):
            index = _try_index(data, descriptor) if by_offset else None
        yield DatasetReader(part, data, descriptor, index)


def _check_same_object(part: SourcePart, fetched: BinaryFile | None) -> None:
    """Refuse another object than the one that was inspected. Raises SourceError."""
    found = part.identity.tag if fetched is None else fetched.version.tag
    if found != part.identity.tag:
        raise SourceError(
            "the object was replaced by another since it was inspected",
            hint="Run the same command again.",
            path=part.path,
            session=part.error_session,
            expected=part.identity.tag,
            found=found,
        )


def check_same_dataset(data: h5py.Dataset, part: SourcePart, shape: tuple[int, ...]) -> None:
    """Refuse a dataset that is not of *shape* and of the part's dtype, as it was when inspected. Raises SourceError."""
    found = data.dtype.newbyteorder("=").name
    if data.shape != shape or found != part.dtype:
        raise SourceError(
            f"the file was replaced by another: {found} of shape {data.shape}, expected {part.dtype} of shape {shape}",
            hint="Run the same command again.",
            path=part.path,
            session=part.error_session,
            expected=(shape, part.dtype),
            found=(data.shape, found),
        )


@contextmanager
def explain_read_errors(what: str, part: SourcePart) -> Iterator[None]:
    """Turn errors of the system and of HDF5 while *what* is read into SourceError; errors of ours pass."""
    try:
        yield
    except NsdZarrError:
        raise
    except (OSError, RuntimeError) as error:
        if is_lack_of_threads(error):
            raise
        raise SourceError(
            f"reading {what} failed: {error}",
            hint="The file may be cut short or its disk failing: check it, then run the same command again.",
            path=part.path,
            session=part.error_session,
        ) from error


def read_by_h5py(
    data: h5py.Dataset,
    trials: range,
    out: np.ndarray,
    check_stop: Callable[[], None] = lambda: None,
    on_read: OnRead = ignore_read,
) -> None:
    """Read *trials* into *out*, shape (len(trials), voxels), through the library: always correct, and the oracle.

    Box by box, in whole chunks, so that each chunk is decoded once a pass.
    """
    # Rows of one hemisphere lie apart from each other: then each box is read beside them, and copied.
    is_whole = out.flags.c_contiguous
    assert is_whole or len(data.shape) == 2  # of anything else, reshape makes a copy
    target = out.reshape(len(trials), *data.shape[1:])
    # Where nothing was ever written and no fill value is defined, HDF5 leaves the buffer as it was.
    target[:] = 0
    trial_step, *steps = _choose_box(data, len(trials))
    borders = [trials.start, *range(trials.start - trials.start % trial_step + trial_step, trials.stop, trial_step)]
    parts = [pairwise([*borders, trials.stop])]
    parts += [pairwise([*range(0, length, step), length]) for length, step in zip(data.shape[1:], steps, strict=True)]
    for (start, stop), *rest in product(*parts):
        check_stop()
        box = tuple(slice(*border) for border in rest)
        wanted = (slice(start, stop), *box)
        landing = (slice(start - trials.start, stop - trials.start), *box)
        what, values = f"reading trials {start} to {stop - 1}", target[landing]
        if is_whole:
            read_again(partial(data.read_direct, target, wanted, landing), what)
        else:
            values[:] = read_again(partial(data.__getitem__, wanted), what)
        on_read(values.size)


def _choose_box(data: h5py.Dataset, trials: int) -> list[int]:
    """Extent of one read along each axis: whole chunks, within SLAB_BYTES and MAX_CHUNKS where one chunk is.

    Grown from the last axis to the first, in boxes of nearly equal size.
    """
    chunk = list(data.chunks or (1, *data.shape[1:]))
    size, count = math.prod(chunk[1:]) * min(chunk[0], trials) * data.dtype.itemsize, 1
    for axis in reversed(range(len(chunk))):
        whole = -(-data.shape[axis] // chunk[axis])
        room = max(1, min(SLAB_BYTES // max(1, size), MAX_CHUNKS // count, whole))
        factor = -(-whole // -(-whole // room))
        chunk[axis] *= factor
        size, count = size * factor, count * factor
    return chunk


def _try_index(data: h5py.Dataset, descriptor: int) -> ChunkIndex | None:
    """The chunk index, when it is recognised and a sample of its rows equals what h5py reads."""
    try:
        index = read_chunk_index(data, descriptor)
        _check_sample(data, descriptor, index)
    except NotRecognised:
        return None
    return index


def _check_sample(data: h5py.Dataset, descriptor: int, index: ChunkIndex) -> None:
    """Compare rows with h5py: the first and last in the file, some between, and some that the index lacks."""
    stored = len(index.offsets)
    for number in np.unique(np.linspace(0, stored - 1, min(SAMPLE_ROWS, stored), dtype=np.int64)).tolist():
        voxel = np.unravel_index(index.voxels[number], data.shape[1:])
        place = int(index.offsets[number])
        raw = read_again(partial(os.pread, descriptor, index.row_bytes, place), f"reading at byte {place}")
        if raw != data[(slice(None), *voxel)].tobytes():
            raise NotRecognised("rows differ from what the library reads")
    absent = np.ones(math.prod(data.shape[1:]), bool)
    absent[index.voxels] = False
    for voxel in np.flatnonzero(absent)[:SAMPLE_ROWS]:
        values = data[(slice(None), *np.unravel_index(voxel, data.shape[1:]))]
        if values.tobytes() != np.full_like(values, data.fillvalue).tobytes():
            raise NotRecognised("a row that the index lacks is not the fill value")
