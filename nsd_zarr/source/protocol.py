"""What a part of a source offers to be converted, whatever its form: a session file, or a block of stimulus images.

A new form is one module with a class that has these members; find.py knows its file names, and inspect.py which
inspector such a file gets. Whoever converts, compares or repairs uses these members only.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import numpy as np

from nsd_zarr.errors import SourceError
from nsd_zarr.layout import SessionNumber
from nsd_zarr.source.identity import FileIdentity, read_identity
from nsd_zarr.source.trial_cache import TrialCache

OnRows = Callable[[np.ndarray, slice], None]
"""Takes values of shape (voxel, trial) and the slice of voxels that they belong to. Called from several threads, never
twice for one voxel; the array is used again after it returns."""
OnRead = Callable[[int], None]
"""Is given how many values were read since the call before. Called from several threads."""


def ignore_read(values: int) -> None:
    """Count nothing."""


class PartReader(Protocol):
    """An open part. One thread at a time calls it."""

    @property
    def by_offset(self) -> bool:
        """Whether values are read by their byte offset in the file, without the library of its format."""

    @property
    def can_hand_rows(self) -> bool:
        """Whether read_into can give *on_rows* all voxels but those that are zero in every trial."""

    @property
    def how(self) -> str:
        """How values are read, for people: "by offset"."""

    def read_into(
        self,
        trials: range,
        out: np.ndarray,
        executor: Executor,
        check_stop: Callable[[], None] = lambda: None,
        on_rows: OnRows | None = None,
        on_read: OnRead = ignore_read,
    ) -> None:
        """Read consecutive *trials* (0-based, in the part) into *out*, shape (len(trials), voxels), stored dtype.

        Every value of *out* is written. *executor* may run tasks, of which none is left on return; *check_stop* is
        called between pieces of work and may raise; *on_rows*, only where can_hand_rows, is given every row that the
        file stores, with all its trials, but for some that are zero in all of them; *on_read* is given, piece by piece,
        the number of values of *out*. Raises SourceError.
        """


class SourcePart(Protocol):
    """What one unit of work converts, inspected. Picklable: tasks open the file again."""

    @property
    def session(self) -> SessionNumber:
        """Number of the session, or of the block of images, from 1."""

    @property
    def error_session(self) -> SessionNumber | None:
        """The session that errors name; None where the part is no session."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def parts(self) -> tuple[Path, ...]:
        """Other files that hold its values."""

    @property
    def identity(self) -> FileIdentity:
        """What the file looked like when it was inspected."""

    @property
    def values_name(self) -> str:
        """Which values of the file are meant, for people: "dataset /betas"."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(trial, z, y, x), (trial, vertex), or (image, row, column, channel)."""

    @property
    def dtype(self) -> str:
        """As NumPy names it, without byte order."""

    @property
    def trials(self) -> int:
        """Trials in the part."""

    @property
    def voxels(self) -> int:
        """Values in one trial."""

    @property
    def trial_bytes(self) -> int:
        """Bytes of one trial."""

    @property
    def by_offset(self) -> bool:
        """Whether its values can be read by their byte offset in the file."""

    @property
    def in_order(self) -> bool:
        """Whether the file holds one trial after the other: passes in order then read it once, however many they are.

        So the trials that come next can be read while those before are written, and few are held at a time.
        """

    @property
    def affine(self) -> tuple[tuple[float, ...], ...] | None:
        """RAS+ millimetres from NIfTI voxel indices (x, y, z, 1), four rows; None where the file does not say it."""

    @property
    def vertices(self) -> tuple[int, int] | None:
        """Of a surface, how many of its vertices are the left and how many the right hemisphere's; None if unknown."""

    @property
    def how(self) -> str:
        """How its values are read, for people."""

    @property
    def chunk_bytes(self) -> int:
        """Decoded bytes of the largest piece of the file that can only be read whole; 0 where there is none."""

    def describe_trial(self, trial: int) -> str:
        """Name of a trial, 0-based in the part, for people."""

    def open(
        self, cache: TrialCache | None = None, *, trust_offsets: bool = True
    ) -> AbstractContextManager[PartReader]:
        """Open the file again. Raises SourceError, also where it holds another shape or dtype than it did.

        *cache*: shared by the parts of one run in one process. *trust_offsets* False reads through the format's library
        alone.
        """


def check_unchanged(part: SourcePart) -> None:
    """Refuse a part whose file is no longer the one that was inspected. Raises SourceError."""
    now = read_identity(part.path, part.parts, part.error_session)
    if now != part.identity:
        raise SourceError(
            f"the file changed while it was read: {now.size} bytes, expected {part.identity.size} bytes with the "
            "modification time that it had",
            hint="Let the copy finish, then run the same command again.",
            path=part.path,
            session=part.error_session,
            expected=part.identity,
            found=now,
        )


def check_not_cut(part: SourcePart) -> None:
    """Refuse values just read through HDF5 when the file, or another one that holds its values, is shorter than before.

    HDF5 itself reads zeros past the end of a file, and fill values for another file that went away. Raises SourceError.
    """
    size = read_identity(part.path, part.parts, part.error_session).size
    if size < part.identity.size:
        raise SourceError(
            f"the file was cut short while it was read: {size} bytes, expected {part.identity.size}",
            hint="Fetch it again, then run the same command again.",
            path=part.path,
            session=part.error_session,
            expected=part.identity.size,
            found=size,
        )
