"""Datasets from datasets: some voxels, z-scores, means over repeats.

Where betas are still those of the store, unread, the result is a lazy view of the store. Where they are in memory, or
Dask arrays, or have been changed, it is made of them by xarray's own operations, with the same values.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import xarray as xr

from nsd_zarr.errors import ConfigError, StoreError
from nsd_zarr.read.lazy import TrialArray, find_lazy, make_lazy
from nsd_zarr.read.missing import (
    SESSION_NUMBER,
    SHOWING_SESSION,
    find_missing_variable,
    find_positions,
    get_missing,
)
from nsd_zarr.read.original import check_unchanged
from nsd_zarr.read.score import MEAN, STD
from nsd_zarr.read.stored import STORE, StoredVariable, check_origin
from nsd_zarr.read.view import AverageReader, ViewReader, make_view
from nsd_zarr.science.missing import find_missing
from nsd_zarr.science.moments import correct_std
from nsd_zarr.science.repeats import NONE, Repeats, find_repeats
from nsd_zarr.science.selection import select_trials

BETAS = "betas"
TRIAL, IMAGE = "trial", "image"
TRIALS = "trials"
"""Attribute of session_std in a dataset: trials of each session."""
IMAGE_COLUMNS = ("nsd_id", "image_10k", "shared1000", "shared515", STORE)
"""Columns that describe the image (or of the whole store), not of the trial."""


def get_betas(dataset: xr.Dataset) -> xr.DataArray:
    """The betas of *dataset*. Raises StoreError when it has none."""
    if BETAS not in dataset:
        raise StoreError("this dataset has no betas", hint="Open a store: nsd_zarr.open_dataset(path).")
    return dataset[BETAS]


def get_column(dataset: xr.Dataset, name: str) -> np.ndarray:
    """A column of the trial table. Raises StoreError when the store has none."""
    if name not in dataset:
        raise StoreError(
            f"this dataset has no {name}, a column of the trial table",
            hint="Convert from an NSD root folder, which has it, or add it as a coordinate along trial.",
        )
    values: np.ndarray = dataset[name].values
    return values


def get_shared515(dataset: xr.Dataset) -> np.ndarray:
    """Column shared515, of the store, or made of its whole trial table. Raises StoreError."""
    if "shared515" not in dataset:
        raise StoreError(
            "which 515 images all subjects saw three times follows from the design, or from sessions 1 to 30, and this "
            "dataset comes from a store without either",
            hint="Give the store the design (nsd-zarr attach STORE NSD_ROOT), take all sessions, or say which images: "
            "images=[...], 0-based 73k ids.",
        )
    values: np.ndarray = dataset["shared515"].values
    return values


def get_volume_dims(betas: xr.DataArray) -> tuple[Hashable, ...]:
    """Axes of one trial."""
    return tuple(dim for dim in betas.dims if dim not in (TRIAL, IMAGE))


def get_chunks(variable: xr.Variable) -> dict[Any, int]:
    """In which chunks along each axis Dask is to have *variable*."""
    chunks: dict[Any, int] = variable.encoding.get("preferred_chunks", {})
    return chunks


# -- z-scores ----------------------------------------------------------------------------------------------------


def score_sessions(dataset: xr.Dataset, trials: Any = None, ddof: int = 0) -> xr.Dataset:
    """*dataset* with betas z-scored within each session, by the store's statistics or those of *trials*."""
    check_origin(dataset)
    betas = get_betas(dataset)
    if betas.dtype.kind != "f":
        raise ConfigError("counts cannot be z-scored", hint="Leave out raw=True: percent signal change can.")
    if "zscore" in betas.attrs:
        raise ConfigError("these betas are z-scored already", hint="Leave out one of the two.")
    if ddof not in (0, 1):
        raise ConfigError(f"ddof {ddof!r}, expected 0 or 1", hint="0 is NumPy's, 1 MATLAB's.", found=ddof)
    is_one = "session" not in dataset.variables or not dataset["session"].ndim
    if TRIAL not in betas.dims and (trials is not None or IMAGE in betas.dims or not is_one):
        raise ConfigError("betas without trials cannot be z-scored by them", hint="Z-score first, then select.")
    chosen = None if trials is None else _find_positions(dataset, trials)
    found = find_lazy(betas.variable)
    data: Any
    if found is None:
        if chosen is None and {MEAN, STD} <= set(dataset.variables):
            check_unchanged(dataset)
        data = _score_values(dataset, chosen, ddof).data
    else:
        array, key = found
        assert isinstance(array, TrialArray)
        of_store = None if chosen is None else np.arange(array.shape[0])[key[0]][chosen]
        data = make_lazy(TrialArray(make_view(array.trials).score(of_store, ddof=ddof), array.shape), key)
    about = "single-trial response amplitude, z-scored; NaN where a voxel has no data in the session"
    attributes = {"long_name": about, "units": "1", "zscore": "session", "ddof": ddof}
    encoding = {"preferred_chunks": get_chunks(betas.variable)}
    return dataset.assign({BETAS: StoredVariable(betas.dims, data, attributes, encoding)})


def _find_positions(dataset: xr.Dataset, trials: Any) -> np.ndarray:
    """Positions in *dataset* of the trials to take statistics from; each session must have one."""
    count = dataset.sizes[TRIAL]
    values = np.arange(count)[trials] if isinstance(trials, slice) else getattr(trials, "values", trials)
    chosen = np.unique(select_trials(values, count))
    session = get_column(dataset, "session")
    if lacking := sorted(set(session.tolist()) - set(session[chosen].tolist())):
        raise ConfigError(
            "none of the trials that the z-score's statistics are to be taken from is of this session",
            hint="Give trials of every session, or leave the session out.",
            session=lacking[0],
        )
    return chosen


def _score_values(dataset: xr.Dataset, chosen: np.ndarray | None, ddof: int) -> xr.Variable:
    betas = get_betas(dataset)
    sessions = get_column(dataset, "session")
    if TRIAL not in betas.dims:
        return _score_part(dataset, betas.variable, int(sessions), None, ddof)
    rows = [np.flatnonzero(sessions == session) for session in np.unique(sessions)]
    parts: list[xr.Variable] = []
    for mine in rows:
        part = betas.variable.isel({TRIAL: mine})
        given = None if chosen is None else part.isel({TRIAL: np.flatnonzero(np.isin(mine, chosen))})
        parts.append(_score_part(dataset, part, int(sessions[mine[0]]), given, ddof))
    joined: xr.Variable = xr.Variable.concat(parts, TRIAL)  # type: ignore[no-untyped-call]
    return joined.isel({TRIAL: np.argsort(np.concatenate(rows))}).transpose(*betas.dims)


def _score_part(
    dataset: xr.Dataset, part: xr.Variable, session: int, given: xr.Variable | None, ddof: int
) -> xr.Variable:
    """Z-scores of trials of one session, by the rules of nsd_zarr.science.zscore."""
    missing: Any = find_missing_variable(dataset)
    if missing is not None:
        missing = missing.isel({SESSION_NUMBER: find_positions(dataset, np.array([session]))[0]})
    if given is None:
        mean, std = _get_statistics(dataset, session, ddof)
    else:
        wide = given.astype(np.float64)
        mean, std = wide.mean(TRIAL, skipna=False), wide.std(TRIAL, skipna=False)
        # The mean of equal numbers may differ from them in the last bit.
        varies = given.max(TRIAL, skipna=False) != given.min(TRIAL, skipna=False)
        std = correct_std(_fill(std, varies, 0.0), given.sizes[TRIAL], ddof)
        # Without statistics of the whole session these trials are all that is known of it.
        missing = find_missing(std) if missing is None else missing
    mean, std = mean.astype(part.dtype), std.astype(part.dtype)
    factor = _fill(_fill(1 / _fill(std, std != 0, 1.0), std != 0, 0.0), ~missing, np.nan)
    return ((part - mean) * factor).astype(part.dtype)


def _get_statistics(dataset: xr.Dataset, session: int, ddof: int) -> tuple[xr.Variable, xr.Variable]:
    """Mean and standard deviation over the whole session."""
    if MEAN not in dataset or STD not in dataset:
        raise StoreError(
            f"this dataset has no {MEAN} and {STD}, which z-scores are made by",
            hint='Compute them from the trials: ds.nsd.zscore("session", trials=slice(None)).',
        )
    place = int(find_positions(dataset, np.array([session]))[0])
    mean, std = (dataset[name].variable.isel(session_number=place) for name in (MEAN, STD))
    if ddof and TRIALS not in dataset[STD].attrs:
        raise StoreError(f"{STD} does not say of how many trials it is", hint=f"Set its attribute {TRIALS}.")
    return mean, correct_std(std, int(dataset[STD].attrs.get(TRIALS, 0)), ddof)


def _fill(values: xr.Variable, kept: xr.Variable, other: float) -> xr.Variable:
    """*values* where *kept*, else *other*."""
    filled: xr.Variable = values.where(kept, other)  # type: ignore[no-untyped-call]
    return filled


# -- repeats -----------------------------------------------------------------------------------------------------


def average_images(dataset: xr.Dataset) -> xr.Dataset:
    """*dataset* with the mean over the showings of each image in place of trials; images as they first come."""
    check_origin(dataset)
    betas = get_betas(dataset)
    if TRIAL not in betas.dims:
        raise ConfigError(f"betas with dimensions {betas.dims} have no trials to average", hint="Give several trials.")
    repeats = find_repeats(get_column(dataset, "nsd_id"))
    found = find_lazy(betas.variable)
    averaged = _average_values(dataset, repeats) if found is None else _average_lazily(betas.variable, found, repeats)
    kept = dataset.drop_vars([name for name, each in dataset.variables.items() if TRIAL in each.dims])
    columns = {name: dataset[name].variable for name in IMAGE_COLUMNS if name in dataset}
    made = {
        name: xr.Variable((IMAGE,), each.values[repeats.first], each.attrs)
        for name, each in columns.items()
        if each.dims == (TRIAL,)
    }
    about = "showings among the selected trials, with data or without"
    made["repeats"] = xr.Variable((IMAGE,), repeats.counts, {"long_name": about})
    if "session" in dataset.variables:
        made[SHOWING_SESSION] = _find_showing_sessions(get_column(dataset, "session"), repeats)
    return kept.assign({BETAS: averaged}).assign_coords(made)


def _average_lazily(variable: xr.Variable, found: tuple[Any, tuple[Any, ...]], repeats: Repeats) -> xr.Variable:
    array, key = found
    of_store = np.arange(array.shape[0])[key[0]]
    trials = np.where(repeats.trials == NONE, NONE, of_store[repeats.trials])
    view = make_view(array.trials)
    if not isinstance(view, ViewReader):
        raise ConfigError("means over repeats have no repeats", hint="Average once.")
    made = TrialArray(AverageReader(view, trials), (len(trials), *array.shape[1:]))
    dims = tuple(IMAGE if dim == TRIAL else dim for dim in variable.dims)
    return StoredVariable(dims, make_lazy(made, (slice(None), *key[1:])), variable.attrs)


def _find_showing_sessions(session: np.ndarray, repeats: Repeats) -> xr.Variable:
    """The session of each showing, int16 (image, showing), 0 where an image has fewer."""
    values = np.where(repeats.trials == NONE, 0, session[repeats.trials]).astype(np.int16)
    return xr.Variable((IMAGE, "showing"), values, {"long_name": "session of each showing; 0 where there is none"})


def _average_values(dataset: xr.Dataset, repeats: Repeats) -> xr.Variable:
    """Means by xarray's own operations, by the arithmetic of nsd_zarr.science.repeats.average_into."""
    variable = get_betas(dataset).variable
    if variable.dtype.kind != "f":
        raise ConfigError("counts cannot be averaged", hint="Leave out raw=True: percent signal change can.")
    missing = None if "zscore" in variable.attrs else get_missing(dataset)  # z-scores are NaN there already
    sessions = None if missing is None else get_column(dataset, "session")
    total: Any = 0
    count: Any = 0
    for showing in repeats.trials.T:
        values = variable.isel({TRIAL: xr.Variable((IMAGE,), showing)})
        known = values.notnull() & xr.Variable((IMAGE,), showing != NONE)
        if missing is not None and sessions is not None:
            places = find_positions(dataset, sessions[showing])
            known = known & ~missing.isel({SESSION_NUMBER: xr.Variable((IMAGE,), places)})
        total = total + _fill(values, known, 0.0)
        count = count + known.astype(variable.dtype)
    mean: xr.Variable = total / _fill(count, count > 0, np.nan)
    dims = tuple(IMAGE if dim == TRIAL else dim for dim in variable.dims)
    return mean.astype(variable.dtype).transpose(*dims)
