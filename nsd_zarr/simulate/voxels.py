"""Voxels: the truths planted in them, which hold for all sessions of a subject."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nsd_zarr.layout import COUNTS_PER_PERCENT
from nsd_zarr.nsd import SHOWINGS
from nsd_zarr.simulate.anatomy import VolumeShape, make_brain_mask, make_valid
from nsd_zarr.simulate.images import IMAGE_FEATURES, make_image_order
from nsd_zarr.simulate.recipe import Simulation
from nsd_zarr.simulate.regions import make_roi
from nsd_zarr.simulate.streams import Stream, make_generator

VISUAL_NCSNR = (0.3, 1.5)
"""Least and largest planted ncsnr inside nsdgeneral; our choice."""
OTHER_NCSNR = (0.0, 0.3)
"""Least and largest planted ncsnr elsewhere in the brain; our choice."""
NOISE_PERCENT, NOISE_SPREAD = 2.0, 0.4
"""Median over voxels of the noise sd, in percent signal change, and the sd of its logarithm; our choice."""
RAIL_VOXELS = 4
"""Voxels that reach both int16 rails in every session. Both occur in the dataset (subject 1, session 1)."""


@dataclass(frozen=True, slots=True)
class VoxelTruth:
    """What is planted in each voxel of the brain. Vectors run over the brain mask in C order: z, y, x."""

    mask: NDArray[np.bool_]
    """Brain mask, shape (z, y, x)."""
    coordinates: NDArray[np.float32]
    """Position of each voxel from -1 to 1 along z, y, x; shape (voxel, 3)."""
    ncsnr: NDArray[np.float32]
    """Signal sd over noise sd, shape (voxel,)."""
    noise_counts: NDArray[np.float32]
    """Noise sd in stored counts before drift, shape (voxel,)."""
    weights: NDArray[np.float32]
    """Weights of the image features, of unit norm, so that the signal has unit variance; shape (voxel, feature)."""
    rails: NDArray[np.bool_]
    """Voxels that are stretched until they reach both rails, shape (voxel,)."""

    valid: NDArray[np.bool_]
    """Whether the voxel has data in a session, shape (session, voxel)."""

    def voxels_of_slab(self, z: int) -> slice:
        """Where the voxels of slab *z* (0-based) lie in the vectors."""
        per_slab = np.count_nonzero(self.mask, axis=(1, 2))
        first = int(per_slab[:z].sum())
        return slice(first, first + int(per_slab[z]))


def make_planted_ncsnr(volume_shape: VolumeShape, seed: int = 0, subject: int = 1) -> NDArray[np.float32]:
    """Planted noise-ceiling signal-to-noise ratio: signal sd / noise sd, by the dataset's definition.

    Returns float32 of shape (z, y, x): 0.3 to 1.5 inside nsdgeneral, 0 to 0.3 elsewhere in the brain, NaN outside
    as in the dataset's own ncsnr volumes. The few voxels that reach the rails lose a little of it by clipping.
    """
    draws = make_generator(seed, Stream.NCSNR, subject).random(volume_shape, dtype=np.float32)
    visual = make_roi("nsdgeneral", volume_shape) > 0
    low, high = (np.where(visual, inside, other) for inside, other in zip(VISUAL_NCSNR, OTHER_NCSNR, strict=True))
    ncsnr = low + (high - low) * draws
    return np.where(make_brain_mask(volume_shape), ncsnr, np.nan).astype(np.float32)


def make_valid_sessions(simulation: Simulation) -> NDArray[np.bool_]:
    """Voxels with data in each session; bool of shape (session, z, y, x)."""
    shape, seed, subject = simulation.volume_shape, simulation.seed, simulation.subject
    return np.stack([make_valid(shape, seed, subject, 1 + number) for number in range(simulation.sessions)])


def make_ncsnr(simulation: Simulation) -> NDArray[np.float32]:
    """The planted ncsnr, NaN also in voxels for which the authors' rule has no image to count; float32 (z, y, x).

    It counts images that were shown three times, each time in a session in which the voxel has data. Source:
    export_noiseceiling.m.
    """
    trials, recipe = simulation.trials_per_session, (simulation.seed, simulation.subject)
    order = make_image_order(simulation.sessions, trials, simulation.seed)
    sessions = np.argsort(order, kind="stable") // trials
    _, first, showings = np.unique(np.sort(order), return_index=True, return_counts=True)
    triples = {frozenset(sessions[start : start + SHOWINGS].tolist()) for start in first[showings == SHOWINGS]}
    valid = np.stack(
        [make_valid(simulation.volume_shape, *recipe, 1 + number) for number in range(simulation.sessions)]
    )
    counted = np.zeros(simulation.volume_shape, bool)
    for together in triples:
        counted |= valid[list(together)].all(axis=0)
    planted = make_planted_ncsnr(simulation.volume_shape, *recipe)
    return np.where(counted, planted, np.float32(np.nan))


def make_voxel_truth(simulation: Simulation) -> VoxelTruth:
    """Everything planted in the voxels of *simulation*. Peak memory: about 60 bytes per voxel of the volume."""
    mask = make_brain_mask(simulation.volume_shape)
    seed, subject, count = simulation.seed, simulation.subject, int(np.count_nonzero(mask))
    spread = make_generator(seed, Stream.SCALE, subject).standard_normal(count, dtype=np.float32)
    valid = np.stack(
        [make_valid(simulation.volume_shape, seed, subject, 1 + n)[mask] for n in range(simulation.sessions)]
    )
    return VoxelTruth(
        mask=mask,
        coordinates=make_voxel_coordinates(mask),
        ncsnr=make_planted_ncsnr(simulation.volume_shape, seed, subject)[mask],
        noise_counts=np.float32(COUNTS_PER_PERCENT * NOISE_PERCENT) * np.exp(np.float32(NOISE_SPREAD) * spread),
        weights=make_weights(count, make_generator(seed, Stream.WEIGHTS, subject)),
        rails=choose_rails(np.logical_and.reduce(valid), make_generator(seed, Stream.RAILS, subject)),
        valid=valid,
    )


def choose_rails(whole: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """A few of the voxels with data in all sessions, bool of shape (voxel,)."""
    order = rng.permutation(len(whole))
    rails = np.zeros(len(whole), bool)
    rails[order[whole[order]][:RAIL_VOXELS]] = True
    return rails


def make_voxel_coordinates(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Positions of the voxels inside *mask*, from -1 to 1 along each axis; shape (voxel, 3)."""
    lengths = np.asarray(mask.shape, dtype=np.float32)
    coordinates: NDArray[np.float32] = (2 * np.argwhere(mask).astype(np.float32) + 1) / lengths - 1
    return coordinates


def make_weights(count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Directions drawn evenly from all, each of unit norm; shape (count, feature)."""
    weights = rng.standard_normal((count, IMAGE_FEATURES), dtype=np.float32)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    return weights
