"""One session file: what is in it, found without reading values."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from nsd_zarr.errors import NsdZarrError, SourceError
from nsd_zarr.hdf5 import open_hdf5
from nsd_zarr.layout import DTYPE_BYTES, MAX_TRIALS, SessionNumber
from nsd_zarr.source.bounded import open_regular
from nsd_zarr.source.chunk_index import NotRecognised, find_btree
from nsd_zarr.source.find import SessionFile
from nsd_zarr.source.identity import FileIdentity, Inspected, read_identity
from nsd_zarr.source.parts import check_link, find_parts

MAX_TRIAL_BYTES = 2**31 - 1 - 16
"""A trial must fit one Blosc frame. Source: c-blosc, BLOSC_MAX_BUFFERSIZE."""


@dataclass(frozen=True, slots=True)
class SessionInfo:
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

    @property
    def trials(self) -> int:
        """Trials in the session."""
        return self.shape[0]

    @property
    def voxels(self) -> int:
        """Values in one trial."""
        return math.prod(self.shape[1:])

    @property
    def trial_bytes(self) -> int:
        """Bytes of one trial."""
        return self.voxels * np.dtype(self.dtype).itemsize

    @property
    def how(self) -> str:
        """How its values are read, for people."""
        return f"through h5py ({self.offset_refusal})" if self.offset_refusal else "by offset"

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one decoded HDF5 chunk; 0 when there are none."""
        return 0 if self.chunks is None else math.prod(self.chunks) * np.dtype(self.dtype).itemsize

    @property
    def error_session(self) -> SessionNumber:
        """The session that errors name."""
        return self.session

    def describe_trial(self, trial: int) -> str:
        """A trial of the session, for people."""
        return f"trial {trial} of the session"


@contextmanager
def open_dataset(path: Path, name: str, session: int | None = None) -> Iterator[h5py.Dataset]:
    """The dataset *name* of a session file, open for reading. Raises SourceError that says what the file is instead."""
    _check_readable(path, session)
    try:
        file = open_hdf5(path)
    except OSError as error:
        raise _explain_open_error(error, path, session) from error
    with file:
        with explain_hdf5_errors(path, session):
            check_link(file, name, path, session)
            data = _get_dataset(file, name, path, session)
        yield data


@contextmanager
def explain_hdf5_errors(path: Path, session: int | None) -> Iterator[None]:
    """Raise as SourceError what the library raises where metadata are damaged, or of a kind that it cannot express."""
    try:
        yield
    except NsdZarrError:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
        raise SourceError(
            f"HDF5 cannot read how the dataset is stored: {error}",
            hint="Fetch it again, or leave it out with --sessions.",
            path=path,
            session=session,
        ) from error


def inspect_session(file: SessionFile, dataset: str) -> SessionInfo:
    """Inspect one session file: metadata only, no values. Raises SourceError where it is unfit."""
    with open_dataset(file.path, dataset, file.session) as data, explain_hdf5_errors(file.path, file.session):
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
            offset_refusal=_refuse_offsets(data, file.path, parts),
        )


def check_unchanged(info: Inspected) -> None:
    """Refuse a session whose file is no longer the one that was inspected. Raises SourceError."""
    now = read_identity(info.path, info.parts, info.error_session)
    if now != info.identity:
        raise SourceError(
            f"the file changed while it was read: {now.size} bytes, expected {info.identity.size} bytes with the "
            "modification time that it had",
            hint="Let the copy finish, then run the same command again.",
            path=info.path,
            session=info.error_session,
            expected=info.identity,
            found=now,
        )


def check_not_cut(info: Inspected) -> None:
    """Refuse values just read through the library when the file, or one of its parts, is shorter than it was.

    The library itself reads zeros past the end of a file, and fill values for a part that went away. Raises
    SourceError.
    """
    size = read_identity(info.path, info.parts, info.error_session).size
    if size < info.identity.size:
        raise SourceError(
            f"the file was cut short while it was read: {size} bytes, expected {info.identity.size}",
            hint="Fetch it again, then run the same command again.",
            path=info.path,
            session=info.error_session,
            expected=info.identity.size,
            found=size,
        )


def _refuse_offsets(data: h5py.Dataset, path: Path, parts: tuple[Path, ...]) -> str:
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
    return next((reason for holds, reason in checks if not holds), "") or _refuse_index(data, path)


def _refuse_index(data: h5py.Dataset, path: Path) -> str:
    try:
        with open(path, "rb") as file:
            find_btree(data, file.fileno())
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


def _check_readable(path: Path, session: int | None) -> None:
    try:
        with open(open_regular(path), "rb") as file:
            file.read(1)
    except SourceError as error:
        error.session = session
        raise
    except OSError as error:
        raise SourceError(
            f"cannot read the file: {error.strerror}",
            hint="Check that it is there and that you may read it.",
            path=path,
            session=session,
        ) from error


def _explain_open_error(error: OSError, path: Path, session: int | None) -> SourceError:
    text = str(error)
    if "truncated file" in text:
        problem, hint = f"the file is cut short ({text.split('(')[-1].rstrip(')')})", "Fetch it again."
    elif "signature not found" in text:
        problem, hint = "not an HDF5 file", "Fetch it again, or leave it out with --sessions."
    else:
        problem, hint = f"HDF5 cannot open the file: {text}", "Fetch it again, or leave it out with --sessions."
    return SourceError(problem, hint=hint, path=path, session=session)


def _get_dataset(file: h5py.File, name: str, path: Path, session: int | None) -> h5py.Dataset:
    if _is_dataset(file, name):
        plain = h5py.h5d.open(file.id, name.encode())
        properties = plain.get_create_plist()
        if properties.get_layout() != h5py.h5d.VIRTUAL and not properties.get_external_count():
            # Without prefixes: HDF5 refuses two that differ on a dataset that is open elsewhere in the process.
            return h5py.Dataset(plain)
        plain.close()
        # HDF5 looks for external files in the working directory unless it is given the folder.
        access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
        access.set_efile_prefix(os.fsencode(path.resolve().parent))
        access.set_virtual_prefix(os.fsencode(path.resolve().parent))
        return h5py.Dataset(h5py.h5d.open(file.id, name.encode(), access))
    there = ", ".join(_describe(file, key) for key in file) or "nothing"
    raise SourceError(
        f"no dataset /{name.strip('/')}: found {there}",
        hint="Name the dataset with --dataset.",
        path=path,
        session=session,
        expected=name,
        found=list(file),
    )


def _describe(file: h5py.File, key: str) -> str:
    # Links are not followed: they may lead outside.
    if not isinstance(file.get(key, getlink=True), h5py.HardLink):
        return f"/{key} (a link)"
    return f"/{key}" if _is_dataset(file, key) else f"/{key} (not a dataset)"


def _is_dataset(file: h5py.File, name: str) -> bool:
    # Asked of the old group interface: h5py's own getclass has HDF5 add up the chunk index, 0.05 to 1.1 s a file.
    try:
        return bool(h5py.h5g.get_objinfo(file.id, name.encode()).type == h5py.h5g.DATASET)
    except (KeyError, ValueError, RuntimeError):
        return False
