"""Trials of a store for PyTorch: a map-style dataset for the stock DataLoader."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nsd_zarr.errors import StoreError
from nsd_zarr.read.percent import PercentReader
from nsd_zarr.store.reader import TrialReader
from nsd_zarr.store.root import Store, open_store

try:
    import torch
    from torch.utils.data import Dataset
except ImportError as error:
    raise ImportError('nsd_zarr.torch needs PyTorch: pip install "nsd-zarr[torch]"') from error

__all__ = ["TrialDataset"]

Sample = dict[str, Any]


class TrialDataset(Dataset[Sample]):
    """Trials of one store as tensors.

    `dataset[i]` is a dict: "betas", float32 tensor of percent signal change, shape (z, y, x) ((vertex,) for surfaces;
    float sources keep their dtype); "trial", the trial in the store, from 0; "session", from 1; "trial_in_session",
    from 0. All but "betas" are Python ints, which a DataLoader collates to int64 tensors.

    *store*: path of a finished store. *trials*: which ones, as booleans over all trials or as trial numbers (in that
    order, repeats allowed); None for all. *transform*: called with each sample, returns what is handed out.

    Picklable, without open files or data: give it to any number of workers, started by fork, spawn or forkserver.
    Raises StoreError or DamageFound as nsd_zarr.open_dataset; IndexError for trials outside the store.
    """

    def __init__(
        self,
        store: str | os.PathLike[str],
        *,
        trials: Any = None,
        transform: Callable[[Sample], Any] | None = None,
    ) -> None:
        opened = open_store(Path(os.path.abspath(store)))
        self._selection = None if trials is None else select_trials(trials, opened.geometry.trials)
        self.transform = transform
        self._attach(opened)

    def _attach(self, store: Store) -> None:
        self.store = store
        self._reader = PercentReader(TrialReader(store))

    def __getstate__(self) -> dict[str, Any]:
        return {
            "path": os.fspath(self.store.path),
            "fingerprint": self.store.fingerprint,
            "selection": self._selection,
            "transform": self.transform,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        store = open_store(Path(state["path"]))
        if store.fingerprint != state["fingerprint"]:
            raise StoreError(
                "the store was replaced by another since this dataset was made",
                hint="Make the dataset again.",
                path=store.path,
            )
        self._selection = state["selection"]
        self.transform = state["transform"]
        self._attach(store)

    def __len__(self) -> int:
        return self.store.geometry.trials if self._selection is None else len(self._selection)

    def __getitem__(self, index: int) -> Any:
        """Sample *index* of the selection, negative from its end. Raises IndexError; DamageFound, naming the trial."""
        trial = self._find_trial(index)
        values = np.empty(self.store.geometry.volume_shape, self._reader.dtype)
        self._reader.read_into(trial, values)
        session, inside = self.store.geometry.locate_trial(trial)
        sample = {
            "betas": torch.from_numpy(values),
            "trial": trial,
            "session": int(session),
            "trial_in_session": int(inside),
        }
        return sample if self.transform is None else self.transform(sample)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Samples of a batch, in the order of *indices*, read in the order in which they lie in the store."""
        order = sorted(range(len(indices)), key=lambda position: self._find_trial(indices[position]))
        samples: list[Any] = [None] * len(indices)
        for position in order:
            samples[position] = self[indices[position]]
        return samples

    def _find_trial(self, index: int) -> int:
        position = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= position < len(self):
            raise IndexError(f"sample {index} is outside the dataset's {len(self)} trials")
        return position if self._selection is None else int(self._selection[position])


def select_trials(trials: Any, count: int) -> np.ndarray:
    """Trial numbers, int64, from booleans over all *count* trials or from integers. Raises IndexError, TypeError."""
    wanted = np.asarray(trials)
    if wanted.dtype == bool:
        if wanted.shape != (count,):
            raise IndexError(f"a selection of shape {wanted.shape}, expected one boolean for each of {count} trials")
        return np.flatnonzero(wanted)
    if wanted.ndim != 1 or (wanted.size and wanted.dtype.kind not in "iu"):
        raise TypeError(f"trials are booleans or integers in one dimension, not {wanted.dtype} of shape {wanted.shape}")
    numbers = wanted.astype(np.int64)
    numbers[numbers < 0] += count
    if ((numbers < 0) | (numbers >= count)).any():
        raise IndexError(f"trials {numbers.min()} to {numbers.max()} are not all within the store's {count} trials")
    return numbers
