"""Whether the betas of a dataset are still those of its store, so that what the store says of them holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from nsd_zarr.errors import ConfigError
from nsd_zarr.read.lazy import SmallArray, TrialArray, make_lazy
from nsd_zarr.read.percent import PercentReader
from nsd_zarr.read.score import STD
from nsd_zarr.read.stored import StoredVariable
from nsd_zarr.store.foreign.reader import make_reader

POSITION = ("session", "trial_in_session")
"""Coordinates that say which trial of the store one is."""


def check_unchanged(dataset: xr.Dataset) -> None:
    """Refuse betas that are not those of the store, by whose statistics they are to be z-scored. Raises ConfigError.

    Betas that were only selected, copied or loaded are known to be. Others in memory, such as those that `where` and
    `concat` leave, are compared with the store, which reads each of their trials once: each value must be the stored
    one, or NaN. Memory: one trial.
    """
    betas = dataset["betas"].variable
    if isinstance(betas, StoredVariable) and not betas.is_changed:
        return
    stored = _find_stored(dataset) if isinstance(betas._data, np.ndarray) else None
    if stored is None or not _are_equal(betas.transpose(*stored.dims), stored):
        raise ConfigError(
            "these betas were computed from those of the store, whose session_mean and session_std are not theirs",
            hint="Z-score first, then compute; or by their own statistics: "
            'ds.nsd.zscore("session", trials=slice(None)).',
        )


def _are_equal(betas: xr.Variable, stored: xr.Variable) -> bool:
    if "trial" not in stored.dims:
        return _is_stored(betas.values, stored.values)
    pairs = ((betas.isel(trial=row).values, stored.isel(trial=row).values) for row in range(stored.sizes["trial"]))
    return all(_is_stored(*pair) for pair in pairs)


def _is_stored(values: np.ndarray, stored: np.ndarray) -> bool:
    return bool(np.all((values == stored) | np.isnan(values)))


def _find_stored(dataset: xr.Dataset) -> xr.Variable | None:
    """The same trials and voxels in the store, unread; None where the dataset does not say which."""
    if STD not in dataset.variables or not set(POSITION) <= set(dataset.variables):
        return None
    std = dataset[STD].variable
    found = std.find_origin() if isinstance(std, StoredVariable) else None
    if found is None or std.dims[:1] != ("session_number",):
        return None
    array, key = found
    assert isinstance(array, SmallArray)
    trials = _find_trials(array, *(dataset[name].values for name in POSITION))
    if trials is None:
        return None
    stored = TrialArray(PercentReader(make_reader(array.store)), array.store.geometry.shape)
    if array.voxels is not None:
        stored = stored.gather(array.voxels)
    dims = (*dataset["session"].dims, *std.dims[1:])
    made = xr.Variable(dims, make_lazy(stored, (trials, *key[1:])))
    betas = dataset["betas"].variable
    return made if dict(made.sizes) == dict(betas.sizes) else None


def _find_trials(array: SmallArray, sessions: Any, within: Any) -> Any:
    """Positions in the store, an int for one; None for what is not in it."""
    geometry = array.store.geometry
    known = np.asarray(geometry.sessions)
    places = np.searchsorted(known, sessions)
    if not np.all(known[np.minimum(places, len(known) - 1)] == sessions):
        return None
    if not np.all((within >= 0) & (within < geometry.trials_per_session)):
        return None
    trials = places * geometry.trials_per_session + np.asarray(within, np.int64)
    return trials if np.ndim(trials) else int(trials)
