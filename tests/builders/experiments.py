"""Stores that know their experiment: trial table, masks, regions, statistics and affine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import nsd_zarr
from builders.stores import Arrays, MadeStore, add_arrays


@dataclass(frozen=True)
class MadeExperiment:
    """A store that knows its experiment, and everything that is in it: the oracle."""

    store: MadeStore
    """Its betas."""
    arrays: dict[str, np.ndarray] = field(repr=False)
    """What lies beside them, by name."""

    @property
    def path(self) -> Path:
        """The store's folder."""
        return self.store.path

    @property
    def percent(self) -> np.ndarray:
        """Percent signal change, (trial, z, y, x)."""
        return self.store.percent

    @property
    def session(self) -> np.ndarray:
        """Session of each trial."""
        return np.repeat(self.store.sessions, self.store.trials // len(self.store.sessions))

    @property
    def trained(self) -> np.ndarray:
        """Percent signal change as a TrialDataset delivers it: 0 for what does not vary in a session."""
        return np.where(np.isnan(self.scored), np.float32(0), self.percent)

    @property
    def scored(self) -> np.ndarray:
        """Session z-scores in float64, NaN for what does not vary."""
        values = self.store.stored.astype(np.float64)
        for session in self.store.sessions:
            mine = self.session == session
            deviation, std = values[mine] - values[mine].mean(0), values[mine].std(0)
            values[mine] = np.divide(deviation, std, out=np.full_like(deviation, np.nan), where=std > 0)
        return values


ROI_NAMES = {
    "nsdgeneral": ["nsdgeneral"],
    "prf-visualrois": ["V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4"],
    "Kastner2015": ["hV4", "IPS0", "IPS1", "V3A"],
}
AFFINE = np.array([[1.8, 0, 0, -2.7], [0, 1.8, 0, -11.0], [0, 0, 1.8, 5.5], [0, 0, 0, 1]])


def make_roi_values(shape: Sequence[int], labels: int, step: int) -> np.ndarray:
    """-1, 0, 1 .. labels in turns along the volume, the first voxel -1."""
    return (np.arange(math.prod(shape)) * step % (labels + 2) - 1).astype(np.int16).reshape(shape)


def make_experiment_arrays(store: MadeStore, seed: int = 1) -> Arrays:
    """Everything that a store may know of its experiment."""
    rng, trials, shape = np.random.default_rng(seed), store.trials, store.stored.shape[1:]
    dims = ("z", "y", "x") if len(shape) == 3 else ("vertex",)
    counts = [3] * (trials * 5 // 21) + [2] * (trials // 10)
    counts += [1] * (trials - sum(counts))
    image = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    image_10k = (image * 211 % 9973 + 1).astype(np.int16)
    repeat = np.array([(image[:place] == shown).sum() for place, shown in enumerate(image)], np.int8)
    stored = store.stored.reshape(len(store.sessions), -1, *shape).astype(np.float64) / 300
    arrays = {
        "nsd_id": ((image * 4001 % 73_000).astype(np.int32), ("trial",), {}),
        "image_10k": (image_10k, ("trial",), {}),
        "repeat": (repeat, ("trial",), {}),
        "shared1000": (image_10k <= 1000, ("trial",), {}),
        "rt": (np.where(np.arange(trials) % 5, 700.5, np.nan).astype(np.float32), ("trial",), {}),
        "brainmask": (make_roi_values(shape, 5, 3) > 0, dims, {}),
        "ncsnr": (np.where(rng.random(shape) < 0.2, np.nan, rng.random(shape)).astype(np.float32), dims, {}),
        "session_mean": (stored.mean(1).astype(np.float32), ("session_number", *dims), {"units": "percent"}),
        "session_std": (stored.std(1).astype(np.float32), ("session_number", *dims), {"units": "percent", "ddof": 0}),
        "valid": (stored.max(1) != stored.min(1), ("session_number", *dims), {}),
        "rail_count": (np.arange(len(store.sessions), dtype=np.int32) + 4, ("session_number",), {}),
        "affine": (AFFINE, ("ras", "ijk1"), {}),
    }
    for step, (name, labels) in zip((5, 7, 11), ROI_NAMES.items(), strict=True):
        flags = {
            "flag_values": list(range(-1, len(labels) + 1)),
            "flag_meanings": " ".join(["not_cortex", "unlabelled", *labels]),
        }
        arrays[f"roi_{name}"] = (make_roi_values(shape, len(labels), step), dims, flags)
    return arrays


def make_shuffled_values(trials: int, shape: Sequence[int]) -> np.ndarray:
    """int16 values that tell their place and rise nowhere; one voxel never varies, another not in the second half."""
    values = (np.arange(trials * math.prod(shape)) * 7919 % 60_013 - 30_000).astype(np.int16).reshape(trials, *shape)
    flat = values.reshape(trials, -1)
    flat[:, 4] = 777
    flat[trials // 2 :, 9] = -5
    return values


def add_experiment(store: MadeStore, names: Sequence[str] | None = None) -> MadeExperiment:
    """Give a store its experiment, or only the arrays named."""
    arrays = {name: each for name, each in make_experiment_arrays(store).items() if names is None or name in names}
    add_arrays(store.path, arrays)
    return MadeExperiment(store, {name: values for name, (values, *_) in arrays.items()})


def read_made_store(path: Path) -> MadeStore:
    """A store of which only the path is known, with what it holds."""
    ds = nsd_zarr.open_dataset(path, raw=True)
    return MadeStore(path, ds.betas.values, tuple(ds.session_number.values.tolist()), 0)
