"""The trials of one store, as they are asked for: which, in which form, and what is known of each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nsd_zarr.errors import StoreError
from nsd_zarr.loading.images import PairedImages
from nsd_zarr.loading.request import Request, find_trials, read_table
from nsd_zarr.places.choose import is_remote
from nsd_zarr.store.foreign.open import open_any
from nsd_zarr.store.root import Store

Location = str | os.PathLike[str]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for of each trial, and of which, before a store is at hand."""

    trials: Any = None
    """A word such as "train", booleans or numbers; None for all."""
    roi: Any = None
    """As of Request."""
    hemisphere: str | None = None
    """As of Request."""
    zscore: str | None = None
    """As of Request."""
    zscore_trials: Any = None
    """Those from which a z-score's statistics are taken, given as *trials* are."""
    missing: str = "zero"
    """As of Request."""
    raw: bool = False
    """As of Request."""
    form: str | None = None
    """As of Request."""

    def find_in(self, store: Store) -> StoreTrials:
        """What is asked for, of *store*. Raises ConfigError, StoreError, DamageFound, IndexError."""
        trials = self.trials if isinstance(self.trials, str) else find_trials(store, self.trials)
        scored = None if self.zscore_trials is None else find_trials(store, self.zscore_trials)
        request = Request(self.roi, self.zscore, self.raw, self.form, scored, self.missing, self.hemisphere)
        return StoreTrials(store, trials, request.resolve(store, find_trials(store, self.trials)))


class StoreTrials:
    """Trials of one store. Picklable, without open files: opened again, it must be the same store."""

    batch_by: str | None = None
    """By what batches are made, see SubjectsTrials; of one store there is nothing to choose."""

    def __init__(self, store: Store, trials: Any, request: Request) -> None:
        """*trials*: a word, or numbers; None for all. *request*: resolved (Request.resolve)."""
        self.store, self.trials, self.request = store, trials, request
        self.selection = find_trials(store, trials)
        self.reader, self.row_shape = request.make_reader(store)
        self.table = {**_make_places(store), **read_table(store)}

    def __getstate__(self) -> dict[str, Any]:
        return {
            "path": self.store.path if is_remote(self.store.path) else self.store.location,
            "fingerprint": self.store.fingerprint,
            "trials": self.trials,
            "request": self.request,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        store = open_any(state["path"])
        check_same(store.fingerprint, state["fingerprint"], store.path)
        self.__init__(store, state["trials"], state["request"])  # type: ignore[misc]

    @property
    def count(self) -> int:
        """Trials in the store."""
        return self.store.geometry.trials

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the stored values."""
        return np.dtype(self.store.geometry.dtype)

    @property
    def fingerprint(self) -> str:
        """What distinguishes the store from others."""
        return self.store.fingerprint

    @property
    def location(self) -> str:
        """Where the store is."""
        return self.store.location

    def describe(self) -> str:
        """What distinguishes the values from others of the same store."""
        return self.request.describe(self.store)

    def find_voxels(self) -> np.ndarray | None:
        """Flat C-order indices of the voxels that are read, intp; None for whole volumes."""
        return self.request.find_voxels(self.store)

    def format(self) -> str:
        """What it is, for people."""
        return f"{len(self.store.geometry.sessions)} sessions, betas {self.row_shape}"

    def find_shape(self, trial: int) -> Shape:
        """Shape of the values of *trial*."""
        return self.row_shape

    def find_row(self, betas: np.ndarray, row: int, group: int) -> np.ndarray:
        """The memory of a row of a batch."""
        return np.asarray(betas[row])

    def pair(self, images: Location) -> PairedImages:
        """The image of each trial. Raises StoreError."""
        return PairedImages(self.store, images, self.selection)


def _make_places(store: Store) -> Mapping[str, np.ndarray]:
    """Columns that say where each trial lies, int64."""
    geometry, trials = store.geometry, np.arange(store.geometry.trials)
    position, inside = np.divmod(trials, geometry.trials_per_session)
    return {"trial": trials, "session": np.array(geometry.sessions, np.int64)[position], "trial_in_session": inside}


def check_same(found: str, expected: str, path: Location) -> None:
    """Refuse a store that is not the one that was opened before. Raises StoreError."""
    if found != expected:
        raise StoreError(
            "the store was replaced by another since this dataset was made",
            hint="Make the dataset again.",
            path=os.fspath(path),
        )
