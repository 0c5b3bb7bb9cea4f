"""What lies beside the samples: which trial each is, and where each voxel lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from nsd_zarr.exports.choice import Choice
from nsd_zarr.places.durable import make_folder, write_durably
from nsd_zarr.read.stored import STORE
from nsd_zarr.read.table import make_table
from nsd_zarr.read.volume import AXES, VOXEL, make_nifti, make_volume, read_affine


def make_columns(dataset: xr.Dataset) -> dict[str, dict[str, np.ndarray]]:
    """Columns of the tables "trials" (behind average_repeats of images) and "voxels"; the latter empty for volumes."""
    table = make_table(dataset)
    trials = {str(name): table[name].to_numpy() for name in table.columns}
    along = {str(name): each for name, each in dataset.coords.items() if each.dims == (VOXEL,) and name != STORE}
    return {"trials": trials, "voxels": {name: each.values for name, each in along.items()}}


def write_tables(folder: Path, choice: Choice) -> list[str]:
    """`trials.csv` of each side, `voxels.csv` of a region, and for NIfTI its `mask.nii.gz`; returns their names."""
    import pandas as pd

    files, first = {}, choice.parts[0]
    for side, dataset in choice.sides.items():
        files[f"{side}/trials.csv" if side else "trials.csv"] = _encode(make_table(dataset))
    columns = make_columns(first.dataset)["voxels"]
    if columns:
        files["voxels.csv"] = _encode(pd.DataFrame(columns, index=pd.RangeIndex(first.shape[-1], name=VOXEL)))
    if first.request.form == "nifti":
        files["mask.nii.gz"] = _make_mask(first.dataset)
    for name, data in files.items():
        make_folder((folder / name).parent)
        write_durably(folder / name, data)
    return list(files)


def _encode(table: Any) -> bytes:
    text: str = table.to_csv(lineterminator="\n")
    return text.encode()


def _make_mask(dataset: xr.Dataset) -> bytes:
    """Which voxels the files have, as NIfTI."""
    import gzip

    betas = dataset["betas"]
    row = betas.isel({dim: 0 for dim in betas.dims if dim not in (*AXES, VOXEL)}, drop=True)
    whole = make_volume(xr.DataArray(np.ones(row.shape, bool), row.coords, row.dims))  # ones_like would read
    data: bytes = make_nifti(whole, read_affine(dataset)).to_bytes()
    return gzip.compress(data, mtime=0)
