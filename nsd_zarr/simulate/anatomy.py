"""Anatomy: brain mask, cortex and the slab, pure functions of the volume's shape, different along every axis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nsd_zarr.simulate.streams import Stream, make_generator

MASK_FRACTION = 0.45
"""Part of the volume inside the brain mask; our choice."""
CORTEX_FRACTION = 0.5
"""Part of the brain mask that is cortex: its outer shell; our choice."""
INVALID_FRACTION = 0.03
"""Part of the brain without data in a session, where the slab did not reach; our choice. Fewer than 34 voxels: none."""

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
    """Voxels with data in *session* (from 1): all but those beyond the lower edge of the slab; bool of shape (z, y, x).

    The slab lies a little differently in each session. Beyond its edge the betas are 0 in all trials of the session.
    """
    z, y, x = make_coordinates(volume_shape)
    tilt = make_generator(seed, Stream.VALID, subject, session).uniform(-1, 1, 2)
    height = np.broadcast_to(z + 0.5 * (tilt[0] * y + tilt[1] * x), volume_shape)
    brain = np.sort(height[make_brain_mask(volume_shape)])
    lowest: float = brain[int(INVALID_FRACTION * len(brain))]
    valid: NDArray[np.bool_] = height >= lowest
    return valid


def make_cortex_mask(volume_shape: VolumeShape) -> NDArray[np.bool_]:
    """Cortex: the outer shell of the brain mask; bool of shape (z, y, x)."""
    radius = make_brain_radius(volume_shape)
    mask = make_brain_mask(volume_shape)
    return mask & (radius >= np.quantile(radius[mask], 1 - CORTEX_FRACTION))
