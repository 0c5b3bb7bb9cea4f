"""What a loader asks for of each trial, resolved against a store: which trials, which voxels, in which form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nsd_zarr.errors import ConfigError, StoreError
from nsd_zarr.read.lazy import ReadsTrials
from nsd_zarr.read.percent import PercentReader, RoundedReader
from nsd_zarr.read.roi import find_voxels, make_atlas
from nsd_zarr.read.view import ViewReader
from nsd_zarr.science.selection import select_trials
from nsd_zarr.science.splits import select_split
from nsd_zarr.store.digest import make_digest
from nsd_zarr.store.root import Store
from nsd_zarr.store.small import read_array
from nsd_zarr.store.zarr_reader import AnyReader, make_reader

TABLE = ("nsd_id", "image_10k", "repeat", "shared1000")
"""Columns of the trial table that go with each sample, where the store has them."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for of each trial. Small and picklable where regions are given by name."""

    roi: Any = None
    """Name of a ROI or label, several, {ROI: labels}, a mask (volume), flat voxel indices; None for all voxels."""
    zscore: str | None = None
    """"session", or None."""
    raw: bool = False
    """Whether stored counts are asked for."""
    form: str | None = None
    """"float32", "float16", "bfloat16"; None for what the store gives."""

    def __post_init__(self) -> None:
        if self.zscore not in (None, "session"):
            raise ConfigError(f"z-scores by {self.zscore!r}, expected 'session'", hint='Say zscore="session".')
        if self.zscore and self.raw:
            raise ConfigError("counts cannot be z-scored", hint="Leave out raw=True: percent signal change can.")

    def make_reader(self, store: Store) -> tuple[ReadsTrials, tuple[int, ...]]:
        """What reads trials of *store* so, and the shape of one. Raises ConfigError, StoreError, DamageFound."""
        counts = make_reader(store)
        reader: AnyReader | PercentReader | ViewReader = counts if self.raw else PercentReader(counts)
        shape = store.geometry.volume_shape
        if self.roi is not None or self.zscore is not None:
            reader = ViewReader(counts, voxels=find_region(store, self.roi), raw=self.raw)
            # Shuffled trials come from any session: all statistics are kept.
            reader = reader.score(keep_bytes=None) if self.zscore else reader
            shape = reader.shape
        if self.form is None or self.form == reader.dtype.name or reader is counts:
            return reader, shape
        return RoundedReader(reader, self.form), shape

    def describe(self, store: Store) -> str:
        """What distinguishes this request's values from others of the same store; empty where all is as stored."""
        if self.roi is None and self.zscore is None:
            return ""
        voxels = find_region(store, self.roi)
        return f" {'all' if voxels is None else make_digest(voxels)} {self.zscore}"


def find_region(store: Store, roi: Any) -> np.ndarray | None:
    """Flat C-order voxel indices, intp, of a region as Request has it; None for all voxels."""
    if roi is None:
        return None
    shape = store.geometry.volume_shape
    if isinstance(roi, Mapping) or _is_names(roi):
        attributes = {name: metadata["attributes"] for name, metadata in store.members.items()}
        atlas = make_atlas(attributes, lambda name: read_array(store, name))
        if isinstance(roi, Mapping):
            masks = [atlas.find_mask([name], _listed(labels)) for name, labels in roi.items()]
            return find_voxels(np.any(masks, axis=0), shape)
        return find_voxels(atlas.find_mask(_listed(roi)), shape)
    chosen = np.asarray(roi)
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu" or chosen.shape == shape:
        return find_voxels(chosen, shape)
    return select_trials(chosen, store.geometry.voxels).astype(np.intp)


def find_trials(store: Store, trials: Any) -> np.ndarray | None:
    """Trials of *store*: a word such as "train", booleans or numbers; None for all."""
    if trials is None:
        return None
    if isinstance(trials, str):
        return np.flatnonzero(select_split(trials, lambda name: read_column(store, name)))
    return select_trials(trials, store.geometry.trials)


def read_column(store: Store, name: str) -> np.ndarray:
    """A column of the trial table. Raises StoreError when the store has none."""
    if name not in store.members:
        raise StoreError(
            f"the store has no {name}, a column of the trial table",
            hint="Convert from an NSD root folder, which has it, or give trials as booleans or numbers.",
            path=store.path,
        )
    return read_array(store, name)


def read_table(store: Store) -> dict[str, np.ndarray]:
    """Columns of TABLE that the store has, each of shape (trial,)."""
    return {name: read_array(store, name) for name in TABLE if name in store.members}


def _is_names(roi: Any) -> bool:
    return isinstance(roi, str) or (isinstance(roi, Sequence) and all(isinstance(name, str) for name in roi))


def _listed(words: Any) -> list[Any]:
    return [words] if isinstance(words, (str, int, np.integer)) else list(words)
