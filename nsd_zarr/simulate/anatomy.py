"""Anatomy: brain mask and regions of interest, pure functions of the volume's shape, different along every axis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nsd_zarr.nsd import NO_LABEL, NOT_CORTEX, ROI_SETS
from nsd_zarr.simulate.streams import Stream, make_generator

MASK_FRACTION = 0.45
"""Part of the volume inside the brain mask; our choice."""
CORTEX_FRACTION = 0.5
"""Part of the brain mask that is cortex: its outer shell; our choice."""
NSDGENERAL_FRACTION = 0.05
"""Part of the brain mask inside nsdgeneral: 15,724 of about 315,000 voxels for subject 1 at 1.8 mm."""
VISUALROIS_FRACTION = 0.3
"""Part of nsdgeneral with a prf-visualrois label: 4,657 of 15,724 voxels for subject 1."""
ROI_LABELS = {
    roi.name: roi.labels for roi in ROI_SETS if roi.name in ("nsdgeneral", "prf-visualrois", "streams", "floc-faces")
}
"""Label names of each region volume: the first is label 1."""

VolumeShape = tuple[int, int, int]


def make_coordinates(volume_shape: VolumeShape) -> list[NDArray[np.float64]]:
    """Voxel centres along z, y and x, from -1 to 1, shaped to broadcast to the volume."""
    axes = [(2 * np.arange(length) + 1) / length - 1 for length in volume_shape]
    return list(np.meshgrid(*axes, indexing="ij", sparse=True))


def make_brain_radius(volume_shape: VolumeShape) -> NDArray[np.float64]:
    """Distance from the brain's centre, which lies off the volume's on every axis; shape (z, y, x)."""
    z, y, x = make_coordinates(volume_shape)
    return (z - 0.06) ** 2 + (y + 0.08) ** 2 + (x - 0.05) ** 2 + 0.2 * z * y + 0.1 * y * x


def make_brain_mask(volume_shape: VolumeShape) -> NDArray[np.bool_]:
    """The brain: the 45 % of the voxels nearest to its centre, for any size; bool of shape (z, y, x)."""
    radius = make_brain_radius(volume_shape)
    return radius <= np.quantile(radius, MASK_FRACTION)


def make_valid(volume_shape: VolumeShape, seed: int = 0, subject: int = 1, session: int = 1) -> NDArray[np.bool_]:
    """Voxels with data in *session* (from 1): the brain, and of what is around it one side, another each session.

    bool of shape (z, y, x).
    """
    z, y, x = make_coordinates(volume_shape)
    a, b, c = make_generator(seed, Stream.VALID, subject, session).normal(size=3)
    valid: NDArray[np.bool_] = make_brain_mask(volume_shape) | (a * z + b * y + c * x > 0)
    return valid


def make_cortex_mask(volume_shape: VolumeShape) -> NDArray[np.bool_]:
    """Cortex: the outer shell of the brain mask; bool of shape (z, y, x)."""
    radius = make_brain_radius(volume_shape)
    mask = make_brain_mask(volume_shape)
    return mask & (radius >= np.quantile(radius[mask], 1 - CORTEX_FRACTION))


def rank_visual_cortex(volume_shape: VolumeShape) -> NDArray[np.intp]:
    """Flat indices (C order) of the nsdgeneral voxels: the most posterior ones of cortex, most posterior first."""
    z, y, x = make_coordinates(volume_shape)
    cortex = np.flatnonzero(make_cortex_mask(volume_shape))
    ranked = cortex[np.argsort((y + 0.2 * z + 0.1 * x).ravel()[cortex], kind="stable")]
    share = round(NSDGENERAL_FRACTION * make_brain_mask(volume_shape).sum())
    # Tiny volumes: two voxels for each visual area, if half of cortex suffices.
    few = min(2 * len(ROI_LABELS["prf-visualrois"]), len(cortex) // 2)
    return ranked[: max(1, share, few)]


def make_roi(name: str, volume_shape: VolumeShape) -> NDArray[np.int16]:
    """Region volume *name*, a key of ROI_LABELS; int16 of shape (z, y, x).

    -1 is not cortex, 0 cortex without a label, 1 and up are the labels. Volumes too small for seven areas have
    fewer labels.
    """
    visual = rank_visual_cortex(volume_shape)
    labels = np.where(make_cortex_mask(volume_shape), NO_LABEL, NOT_CORTEX).astype(np.int16)
    if name == "nsdgeneral":
        labels.flat[visual] = 1
        return labels
    areas = len(ROI_LABELS[name])
    if name != "prf-visualrois":
        # Bands from posterior to anterior: all of nsdgeneral for the streams, its anterior half for patches in it.
        band = visual if name == "streams" else visual[len(visual) // 2 :]
        labels.flat[band] = 1 + np.arange(len(band)) * areas // len(band)
        return labels
    count = max(round(VISUALROIS_FRACTION * len(visual)), min(areas, len(visual)))
    labels.flat[sort_areas(visual[:count], volume_shape, areas)] = 1 + np.arange(count) * areas // count
    return labels


def sort_areas(voxels: NDArray[np.intp], volume_shape: VolumeShape, areas: int) -> NDArray[np.intp]:
    """Sort flat indices from V1 (most posterior) to hV4, and inside each area from ventral (low z) to dorsal."""
    area = np.arange(len(voxels)) * areas // len(voxels) // 2  # pairs: V1, V2, V3, and hV4 alone
    z = np.unravel_index(voxels, volume_shape)[0]
    return voxels[np.lexsort((z, area))]
