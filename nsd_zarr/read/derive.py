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
from nsd_zarr.read.lazy import TrialArray, find_lazy, make_lazy, select
from nsd_zarr.read.missing import (
    SESSION_NUMBER,
    SHOWING_SESSION,
    find_missing_variable,
    find_positions,
    get_missing,
)
from nsd_zarr.read.score import MEAN, STD
from nsd_zarr.read.view import AverageReader, ViewReader, make_view
from nsd_zarr.read.volume import AFFINE, AXES, VOXEL, make_millimetres, make_place
from nsd_zarr.science.missing import find_missing
from nsd_zarr.science.moments import correct_std
from nsd_zarr.science.repeats import NONE, Repeats, find_repeats
from nsd_zarr.science.selection import select_trials

BETAS = "betas"
TRIAL, IMAGE = "trial", "image"
TRIALS = "trials"
"""Attribute of session_std in a dataset: trials of each session."""
IMAGE_COLUMNS = ("nsd_id", "image_10k", "shared1000", "shared515")
"""Columns of the trial table that tell of the image, not of the trial."""


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


# -- voxels ------------------------------------------------------------------------------------------------------


def gather_voxels(dataset: xr.Dataset, voxels: np.ndarray) -> xr.Dataset:
    """Every variable of *dataset* at some voxels: *voxels*, flat C-order indices in one of its trials, as it is now."""
    dims = get_volume_dims(get_betas(dataset))
    sizes = [dataset.sizes[dim] for dim in dims]
    places = dict(zip(dims, np.unravel_index(voxels, sizes), strict=True))
    volumes = [name for name, each in dataset.data_vars.items() if dims == each.dims[each.ndim - len(dims) :]]
    points = {dim: xr.Variable((VOXEL,), place) for dim, place in places.items()}
    gathered = dataset.drop_vars(volumes).isel(points, missing_dims="ignore")
    gathered = gathered.assign(
        {name: _gather_variable(dataset[name].variable, dims, voxels, points) for name in volumes}
    )
    lost = {dim: place for dim, place in places.items() if dim != VOXEL and dim not in gathered.coords}
    gathered = gathered.assign_coords(
        {dim: make_place(str(dim), place, dataset.sizes[dim], VOXEL) for dim, place in lost.items()}
    )
    if AFFINE in dataset and set(dims) == set(AXES):
        at = {axis: gathered.coords[axis].values for axis in AXES}
        gathered = gathered.assign_coords(make_millimetres(dataset[AFFINE].values, at))
    # Betas that were transposed have their trials behind the voxels: back to (trial, voxel).
    gathered[BETAS] = gathered[BETAS].transpose(..., VOXEL)
    return gathered[list(dataset.data_vars)]


def _gather_variable(variable: xr.Variable, dims: tuple[Any, ...], voxels: np.ndarray, points: Any) -> xr.Variable:
    found = find_lazy(variable)
    if found is None:
        return variable.isel(points)
    array, key = found
    lead, own = key[: len(key) - array.volume_axes], key[len(key) - array.volume_axes :]
    inside = array.shape[len(array.shape) - array.volume_axes :]
    flat = select(np.arange(int(np.prod(inside))).reshape(inside), own).reshape(-1)[voxels]
    made = array.gather(flat)
    encoding = {"preferred_chunks": {dim: size for dim, size in _get_chunks(variable).items() if dim not in dims}}
    lazy = make_lazy(made, (*lead, slice(None)))
    return xr.Variable((*variable.dims[: variable.ndim - len(dims)], VOXEL), lazy, variable.attrs, encoding)


def _get_chunks(variable: xr.Variable) -> dict[Any, int]:
    chunks: dict[Any, int] = variable.encoding.get("preferred_chunks", {})
    return chunks


# -- z-scores ----------------------------------------------------------------------------------------------------


def score_sessions(dataset: xr.Dataset, trials: Any = None, ddof: int = 0) -> xr.Dataset:
    """*dataset* with betas z-scored within each session, by the store's statistics or those of *trials*."""
    betas = get_betas(dataset)
    if betas.dtype.kind != "f":
        raise ConfigError("counts cannot be z-scored", hint="Leave out raw=True: percent signal change can.")
    if "zscore" in betas.attrs:
        raise ConfigError("these betas are z-scored already", hint="Leave out one of the two.")
    if ddof not in (0, 1):
        raise ConfigError(f"ddof {ddof!r}, expected 0 or 1", hint="0 is NumPy's, 1 MATLAB's.", found=ddof)
    if TRIAL not in betas.dims and (trials is not None or IMAGE in betas.dims):
        raise ConfigError("betas without trials cannot be z-scored by them", hint="Z-score first, then select.")
    chosen = None if trials is None else _find_positions(dataset, trials)
    found = find_lazy(betas.variable)
    data: Any
    if found is None:
        data = _score_values(dataset, chosen, ddof).data
    else:
        array, key = found
        assert isinstance(array, TrialArray)
        of_store = None if chosen is None else np.arange(array.shape[0])[key[0]][chosen]
        data = make_lazy(TrialArray(make_view(array.trials).score(of_store, ddof=ddof), array.shape), key)
    about = "single-trial response amplitude, z-scored; NaN where a voxel has no data in the session"
    attributes = {"long_name": about, "units": "1", "zscore": "session", "ddof": ddof}
    encoding = {"preferred_chunks": _get_chunks(betas.variable)}
    return dataset.assign({BETAS: xr.Variable(betas.dims, data, attributes, encoding)})


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
    return xr.Variable(dims, make_lazy(made, (slice(None), *key[1:])), variable.attrs)


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
