"""Regions of interest: where each set of labels lies in the volume, pure functions of its shape."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nsd_zarr.nsd import HEMISPHERES, NO_LABEL, NOT_CORTEX, ORIGIN_VOLUME, ROI_SETS
from nsd_zarr.simulate.anatomy import (
    VolumeShape,
    make_brain_mask,
    make_brain_radius,
    make_coordinates,
    make_cortex_mask,
)

NSDGENERAL_FRACTION = 0.05
"""Part of the brain mask inside nsdgeneral: 15,724 of about 315,000 voxels for subject 1 at 1.8 mm."""
VISUALROIS_FRACTION = 0.3
"""Part of nsdgeneral with a prf-visualrois label: 4,657 of 15,724 voxels for subject 1."""
ROI_LABELS = {roi.name: roi.labels for roi in ROI_SETS}
"""Label names of each region volume: the first is label 1."""
IN_VISUAL_CORTEX = {
    "nsdgeneral": 0.0,
    "streams": 0.0,
    "Kastner2015": 0.0,
    "floc-faces": 0.5,
    "floc-words": 0.45,
    "floc-bodies": 0.4,
    "floc-places": 0.3,
}
"""Sets that lie in nsdgeneral, from this part of its voxels on, counted from the most posterior one; our choice."""
IN_CORTEX = {"HCP_MMP1": 0.0, "corticalsulc": 0.1}
"""The same for sets that lie in cortex."""
IN_DEPTH = {"thalamus": (0.0, 0.1), "MTL": (0.2, 0.35)}
"""Sets below cortex: which part of the voxels there, counted from the brain's centre; our choice."""
_FROM_VOLUME = frozenset(roi.name for roi in ROI_SETS if roi.origin == ORIGIN_VOLUME)

Voxels = NDArray[np.intp]


def make_roi(name: str, volume_shape: VolumeShape) -> NDArray[np.int16]:
    """Region volume *name*, a key of ROI_LABELS, of the whole brain; int16 of shape (z, y, x).

    -1 is not cortex, 0 cortex without a label, 1 and up are the labels; sets that are drawn in the volume have no -1.
    A label has one number in both hemispheres. Volumes too small for all labels have the first ones alone.
    """
    labels = np.where(make_cortex_mask(volume_shape), NO_LABEL, NOT_CORTEX).astype(np.int16)
    if name in _FROM_VOLUME:
        labels[:] = NO_LABEL
    if name in ("prf-visualrois", "prf-eccrois"):
        voxels = find_mapped_areas(volume_shape)
        areas = min(len(ROI_LABELS[name]), len(voxels))
        if name == "prf-eccrois":
            voxels = sort_by_eccentricity(voxels, volume_shape)
        labels.flat[voxels] = 1 + np.arange(len(voxels)) * areas // len(voxels)
        return labels
    for voxels, numbers in plant_bands(find_place(name, volume_shape), volume_shape, len(ROI_LABELS[name])):
        labels.flat[voxels] = numbers
    return labels


def make_hemisphere(name: str, volume_shape: VolumeShape, hemisphere: str) -> NDArray[np.int16]:
    """Region volume *name* of one *hemisphere*, "lh" or "rh": as make_roi, and in the other one as outside cortex."""
    outside = NO_LABEL if name in _FROM_VOLUME else NOT_CORTEX
    side = is_left(volume_shape) if hemisphere == HEMISPHERES[0] else ~is_left(volume_shape)
    return np.where(side, make_roi(name, volume_shape), outside).astype(np.int16)


def is_left(volume_shape: VolumeShape) -> NDArray[np.bool_]:
    """Voxels of the left hemisphere: the first half along x, which runs from left to right; shape (z, y, x)."""
    left = np.arange(volume_shape[2]) < (volume_shape[2] + 1) // 2
    return np.broadcast_to(left, volume_shape)


def find_place(name: str, volume_shape: VolumeShape) -> Voxels:
    """Flat indices (C order) of the labelled voxels of *name*, in the order of its labels."""
    if name in IN_DEPTH:
        voxels = rank_depth(volume_shape)
        first, last = (round(part * len(voxels)) for part in IN_DEPTH[name])
        return voxels[first : max(last, first + 1)]
    voxels = rank_visual_cortex(volume_shape) if name in IN_VISUAL_CORTEX else rank_cortex(volume_shape)
    return voxels[int((IN_VISUAL_CORTEX | IN_CORTEX)[name] * len(voxels)) :]


def plant_bands(voxels: Voxels, volume_shape: VolumeShape, areas: int) -> list[tuple[Voxels, NDArray[np.intp]]]:
    """Voxels and their labels from 1: bands in the order of *voxels*, each label in both hemispheres where all fit."""
    left = is_left(volume_shape).ravel()[voxels]
    sides = [voxels[left], voxels[~left]]
    if min(map(len, sides)) < areas:
        sides = [voxels]
    return [(side, 1 + np.arange(len(side)) * min(areas, len(side)) // max(1, len(side))) for side in sides]


@lru_cache(maxsize=8)
def rank_cortex(volume_shape: VolumeShape) -> Voxels:
    """Flat indices (C order) of all voxels of cortex, most posterior first."""
    z, y, x = make_coordinates(volume_shape)
    cortex = np.flatnonzero(make_cortex_mask(volume_shape))
    return cortex[np.argsort((y + 0.2 * z + 0.1 * x).ravel()[cortex], kind="stable")]


def rank_visual_cortex(volume_shape: VolumeShape) -> Voxels:
    """Flat indices (C order) of the nsdgeneral voxels: the most posterior ones of cortex, most posterior first."""
    ranked = rank_cortex(volume_shape)
    share = round(NSDGENERAL_FRACTION * make_brain_mask(volume_shape).sum())
    # Tiny volumes: two voxels for each visual area, if half of cortex suffices.
    few = min(2 * len(ROI_LABELS["prf-visualrois"]), len(ranked) // 2)
    return ranked[: max(1, share, few)]


@lru_cache(maxsize=8)
def rank_depth(volume_shape: VolumeShape) -> Voxels:
    """Flat indices (C order) of the brain's voxels below cortex, the nearest to its centre first; at least one."""
    mask = make_brain_mask(volume_shape)
    inside = np.flatnonzero(mask & ~make_cortex_mask(volume_shape))
    if not len(inside):
        inside = np.flatnonzero(mask)
    return inside[np.argsort(make_brain_radius(volume_shape).ravel()[inside], kind="stable")]


def find_mapped_areas(volume_shape: VolumeShape) -> Voxels:
    """Flat indices of the voxels of prf-visualrois and prf-eccrois, from V1 to hV4."""
    visual, areas = rank_visual_cortex(volume_shape), len(ROI_LABELS["prf-visualrois"])
    count = max(round(VISUALROIS_FRACTION * len(visual)), min(areas, len(visual)))
    return sort_areas(visual[:count], volume_shape, areas)


def sort_areas(voxels: Voxels, volume_shape: VolumeShape, areas: int) -> Voxels:
    """Sort flat indices from V1 (most posterior) to hV4, and inside each area from ventral (low z) to dorsal."""
    area = np.arange(len(voxels)) * areas // len(voxels) // 2  # pairs: V1, V2, V3, and hV4 alone
    z = np.unravel_index(voxels, volume_shape)[0]
    return voxels[np.lexsort((z, area))]


def sort_by_eccentricity(voxels: Voxels, volume_shape: VolumeShape) -> Voxels:
    """Sort flat indices from fovea to periphery: here by their distance from the plane between the hemispheres."""
    x = np.unravel_index(voxels, volume_shape)[2]
    return voxels[np.argsort(np.abs(2 * x - (volume_shape[2] - 1)), kind="stable")[::-1]]
