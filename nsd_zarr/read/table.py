"""Tables of a dataset: its trials (or images) and its regions for pandas, and the summary that `ds.nsd` shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from nsd_zarr import nsd
from nsd_zarr.errors import NsdZarrError, StoreError
from nsd_zarr.layout import format_count
from nsd_zarr.read.derive import BETAS
from nsd_zarr.read.region import read_atlas
from nsd_zarr.read.roi import BRAINMASK, Atlas, Region
from nsd_zarr.read.stored import ROWS, STORE
from nsd_zarr.words import escape_line

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


# -- the summary -------------------------------------------------------------------------------------------------

MAX_LABELS = 8
"""Labels of a region that are shown by name; ds.nsd.rois has them all."""
QUESTIONS = {
    'roi("{roi}")': ("{roi}",),
    'zscore("session")': ("session_mean", "session_std"),
    "missing": ("session_std",),
    "trials()": (),
    "average_repeats()": ("nsd_id",),
    'split("shared1000")': ("shared1000",),
    "compute_ncsnr()": ("nsd_id", "session_std"),
    "noise_ceiling(3)": ("ncsnr",),
    "to_xy()": ("nsd_id",),
    "to_nifti(0)": ("affine",),
    "plot(0)": ("z",),
}
"""What may be asked of ds.nsd, by the variables that it needs."""


class Summary:
    """What of `ds.nsd` a terminal and a notebook show."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def __repr__(self) -> str:
        return format_summary(self._dataset, _list_labels(self._dataset))

    def _repr_html_(self) -> str:
        return format_html(self._dataset, _list_labels(self._dataset))


def _list_labels(dataset: xr.Dataset) -> Mapping[str, Mapping[str, int]]:
    try:
        return read_atlas(dataset).labels
    except NsdZarrError:  # without betas or regions there is nothing to list
        return {}


def list_summary(dataset: xr.Dataset, labels: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[str, str]]:
    """Headings and what stands behind each, without control characters. *labels*: of each region."""
    for heading, text in _list_lines(dataset, labels):
        yield heading, escape_line(text)


def _list_lines(dataset: xr.Dataset, labels: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[str, str]]:
    whose = [str(dataset.attrs[name]) for name in ("subject", "space", "betas") if name in dataset.attrs]
    if whose:
        yield "betas of", ", ".join(whose)
    betas = dataset.get(BETAS)
    if betas is None:
        yield "betas", "none in this dataset"
        return
    for dim in ("trial", "image"):
        if dim in betas.dims:
            yield f"{dim}s", f"{betas.sizes[dim]}{_describe_sessions(dataset)}"
    yield "voxels", " x ".join(f"{size} {dim}" for dim, size in betas.sizes.items() if dim not in ("trial", "image"))
    for roi, numbers in sorted(labels.items()):
        yield f"region {roi}", _describe_labels(list(numbers)) or "a mask without labels"
    first = next((roi for roi in sorted(labels) if labels[roi]), "")
    names = {*map(str, dataset.variables), first}
    asked = [
        text.format(roi=first) for text, needs in QUESTIONS.items() if {n.format(roi=first) for n in needs} <= names
    ]
    yield "ask", ", ".join(text for text in asked if first or not text.startswith("roi("))


def _describe_sessions(dataset: xr.Dataset) -> str:
    if "session" not in dataset.variables:
        return ""
    numbers = np.unique(dataset["session"].values)
    if not len(numbers):
        return ""
    span = f", {numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else f", {numbers[0]}"
    return f" in {format_count(len(numbers), 'session')}{span}"


def _describe_labels(names: list[str]) -> str:
    shown = ", ".join(map(str, names[:MAX_LABELS]))
    return f"{shown}, ... ({len(names)} labels)" if len(names) > MAX_LABELS else shown


def format_summary(dataset: xr.Dataset, labels: Mapping[str, Mapping[str, int]]) -> str:
    """The summary as lines of text."""
    lines = list(list_summary(dataset, labels))
    width = max((len(heading) for heading, _ in lines), default=0)
    return "\n".join(["<ds.nsd>", *(f"  {escape_line(heading):{width}}  {text}" for heading, text in lines)])


def format_html(dataset: xr.Dataset, labels: Mapping[str, Mapping[str, int]]) -> str:
    """The summary as a table of HTML; names from files are escaped."""
    rows = "".join(
        f'<tr><th style="text-align:left">{escape(escape_line(heading))}</th>'
        f'<td style="text-align:left">{escape(text)}</td></tr>'
        for heading, text in list_summary(dataset, labels)
    )
    return f"<table><caption>ds.nsd</caption>{rows}</table>"
