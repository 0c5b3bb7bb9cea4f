"""One session file in HDF5: what is in it, found without reading values."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from nsd_zarr.errors import SourceError
from nsd_zarr.layout import DTYPE_BYTES, MAX_TRIALS, SessionNumber
from nsd_zarr.source.find import SessionFile
from nsd_zarr.source.hdf5.chunk_index import NotRecognised, find_btree
from nsd_zarr.source.hdf5.dataset import explain_hdf5_errors, open_dataset, open_source
from nsd_zarr.source.hdf5.parts import find_parts
from nsd_zarr.source.hdf5.reader import DatasetReader, open_reader
from nsd_zarr.source.identity import FileIdentity, read_identity
from nsd_zarr.source.session_part import SessionPart
from nsd_zarr.source.trial_cache import TrialCache

MAX_TRIAL_BYTES = 2**31 - 1 - 16
"""A trial must fit one Blosc frame. Source: c-blosc, BLOSC_MAX_BUFFERSIZE."""


@dataclass(frozen=True, slots=True)
class SessionInfo(SessionPart):
    """One session, inspected. Picklable: tasks open the file again."""

    session: SessionNumber
    """Session number."""
    path: Path
    """The HDF5 file."""
    dataset: str
    """Name of the dataset in it."""
    identity: FileIdentity
    """What the file looked like."""
    parts: tuple[Path, ...]
    """Other files that hold its values (virtual or external storage)."""
    shape: tuple[int, ...]
    """(trial, z, y, x) or (trial, vertex)."""
    dtype: str
    """As NumPy names it, without byte order."""
    chunks: tuple[int, ...] | None
    """HDF5 chunk shape; None when contiguous or virtual."""
    offset_refusal: str
    """Why its rows cannot be read by byte offset; empty when the layout is the dataset's own."""
    affine: tuple[tuple[float, ...], ...] | None = None
    """HDF5 files of the dataset have none."""
    vertices: tuple[int, int] | None = None
    """One file does not say of which hemisphere it is."""

    in_order = False

    @property
    def values_name(self) -> str:
        """Which values of the file are meant, for people."""
        return f"dataset /{self.dataset}"

    @property
    def by_offset(self) -> bool:
        """Whether its rows can be read by byte offset."""
        return not self.offset_refusal

    @property
    def how(self) -> str:
        """How its values are read, for people."""
        return f"through h5py ({self.offset_refusal})" if self.offset_refusal else "by offset"

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one decoded HDF5 chunk; 0 when there are none."""
        return 0 if self.chunks is None else math.prod(self.chunks) * np.dtype(self.dtype).itemsize

    def open(
        self, cache: TrialCache | None = None, *, trust_offsets: bool = True
    ) -> AbstractContextManager[DatasetReader]:
        """Open the file again; *trust_offsets* False reads through h5py alone. No session needs the cache."""
        return open_reader(self, self.dataset, by_offset=trust_offsets and self.by_offset)


def inspect_session(file: SessionFile, dataset: str) -> SessionInfo:
    """Inspect one session file: metadata only, no values. Raises SourceError where it is unfit."""
    with (
        open_source(file.path, file.session, whole=False) as (fetched, descriptor),
        open_dataset(file.path, dataset, file.session, fetched) as data,
        explain_hdf5_errors(file.path, file.session),
    ):
        _check_shape(data, file)
        _check_filters(data, file)
        parts = find_parts(data, file.path, file.session)
        return SessionInfo(
            session=file.session,
            path=file.path,
            dataset=dataset,
            identity=read_identity(file.path, parts, file.session),
            parts=parts,
            shape=tuple(data.shape),
            dtype=data.dtype.newbyteorder("=").name,
            chunks=data.chunks,
            offset_refusal=_refuse_offsets(data, descriptor, parts),
        )


def _refuse_offsets(data: h5py.Dataset, descriptor: int, parts: tuple[Path, ...]) -> str:
    """Why the dataset is not plainly stored rows of all trials; empty when it is. The only place of this rule."""
    row = (data.shape[0], *(1 for _ in data.shape[1:]))
    properties = data.id.get_create_plist()
    checks = [
        (not data.is_virtual and not parts, "virtual or external storage"),
        (data.chunks is not None, "contiguous"),
        (data.chunks in (None, row), f"chunks of {data.chunks}, not {row}"),
        (properties.get_nfilters() == 0, "filtered (compressed or checksummed)"),
        # Compared as HDF5 types: a type of reduced precision has the same NumPy dtype and other bits.
        (data.id.get_type() == h5py.h5t.py_create(data.dtype.newbyteorder("<")), "not plain little-endian numbers"),
        (properties.fill_value_defined() != h5py.h5d.FILL_VALUE_UNDEFINED, "no fill value"),
    ]
    return next((reason for holds, reason in checks if not holds), "") or _refuse_index(data, descriptor)


def _refuse_index(data: h5py.Dataset, descriptor: int) -> str:
    try:
        find_btree(data, descriptor)
    except NotRecognised as error:
        return str(error)
    return ""


def _check_shape(data: h5py.Dataset, file: SessionFile) -> None:
    problem = ""
    if data.shape is None or len(data.shape) not in (2, 4):
        problem = f"shape {data.shape}, expected (trial, z, y, x) or (trial, vertex)"
    elif math.prod(data.shape) == 0:
        problem = f"shape {data.shape} holds no value"
    elif data.shape[0] > MAX_TRIALS:
        problem = f"{data.shape[0]} trials, expected at most {MAX_TRIALS} (the dataset's sessions have 750)"
    elif data.dtype.name not in DTYPE_BYTES or h5py.check_enum_dtype(data.dtype):
        kind = "enum" if h5py.check_enum_dtype(data.dtype) else data.dtype.name
        problem = f"dtype {kind}, expected integers or floats (the dataset's own are int16)"
    elif math.prod(data.shape[1:]) * data.dtype.itemsize > MAX_TRIAL_BYTES:
        problem = f"one trial of shape {data.shape[1:]} is more than the {MAX_TRIAL_BYTES} bytes that Blosc takes"
    if problem:
        raise SourceError(
            f"dataset {data.name}: {problem}",
            hint="Name another dataset with --dataset.",
            path=file.path,
            session=file.session,
        )


def _check_filters(data: h5py.Dataset, file: SessionFile) -> None:
    properties = data.id.get_create_plist()
    filters = [properties.get_filter(number)[::3] for number in range(properties.get_nfilters())]
    missing = [f"{code} ({name.decode(errors='replace')})" for code, name in filters if not h5py.h5z.filter_avail(code)]
    if missing:
        raise SourceError(
            f"dataset {data.name}: filter {', '.join(missing)}, which this HDF5 does not have",
            hint="Name the folder of its plugin in HDF5_PLUGIN_PATH, or write the file without it (h5repack -f NONE).",
            path=file.path,
            session=file.session,
        )
