"""The trials of several subjects as one: numbered behind each other, in rows as long as the longest of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nsd_zarr.errors import ConfigError, NsdZarrError, StoreError
from nsd_zarr.loading.images import PairedImages
from nsd_zarr.loading.request import Request
from nsd_zarr.loading.trials import Asked, Location, Shape, StoreTrials
from nsd_zarr.options import SubjectWords, parse_subjects
from nsd_zarr.read.lazy import ReadsTrials
from nsd_zarr.science.shared_images import SharedImages, join_images
from nsd_zarr.store.digest import make_digest
from nsd_zarr.store.foreign.open import find_path, open_any
from nsd_zarr.store.format import NSD_ID
from nsd_zarr.store.reader import StageSeconds
from nsd_zarr.store.root import Store
from nsd_zarr.store.tree.document import read_listed_subjects
from nsd_zarr.store.tree.groups import is_tree, locate_group

PAD, LIST, SUBJECT = "pad", "list", "subject"
"""How values of unequal shape become a batch: padded, with a mask; as a list; or of one subject a batch."""


def open_trials(
    location: Location, asked: Asked, subjects: SubjectWords | None, batch_by: str | None, unequal: str
) -> StoreTrials | SubjectsTrials:
    """What is asked for of the store of one subject, or of several. Raises ConfigError, StoreError, DamageFound."""
    path = find_path(location)
    if batch_by not in (None, SUBJECT) or unequal not in (PAD, LIST):
        raise ConfigError(
            f"batch_by = {batch_by!r}, unequal = {unequal!r}, expected batch_by 'subject' or None, unequal 'pad' or "
            "'list'",
            hint='Say batch_by="subject", for example.',
        )
    opened = _open_one(location, path)
    if opened is None:
        return _open_subjects(path, asked, subjects, batch_by or unequal)
    if subjects is not None or batch_by is not None or unequal != PAD:
        raise ConfigError(
            "subjects, batch_by and unequal are for a store with a group for each subject, and this is none",
            hint="Leave them out; nsd_zarr.convert(..., subjects=...) makes such a store.",
            path=opened.location,
        )
    return asked.find_in(opened)


def _open_one(location: Location, path: Path) -> Store | None:
    """The store of one subject; None where there are several, which a store behind a URL is not asked beforehand."""
    try:
        return open_any(location)
    except NsdZarrError:
        if is_tree(path):
            return None
        raise


def _open_subjects(tree: Path, asked: Asked, subjects: SubjectWords | None, form: str) -> SubjectsTrials:
    chosen = read_listed_subjects(tree) if subjects is None else parse_subjects(subjects)
    if not chosen:
        raise StoreError("no subject of the store is finished", hint="Convert one.", path=tree)
    parts = {}
    for subject in chosen:
        try:
            parts[subject] = _ask(asked, subject, chosen).find_in(open_any(locate_group(tree, subject)))
        except NsdZarrError as error:
            error.subject = subject
            raise
    return SubjectsTrials(str(tree), parts, form)


def _ask(asked: Asked, subject: int, subjects: Sequence[int]) -> Asked:
    """What is asked for of one subject. Raises ConfigError for what would mean another thing in each store."""
    names = ("trials", "zscore_trials", "roi")
    return replace(asked, **{name: _choose(name, getattr(asked, name), subject, subjects) for name in names})


def _choose(name: str, value: Any, subject: int, subjects: Sequence[int]) -> Any:
    if isinstance(value, Mapping) and all(isinstance(key, (int, np.integer)) for key in value):
        if subject not in value:
            raise ConfigError(f"{name} says nothing for this subject", hint=f"Say {name}={{{subject}: ...}} as well.")
        return value[subject]
    is_words = value is None or isinstance(value, (str, Mapping))
    is_words = is_words or (isinstance(value, (list, tuple)) and all(isinstance(word, str) for word in value))
    if not is_words and len(subjects) > 1:
        raise ConfigError(
            f"{name} as numbers or booleans are those of one subject, and there are {len(subjects)}",
            hint=f"Give them by subject, {name}={{{subject}: ...}}, or by name.",
        )
    return value


@dataclass(frozen=True, slots=True)
class JoinedReader:
    """Reads trials of several subjects, numbered behind each other. Thread-safe and fork-safe as its parts are."""

    parts: tuple[StoreTrials, ...]
    """The trials of each subject."""
    subjects: tuple[int, ...]
    """Their numbers."""
    firsts: np.ndarray
    """Number of the first trial of each part, int64."""
    lengths: np.ndarray
    """Values in a trial of each part, int64."""

    @property
    def reader(self) -> ReadsTrials:
        """That of the first subject: all are in one place, and are asked alike."""
        return self.parts[0].reader

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of what is read."""
        return self.reader.dtype

    def read_into(self, trial: int, out: np.ndarray, stages: StageSeconds | None = None) -> None:
        """Read a trial into the first values of *out*, C-contiguous; those behind them become 0."""
        number = int(np.searchsorted(self.firsts, trial, "right")) - 1
        part, flat = self.parts[number], out.reshape(-1)
        length = int(self.lengths[number])
        try:
            part.reader.read_into(trial - int(self.firsts[number]), flat[:length].reshape(part.row_shape), stages)
        except NsdZarrError as error:
            error.subject = self.subjects[number]
            raise
        flat[length:] = 0


class SubjectsTrials:
    """Trials of several subjects, numbered behind each other. Picklable as StoreTrials."""

    def __init__(self, location: str, parts: dict[int, StoreTrials], form: str) -> None:
        """*parts*: by subject, ascending. *form*: PAD, LIST or SUBJECT. Raises ConfigError."""
        self.location, self.parts, self.form = location, parts, form
        stores = tuple(parts.values())
        self.shapes = [part.row_shape for part in stores]
        self.lengths = np.array([np.prod(shape) for shape in self.shapes], np.int64)
        counts = [part.count for part in stores]
        self.firsts: np.ndarray = np.cumsum([0, *counts[:-1]])
        self.count = sum(counts)
        self.is_equal = len(set(self.shapes)) == 1
        self._check()
        self.row_shape: Shape = self.shapes[0] if self.is_equal else (int(self.lengths.max()),)
        self.reader: ReadsTrials = JoinedReader(stores, tuple(parts), self.firsts, self.lengths)
        self.table = self._join_tables(counts)
        self.selection = self._join_selections()

    def __getstate__(self) -> dict[str, Any]:
        return {"location": self.location, "parts": self.parts, "form": self.form}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _check(self) -> None:
        if self.form == PAD and not self.is_equal and any(len(shape) > 1 for shape in self.shapes):
            raise ConfigError(
                f"volumes of unequal shape, {' and '.join(map(str, dict.fromkeys(self.shapes)))}",
                hint='Take a region, roi="nsdgeneral"; or batches of one subject, batch_by="subject"; or a list in '
                'each batch, unequal="list".',
                found=self.shapes,
            )
        if len({(part.dtype, part.reader.dtype) for part in self.parts.values()}) > 1:
            raise ConfigError(
                f"values of {' and '.join(sorted({str(part.dtype) for part in self.parts.values()}))}",
                hint="Make a dataset of subjects whose sources have one dtype.",
            )

    def _join_tables(self, counts: Sequence[int]) -> dict[str, np.ndarray]:
        tables = [part.table for part in self.parts.values()]
        names = [name for name in tables[0] if all(name in table for table in tables)]
        subjects = {"subject": np.repeat(np.array(list(self.parts), np.int64), counts)}
        return subjects | {name: np.concatenate([table[name] for table in tables]) for name in names}

    def _join_selections(self) -> np.ndarray | None:
        chosen = [part.selection for part in self.parts.values()]
        if all(selection is None for selection in chosen):
            return None
        whole = [np.arange(part.count) if part.selection is None else part.selection for part in self.parts.values()]
        return np.concatenate([first + numbers for first, numbers in zip(self.firsts, whole, strict=True)])

    @property
    def batch_by(self) -> str | None:
        """By what batches are made: "subject", or None."""
        return SUBJECT if self.form == SUBJECT else None

    @property
    def has_mask(self) -> bool:
        """Whether rows are regions of unequal length, of which a mask says how long each is."""
        return self.form == PAD and all(len(shape) == 1 for shape in self.shapes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the stored values."""
        return next(iter(self.parts.values())).dtype

    @property
    def request(self) -> Request:
        """What is asked for of each trial: of the first subject, where it differs."""
        return next(iter(self.parts.values())).request

    @property
    def fingerprint(self) -> str:
        """What distinguishes these stores from others."""
        return make_digest(" ".join(f"{n} {part.fingerprint}" for n, part in self.parts.items()).encode())

    def describe(self) -> str:
        """What distinguishes the values, and their batches, from others of the same stores."""
        return "".join(part.describe() for part in self.parts.values()) + f" {self.batch_by}"

    def format(self) -> str:
        """What it is, for people."""
        return f"subjects {', '.join(map(str, self.parts))}, betas {', '.join(map(str, self.shapes))}"

    def find_parts(self, trials: np.ndarray) -> np.ndarray:
        """Place in `parts` of each of *trials*, intp."""
        return np.searchsorted(self.firsts, trials, "right") - 1

    def find_shape(self, trial: int) -> Shape:
        """Shape of the values of *trial*, as a sample has them."""
        return self.row_shape if self.form == PAD else self.shapes[int(self.find_parts(np.array(trial)))]

    def find_row(self, betas: np.ndarray, row: int, group: int) -> np.ndarray:
        """The memory of a row of a batch: batches of one subject lie close together, however long others' rows are."""
        return np.asarray(self.find_rows(betas, group)[row])

    def find_rows(self, betas: Any, group: int) -> Any:
        """The memory of a batch of betas: of one subject in its own shape. *betas*: (rows, *row_shape)."""
        if group < 0 or self.is_equal:
            return betas
        values = betas.reshape(-1)[: len(betas) * int(self.lengths[group])]
        return values.reshape(len(betas), *self.shapes[group])

    def make_mask(self, trials: np.ndarray) -> np.ndarray:
        """Which values of a row are of the subject, bool (len(trials), voxel); none where a row only fills up."""
        lengths = np.where(trials < 0, 0, self.lengths[self.find_parts(trials)])
        mask: np.ndarray = np.arange(self.row_shape[0]) < lengths[..., np.newaxis]
        return mask

    def pair(self, images: Location) -> PairedImages:
        """The image of each trial: of one store of images, whoever saw it. Raises StoreError."""
        return PairedImages.join([part.pair(images) for part in self.parts.values()])

    def find_shared_images(self) -> SharedImages:
        """The images of which every subject has trials in the selection. Raises StoreError without a trial table."""
        if NSD_ID not in self.table:
            raise StoreError(
                "not every subject has a trial table, which says what image each trial showed",
                hint="Attach it: nsd-zarr attach STORE NSD_ROOT.",
                path=self.location,
            )
        trials = np.arange(self.count) if self.selection is None else self.selection
        return join_images(self.table[NSD_ID][trials], self.table["subject"][trials])
