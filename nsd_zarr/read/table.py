"""The trial table of a dataset as a pandas DataFrame: one row a trial, or an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from nsd_zarr.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd

ROWS = ("trial", "image")
"""Axes of which each entry is a row."""
DIGESTS = "trial_digest"
"""The one coordinate along trial that says nothing of the experiment."""


def make_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Every coordinate along `trial` (or `image`), a column each; what holds for all rows is a column as well.

    Reads no trial. Raises StoreError where the dataset has no such axis.
    """
    import pandas as pd

    rows = next((dim for dim in ROWS if dim in dataset.dims), None)
    if rows is None:
        raise StoreError("this dataset has no trials", hint="Open a store: nsd_zarr.open_dataset(path).")
    along = {
        str(name): each.values
        for name, each in dataset.variables.items()
        if each.dims == (rows,) and name not in (rows, DIGESTS)
    }
    labels = dataset.indexes.get(rows)
    index = pd.RangeIndex(dataset.sizes[rows], name=rows) if labels is None else labels
    return pd.DataFrame(along, index=index)
