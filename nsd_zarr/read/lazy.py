"""Arrays of a store as xarray's lazy indexing asks for them."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from nsd_zarr.store.reader import StageSeconds
from nsd_zarr.store.root import Store, read_small_array
from nsd_zarr.store.slices import open_array

Key = tuple[Any, ...]
"""One int, slice or 1-D integer array for each axis; arrays select orthogonally."""


class ReadsTrials(Protocol):
    """What reads one trial: TrialReader in counts, PercentReader in percent."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of what is read."""

    def read_into(self, trial: int, out: np.ndarray, stages: StageSeconds | None = None) -> None:
        """Read one trial."""


class TrialArray(BackendArray):
    """`betas`, lazily: whatever is asked for, each trial concerned is decoded once and nothing else is."""

    def __init__(self, trials: ReadsTrials, shape: tuple[int, ...]) -> None:
        self.trials = trials
        self.shape = shape
        self.dtype = trials.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: Key) -> np.ndarray:
        trial_key, voxel_key = key[0], key[1:]
        if isinstance(trial_key, (int, np.integer)):
            volume = np.empty(self.shape[1:], self.dtype)
            self.trials.read_into(int(trial_key) % self.shape[0], volume)
            return volume if _is_whole(voxel_key, self.shape[1:]) else _select(volume, voxel_key).copy()
        wanted = np.arange(self.shape[0])[trial_key].tolist()
        if _is_whole(voxel_key, self.shape[1:]):
            return self._read_whole(wanted)
        return self._read_parts(wanted, voxel_key)

    def _read_whole(self, wanted: list[int]) -> np.ndarray:
        out = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        for position, trial in enumerate(wanted):
            if position and trial == wanted[position - 1]:
                out[position] = out[position - 1]
            else:
                self.trials.read_into(trial, out[position])
        return out

    def _read_parts(self, wanted: list[int], voxel_key: Key) -> np.ndarray:
        volume = np.empty(self.shape[1:], self.dtype)
        part = _select(volume, voxel_key)
        out = np.empty((len(wanted), *part.shape), self.dtype)
        for position, trial in enumerate(wanted):
            if not (position and trial == wanted[position - 1]):
                self.trials.read_into(trial, volume)
            out[position] = _select(volume, voxel_key)
        return out


class SmallArray(BackendArray):
    """A small array of the store, read whole and checked when first asked for."""

    def __init__(self, store: Store, name: str) -> None:
        metadata = store.members[name]
        self.store = store
        self.name = name
        self.shape = tuple(metadata["shape"])
        # The only text in a store is digests of 32 digits.
        self.dtype = np.dtype("U32" if metadata["data_type"] == "string" else metadata["data_type"])

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: Key) -> np.ndarray:
        return np.asarray(_select(read_small_array(self.store, self.name), key))


class SliceArray(BackendArray):
    """An array beside `betas` of a store that zarr-python reads."""

    def __init__(self, store: Store, name: str) -> None:
        metadata = store.members[name]
        self.store = store
        self.name = name
        self.shape = tuple(metadata["shape"])
        self.dtype = np.dtype(object if metadata["data_type"] == "string" else metadata["data_type"])

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: Key) -> np.ndarray:
        return np.asarray(open_array(self.store, self.name).oindex[key], self.dtype)


def _is_whole(key: Key, shape: tuple[int, ...]) -> bool:
    return all(
        isinstance(part, slice) and part.indices(length) == (0, length, 1)
        for part, length in zip(key, shape, strict=True)
    )


def _select(values: np.ndarray, key: Key) -> np.ndarray:
    """Orthogonal selection. Last axis first, so that an int, which drops its axis, leaves those before it in place."""
    for axis in reversed(range(len(key))):
        part = key[axis]
        if isinstance(part, np.ndarray):
            values = values.take(part, axis=axis)
        else:
            values = values[(slice(None),) * axis + (part,)]
    return values
