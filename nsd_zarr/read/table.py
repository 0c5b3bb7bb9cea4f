"""Tables of a dataset as pandas DataFrames: its trials (or images), and its regions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from nsd_zarr import nsd
from nsd_zarr.errors import StoreError
from nsd_zarr.read.roi import BRAINMASK, Atlas, Region
from nsd_zarr.read.stored import ROWS, STORE

if TYPE_CHECKING:
    import pandas as pd

DIGESTS = "trial_digest"
"""The one column along trial of a store that says nothing of the experiment."""


def make_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Every coordinate along `trial` (or `image`), a column each; what holds for all rows is a column as well.

    Reads no trial. Raises StoreError where the dataset has no such axis.
    """
    import pandas as pd

    rows = next((dim for dim in ROWS if dim in dataset.dims), None)
    if rows is None:
        raise StoreError("this dataset has no trials", hint="Open a store: nsd_zarr.open_dataset(path).")
    labels = dataset.indexes.get(rows)
    index = pd.RangeIndex(dataset.sizes[rows], name=rows) if labels is None else labels
    # Levels of a MultiIndex are coordinates as well: in the index alone, a query knows which is meant.
    left_out = {rows, DIGESTS, STORE, *index.names}
    along = {
        str(name): each.values
        for name, each in dataset.variables.items()
        if each.dims == (rows,) and name not in left_out
    }
    return pd.DataFrame(along, index=index)


# -- regions -----------------------------------------------------------------------------------------------------------

ORIGINS = {
    nsd.ORIGIN_ATLAS: "atlas",
    nsd.ORIGIN_FSAVERAGE: "drawn on fsaverage",
    nsd.ORIGIN_SUBJECT: "drawn in the subject",
    nsd.ORIGIN_VOLUME: "drawn in the subject",
}
"""Where a set of regions comes from, in words. Source: data manual, "ROIs"."""


def make_roi_table(atlas: Atlas) -> pd.DataFrame:
    """One row a label, see ds.nsd.rois. Reads every ROI volume once."""
    import pandas as pd

    rows = [row for roi in sorted(atlas.labels) for row in _make_rows(atlas, roi)]
    names = ("roi", "label", "number", "voxels", *nsd.HEMISPHERES, "origin")
    table = pd.DataFrame(rows, columns=list(names))
    counts = ("number", "voxels", *nsd.HEMISPHERES)
    return table.astype({name: "Int64" for name in counts} | {name: "object" for name in ("roi", "label", "origin")})


def _make_rows(atlas: Atlas, roi: str) -> list[tuple[object, ...]]:
    labels = {roi: 1} if roi == BRAINMASK else atlas.labels[roi]
    sides = nsd.HEMISPHERES if roi in atlas.sided else ()
    counts = [_count(atlas.read_codes(Region(roi, None, side))) for side in (None, *sides)]
    unknown = [None] * (len(nsd.HEMISPHERES) - len(sides))
    return [
        (roi, label, number, *(count.get(number, 0) for count in counts), *unknown, _find_origin(roi))
        for label, number in labels.items()
    ]


def _count(codes: np.ndarray) -> dict[int, int]:
    return dict(zip(*(values.tolist() for values in np.unique(codes, return_counts=True)), strict=True))


def _find_origin(roi: str) -> str:
    """Where the set comes from, in words; empty for one that is not the dataset's own."""
    origins = {each.name: each.origin for each in nsd.ROI_SETS} | dict.fromkeys(
        nsd.SETS_OF_TEMPLATES, nsd.ORIGIN_VOLUME
    )
    return "mask" if roi == BRAINMASK else ORIGINS[origins[roi]] if roi in origins else ""
