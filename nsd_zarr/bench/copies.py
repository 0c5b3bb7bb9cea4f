"""The same trials in other forms of file: what one has without a store, or would make by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nsd_zarr.bench.contenders import BATCH, Contender, Deliver
from nsd_zarr.layout import COUNTS_PER_PERCENT
from nsd_zarr.read.dataset import open_dataset

COPIED_TRIALS = 256
"""Trials of a copy: as many as fit the page cache beside the rest."""


def make_memory_map(store: Path, path: Path) -> None:
    """Write the first trials of *store* to *path* as uncompressed float32 percent (.npy)."""
    betas = open_dataset(store).betas
    shape = (min(COPIED_TRIALS, betas.shape[0]), *betas.shape[1:])
    mapped = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    for trial in range(shape[0]):
        mapped[trial] = betas[trial].values
    mapped.flush()


def make_gzip(store: Path, path: Path) -> None:
    """Write the first trials of *store* to *path* as HDF5, a gzip-compressed chunk a trial."""
    betas = open_dataset(store, raw=True).betas
    shape = (min(COPIED_TRIALS, betas.shape[0]), *betas.shape[1:])
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "betas", shape, betas.dtype, chunks=(1, *shape[1:]), compression="gzip", shuffle=True
        )
        for trial in range(shape[0]):
            data[trial] = betas[trial].values


class MappedTrials:
    """Trials of a memory map, opened where they are read. Picklable."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mapped: Any = None

    def __getitem__(self, trial: int) -> np.ndarray:
        """Trial *trial* (of those that were copied), float32 percent."""
        if self._mapped is None:
            self._mapped = np.load(self.path, mmap_mode="r")
        return np.array(self._mapped[trial % len(self._mapped)])


class GzipTrials:
    """Trials of a gzip-compressed HDF5 file, opened where they are read. Picklable."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data: Any = None

    def __getitem__(self, trial: int) -> np.ndarray:
        """Trial *trial* (of those that were copied), float32 percent."""
        if self._data is None:
            self._data = h5py.File(self.path, "r")["betas"]
        return np.asarray(np.float32(self._data[trial % len(self._data)]) / np.float32(COUNTS_PER_PERCENT))


@contextmanager
def _open_memory_map(path: Path) -> Iterator[Deliver]:
    mapped = np.load(path, mmap_mode="r")
    slot = np.ones((BATCH, *mapped.shape[1:]), np.float32)

    def deliver(trials: Sequence[int]) -> None:
        for position, trial in enumerate(trials):
            slot[position % BATCH] = mapped[trial % len(mapped)]

    yield deliver


@contextmanager
def _open_gzip(path: Path) -> Iterator[Deliver]:
    with h5py.File(path, "r") as file:
        data = file["betas"]
        slot = np.ones((BATCH, *data.shape[1:]), data.dtype)

        def deliver(trials: Sequence[int]) -> None:
            for position, trial in enumerate(trials):
                data.read_direct(slot, np.s_[trial % len(data)], np.s_[position % BATCH])

        yield deliver


def list_copies(mapped: Path, gzipped: Path, trials: int) -> list[Contender]:
    """Readers of a memory map and of a gzip-compressed HDF5 file, as made above of a store of *trials* trials."""
    count = min(COPIED_TRIALS, trials)
    forms = ((mapped, "float32 memory map", "float32", _open_memory_map), (gzipped, "h5py, gzip", "int16", _open_gzip))
    return [
        Contender(name, delivers, 1, partial(make, path), (path,), path.stat().st_size / count, count)
        for path, name, delivers, make in forms
    ]
