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
from nsd_zarr.read.score import MEAN, STD
from nsd_zarr.read.view import AverageReader, ViewReader, make_view
from nsd_zarr.read.volume import AFFINE, AXES, VOXEL, make_millimetres, make_place
from nsd_zarr.science.repeats import NONE, Repeats, find_repeats
from nsd_zarr.science.selection import select_trials

BETAS = "betas"
TRIAL, IMAGE = "trial", "image"
IMAGE_COLUMNS = ("nsd_id", "image_10k", "shared1000")
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


def score_sessions(dataset: xr.Dataset, trials: Any = None) -> xr.Dataset:
    """*dataset* with betas z-scored within each session, by the store's statistics or those of *trials*."""
    betas = get_betas(dataset)
    if betas.dtype.kind != "f":
        raise ConfigError("counts cannot be z-scored", hint="Leave out raw=True: percent signal change can.")
    if "zscore" in betas.attrs:
        raise ConfigError("these betas are z-scored already", hint="Leave out one of the two.")
    if TRIAL not in betas.dims and (trials is not None or IMAGE in betas.dims):
        raise ConfigError("betas without trials cannot be z-scored by them", hint="Z-score first, then select.")
    chosen = None if trials is None else _find_positions(dataset, trials)
    found = find_lazy(betas.variable)
    data: Any
    if found is None:
        data = _score_values(dataset, chosen).data
    else:
        array, key = found
        assert isinstance(array, TrialArray)
        of_store = None if chosen is None else np.arange(array.shape[0])[key[0]][chosen]
        data = make_lazy(TrialArray(make_view(array.trials).score(of_store), array.shape), key)
    attributes = {"long_name": "single-trial response amplitude, z-scored", "units": "1", "zscore": "session"}
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


def _score_values(dataset: xr.Dataset, chosen: np.ndarray | None) -> xr.Variable:
    betas = get_betas(dataset)
    sessions = get_column(dataset, "session")
    if TRIAL not in betas.dims:
        return _score_part(dataset, betas.variable, int(sessions), None)
    rows = [np.flatnonzero(sessions == session) for session in np.unique(sessions)]
    parts: list[xr.Variable] = []
    for mine in rows:
        part = betas.variable.isel({TRIAL: mine})
        given = None if chosen is None else part.isel({TRIAL: np.flatnonzero(np.isin(mine, chosen))})
        parts.append(_score_part(dataset, part, int(sessions[mine[0]]), given))
    joined: xr.Variable = xr.Variable.concat(parts, TRIAL)  # type: ignore[no-untyped-call]
    return joined.isel({TRIAL: np.argsort(np.concatenate(rows))}).transpose(*betas.dims)


def _score_part(dataset: xr.Dataset, part: xr.Variable, session: int, given: xr.Variable | None) -> xr.Variable:
    """Z-scores of trials of one session, by the rules of nsd_zarr.science.zscore."""
    if given is not None:
        wide = given.astype(np.float64)
        mean, std = wide.mean(TRIAL, skipna=False), wide.std(TRIAL, skipna=False)
        # The mean of equal numbers may differ from them in the last bit.
        varies = given.max(TRIAL, skipna=False) != given.min(TRIAL, skipna=False)
        std = _fill(std, varies, 0.0)
    else:
        if MEAN not in dataset or STD not in dataset:
            raise StoreError(
                f"this dataset has no {MEAN} and {STD}, which z-scores are made by",
                hint='Compute them from the trials: ds.nsd.zscore("session", trials=slice(None)).',
            )
        place = int(np.flatnonzero(dataset["session_number"].values == session)[0])
        mean, std = (dataset[name].variable.isel(session_number=place) for name in (MEAN, STD))
    mean, std = mean.astype(part.dtype), std.astype(part.dtype)
    factor = _fill(1 / _fill(std, std != 0, 1.0), std != 0, 0.0)
    return ((part - mean) * factor).astype(part.dtype)


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
    if found is None:
        averaged = _average_values(betas.variable, repeats)
    else:
        averaged = _average_lazily(betas.variable, *found, repeats)  # type: ignore[arg-type]
    kept = dataset.drop_vars([name for name, each in dataset.variables.items() if TRIAL in each.dims])
    columns = {name: dataset[name].variable for name in IMAGE_COLUMNS if name in dataset}
    made = {
        name: xr.Variable((IMAGE,), each.values[repeats.first], each.attrs)
        for name, each in columns.items()
        if each.dims == (TRIAL,)
    }
    made["repeats"] = xr.Variable((IMAGE,), repeats.counts, {"long_name": "showings that are averaged"})
    return kept.assign({BETAS: averaged}).assign_coords(made)


def _average_lazily(variable: xr.Variable, array: TrialArray, key: tuple[Any, ...], repeats: Repeats) -> xr.Variable:
    of_store = np.arange(array.shape[0])[key[0]]
    trials = np.where(repeats.trials == NONE, NONE, of_store[repeats.trials])
    view = make_view(array.trials)
    if not isinstance(view, ViewReader):
        raise ConfigError("means over repeats have no repeats", hint="Average once.")
    made = TrialArray(AverageReader(view, trials), (len(trials), *array.shape[1:]))
    dims = tuple(IMAGE if dim == TRIAL else dim for dim in variable.dims)
    return xr.Variable(dims, make_lazy(made, (slice(None), *key[1:])), variable.attrs)


def _average_values(variable: xr.Variable, repeats: Repeats) -> xr.Variable:
    if variable.dtype.kind != "f":
        raise ConfigError("counts cannot be averaged", hint="Leave out raw=True: percent signal change can.")
    total = variable.isel({TRIAL: xr.Variable((IMAGE,), repeats.first)})
    for showing in repeats.trials.T[1:]:
        is_there = xr.Variable((IMAGE,), showing != NONE)
        total = total + _fill(variable.isel({TRIAL: xr.Variable((IMAGE,), showing)}), is_there, 0.0)
    mean = total / xr.Variable((IMAGE,), repeats.counts.astype(variable.dtype))
    dims = tuple(IMAGE if dim == TRIAL else dim for dim in variable.dims)
    return mean.astype(variable.dtype).transpose(*dims)
