"""Fuzzes the reader of HDF5's chunk index: session files whose metadata were changed.

    python -m tests.fuzz.hdf5_index --seconds 600 --seed 0

An input is the number of a file, whether it is read in whole, and its bytes. Most are read by our code alone, with the
whole file in the library: it must find rows that lie apart in the file, or not recognise it. Some are read in whole by
both: values must be those that the library reads, or there is an error of ours.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np

from nsd_zarr.errors import SourceError
from nsd_zarr.layout import SessionNumber
from nsd_zarr.source.find import SessionFile
from nsd_zarr.source.hdf5.chunk_index import NotRecognised, read_chunk_index
from nsd_zarr.source.session import inspect_session
from tests.fuzz.child import Try, main

SHAPES = [(3, 2, 5, 7), (2, 11, 13, 17), (5, 300)]
"""Small; a tree of two levels; a surface."""
BYTES = [0, 1, 2, 3, 4, 64, 127, 128, 255]
OFTEN = 60


def make_inputs(random: np.random.Generator) -> Iterator[bytes]:
    """Endless: whole files with some of their metadata changed; the first letter says which, the second how to read."""
    whole = [_make_file(shape) for shape in SHAPES]
    turn = 0
    while True:
        number = int(random.integers(len(SHAPES)))
        data, metadata = bytearray(whole[number][0]), whole[number][1]
        for _ in range(int(random.integers(1, 5))):
            _change(data, metadata, random)
        if random.random() < 0.05:
            del data[int(random.integers(len(data))) :]
        turn += 1
        yield bytes([number, turn % OFTEN == 0]) + data


def _make_file(shape: tuple[int, ...]) -> tuple[bytes, np.ndarray]:
    """Bytes of a file in the dataset's own layout, and where its metadata lie."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "betas_session03.hdf5")
        values = np.arange(1, np.prod(shape) + 1, dtype="int16").reshape(shape)
        with h5py.File(path, "w", libver="earliest") as file:
            file.create_dataset("betas", data=values, chunks=(shape[0], *(1 for _ in shape[1:])))
        metadata, offsets = np.ones(path.stat().st_size, bool), []
        with h5py.File(path) as file:
            file["betas"].id.chunk_iter(lambda row: offsets.append(row.byte_offset))
        metadata[np.add.outer(offsets, np.arange(2 * shape[0]))] = False
        return path.read_bytes(), np.flatnonzero(metadata)


def _change(data: bytearray, metadata: np.ndarray, random: np.random.Generator) -> None:
    place = int(metadata[random.integers(len(metadata))])
    way = random.integers(4)
    if way == 0:
        data[place] ^= 1 << int(random.integers(8))
    elif way == 1:
        data[place] = BYTES[int(random.integers(len(BYTES)))]
    elif way == 2:
        # An address of something else in the file: circles, and nodes of another kind.
        data[place : place + 8] = int(metadata[random.integers(len(metadata))]).to_bytes(8, "little")
    else:
        other = int(metadata[random.integers(len(metadata))])
        data[place : place + 8] = data[other : other + 8]


class _Plain:
    """The whole files, open in the library, for which changed ones are put under our reader."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.data = []
        for number, shape in enumerate(SHAPES):
            path = self.folder / f"whole{number}.h5"
            path.write_bytes(_make_file(shape)[0])
            self.data.append(h5py.File(path, "r", locking=False)["betas"])


def make_try() -> Try:
    """What tries an input."""
    plain = _Plain()
    path = plain.folder / "betas_session03.hdf5"
    descriptor = os.memfd_create("changed")

    def attempt(data: bytes) -> str:
        number, in_whole, data = data[0], data[1], data[2:]
        if in_whole:
            path.write_bytes(data)
            return _try_whole(path)
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))
        return _try_index(plain.data[number], descriptor, len(data))

    return attempt


def _try_index(data: h5py.Dataset, descriptor: int, size: int) -> str:
    try:
        index = read_chunk_index(data, descriptor)
    except NotRecognised:
        return "index not recognised"
    voxels = np.unique(index.voxels)
    assert len(voxels) == len(index.voxels) == len(index.offsets)
    assert len(voxels) == 0 or (voxels[0] >= 0 and voxels[-1] < np.prod(data.shape[1:]))
    assert (np.diff(index.offsets) >= index.row_bytes).all()
    assert len(voxels) == 0 or (index.offsets[0] >= 0 and index.offsets[-1] + index.row_bytes <= size)
    return "index read"


def _try_whole(path: Path) -> str:
    try:
        info = inspect_session(SessionFile(SessionNumber(3), path), "betas")
        if info.trials * info.trial_bytes > 2**24:
            return "file read as larger than is tried"
        out = np.empty((info.trials, info.voxels), info.dtype)
        with info.open() as reader, ThreadPoolExecutor(1) as executor:
            reader.read_into(range(info.trials), out, executor)
    except SourceError:
        return "file refused"
    with h5py.File(path, "r", locking=False) as file:
        expected = file["betas"][...]
    assert out.tobytes() == expected.astype(expected.dtype.newbyteorder("=")).tobytes()
    return "file read"


if __name__ == "__main__":
    main("hdf5_index", make_inputs, make_try)
