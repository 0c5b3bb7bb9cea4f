"""A session file: HDF5 with one dataset, laid out as delivered, as one block, or compressed trial by trial."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nsd_zarr.nsd import BETAS_DATASET
from nsd_zarr.places.durable import replace_file
from nsd_zarr.simulate.session import STORED

Shape = tuple[int, int, int, int]
Slabs = Iterable[NDArray[np.int16]]
OnStep = Callable[[], None]


def count_steps(layout: str, shape: Shape) -> int:
    """Steps that writing a session takes: its z slabs, and its trials where they are compressed one by one."""
    trials, slabs = shape[:2]
    return slabs + trials if layout == "gzip" else slabs


def create_session_file(path: Path, shape: Shape, layout: str, slabs: Slabs, on_step: OnStep) -> None:
    """Create the session file *path* of *shape* (trials, z, y, x) from *slabs* of shape (y, x, trial), z ascending.

    Replaces an existing file once the new one is whole; *on_step* is called count_steps times. The earliest file
    format gives superblock 0 and a version-1 B-tree of chunks, as MATLAB leaves them; no time stamps, so that equal
    values give equal bytes. Source: the authors' export code, export.m.
    """
    options, write = LAYOUT_WRITERS[layout]
    with create_dataset(path, shape, **options(shape)) as dataset:
        write(dataset, slabs, on_step)


@contextmanager
def create_dataset(path: Path, shape: tuple[int, ...], **options: Any) -> Iterator[Any]:
    """The dataset of a new HDF5 file at *path*, which takes the place of another one once all is written."""
    import h5py

    partial = path.with_name(path.name + ".partial")
    with h5py.File(partial, "w", libver="earliest") as file:
        yield file.create_dataset(
            BETAS_DATASET, shape, STORED, fillvalue=0, fill_time="never", track_times=False, **options
        )
    replace_file(partial, path)


def write_voxel_chunks(dataset: Any, slabs: Slabs, on_step: OnStep) -> None:
    """Write one-voxel chunks as raw bytes: half the time of assigning slabs, 4 s against 8 s for (750, 83, 104, 81)."""
    write_chunk = dataset.id.write_direct_chunk
    for z, slab in enumerate(slabs):
        rows, columns, trials = slab.shape
        places = itertools.product(range(rows), range(columns))
        for (y, x), chunk in zip(places, slab.reshape(-1, trials), strict=True):
            write_chunk((0, z, y, x), chunk)
        on_step()


def write_slabs(dataset: Any, slabs: Slabs, on_step: OnStep) -> None:
    """Assign each slab to its z of *dataset*, of shape (trials, z, y, x)."""
    for z, slab in enumerate(slabs):
        dataset[:, z] = np.moveaxis(slab, 2, 0)
        on_step()


def write_trial_chunks(dataset: Any, slabs: Slabs, on_step: OnStep) -> None:
    """Write trial by trial from slabs, by way of an unnamed scratch file: a chunk must be compressed whole, once.

    Not through a memory map, which would count as a whole session of resident memory.
    """
    with create_scratch(Path(dataset.file.filename).parent, dataset.shape) as trials:
        write_slabs(trials, slabs, on_step)
        for trial in range(len(trials)):
            dataset[trial] = trials[trial]
            on_step()


@contextmanager
def create_scratch(folder: Path, shape: Shape) -> Iterator[Any]:
    """A dataset of *shape*, one block, in an unnamed file in *folder*, which is gone at the end."""
    import h5py

    with tempfile.TemporaryFile(dir=folder) as file, h5py.File(file, "w") as scratch:
        yield scratch.create_dataset(BETAS_DATASET, shape, STORED, fill_time="never")


LAYOUT_WRITERS: dict[str, tuple[Callable[[Shape], dict[str, Any]], Callable[[Any, Slabs, OnStep], None]]] = {
    "nsd": (lambda shape: {"chunks": (shape[0], 1, 1, 1)}, write_voxel_chunks),
    "contiguous": (lambda shape: {}, write_slabs),
    "gzip": (
        lambda shape: {"chunks": (1, *shape[1:]), "compression": "gzip", "compression_opts": 1, "shuffle": True},
        write_trial_chunks,
    ),
}
"""For each layout: the options of its dataset, and what writes it."""
