"""Samples as Parquet: a row a sample, with every column of its trial, and `betas` a list of fixed length."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from nsd_zarr.exports.choice import Part
from nsd_zarr.exports.tables import make_columns
from nsd_zarr.places.durable import DurableFile


class ParquetWriter:
    """Writes one Parquet file, a row group a block. Kept whole: rows are found by what stands at its end."""

    def __init__(self, folder: Path, part: Part) -> None:
        self.part = part
        self._path = folder / part.name
        self._columns = make_columns(part.dataset)["trials"]
        self._file: DurableFile | None = None
        self._table: Any = None

    def start(self, done: int) -> int:
        """See Writer."""
        if done == self.part.rows and self._path.is_file():
            return done
        import pyarrow.parquet

        self._file = DurableFile(self._path)
        self._table = pyarrow.parquet.ParquetWriter(str(self._file.partial), self._make_rows(0, self._empty()).schema)
        return 0

    def _empty(self) -> np.ndarray:
        return np.empty((0, *self.part.shape[1:]), self.part.betas.dtype)

    def _make_rows(self, first: int, values: np.ndarray) -> Any:
        import pyarrow

        flat = pyarrow.array(values.reshape(-1))
        lists = pyarrow.FixedSizeListArray.from_arrays(flat, math.prod(self.part.shape[1:]))
        columns = {name: pyarrow.array(each[first : first + len(values)]) for name, each in self._columns.items()}
        axes = ",".join(map(str, self.part.betas.dims[1:]))
        shape = ",".join(map(str, self.part.shape[1:]))
        about = {"betas_axes": axes, "betas_shape": shape, "units": str(self.part.betas.attrs.get("units", ""))}
        return pyarrow.table(columns | {"betas": lists}, metadata=about)

    def write(self, first: int, values: np.ndarray) -> None:
        """See Writer."""
        self._table.write_table(self._make_rows(first, values))

    def keep(self) -> bool:
        """See Writer."""
        return False

    def finish(self) -> None:
        """See Writer."""
        if self._file is not None:
            self._table.close()
            self._file.commit()
            self._file = None

    def close(self) -> None:
        """See Writer."""
        if self._file is not None:
            self._table.close()
            self._file.discard()
