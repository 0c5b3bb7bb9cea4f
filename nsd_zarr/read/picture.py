"""A picture of a volume: three orthogonal slices, the outline of a region, and which side is which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from nsd_zarr.errors import ConfigError
from nsd_zarr.libraries import check_library
from nsd_zarr.read.region import read_labels
from nsd_zarr.read.roi import BRAINMASK, make_atlas
from nsd_zarr.read.stored import drop_foreign
from nsd_zarr.read.volume import AFFINE, AXES, make_volume

OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}
PANELS = (("sagittal", "x", "y", "z"), ("coronal", "y", "x", "z"), ("axial", "z", "x", "y"))
"""Name, axis that is cut, axis to the right, axis upwards. As scanners see it: the subject's left is left."""
PERCENTILE = 99.5
"""Of the absolute values inside the brain: the end of the colour scale, beyond which single voxels saturate."""
DEFAULT_ROI = "nsdgeneral"
MARGIN = 0.075
"""Room around a slice, as a part of the volume's longest side."""
INK, FAINT, OUTSIDE = "#1b1b1b", "#6f6f6f", "#f4f4f4"


@dataclass(frozen=True, slots=True)
class Scene:
    """What is drawn."""

    values: np.ndarray
    """Shape (z, y, x), NaN outside of the brain."""
    region: np.ndarray | None
    """To be outlined, bool, shape (z, y, x)."""
    at: dict[str, int]
    """Voxel index of the slice along each axis."""
    affine: np.ndarray | None
    """To millimetres; None where nobody knows."""
    limit: float
    """End of the colour scale, on either side of 0 where there is anything below it."""

    @property
    def colours(self) -> dict[str, Any]:
        """Blue, white and red about 0; yellow to red for what is never negative, such as ncsnr."""
        if np.nanmin(self.values, initial=0) < 0:
            return {"cmap": "RdBu_r", "vmin": -self.limit, "vmax": self.limit}
        return {"cmap": "YlOrRd", "vmin": 0, "vmax": self.limit}


def draw_slices(
    dataset: xr.Dataset,
    values: xr.DataArray,
    *,
    roi: str | Sequence[str] | None = DEFAULT_ROI,
    at: Sequence[int] | None = None,
    limit: float | None = None,
    title: str | None = None,
) -> Any:
    """Draw *values*, a volume (z, y, x) or a list of voxels, as a matplotlib Figure; see ds.nsd.plot."""
    check_library("matplotlib", "ds.nsd.plot")
    from nsd_zarr.read.figure import ShownFigure

    scene = _make_scene(drop_foreign(dataset), values, roi, at, limit)
    millimetres = _make_voxel_sizes(scene.affine)
    sizes = dict(zip(AXES, scene.values.shape, strict=True))
    room = 2 * MARGIN * max(sizes.values())
    widths = [(sizes[right] + room) * millimetres[right] for _, _, right, _ in PANELS]
    heights = [(sizes[up] + room) * millimetres[up] for _, _, _, up in PANELS]
    size = (11.6, 1.15 + max(heights) * 10.0 / sum(widths))
    figure = ShownFigure(figsize=size, dpi=150, layout="constrained", facecolor="white")
    axes = figure.subplots(1, len(PANELS), width_ratios=widths)
    for panel, one in zip(PANELS, axes, strict=True):
        image = _draw_panel(one, scene, panel, millimetres)
    bar = figure.colorbar(
        image, ax=axes, shrink=0.82, aspect=26, pad=0.015, extend="both" if scene.colours["vmin"] else "max"
    )
    bar.set_label(_make_label(values), color=INK)
    bar.outline.set_visible(False)
    if scene.region is not None:
        outlined = "voxels shown" if "voxel" in values.dims else roi if isinstance(roi, str) else ", ".join(roi or ())
        figure.supxlabel(f"outline: {outlined}", color=FAINT, fontsize=9)
    figure.suptitle(_make_title(values) if title is None else title, color=INK, fontsize=12, fontweight="bold")
    return figure


def _make_scene(dataset: xr.Dataset, values: xr.DataArray, roi: Any, at: Any, limit: float | None) -> Scene:
    volume = make_volume(values)
    if set(volume.dims) != set(AXES):
        raise ConfigError(f"a picture of dimensions {values.dims}, expected z, y, x", hint="Give one trial.")
    array = volume.transpose(*AXES).values.astype(np.float64)
    region = _find_region(dataset, values, roi)
    if BRAINMASK in dataset and dataset[BRAINMASK].dims == AXES:
        array = np.where(dataset[BRAINMASK].values > 0, array, np.nan)
    places = _find_places(array, region) if at is None else dict(zip(AXES, map(int, at), strict=True))
    for axis, size in zip(AXES, array.shape, strict=True):
        if not 0 <= places[axis] < size:
            raise IndexError(f"slice {axis} = {places[axis]} is outside 0 .. {size - 1}")
    if limit is None:
        known = np.abs(array[np.isfinite(array)])
        limit = float(np.percentile(known, PERCENTILE)) if known.size else 1.0
    affine = dataset[AFFINE].values if AFFINE in dataset else None
    return Scene(array, region, places, affine, limit or 1.0)


def _find_region(dataset: xr.Dataset, values: xr.DataArray, roi: Any) -> np.ndarray | None:
    if roi is None:
        return None
    if "voxel" in values.dims:
        whole = make_volume(xr.ones_like(values, dtype=np.int8))
        found: np.ndarray = whole.transpose(*AXES).values > 0
        return found
    attributes = {str(name): each.attrs for name, each in dataset.variables.items()}
    atlas = make_atlas(attributes, lambda name: read_labels(dataset[name], AXES))
    if roi == DEFAULT_ROI and roi not in atlas.labels:
        return None
    return atlas.find_mask([roi] if isinstance(roi, str) else roi)


def _find_places(array: np.ndarray, region: np.ndarray | None) -> dict[str, int]:
    """Where the region is widest along each axis, else the brain, else the middle."""
    shown = np.isfinite(array) if region is None else region
    counts = [shown.sum(tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    # Of slices that are equally wide, the middle one.
    return {
        axis: int(np.flatnonzero(c == c.max())[(c == c.max()).sum() // 2]) for axis, c in zip(AXES, counts, strict=True)
    }


def _draw_panel(one: Any, scene: Scene, panel: tuple[str, str, str, str], millimetres: dict[str, float]) -> Any:
    name, cut, right, up = panel
    take = AXES.index(cut)
    # What is left is in the order of AXES: up before right in all three panels.
    image = one.imshow(
        scene.values.take(scene.at[cut], axis=take),
        **scene.colours,
        origin="lower",
        interpolation="nearest",
        aspect=millimetres[up] / millimetres[right],
    )
    if scene.region is not None:
        _draw_outline(one, scene.region.take(scene.at[cut], axis=take))
    for axis, line in ((right, one.axvline), (up, one.axhline)):
        line(scene.at[axis], color=FAINT, linewidth=0.5, linestyle=(0, (4, 4)), alpha=0.7)
    _write_sides(one, scene.affine, right, up)
    one.set_title(f"{name}, {_format_place(scene, cut)}", fontsize=10, color=INK)
    one.set_facecolor(OUTSIDE)
    # Room for the letters at the edges.
    rows, columns = image.get_array().shape
    room = MARGIN * max(scene.values.shape)
    one.set(xlim=(-0.5 - room, columns - 0.5 + room), ylim=(-0.5 - room, rows - 0.5 + room))
    one.set_xticks([])
    one.set_yticks([])
    for side in one.spines.values():
        side.set_visible(False)
    return image


def _draw_outline(one: Any, mask: np.ndarray) -> None:
    """The border of *mask* along the edges of its pixels."""
    from matplotlib.collections import LineCollection

    padded = np.pad(mask, 1)
    rows, columns = np.nonzero(padded[1:] != padded[:-1])
    lines = [[(c - 1.5, r - 0.5), (c - 0.5, r - 0.5)] for r, c in zip(rows, columns, strict=True)]
    rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
    lines += [[(c - 0.5, r - 1.5), (c - 0.5, r - 0.5)] for r, c in zip(rows, columns, strict=True)]
    one.add_collection(LineCollection(lines, colors=INK, linewidths=1.1, capstyle="projecting"))


def _write_sides(one: Any, affine: np.ndarray | None, right: str, up: str) -> None:
    """Letters at the four edges: which way is left, right, posterior, anterior, inferior, superior."""
    if affine is None:
        return
    check_library("nibabel", "ds.nsd.plot", "plot")
    import nibabel

    towards = dict(zip("xyz", nibabel.aff2axcodes(affine), strict=True))  # type: ignore[no-untyped-call]
    style = {"color": INK, "fontsize": 10, "fontweight": "bold", "transform": one.transAxes}
    for letter, x, y, ha, va in (
        (OPPOSITE[towards[right]], 0.015, 0.5, "left", "center"),
        (towards[right], 0.985, 0.5, "right", "center"),
        (OPPOSITE[towards[up]], 0.5, 0.015, "center", "bottom"),
        (towards[up], 0.5, 0.985, "center", "top"),
    ):
        one.text(x, y, letter, ha=ha, va=va, **style)


def _format_place(scene: Scene, cut: str) -> str:
    index = scene.at[cut]
    if scene.affine is None:
        return f"{cut} = {index}"
    row = "xyz".index(cut)
    place = scene.affine[:3, :3] @ [scene.at[axis] for axis in "xyz"] + scene.affine[:3, 3]
    return f"{cut} = {index} ({place[row]:+.0f} mm)"


def _make_voxel_sizes(affine: np.ndarray | None) -> dict[str, float]:
    sizes = np.ones(3) if affine is None else np.linalg.norm(affine[:3, :3], axis=0)
    return dict(zip("xyz", sizes.tolist(), strict=True))


def _make_label(values: xr.DataArray) -> str:
    units = values.attrs.get("units", "")
    if units == "percent":
        return (
            "percent signal change" if values.name == "betas" else f"{values.attrs.get('long_name', values.name)} (%)"
        )
    if "zscore" in values.attrs:
        return "z-score within session"
    return str(values.attrs.get("long_name", values.name or ""))


def _make_title(values: xr.DataArray) -> str:
    coords = {name: each.values.item() for name, each in values.coords.items() if each.ndim == 0}
    if "trial_in_session" in coords and "session" in coords:
        image = f", image {coords['nsd_id']}" if "nsd_id" in coords else ""
        return f"session {coords['session']}, trial {coords['trial_in_session']}{image}"
    if "nsd_id" in coords:
        return f"image {coords['nsd_id']}, mean over {coords.get('repeats', '')} repeats"
    return str(values.attrs.get("long_name", values.name or ""))
