"""Samples by voxels: the form in which scikit-learn, himalaya and rsatoolbox take data."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from nsd_zarr.errors import ConfigError, DoesNotFit
from nsd_zarr.layout import format_bytes
from nsd_zarr.read.derive import IMAGE, TRIAL, get_betas, get_column, get_shared515, get_volume_dims
from nsd_zarr.read.lazy import find_lazy
from nsd_zarr.read.missing import SESSION_NUMBER, find_positions, get_missing
from nsd_zarr.read.region import choose_region
from nsd_zarr.read.roi import BRAINMASK
from nsd_zarr.read.volume import VOXEL
from nsd_zarr.resources import read_available_memory
from nsd_zarr.science.splits import SPLITS, make_split

MISSING = ("drop", "nan", "zero")
"""What voxels without data may become."""
SIDES = ("train", "test")
"""The sides of a split. Alone, as a split, each is a side of "shared1000"."""


class XY(NamedTuple):
    """Samples for scikit-learn or himalaya."""

    x: np.ndarray
    """Responses, float32 of shape (sample, voxel), C order."""
    y: np.ndarray
    """Which image each sample is of: 0-based 73k id, of shape (sample,)."""


class TrainTestXY(NamedTuple):
    """Samples to train on and samples to test on, of the same voxels. No image is in both."""

    train: XY
    test: XY


# -- which voxels ------------------------------------------------------------------------------------------------


def choose_voxels(dataset: xr.Dataset, roi: Any, labels: Any, hemisphere: str | None, missing: str) -> xr.Dataset:
    """*dataset* with betas (..., voxel): of a region, or else of the brain mask, or else of every voxel; lazily.

    *roi*: name, names, or a mask. *missing*: "drop" leaves out voxels that lack data in a session of the dataset.
    Raises ConfigError and StoreError as ds.nsd.roi.
    """
    if missing not in MISSING:
        raise ConfigError(f"missing {missing!r}, expected {' or '.join(MISSING)}", hint='Say missing="drop".')
    names = [] if roi is None else [roi] if isinstance(roi, str) else list(roi) if _are_names(roi) else []
    if names:
        return choose_region(dataset, names, labels, hemisphere, None, missing == "drop")
    if roi is None and get_volume_dims(get_betas(dataset)) == (VOXEL,) and missing != "drop":
        return dataset
    return choose_region(dataset, (), labels, hemisphere, _make_mask(dataset, roi), missing == "drop")


def _are_names(roi: Any) -> bool:
    return isinstance(roi, (list, tuple)) and all(isinstance(name, str) for name in roi)


def _make_mask(dataset: xr.Dataset, roi: Any) -> Any:
    dims = get_volume_dims(get_betas(dataset))
    if roi is not None:
        return roi
    if dims != (VOXEL,) and BRAINMASK in dataset and dataset[BRAINMASK].dims == dims:
        return dataset[BRAINMASK]
    return np.ones([dataset.sizes[dim] for dim in dims], bool)


# -- which samples -----------------------------------------------------------------------------------------------


def split_samples(dataset: xr.Dataset, split: str | None) -> dict[str, xr.Dataset]:
    """The sides of *split* by name: "train" and "test" of a named split, one of them alone, or "" for all samples.

    Raises ConfigError for another name, StoreError where the dataset does not say.
    """
    if split is None:
        return {"": dataset}
    if split not in (*SPLITS, *SIDES):
        known = ", ".join((*SIDES, *SPLITS))
        raise ConfigError(f"split {split!r} is unknown", hint=f"Choose one of {known}.", found=split)
    name = split if split in SPLITS else SPLITS[0]
    shared515 = get_shared515(dataset) if name == "shared515" else None
    sides = make_split(name, lambda column: get_column(dataset, column), None, shared515)
    dim = find_row_dim(dataset)
    made = {side: dataset.isel({dim: np.flatnonzero(getattr(sides, side))}) for side in SIDES}
    return made if split in SPLITS else {"": made[split]}


def find_row_dim(dataset: xr.Dataset) -> str:
    """The axis of samples: trial or image. Raises ConfigError without one."""
    betas = get_betas(dataset)
    found = [dim for dim in (TRIAL, IMAGE) if dim in betas.dims]
    if not found:
        raise ConfigError(f"betas with dimensions {betas.dims} are one sample", hint="Take several: a list of trials.")
    return found[0]


# -- values ------------------------------------------------------------------------------------------------------


def check_fits(what: str, size: int) -> None:
    """Refuse *size* bytes that this process may not hold. Raises DoesNotFit."""
    free = read_available_memory()
    if size > free:
        raise DoesNotFit(
            f"{what} take {format_bytes(size)}, and {format_bytes(free)} are free",
            hint="Take a region or fewer trials, or write a file that is read in pieces: nsd-zarr export.",
            expected=size,
            found=free,
        )


def read_matrix(dataset: xr.Dataset, missing: str) -> np.ndarray:
    """Betas of *dataset*, (sample, voxel), as an array; voxels without data NaN or, with "zero", 0.

    Each trial concerned is read once. Memory: the array, and at most 64 MB. Raises DoesNotFit before it reads.
    """
    rows = find_row_dim(dataset)
    betas = get_betas(dataset).transpose(rows, ...)
    check_fits(f"{betas.shape[0]:,} samples of {int(np.prod(betas.shape[1:])):,} voxels", betas.nbytes)
    # By a selection, so that xarray keeps no second copy in the dataset.
    values: np.ndarray = betas.isel({rows: slice(None)}).values
    return fill_missing(dataset, values if find_lazy(betas.variable) else values.copy(), missing)


def fill_missing(dataset: xr.Dataset, values: np.ndarray, missing: str) -> np.ndarray:
    """*values*, samples of *dataset* (sample, ...), with NaN or 0 set in place where a voxel has no data.

    Z-scores and means over repeats are NaN there already.
    """
    if values.dtype.kind != "f" or missing == "drop":
        return values
    betas = get_betas(dataset)
    if missing == "nan" and "zscore" not in betas.attrs and TRIAL in betas.dims:
        lacking, dims = get_missing(dataset), [dim for dim in betas.dims if dim != TRIAL]
        places, rows = find_positions(dataset, get_column(dataset, "session")), values.reshape(len(values), -1)
        for place in np.unique(places).tolist():  # Of the sessions at hand alone: each is a volume to be read.
            flags = lacking.isel({SESSION_NUMBER: place}).transpose(*dims).values
            rows[np.ix_(places == place, flags.reshape(-1))] = np.nan
    if missing == "zero":
        np.nan_to_num(values, copy=False, nan=0.0, posinf=np.inf, neginf=-np.inf)
    return values


def make_xy(
    dataset: xr.Dataset, roi: Any, split: str | None, labels: Any, hemisphere: str | None, missing: str
) -> XY | TrainTestXY:
    """See ds.nsd.to_xy."""
    get_column(dataset, "nsd_id")  # before anything is read
    # Voxels first: those of both sides are the same.
    sides = split_samples(choose_voxels(dataset, roi, labels, hemisphere, missing), split)
    check_fits("these samples", sum(get_betas(side).nbytes for side in sides.values()))
    made = [XY(read_matrix(side, missing), get_column(side, "nsd_id").copy()) for side in sides.values()]
    return TrainTestXY(*made) if len(made) > 1 else made[0]
