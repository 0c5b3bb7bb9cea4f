"""One hemisphere of a session as MGH: big-endian float32, percent signal change, one trial after the other.

Source: FreeSurfer, "MghFormat"; of what the dataset writes analysis_transformfsaverage.m.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from nsd_zarr.errors import SourceError
from nsd_zarr.layout import MAX_TRIALS, SessionNumber
from nsd_zarr.source.forms.by_offset import TrialFile
from nsd_zarr.source.forms.content import MGH, find_content, read_file_head
from nsd_zarr.source.forms.files import SessionFile
from nsd_zarr.source.forms.independent import ImageReader, open_image
from nsd_zarr.source.hdf5.reader import explain_read_errors
from nsd_zarr.source.identity import FileIdentity, read_identity
from nsd_zarr.source.protocol import PartReader
from nsd_zarr.source.session import MAX_TRIAL_BYTES
from nsd_zarr.source.session_part import SessionPart
from nsd_zarr.source.trial_cache import TrialCache

FIRST_BYTE = 284
"""Of the values. Source: FreeSurfer, "MghFormat"."""
MAX_TAIL_BYTES = 2**20
"""Behind the values: scan parameters and tags, some hundred bytes where FreeSurfer writes them."""
_FLOAT = 3
_TYPES = {0: "uint8", 1: "int32", 3: "float32", 4: "int16"}


@dataclass(frozen=True, slots=True)
class MghHemisphere(SessionPart):
    """One hemisphere of a session in an MGH file, inspected. Picklable."""

    session: SessionNumber
    """Session number."""
    path: Path
    """The file."""
    identity: FileIdentity
    """What it looked like."""
    shape: tuple[int, ...]
    """(trial, vertex)."""
    parts: tuple[Path, ...] = ()
    """No other files hold its values."""
    dtype: str = "float32"
    """As the store has them: percent signal change, NaN where there are no data."""
    affine: tuple[tuple[float, ...], ...] | None = None
    """A surface has none."""
    vertices: tuple[int, int] | None = None
    """The file does not say of which hemisphere it is."""

    values_name = "surface"
    by_offset = in_order = True
    how = "by offset"
    chunk_bytes = 0

    def open(
        self, cache: TrialCache | None = None, *, trust_offsets: bool = True
    ) -> AbstractContextManager[PartReader]:
        """Open the file again; *trust_offsets* False reads through nibabel. No session needs the cache."""
        return _open_mgh(self) if trust_offsets else _open_nibabel(self)


def inspect_mgh(file: SessionFile, dataset: str) -> MghHemisphere:
    """Inspect one hemisphere as MGH: its header and its length. *dataset* is of HDF5. Raises SourceError."""
    shape = _read_shape(file.path, file.session)
    return MghHemisphere(file.session, file.path, read_identity(file.path, (), file.session), shape)


def _read_shape(path: Path, session: SessionNumber) -> tuple[int, int]:
    """(trial, vertex), by the header. Raises SourceError for other numbers, and for a file of another length."""
    head, is_packed = read_file_head(path, session)

    def refuse(problem: str, hint: str = "Give the dataset's own file.") -> SourceError:
        return SourceError(f"MGH file: {problem}", hint=hint, path=path, session=session)

    if len(head) < 28 or find_content(head) != MGH:
        raise refuse("its first bytes are not its header", "Fetch it again, or leave it out with --sessions.")
    width, height, depth, frames, kind = struct.unpack(">5i", head[4:24])
    if is_packed or kind != _FLOAT:
        dtype = _TYPES.get(kind, f"of type {kind}")
        raise refuse(f"{'packed (mgz), ' * is_packed}values are {dtype}, expected float32 that is not packed")
    if (height, depth) != (1, 1) or not 1 <= 4 * width <= MAX_TRIAL_BYTES or not 1 <= frames <= MAX_TRIALS:
        raise refuse(f"shape {(width, height, depth, frames)}, expected (vertex, 1, 1, trial)")
    expected, size = FIRST_BYTE + 4 * width * frames, os.stat(path).st_size
    if not expected <= size <= expected + MAX_TAIL_BYTES:
        raise refuse(
            f"{size} bytes, expected {expected} for {frames} trials of {width} vertices",
            "The file is probably cut short: fetch it again, or leave it out with --sessions.",
        )
    return frames, width


@contextmanager
def _open_mgh(part: MghHemisphere) -> Iterator[TrialFile]:
    found = _read_shape(part.path, part.session)
    if found != part.shape:
        raise SourceError(
            f"the file was replaced by another: shape {found}, expected {part.shape}",
            hint="Run the same command again.",
            path=part.path,
            session=part.session,
            expected=part.shape,
            found=found,
        )
    with open(part.path, "rb") as file:
        yield TrialFile(part, file.fileno(), FIRST_BYTE, is_swapped=True)


@contextmanager
def _open_nibabel(part: MghHemisphere) -> Iterator[ImageReader]:
    with explain_read_errors("the header", part), open_image(part) as reader:
        yield reader
