"""What a dataset knows of voxels without data, by the rule of nsd_zarr.science.missing; and says of it."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from nsd_zarr.errors import ConfigError, StoreError
from nsd_zarr.layout import format_count
from nsd_zarr.read.lazy import SmallArray, TrialArray, are_equal_keys, find_lazy, make_lazy
from nsd_zarr.read.score import STD, VALID
from nsd_zarr.read.stored import check_origin
from nsd_zarr.read.view import make_view
from nsd_zarr.science.missing import find_missing

SESSION_NUMBER = "session_number"
SHOWING_SESSION = "showing_session"
"""Coordinate of means over repeats: the session of each showing, 0 where an image has fewer."""
SESSIONS_MISSING = "sessions_missing"
"""Coordinate of the voxels of a region: in how many sessions of the selection each has no data."""


class MissingArray(BackendArray):
    """Voxels without data in each session, lazily: read from the statistics of the sessions asked for."""

    def __init__(self, std: SmallArray, valid: SmallArray | None) -> None:
        self.std, self.valid = std, valid
        self.shape, self.dtype = std.shape, np.dtype(bool)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: Any) -> np.ndarray:
        arrays = [array for array in (self.std, self.valid) if array is not None]
        missing: np.ndarray = np.asarray(find_missing(*(np.asarray(array.read(key)) for array in arrays)))
        return missing


def find_missing_variable(dataset: xr.Dataset) -> xr.Variable | None:
    """Voxels without data, bool, (session_number, ...): lazy where the statistics are; None where none are known.

    From the dataset's own statistics; where these were dropped, from those of the store that its betas are still a view
    of.
    """
    if STD in dataset.variables:
        names = [name for name in (STD, VALID) if name in dataset.variables]
        return _join(*(_put_sessions_first(dataset[name].variable) for name in names))
    betas = dataset["betas"].variable
    found = find_lazy(betas)
    if found is None or not isinstance(found[0], TrialArray):
        return None
    store = find_view(found[0]).reader.store
    if STD not in store.members:
        return None
    voxels, key = find_view(found[0]).voxels, (slice(None), *found[1][1:])
    dims = (SESSION_NUMBER, *(dim for dim, part in zip(betas.dims[-len(key) + 1 :], key[1:], strict=False)))
    arrays = {name: SmallArray(store, name, voxels) for name in (STD, VALID) if name in store.members}
    lazy = make_lazy(MissingArray(arrays[STD], arrays.get(VALID)), key)
    return xr.Variable(dims, lazy) if len(dims) == np.ndim(lazy) else None


def find_view(array: TrialArray) -> Any:
    """The view of trials that a lazy array reads: of means over repeats, the one that is averaged."""
    view = make_view(array.trials)
    return getattr(view, "view", view)


def _put_sessions_first(variable: xr.Variable) -> xr.Variable:
    is_behind = SESSION_NUMBER in variable.dims[1:]
    return variable.transpose(SESSION_NUMBER, ...) if is_behind else variable


def _join(std: xr.Variable, valid: xr.Variable | None = None) -> xr.Variable:
    """By the rule; lazily where both are arrays of a store of which the same was selected."""
    found = [find_lazy(variable) for variable in (std, valid) if variable is not None]
    arrays = [each[0] for each in found if each is not None and isinstance(each[0], SmallArray)]
    if (
        found[0] is None
        or len(arrays) < len(found)
        or not all(are_equal_keys(found[0][1], each[1]) for each in found if each)
    ):
        joined: xr.Variable = find_missing(std, valid)
        return joined
    small: Any = arrays
    return xr.Variable(std.dims, make_lazy(MissingArray(*small, *[None] * (2 - len(small))), found[0][1]))


def get_missing(dataset: xr.Dataset) -> xr.Variable:
    """As find_missing_variable. Raises StoreError where nothing is known of voxels without data.

    Raises ConfigError where the statistics are not of the store that the trials are of.
    """
    check_origin(dataset)
    missing = find_missing_variable(dataset)
    if missing is None:
        raise StoreError(
            f"this dataset has no {STD}, by which voxels without data are found",
            hint="Keep it beside the betas, or give the store its statistics: nsd-zarr attach STORE --no-experiment.",
        )
    return missing


def make_missing(dataset: xr.Dataset) -> xr.DataArray:
    """As get_missing, with its coordinates. See ds.nsd.missing."""
    variable = get_missing(dataset)
    coords = {name: each for name, each in dataset.coords.items() if set(each.dims) <= set(variable.dims)}
    return xr.DataArray(variable, coords, name="missing", attrs={"long_name": "no data in the session"})


def find_positions(dataset: xr.Dataset, sessions: np.ndarray) -> np.ndarray:
    """Place of each of *sessions* along session_number, int64."""
    numbers = dataset[SESSION_NUMBER].values
    places = np.array([np.flatnonzero(numbers == session)[0] for session in np.unique(sessions)], np.int64)
    found: np.ndarray = places[np.searchsorted(np.unique(sessions), sessions)] if len(places) else places
    return found


def list_sessions(dataset: xr.Dataset) -> np.ndarray:
    """The sessions of the dataset's trials (or of what was averaged), ascending; all where nothing says."""
    for name in ("session", SHOWING_SESSION):
        if name in dataset.variables:
            found: np.ndarray = np.unique(dataset[name].values)
            return found[found > 0]
    numbers: np.ndarray = dataset[SESSION_NUMBER].values
    return numbers


# -- saying it ---------------------------------------------------------------------------------------------------


def tell_missing(region: xr.Dataset, complete: bool) -> xr.Dataset:
    """*region* (trial, voxel) with `sessions_missing` along voxel, said once where it is not 0.

    *complete*: only voxels with data in every session of the selection. Raises ConfigError when none is left,
    StoreError when *complete* and nothing is known of voxels without data.
    """
    missing = get_missing(region) if complete else find_missing_variable(region)
    if missing is None or SESSION_NUMBER not in missing.dims or SESSION_NUMBER not in region.variables:
        return region
    positions = find_positions(region, list_sessions(region))
    lacking = missing.isel({SESSION_NUMBER: positions}).values
    counts = lacking.sum(axis=0)
    about = {"long_name": "sessions of the selection in which the voxel has no data"}
    counted = region.assign_coords({SESSIONS_MISSING: xr.Variable(("voxel",), counts.astype(np.int16), about)})
    if complete:
        return counted.isel(voxel=choose_complete(counts, len(positions)))
    text = describe_counts(counts, len(positions))
    if text:
        counted["betas"].attrs["missing_data"] = text
        say_once(f"{region.encoding.get('source', 'region')}: {text}{_tell_disagreement(region, positions)}")
    return counted


def choose_complete(counts: np.ndarray, sessions: int) -> np.ndarray:
    """Positions of the voxels whose *counts* of sessions without data are 0. Raises ConfigError when none is left."""
    kept = np.flatnonzero(counts == 0)
    if not kept.size:
        raise ConfigError(
            f"every voxel of the region lacks data in one of its {format_count(sessions, 'session')} or more",
            hint='Select fewer sessions, or leave out complete=True and missing="drop".',
        )
    return kept


def describe_counts(counts: np.ndarray, sessions: int) -> str:
    """How many voxels lack data in how many of so many *sessions*, in words; empty where none does."""
    numbers, voxels = np.unique(counts[counts > 0], return_counts=True)
    if not numbers.size:
        return ""
    parts = [f"{count:,} in {number}" for number, count in zip(numbers.tolist(), voxels.tolist(), strict=True)]
    whole = format_count(sessions, "session")
    return f"{voxels.sum():,} of {counts.size:,} voxels have no data in some of {whole}: {', '.join(parts)}"


def _tell_disagreement(region: xr.Dataset, positions: np.ndarray) -> str:
    """Where `valid` and the betas do not agree on what is missing, with counts; empty where they do."""
    if not {STD, VALID} <= set(region.variables):
        return ""
    both = (_put_sessions_first(region[name].variable) for name in (STD, VALID))
    std, valid = (variable.isel({SESSION_NUMBER: positions}).values for variable in both)
    varies = ~find_missing(std)
    pairs = (int((varies & ~valid).sum()), int((~varies & valid).sum()))
    if pairs == (0, 0):
        return ""
    return (
        f"; `valid` and the betas disagree: {pairs[0]:,} times a voxel varies where `valid` is 0, "
        f"{pairs[1]:,} times it does not vary where `valid` is 1 (either counts as missing)"
    )


@lru_cache(maxsize=1024)
def say_once(text: str) -> None:
    """Log *text* as a warning, once in this process."""
    logging.getLogger("nsd_zarr").warning(text)
