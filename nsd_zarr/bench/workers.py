"""PyTorch's own DataLoader over each reader: what training code does without a loader made for the store."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nsd_zarr.bench.contenders import BATCH, Contender, Deliver
from nsd_zarr.layout import COUNTS_PER_PERCENT
from nsd_zarr.store.root import Store

WORKERS = (2, 4)
"""Worker processes of a DataLoader."""
START = "spawn"
"""How workers start: threads of readers that were measured before do not go through a fork."""
WORKER_TRIALS = 256
"""Trials a round: it moves whole samples between processes, and is slow enough to be seen on few."""


class ZarrTrials:
    """A dataset over zarr-python, as one writes it by hand: opened where it is read, float32 percent. Picklable."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self._array: Any = None

    def __getitem__(self, trial: int) -> np.ndarray:
        """Trial *trial* of the store, from 0."""
        if self._array is None:
            import zarr

            self._array = zarr.open_array(self.store / "betas", mode="r")
        return np.asarray(np.float32(self._array[trial]) / np.float32(COUNTS_PER_PERCENT))


class TensorStoreTrials(ZarrTrials):
    """The same over TensorStore."""

    def __getitem__(self, trial: int) -> np.ndarray:
        """Trial *trial* of the store, from 0."""
        if self._array is None:
            import tensorstore

            kvstore = {"driver": "file", "path": str(self.store / "betas")}
            self._array = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, read=True).result()
        return np.asarray(np.float32(self._array[trial].read().result()) / np.float32(COUNTS_PER_PERCENT))


class Batches:
    """A batch sampler whose trials can be exchanged between two iterations."""

    trials: Sequence[int] = ()

    def __iter__(self) -> Iterator[list[int]]:
        return (list(self.trials[start : start + BATCH]) for start in range(0, len(self.trials), BATCH))

    def __len__(self) -> int:
        return -(-len(self.trials) // BATCH)


def list_data_loaders(store: Store, others: dict[str, tuple[Callable[[], Any], float]]) -> list[Contender]:
    """DataLoaders over TrialDataset, zarr-python, TensorStore and *others*; none where PyTorch is not installed.

    *others*: name -> what makes the dataset, and its bytes on disk a trial (0: as the store has it).
    """
    if not importlib.util.find_spec("torch"):
        return []
    from nsd_zarr.torch import TrialDataset

    made: dict[str, tuple[Callable[[], Any], float]] = {
        "TrialDataset": (partial(TrialDataset, store.path), 0.0),
        "zarr-python": (partial(ZarrTrials, store.path), 0.0),
    }
    if importlib.util.find_spec("tensorstore"):
        made["TensorStore"] = (partial(TensorStoreTrials, store.path), 0.0)
    return [
        Contender(
            f"DataLoader over {name}", "float32", workers, partial(_open, make, workers), (), stored, WORKER_TRIALS
        )
        for name, (make, stored) in (made | others).items()
        for workers in WORKERS
    ]


@contextmanager
def _open(make: Callable[[], Any], workers: int) -> Iterator[Deliver]:
    from torch.utils.data import DataLoader

    batches = Batches()
    with _let_many_workers():
        loader = DataLoader(
            make(),
            batch_sampler=batches,
            num_workers=workers,
            persistent_workers=True,
            multiprocessing_context=START,
        )

    def deliver(trials: Sequence[int]) -> None:
        batches.trials = trials
        with _let_many_workers():
            for _ in loader:
                pass

    yield deliver


@contextmanager
def _let_many_workers() -> Iterator[None]:
    """More workers than cores: PyTorch warns of what is to be measured."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")
        yield
