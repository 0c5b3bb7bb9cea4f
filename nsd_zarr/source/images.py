"""Blocks of stimulus images, whatever the chunks of the file: each chunk is read once in a run, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path

import h5py
import numpy as np

from nsd_zarr.errors import SourceError
from nsd_zarr.layout import SessionNumber
from nsd_zarr.source.hdf5.dataset import open_dataset
from nsd_zarr.source.hdf5.reader import check_same_dataset, explain_read_errors, read_by_h5py
from nsd_zarr.source.identity import FileIdentity
from nsd_zarr.source.protocol import OnRead, OnRows, check_not_cut, ignore_read
from nsd_zarr.source.stimuli import StimulusInfo
from nsd_zarr.source.trial_cache import TrialCache


@dataclass(frozen=True, slots=True)
class ImageBlock:
    """Images that one unit of work converts: what a session is of betas. Picklable: tasks open the file again."""

    session: SessionNumber
    """Number of the block, from 1."""
    file: StimulusInfo
    """Where they are."""
    ids: Sequence[int]
    """0-based ids, ascending."""
    others: frozenset[int] = frozenset()
    """Ids of other blocks of the same run that lie in a chunk together with some of these."""

    @property
    def error_session(self) -> None:
        """The session that errors name: none. The number of a block says nothing to anyone."""
        return None

    @property
    def path(self) -> Path:
        """The stimulus file."""
        return self.file.path

    @property
    def parts(self) -> tuple[Path, ...]:
        """Other files that hold its values."""
        return self.file.parts

    @property
    def identity(self) -> FileIdentity:
        """What the file looked like."""
        return self.file.identity

    @property
    def values_name(self) -> str:
        """Which values of the file are meant, for people."""
        return f"dataset /{self.file.dataset}"

    @property
    def shape(self) -> tuple[int, ...]:
        """(image, row, column, channel) of the block."""
        return (len(self.ids), *self.file.shape[1:])

    @property
    def trials(self) -> int:
        """Images in the block."""
        return len(self.ids)

    @property
    def voxels(self) -> int:
        """Values in one image."""
        return self.file.image_bytes

    @property
    def trial_bytes(self) -> int:
        """Bytes of one image."""
        return self.file.image_bytes

    @property
    def dtype(self) -> str:
        """As NumPy names it."""
        return "uint8"

    @property
    def chunk_bytes(self) -> int:
        """Bytes of what the HDF5 chunks of one image hold together."""
        return self.file.chunk_images * self.file.image_bytes

    @property
    def by_offset(self) -> bool:
        """Whether its values can be read by their byte offset: never tried."""
        return False

    @property
    def in_order(self) -> bool:
        """Whether the file is read once in all: a chunk may hold images of several blocks."""
        return False

    @property
    def affine(self) -> None:
        """Images have none."""
        return

    @property
    def vertices(self) -> None:
        """Nor have they these."""
        return

    @property
    def how(self) -> str:
        """How its values are read, for people."""
        return "through h5py"

    def describe_trial(self, trial: int) -> str:
        """An image of the block, for people."""
        return f"image {self.ids[trial]} ({self.file.id_words})"

    def open(
        self, cache: TrialCache | None = None, *, trust_offsets: bool = True
    ) -> AbstractContextManager[BlockReader]:
        """Open the stimulus file again. *cache*: shared by the blocks of one run in one process."""
        return _open_images(self, cache or TrialCache())


class BlockReader:
    """An open stimulus file, for one block. Made by ImageBlock.open; one thread at a time."""

    by_offset = can_hand_rows = False
    how = "through h5py"

    def __init__(self, block: ImageBlock, data: h5py.Dataset, cache: TrialCache) -> None:
        self.block = block
        self._data = data
        self._cache = cache

    def read_into(
        self,
        trials: range,
        out: np.ndarray,
        executor: Executor,
        check_stop: Callable[[], None] = lambda: None,
        on_rows: OnRows | None = None,
        on_read: OnRead = ignore_read,
    ) -> None:
        """Read consecutive images *trials* (0-based, in the block) into *out*, uint8 (len(trials), values).

        Each chunk is read once, whole: what other blocks need of it goes to the cache. Beside *out* it takes one chunk
        of images, where the block needs only some of it. *on_read* counts the values of *out* while they come;
        *executor* and *on_rows* are not used. Raises SourceError.
        """
        ids = np.asarray(self.block.ids[trials.start : trials.stop])
        with explain_read_errors(f"images {ids[0]} to {ids[-1]}", self.block):
            rows = ids - self.block.file.first
            for start, stop in _find_pieces(rows, self.block.file.chunk_images):
                self._read_piece(rows[start:stop], out[start:stop], check_stop)
                on_read(out[start:stop].size)
            check_not_cut(self.block)

    def _read_piece(self, rows: np.ndarray, out: np.ndarray, check_stop: Callable[[], None]) -> None:
        file, chunk = self.block.file, self.block.file.chunk_images
        first = int(rows[0]) // chunk * chunk
        span = range(first, min(first + chunk, file.shape[0]))
        if chunk == 1 or len(rows) == len(span):
            read_by_h5py(self._data, range(int(rows[0]), int(rows[-1]) + 1), out, check_stop)
            return
        # With the lock held from the look to the end no two blocks read one chunk; h5py has a lock of its own anyway.
        with self._cache.lock:
            if self._cache.take((rows + file.first).tolist(), out):
                return
            whole = np.empty((len(span), out.shape[1]), np.uint8)
            read_by_h5py(self._data, span, whole, check_stop)
            out[:] = whole[rows - first]
            others = sorted(number for number in self.block.others if number - file.first in span)
            self._cache.put(others, whole[np.array(others, int) - file.first - first])


def _find_pieces(rows: np.ndarray, chunk: int) -> Iterator[tuple[int, int]]:
    """Where rows are cut, [start, stop): runs of neighbours where a chunk has one image, else one chunk."""
    same = np.diff(rows) == 1 if chunk == 1 else np.diff(rows // chunk) == 0
    borders = [0, *(np.flatnonzero(~same) + 1).tolist(), len(rows)]
    yield from pairwise(borders)


@contextmanager
def _open_images(block: ImageBlock, cache: TrialCache) -> Iterator[BlockReader]:
    with open_dataset(block.path, block.file.dataset) as data:
        check_same_dataset(data, block, block.file.shape)
        yield BlockReader(block, data, cache)


def make_blocks(files: Sequence[StimulusInfo], ids: Sequence[int], images_per_block: int) -> tuple[ImageBlock, ...]:
    """*ids*, 0-based and ascending, as consecutive blocks. Raises SourceError for an image that no file has.

    Of several *files*, whose ids follow each other, a block lies in one: *images_per_block* divides what precedes each.
    """
    file = files[-1]
    if ids[-1] > file.last:
        raise SourceError(
            f"it has {file.shape[0]} images, and image {ids[-1]} ({file.id_words}) is wanted",
            hint="Give the whole stimulus file, and the trial table that belongs to it.",
            path=file.path,
            expected=ids[-1] + 1,
            found=file.shape[0],
        )
    parts = [ids[start : start + images_per_block] for start in range(0, len(ids), images_per_block)]
    places = [next(file for file in files if part[-1] <= file.last) for part in parts]
    assert all(file.first <= part[0] for file, part in zip(places, parts, strict=True))
    return tuple(
        ImageBlock(SessionNumber(number), *block) for number, block in enumerate(zip(places, parts, strict=True), 1)
    )


def share_chunks(blocks: Sequence[ImageBlock]) -> list[ImageBlock]:
    """The same blocks, each with the images that it reads for others of them."""
    by_file = groupby(blocks, lambda block: block.path)
    return [block for _, group in by_file for block in _share_chunks(list(group))]


def _share_chunks(blocks: list[ImageBlock]) -> list[ImageBlock]:
    """The same for blocks of one file."""
    chunk, first = blocks[0].file.chunk_images, blocks[0].file.first
    if chunk == 1:
        return blocks
    members: dict[int, list[int]] = {}
    # Only the first and the last chunk of a block can hold images of another.
    edges = [{(block.ids[place] - first) // chunk for place in (0, -1)} for block in blocks]
    for block, own in zip(blocks, edges, strict=True):
        for number in block.ids:
            if (number - first) // chunk in own:
                members.setdefault((number - first) // chunk, []).append(number)
    shared = [{number for each in own for number in members[each]} for own in edges]
    return [replace(block, others=frozenset(near - set(block.ids))) for block, near in zip(blocks, shared, strict=True)]
