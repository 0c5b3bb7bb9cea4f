"""Samples as one array, `.npy` or `.hdf5`: rows at their offsets, so that a killed run goes on at any of them."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from nsd_zarr.exports.choice import Part
from nsd_zarr.exports.tables import make_columns
from nsd_zarr.places.growing import GrowingFile


class MatrixWriter(ABC):
    """Writes rows at their offsets in a file whose head is made first."""

    def __init__(self, folder: Path, part: Part) -> None:
        self.part = part
        self._path = folder / part.name
        self._file = GrowingFile(self._path)
        self._offset = 0

    def start(self, done: int) -> int:
        """See Writer."""
        if done == self.part.rows and self._path.is_file():
            return done
        if not self._file.has_begun or not done:
            self._file.begin(self._create)
            done = 0
        self._offset = self._find_offset(self._file.partial)
        return done

    def write(self, first: int, values: np.ndarray) -> None:
        """See Writer."""
        self._file.write(self._offset + first * self.part.row_bytes, values.data.cast("B"))

    def keep(self) -> bool:
        """See Writer."""
        self._file.flush()
        return True

    def finish(self) -> None:
        """See Writer."""
        self._file.commit()

    def close(self) -> None:
        """See Writer."""
        self._file.close()

    @abstractmethod
    def _create(self, path: Path) -> None:
        """Make the file at *path* with everything but the rows."""

    @abstractmethod
    def _find_offset(self, path: Path) -> int:
        """Where the first row of the file at *path* begins."""


class NpyWriter(MatrixWriter):
    """One `.npy` file, C order: `numpy.load(path, mmap_mode="r")` reads its rows."""

    def _create(self, path: Path) -> None:
        with path.open("xb") as file:
            file.write(self._make_head())
            file.truncate(len(self._make_head()) + self.part.rows * self.part.row_bytes)

    def _find_offset(self, path: Path) -> int:
        return len(self._make_head())

    def _make_head(self) -> bytes:
        head = io.BytesIO()
        described = {
            "descr": self.part.betas.dtype.str,
            "fortran_order": False,
            "shape": tuple(map(int, self.part.shape)),
        }
        np.lib.format.write_array_header_1_0(head, described)
        return head.getvalue()


class Hdf5Writer(MatrixWriter):
    """One HDF5 file with dataset `betas`, contiguous; in the plain layout the tables lie beside it in groups."""

    def _create(self, path: Path) -> None:
        import h5py

        with h5py.File(path, "x") as file:
            settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            settings.set_obj_track_times(False)
            kind, space = h5py.h5t.py_create(self.part.betas.dtype), h5py.h5s.create_simple(self.part.shape)
            made = h5py.Dataset(h5py.h5d.create(file.id, b"betas", kind, space, settings))
            if self.part.request.layout == "plain":
                self._describe(file, made)

    def _describe(self, file: Any, betas: Any) -> None:
        about = self.part.betas.attrs
        betas.attrs.update({name: about[name] for name in ("long_name", "units", "zscore", "ddof") if name in about})
        for group, columns in make_columns(self.part.dataset).items():
            for name, values in columns.items():
                text = values.astype(object) if values.dtype.kind in "OUT" else values
                file.create_dataset(f"{group}/{name}", data=text)

    def _find_offset(self, path: Path) -> int:
        import h5py

        with h5py.File(path, "r") as file:
            return int(file["betas"].id.get_offset())
