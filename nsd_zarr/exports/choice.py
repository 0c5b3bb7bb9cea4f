"""Which samples go into which file: lazy datasets, made of a store by what `ds.nsd` does."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from nsd_zarr.errors import ConfigError
from nsd_zarr.exports.request import Request
from nsd_zarr.read.accessor import NsdAccessor
from nsd_zarr.read.derive import get_betas, get_column
from nsd_zarr.read.tools.samples import choose_voxels, fill_missing, find_row_dim, split_samples
from nsd_zarr.read.volume import VOXEL

IMAGES_PER_FILE = 750
"""Images in each file of a form with several, as a session has trials."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file of samples."""

    name: str
    """Path below the folder of the export."""
    dataset: xr.Dataset = field(repr=False)
    """Its samples, lazily."""
    request: Request
    """How they are asked for."""

    @property
    def betas(self) -> xr.DataArray:
        """Samples first."""
        return get_betas(self.dataset).transpose(find_row_dim(self.dataset), ...)

    @property
    def rows(self) -> int:
        """Samples."""
        return int(self.betas.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array in the file: samples first; volumes in the order of axes that is asked for."""
        shape = self.betas.shape
        return (shape[0], *reversed(shape[1:])) if self.is_reversed else shape

    @property
    def is_reversed(self) -> bool:
        """Whether whole volumes are written with their axes as nibabel has them."""
        return self.request.order == "xyz" and self.betas.ndim == 4

    @property
    def row_bytes(self) -> int:
        """Bytes of a sample."""
        return math.prod(self.shape[1:]) * self.betas.dtype.itemsize

    def read(self, first: int, last: int) -> np.ndarray:
        """Samples *first* to *last* (exclusive), C order, as they are written. Reads each trial concerned once."""
        dim = find_row_dim(self.dataset)
        chosen = self.dataset.isel({dim: slice(first, last)})
        values: np.ndarray = np.array(get_betas(chosen).transpose(dim, ...).values)
        if self.request.missing is not None:
            values = fill_missing(chosen, values, self.request.missing)
        return np.ascontiguousarray(values.transpose(0, 3, 2, 1) if self.is_reversed else values)


@dataclass(frozen=True, slots=True)
class Choice:
    """All files of an export."""

    parts: list[Part]
    """Its files of samples."""
    sides: dict[str, xr.Dataset] = field(repr=False)
    """The samples of each side of its split; of the only one, "", where nothing is split."""
    whole: xr.Dataset = field(repr=False)
    """The store, with every voxel."""


def choose_samples(dataset: xr.Dataset, request: Request) -> xr.Dataset:
    """*dataset*, as a store opens, at the sessions and voxels of *request*, z-scored where that is asked for."""
    if request.sessions is not None:
        session = get_column(dataset, "session")
        if lacking := sorted(set(request.sessions) - set(session.tolist())):
            raise ConfigError("the store has no such session", hint="nsd-zarr info lists them.", session=lacking[0])
        dataset = dataset.isel(trial=np.flatnonzero(np.isin(session, request.sessions)))
    if request.roi is not None or request.missing == "drop":
        names = None if request.roi is None else list(request.roi)
        dataset = choose_voxels(dataset, names, None, None, request.missing or "nan")
        if request.order == "xyz" and {"x", "y", "z"} <= set(dataset.coords):
            dataset = dataset.isel({VOXEL: np.lexsort([dataset[axis].values for axis in "zyx"])})
    return NsdAccessor(dataset).zscore() if request.zscore else dataset


def choose_plain(dataset: xr.Dataset, samples: xr.Dataset, request: Request) -> Choice:
    """The files of the plain layouts; *dataset* the whole store, *samples* as choose_samples makes them.

    Raises ConfigError when a side is empty.
    """
    whole = NsdAccessor(samples).average_repeats() if request.average else samples
    sides, parts = split_samples(whole, request.split), []
    for side, mine in sides.items():
        if not mine.sizes[find_row_dim(mine)]:
            raise ConfigError(f"no sample is left {f'in {side}' if side else ''}", hint="Take more sessions.")
        folder = f"{side}/" if side else ""
        parts += [Part(folder + name, rows, request) for name, rows in _divide(mine, request)]
    return Choice(parts, sides, dataset)


def _divide(dataset: xr.Dataset, request: Request) -> Iterator[tuple[str, xr.Dataset]]:
    """Name and samples of each file of one side."""
    if request.form in ("hdf5", "npy"):
        yield _name_matrix(dataset, request), dataset
        return
    ending = {"parquet": "parquet", "nifti": "nii.gz"}[request.form]
    dim = find_row_dim(dataset)
    if request.average:
        for number, first in enumerate(range(0, dataset.sizes[dim], IMAGES_PER_FILE), 1):
            yield f"betas_images{number:02d}.{ending}", dataset.isel({dim: slice(first, first + IMAGES_PER_FILE)})
        return
    session = get_column(dataset, "session")
    for number in np.unique(session).tolist():
        yield f"betas_session{number:02d}.{ending}", dataset.isel({dim: np.flatnonzero(session == number)})


def _name_matrix(dataset: xr.Dataset, request: Request) -> str:
    if request.layout == "mindeye2":
        return f"betas_all_subj{get_subject(dataset):02d}_fp32_renorm.hdf5"
    return f"betas.{request.form}"


def get_subject(dataset: xr.Dataset) -> int:
    """The subject's number. Raises ConfigError where the store does not know."""
    found: Any = dataset.attrs.get("subject")
    if found is None:
        raise ConfigError(
            "the store does not say of which subject it is, and this layout names files by it",
            hint="Convert from an NSD root folder, or take the plain layout.",
        )
    return int(found)
