"""A session on a surface: both hemispheres joined along vertex, left before right, or one of them alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nsd_zarr.errors import SourceError
from nsd_zarr.layout import SessionNumber
from nsd_zarr.nsd import HEMISPHERES
from nsd_zarr.source.forms.files import SessionFile
from nsd_zarr.source.identity import FileIdentity, read_identity
from nsd_zarr.source.protocol import OnRead, OnRows, PartReader, SourcePart, ignore_read
from nsd_zarr.source.trial_cache import TrialCache


@dataclass(frozen=True, slots=True)
class SurfaceSession:
    """A session on a surface, inspected. Picklable."""

    sides: tuple[SourcePart, ...]
    """The left and the right hemisphere, or one of them, each of shape (trial, vertex)."""
    identity: FileIdentity
    """What the files looked like."""
    vertices: tuple[int, int] | None
    """Of the left and of the right hemisphere; 0 of one that is not there."""
    affine: tuple[tuple[float, ...], ...] | None = None
    """A surface has none."""

    @property
    def session(self) -> SessionNumber:
        """Session number."""
        return self.sides[0].session

    @property
    def error_session(self) -> SessionNumber | None:
        """The session that errors name."""
        return self.session

    @property
    def path(self) -> Path:
        """The first file."""
        return self.sides[0].path

    @property
    def parts(self) -> tuple[Path, ...]:
        """The other files."""
        return (*self.sides[0].parts, *(path for side in self.sides[1:] for path in (side.path, *side.parts)))

    @property
    def values_name(self) -> str:
        """Which values of the files are meant, for people."""
        return self.sides[0].values_name

    @property
    def shape(self) -> tuple[int, ...]:
        """(trial, vertex)."""
        return (self.trials, self.voxels)

    @property
    def dtype(self) -> str:
        """As NumPy names it."""
        return self.sides[0].dtype

    @property
    def trials(self) -> int:
        """Trials in the session."""
        return self.sides[0].trials

    @property
    def voxels(self) -> int:
        """Vertices of all hemispheres."""
        return sum(side.voxels for side in self.sides)

    @property
    def trial_bytes(self) -> int:
        """Bytes of one trial."""
        return sum(side.trial_bytes for side in self.sides)

    @property
    def by_offset(self) -> bool:
        """Whether its values can be read by their byte offset in the files."""
        return all(side.by_offset for side in self.sides)

    @property
    def in_order(self) -> bool:
        """Whether the files hold one trial after the other."""
        return all(side.in_order for side in self.sides)

    @property
    def how(self) -> str:
        """How its values are read, for people."""
        return _join_words([side.how for side in self.sides])

    @property
    def chunk_bytes(self) -> int:
        """Decoded bytes of the largest piece that can only be read whole."""
        return max(side.chunk_bytes for side in self.sides)

    def describe_trial(self, trial: int) -> str:
        """A trial of the session, for people."""
        return self.sides[0].describe_trial(trial)

    def open(
        self, cache: TrialCache | None = None, *, trust_offsets: bool = True
    ) -> AbstractContextManager[PartReader]:
        """Open every file again; see SourcePart.open."""
        return _open_sides(self, cache, trust_offsets)


def join_sides(file: SessionFile, sides: Sequence[SourcePart]) -> SurfaceSession:
    """The session of *file* from its inspected hemispheres. Raises SourceError where they do not belong together."""
    first = sides[0]
    for side in sides:
        if len(side.shape) != 2:
            raise SourceError(
                f"{side.values_name}: shape {side.shape}, expected (trial, vertex) in a file of one hemisphere",
                hint="Give {lh,rh}.betas_sessionBB of a surface.",
                path=side.path,
                session=file.session,
                expected=2,
                found=len(side.shape),
            )
        if (side.trials, side.dtype) != (first.trials, first.dtype):
            raise SourceError(
                f"{side.path.name} has {side.trials} trials of {side.dtype}, expected {first.trials} of {first.dtype} "
                f"as {first.path.name} has",
                hint="One of them is probably cut short: fetch both again, or leave the session out with --sessions.",
                path=side.path,
                session=file.session,
                expected=(first.trials, first.dtype),
                found=(side.trials, side.dtype),
            )
    counts = dict(zip([file.side, *HEMISPHERES[1:]], [side.voxels for side in sides], strict=False))
    left, right = (counts.get(side, 0) for side in HEMISPHERES)
    others = [path for side in sides for path in (side.path, *side.parts)][1:]
    return SurfaceSession(tuple(sides), read_identity(file.path, others, file.session), (left, right))


def split_file(file: SessionFile) -> list[SessionFile]:
    """The files of the hemispheres of *file*, each as a session file of its own."""
    paths = [file.path] if file.right is None else [file.path, file.right]
    return [replace(file, path=path, right=None, side="") for path in paths]


@contextmanager
def _open_sides(part: SurfaceSession, cache: TrialCache | None, trust_offsets: bool) -> Iterator[SurfaceReader]:
    with ExitStack() as stack:
        readers = [stack.enter_context(side.open(cache, trust_offsets=trust_offsets)) for side in part.sides]
        yield SurfaceReader(readers, [side.voxels for side in part.sides])


class SurfaceReader:
    """The open hemispheres of a session. One thread at a time."""

    def __init__(self, readers: Sequence[PartReader], vertices: Sequence[int]) -> None:
        self._readers = readers
        self._borders = np.cumsum([0, *vertices]).tolist()

    @property
    def by_offset(self) -> bool:
        """Whether values are read by byte offset."""
        return all(reader.by_offset for reader in self._readers)

    @property
    def can_hand_rows(self) -> bool:
        """Whether read_into can hand on rows."""
        return all(reader.can_hand_rows for reader in self._readers)

    @property
    def how(self) -> str:
        """How values are read, for people."""
        return _join_words([reader.how for reader in self._readers])

    def read_into(
        self,
        trials: range,
        out: np.ndarray,
        executor: Executor,
        check_stop: Callable[[], None] = lambda: None,
        on_rows: OnRows | None = None,
        on_read: OnRead = ignore_read,
    ) -> None:
        """As PartReader.read_into, one hemisphere after the other."""
        for place, reader in enumerate(self._readers):
            first, last = self._borders[place : place + 2]
            rows = None if on_rows is None else _move_rows(on_rows, first)
            reader.read_into(trials, out[:, first:last], executor, check_stop, rows, on_read)


def _move_rows(on_rows: OnRows, first: int) -> OnRows:
    def take(rows: np.ndarray, voxels: slice) -> None:
        on_rows(rows, slice(first + voxels.start, first + voxels.stop))

    return take


def _join_words(words: Sequence[str]) -> str:
    return " and ".join(dict.fromkeys(words))
