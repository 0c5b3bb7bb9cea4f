"""Arrays of a store as xarray's lazy indexing asks for them."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from nsd_zarr.buffers import BufferPool
from nsd_zarr.read.bulk import read_rows
from nsd_zarr.read.view import make_view
from nsd_zarr.store.foreign.reader import AnyReader, ZarrReader
from nsd_zarr.store.format import BETAS
from nsd_zarr.store.reader import StageSeconds, TrialReader
from nsd_zarr.store.root import Store
from nsd_zarr.store.small import find_chunk_rows, read_chunk

Key = tuple[Any, ...]
"""One int, slice or 1-D integer array for each axis; arrays select orthogonally."""


class ReadsTrials(Protocol):
    """What reads one trial: TrialReader in counts, PercentReader in percent, ViewReader as asked for."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of what is read."""

    def read_into(self, trial: int, out: np.ndarray, stages: StageSeconds | None = None) -> None:
        """Read one trial."""


def list_counts(reader: Any) -> list[AnyReader]:
    """What reads the stored counts, of which *reader* makes what is asked for: one for each store, none if unknown."""
    if isinstance(reader, (TrialReader, ZarrReader)):
        return [reader]
    if hasattr(reader, "parts"):
        return [counts for part in reader.parts for counts in list_counts(part.reader)]
    inner = next((getattr(reader, name) for name in ("reader", "percent", "view") if hasattr(reader, name)), None)
    return [] if inner is None else list_counts(inner)


def count_requests(reader: Any) -> int:
    """Trials that are worth reading at once because each waits for an answer; 0: as many as there are cores."""
    return max((counts.requests_at_once for counts in list_counts(reader)), default=0)


class TrialArray(BackendArray):
    """`betas`, lazily: whatever is asked for, each trial concerned is decoded once and nothing else is."""

    def __init__(self, trials: ReadsTrials, shape: tuple[int, ...]) -> None:
        self.trials = trials
        self.shape = shape
        self.dtype = trials.dtype
        self.volume_axes = len(shape) - 1

    def gather(self, voxels: np.ndarray) -> TrialArray:
        """The same for some voxels, flat C-order indices in a trial; shape (trial, voxel)."""
        return TrialArray(make_view(self.trials).gather(voxels), (self.shape[0], len(voxels)))

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: Key) -> np.ndarray:
        trial_key, voxel_key = key[0], key[1:]
        if isinstance(trial_key, (int, np.integer)):
            volume = np.empty(self.shape[1:], self.dtype)
            self.trials.read_into(int(trial_key) % self.shape[0], volume)
            return volume if _is_whole(voxel_key, self.shape[1:]) else select(volume, voxel_key).copy()
        wanted = np.arange(self.shape[0])[trial_key].tolist()
        if _is_whole(voxel_key, self.shape[1:]):
            return self._read_whole(wanted)
        return self._read_parts(wanted, voxel_key)

    def _read_whole(self, wanted: list[int]) -> np.ndarray:
        out = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        requests = count_requests(self.trials)
        read_rows(lambda trial, row: self.trials.read_into(trial, out[row]), wanted, out, requests)
        return out

    def _read_parts(self, wanted: list[int], voxel_key: Key) -> np.ndarray:
        buffers = BufferPool()
        with buffers.borrow(self.shape[1:], self.dtype) as volume:
            out = np.empty((len(wanted), *select(volume, voxel_key).shape), self.dtype)

        def read(trial: int, row: int) -> None:
            with buffers.borrow(self.shape[1:], self.dtype) as volume:
                self.trials.read_into(trial, volume)
                out[row] = select(volume, voxel_key)

        read_rows(read, wanted, out, count_requests(self.trials))
        return out


class SmallArray(BackendArray):
    """An array beside `betas`, read and checked when asked for: the chunks concerned, one at a time."""

    def __init__(self, store: Store, name: str, voxels: np.ndarray | None = None) -> None:
        """*voxels*: flat C-order indices in a volume, which take the place of the volume's axes; None for all."""
        metadata = store.members[name]
        shape, volume = metadata.shape, store.geometry.volume_shape
        # By name, not by length: a surface may have as many vertices as there are trials.
        is_volume = metadata.dims[-len(volume) :] == store.members[BETAS].dims[1:]
        self.store = store
        self.name = name
        self.voxels = voxels
        self.volume_axes = (len(volume) if voxels is None else 1) if is_volume else 0
        self.shape = shape if voxels is None else (*shape[: -len(volume)], len(voxels))
        # The only text in a store of ours is digests of 32 digits.
        text = object if store.zarr_location else "U32"
        self.dtype = np.dtype(text if metadata.is_text else metadata.dtype)

    def gather(self, voxels: np.ndarray) -> SmallArray:
        """The same for some voxels of a volume, flat C-order indices among those of this one."""
        return SmallArray(self.store, self.name, voxels if self.voxels is None else self.voxels[voxels])

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self.read)

    def read(self, key: Key) -> np.ndarray:
        """What *key* selects, orthogonally. Raises DamageFound."""
        rows = find_chunk_rows(self.store.members[self.name])
        if len(self.shape) == self.volume_axes or rows >= self.shape[0]:
            return np.asarray(select(self._read_chunk(0), key))
        if isinstance(key[0], (int, np.integer)):
            chunk, row = divmod(int(key[0]) % self.shape[0], rows)
            return np.array(select(self._read_chunk(chunk)[row], key[1:]))
        wanted = np.arange(self.shape[0])[key[0]]
        probe = select(np.broadcast_to(np.zeros((), self.dtype), self.shape[1:]), key[1:])
        out = np.empty((len(wanted), *probe.shape), self.dtype)
        for chunk in np.unique(wanted // rows).tolist():
            values = self._read_chunk(chunk)
            for place in np.flatnonzero(wanted // rows == chunk).tolist():
                out[place] = select(values[wanted[place] % rows], key[1:])
        return out

    def _read_chunk(self, row: int) -> np.ndarray:
        values = read_chunk(self.store, self.name, row)
        if self.voxels is None:
            return values
        volume = len(self.store.geometry.volume_shape)
        lead = values.shape[: values.ndim - volume]
        return values.reshape(*lead, math.prod(values.shape[len(lead) :]))[..., self.voxels]


def find_lazy(variable: xr.Variable) -> tuple[TrialArray | SmallArray, Key] | None:
    """The array of a store that *variable* still is, unread and unchanged but for what was selected, and that key.

    None for values in memory, Dask arrays and results of arithmetic: what is not known to be the store's own is never
    read from there. The only place that looks inside xarray's lazy arrays; were they to change, it says None.
    """
    data = getattr(variable, "_data", None)
    while isinstance(data, (indexing.MemoryCachedArray, indexing.CopyOnWriteArray)):
        data = data.array
    if isinstance(data, indexing.LazilyIndexedArray) and isinstance(data.array, (TrialArray, SmallArray)):
        return data.array, data.key.tuple
    return None


def make_lazy(array: BackendArray, key: Key | None = None) -> Any:
    """*array*, as xarray opens arrays lazily: kept once it is read, copied before it is written to."""
    lazy: Any = indexing.LazilyIndexedArray(array, None if key is None else indexing.OuterIndexer(key))
    return indexing.MemoryCachedArray(indexing.CopyOnWriteArray(lazy))  # type: ignore[no-untyped-call]


def are_equal_keys(left: Key, right: Key) -> bool:
    """Whether two keys select the same in the same form."""
    return len(left) == len(right) and all(
        type(a) is type(b) and np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b
        for a, b in zip(left, right, strict=True)
    )


def _is_whole(key: Key, shape: tuple[int, ...]) -> bool:
    return all(
        isinstance(part, slice) and part.indices(length) == (0, length, 1)
        for part, length in zip(key, shape, strict=True)
    )


def select(values: np.ndarray, key: Key) -> np.ndarray:
    """Orthogonal selection. Last axis first, so that an int, which drops its axis, leaves those before it in place."""
    for axis in reversed(range(len(key))):
        part = key[axis]
        if isinstance(part, np.ndarray):
            values = values.take(part, axis=axis)
        else:
            values = values[(slice(None),) * axis + (part,)]
    return values
