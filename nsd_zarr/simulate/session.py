"""A session: the stored counts of its trials, made one z slab at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nsd_zarr.simulate.recipe import Simulation
from nsd_zarr.simulate.streams import Stream, make_generator
from nsd_zarr.simulate.voxels import VoxelTruth

GAIN_DRIFT, OFFSET_DRIFT = 0.1, 0.3
"""Largest drift of a session: of the gain, and of the mean in noise sd; our choice, removed by a session z-score."""
TILE_VOXELS = 256
"""Voxels made at a time: 750 trials of them as float32 stay in cache. A session of 315,000 brain voxels took 2.2 s
in tiles of 64 to 1,024 voxels and 2.7 s in tiles of 5,000 (NumPy 2.4, one core)."""
STORED = np.dtype("<i2")
"""Stored dtype: chunks are written as raw bytes, so the byte order is fixed. Source: data manual."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How one session differs from the next, smooth over the volume, constant over its trials."""

    gain: NDArray[np.float32]
    """Factor of signal and noise, shape (voxel,)."""
    offset: NDArray[np.float32]
    """Mean in units of the voxel's noise sd, shape (voxel,)."""


def make_drift(truth: VoxelTruth, simulation: Simulation, session: int) -> Drift:
    """Drift of *session* (from 1): one wave over the brain for the gain, one for the offset."""
    rng = make_generator(simulation.seed, Stream.DRIFT, simulation.subject, session)
    gain, offset = (make_wave(truth.coordinates, rng) for _ in range(2))
    return Drift(1 + np.float32(GAIN_DRIFT) * gain, np.float32(OFFSET_DRIFT) * offset)


def make_wave(coordinates: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A cosine of random direction and phase, at most one period along an axis; shape (voxel,), from -1 to 1."""
    direction, phase = rng.uniform(-np.pi, np.pi, 3), rng.uniform(0, 2 * np.pi)
    wave: NDArray[np.float32] = np.cos(coordinates @ direction.astype(np.float32) + np.float32(phase))
    return wave


def make_slabs(
    truth: VoxelTruth, features: NDArray[np.float32], simulation: Simulation, session: int
) -> Iterator[NDArray[np.int16]]:
    """Stored counts of *session* (from 1), one z slab after the other.

    beta = noise_sd * (gain * (ncsnr * signal(image) + noise) + offset), rounded and clipped to int16; zero outside
    the brain, and where the voxel has no data in the session. *features*: latent features of the images in trial order,
    shape (trial, feature). Yields int16 of shape (y, x, trial), C order, as one-voxel chunks lie on disk. Peak memory:
    one slab twice.
    """
    drift = make_drift(truth, simulation, session)
    # The offset is one more feature, always 1, so that one product makes signal and mean.
    design = np.vstack([features.T, np.ones(len(features), dtype=np.float32)])
    for z, inside in enumerate(truth.mask):
        rng = make_generator(simulation.seed, Stream.NOISE, simulation.subject, session, z)
        slab = np.zeros((*inside.shape, len(features)), dtype=STORED)
        rows = make_rows(truth, drift, design, truth.voxels_of_slab(z), rng)
        rows[~truth.valid[session - 1, truth.voxels_of_slab(z)]] = 0
        slab[inside] = rows
        yield slab


def make_rows(
    truth: VoxelTruth, drift: Drift, design: NDArray[np.float32], voxels: slice, rng: np.random.Generator
) -> NDArray[np.int16]:
    """Stored counts of some *voxels* of the brain, shape (voxel, trial)."""
    noise_sd = truth.noise_counts[voxels] * drift.gain[voxels]
    signal = (noise_sd * truth.ncsnr[voxels])[:, np.newaxis] * truth.weights[voxels]
    mixing = np.column_stack([signal, truth.noise_counts[voxels] * drift.offset[voxels]])
    rails = truth.rails[voxels]
    rows = np.empty((len(mixing), design.shape[1]), dtype=STORED)
    for first in range(0, len(rows), TILE_VOXELS):
        tile = slice(first, first + TILE_VOXELS)
        values = rng.standard_normal(rows[tile].shape, dtype=np.float32)
        values *= noise_sd[tile, np.newaxis]
        values += mixing[tile] @ design
        values[rails[tile]] = stretch_to_rails(values[rails[tile]])
        rows[tile] = round_to_counts(values)
    return rows


def stretch_to_rails(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stretch each row of *values* (voxel, trial) until its extremes lie 10 % beyond both int16 rails.

    Linear, so that a session z-score takes it away again, all but the clipping of the extremes.
    """
    low, high = values.min(axis=1, keepdims=True), values.max(axis=1, keepdims=True)
    stretched: NDArray[np.float32] = (values - (low + high) / 2) * (np.float32(1.1 * 2**16) / (high - low))
    return stretched


def round_to_counts(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round *values* to whole counts within the range of int16, in place."""
    limits = np.iinfo(STORED)
    np.rint(values, out=values)
    return np.clip(values, limits.min, limits.max, out=values)
