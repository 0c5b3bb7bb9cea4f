"""Reading blocks of stimulus images, whatever their chunking: each chunk once in a run, within bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from threading import Lock

import h5py
import numpy as np

from nsd_zarr.errors import SourceError
from nsd_zarr.source.gather import OnRows
from nsd_zarr.source.reader import SessionReader, explain_read_errors, open_session, read_by_h5py
from nsd_zarr.source.session import SessionInfo, check_not_cut, open_dataset
from nsd_zarr.source.stimuli import ImageBlock

AnySource = SessionInfo | ImageBlock


class ImageCache:
    """Images that came with the chunk of another block, until their own block takes them. Thread-safe."""

    def __init__(self) -> None:
        self.lock = Lock()
        self._images: dict[int, np.ndarray] = {}

    def put(self, ids: Sequence[int], images: np.ndarray) -> None:
        """Keep copies of *images*."""
        self._images |= {number: image.copy() for number, image in zip(ids, images, strict=True)}

    def take(self, ids: Sequence[int], out: np.ndarray) -> bool:
        """Move the images of *ids*, all of one chunk, to *out*; False when they are not here."""
        if ids[0] not in self._images:
            return False
        for row, number in enumerate(ids):
            out[row] = self._images.pop(number)
        return True


class BlockReader:
    """An open stimulus file, for one block. Made by open_images; one thread at a time."""

    by_offset = can_hand_rows = False

    def __init__(self, block: ImageBlock, data: h5py.Dataset, image_cache: ImageCache) -> None:
        self.block = block
        self._data = data
        self._image_cache = image_cache

    def read_into(
        self,
        trials: range,
        out: np.ndarray,
        executor: Executor,
        check_stop: Callable[[], None] = lambda: None,
        on_rows: OnRows | None = None,
    ) -> None:
        """Read consecutive images *trials* (0-based, in the block) into *out*, uint8 (len(trials), values).

        Each chunk is read once, whole: what other blocks need of it goes to the cache. Beside *out* it takes one chunk
        of images, where the block needs only some of it. *executor* and *on_rows* are SessionReader's alone. Raises
        SourceError.
        """
        ids = np.asarray(self.block.ids[trials.start : trials.stop])
        with explain_read_errors(f"images {ids[0]} to {ids[-1]}", self.block):
            for start, stop in _find_pieces(ids, self.block.file.chunk_images):
                self._read_piece(ids[start:stop], out[start:stop], check_stop)
            check_not_cut(self.block)

    def _read_piece(self, ids: np.ndarray, out: np.ndarray, check_stop: Callable[[], None]) -> None:
        chunk, count = self.block.file.chunk_images, self.block.file.shape[0]
        first = int(ids[0]) // chunk * chunk
        span = range(first, min(first + chunk, count))
        if chunk == 1 or len(ids) == len(span):
            read_by_h5py(self._data, range(int(ids[0]), int(ids[-1]) + 1), out, check_stop)
            return
        # With the lock held from the look to the end no two blocks read one chunk; h5py has a lock of its own anyway.
        with self._image_cache.lock:
            if self._image_cache.take(ids.tolist(), out):
                return
            whole = np.empty((len(span), out.shape[1]), np.uint8)
            read_by_h5py(self._data, span, whole, check_stop)
            out[:] = whole[ids - first]
            others = sorted(number for number in self.block.others if number in span)
            self._image_cache.put(others, whole[np.array(others, int) - first])


def _find_pieces(ids: np.ndarray, chunk: int) -> Iterator[tuple[int, int]]:
    """Where ids are cut, [start, stop): runs of neighbours where a chunk has one image, else what lies in one chunk."""
    same = np.diff(ids) == 1 if chunk == 1 else np.diff(ids // chunk) == 0
    borders = [0, *(np.flatnonzero(~same) + 1).tolist(), len(ids)]
    yield from pairwise(borders)


@contextmanager
def open_images(block: ImageBlock, image_cache: ImageCache | None = None) -> Iterator[BlockReader]:
    """Open the stimulus file of an inspected block. Raises SourceError."""
    file = block.file
    with open_dataset(file.path, file.dataset) as data:
        if data.shape != file.shape or data.dtype != np.uint8:
            raise SourceError(
                f"the file was replaced by another: {data.dtype.name} of shape {data.shape}, expected uint8 of shape "
                f"{file.shape}",
                hint="Run the same command again.",
                path=file.path,
                expected=file.shape,
                found=data.shape,
            )
        yield BlockReader(block, data, image_cache or ImageCache())


def open_source(
    source: AnySource, image_cache: ImageCache | None = None, *, trust_offsets: bool = True
) -> AbstractContextManager[SessionReader | BlockReader]:
    """Open what one unit of work reads: a session, or a block of images. Raises SourceError."""
    if isinstance(source, ImageBlock):
        return open_images(source, image_cache)
    return open_session(source, trust_offsets=trust_offsets)
