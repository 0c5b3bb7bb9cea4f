"""Sessions as NIfTI: trials lie one behind the other, as in the store, packed by gzip or not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nsd_zarr.errors import SourceError
from nsd_zarr.layout import SessionNumber
from nsd_zarr.source.forms.by_offset import TrialFile
from nsd_zarr.source.forms.content import read_file_head
from nsd_zarr.source.forms.files import SessionFile
from nsd_zarr.source.forms.gzip_stream import LIBRARY, GzipStream, StreamError, check_length
from nsd_zarr.source.forms.header import Affine, parse_header
from nsd_zarr.source.forms.independent import ImageReader, open_image
from nsd_zarr.source.hdf5.reader import explain_read_errors
from nsd_zarr.source.identity import FileIdentity, read_identity
from nsd_zarr.source.protocol import OnRead, OnRows, PartReader, ignore_read
from nsd_zarr.source.session_part import SessionPart
from nsd_zarr.source.trial_cache import TrialCache


@dataclass(frozen=True, slots=True)
class NiftiSession(SessionPart):
    """One session in a NIfTI file, inspected. Picklable."""

    session: SessionNumber
    """Session number."""
    path: Path
    """The file."""
    identity: FileIdentity
    """What it looked like."""
    shape: tuple[int, ...]
    """(trial, z, y, x)."""
    first_byte: int
    """Byte of the first value, in the unpacked file."""
    is_packed: bool
    """Whether the file is gzip."""
    affine: Affine | None
    """RAS+ millimetres from NIfTI voxel indices, by its own header."""
    parts: tuple[Path, ...] = ()
    """No other files hold its values."""
    dtype: str = "int16"
    """As the dataset has them."""
    vertices: tuple[int, int] | None = None
    """It is no surface."""

    values_name = "image"
    in_order = True
    chunk_bytes = 0

    @property
    def by_offset(self) -> bool:
        """Whether its values can be read by their byte offset in the file."""
        return not self.is_packed

    @property
    def how(self) -> str:
        """How its values are read, for people."""
        return f"as one stream (gzip, by {LIBRARY})" if self.is_packed else "by offset"

    def open(
        self, cache: TrialCache | None = None, *, trust_offsets: bool = True
    ) -> AbstractContextManager[PartReader]:
        """Open the file again; *trust_offsets* False reads through nibabel. No session needs the cache."""
        return _open_nifti(self) if trust_offsets else _open_nibabel(self)


def inspect_nifti(file: SessionFile, dataset: str) -> NiftiSession:
    """Inspect one session as NIfTI: its header and its length, no values. *dataset* is of HDF5. Raises SourceError."""
    head, is_packed = read_file_head(file.path, file.session)
    header = parse_header(head, file.path, file.session)
    _check_length(file, is_packed, header.file_bytes, header.shape)
    return NiftiSession(
        file.session,
        file.path,
        read_identity(file.path, (), file.session),
        header.shape,
        header.offset,
        is_packed,
        header.affine,
    )


def _check_length(file: SessionFile, is_packed: bool, expected: int, shape: tuple[int, ...]) -> None:
    """Refuse a file that does not hold what its header says, no byte less or more. Raises SourceError."""
    problem = ""
    try:
        with open(file.path, "rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            if is_packed:
                check_length(opened.fileno(), expected)
            elif size != expected:
                problem = f"{size} bytes"
    except StreamError as error:
        problem = f"its gzip stream cannot be it: {error}"
    except OSError as error:
        problem = f"it cannot be read ({error.strerror})"
    if problem:
        raise SourceError(
            f"NIfTI file of shape {shape} (trial, z, y, x), which is {expected} bytes unpacked; {problem}",
            hint="The file is probably cut short, or was changed: fetch it again, or leave it out with --sessions.",
            path=file.path,
            session=file.session,
            expected=expected,
        )


@contextmanager
def _open_nifti(part: NiftiSession) -> Iterator[PartReader]:
    head, is_packed = read_file_head(part.path, part.session)
    header = parse_header(head, part.path, part.session)
    found = (header.shape, header.offset, is_packed)
    if found != (part.shape, part.first_byte, part.is_packed):
        raise SourceError(
            f"the file was replaced by another: shape {header.shape}, expected {part.shape}",
            hint="Run the same command again.",
            path=part.path,
            session=part.session,
            expected=(part.shape, part.first_byte, part.is_packed),
            found=found,
        )
    with open(part.path, "rb") as file:
        yield StreamReader(part, file.fileno()) if is_packed else TrialFile(part, file.fileno(), part.first_byte)


@contextmanager
def _open_nibabel(part: NiftiSession) -> Iterator[ImageReader]:
    with explain_read_errors("the header", part), open_image(part) as reader:
        yield reader


class StreamReader:
    """An open gzip file: trials come in order. Read in order, they are unpacked once; one thread at a time."""

    by_offset = can_hand_rows = False

    def __init__(self, part: NiftiSession, descriptor: int) -> None:
        self._part, self._descriptor = part, descriptor
        self._stream = GzipStream(descriptor)
        self.how = part.how

    def read_into(
        self,
        trials: range,
        out: np.ndarray,
        executor: Executor,
        check_stop: Callable[[], None] = lambda: None,
        on_rows: OnRows | None = None,
        on_read: OnRead = ignore_read,
    ) -> None:
        """As PartReader.read_into; from the beginning again for trials before those that were read last.

        Behind the last trial the stream must end, and its checksum be right.
        """
        part = self._part
        with explain_read_errors(f"trials {trials.start} to {trials.stop - 1}", part):
            first = part.first_byte + trials.start * part.trial_bytes
            if self._stream.position > first:
                self._stream = GzipStream(self._descriptor)
            self._stream.skip(first - self._stream.position, check_stop)
            for row in out:
                self._stream.read_into(memoryview(row).cast("B"), check_stop)
                on_read(row.size)
            if trials.stop == part.trials:
                self._stream.finish()
