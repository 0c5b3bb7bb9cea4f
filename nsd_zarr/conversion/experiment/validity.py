"""Which voxels have data in a session: what the authors' volumes say, held against the betas in the store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from nsd_zarr.conversion.experiment.files import Experiment
from nsd_zarr.layout import Geometry, SessionNumber
from nsd_zarr.science.missing import find_missing
from nsd_zarr.source.find import name_sessions
from nsd_zarr.source.volume import make_mask, parse_volume
from nsd_zarr.store.format import SESSION_STD, make_chunk_key
from nsd_zarr.store.volume import read_volume


def make_valid_volumes(experiment: Experiment, geometry: Geometry, store: Path) -> Iterator[np.ndarray]:
    """Valid voxels of each session, bool (z, y, x): its own volume; where it has none, those whose betas vary.

    *store*: the folder that holds the statistics of every session. Raises SourceError when a volume changed since it
    was inspected, DamageFound when statistics are lost.
    """
    for position, path in enumerate(experiment.files.valid):
        if path is None:
            yield find_varying(geometry, store, position)
        else:
            yield make_mask(parse_volume(experiment.read(path), path))


def find_varying(geometry: Geometry, store: Path, position: int) -> np.ndarray:
    """Voxels that vary over the trials of the session at *position*, by the statistics in *store*. Raises DamageFound.

    NaN counts as not varying.
    """
    key = make_chunk_key(SESSION_STD, (position, *(0 for _ in geometry.volume_shape)))
    varying: np.ndarray = ~find_missing(read_volume(store, key, geometry.volume_shape, "float32"))
    return varying


def compare_valid(experiment: Experiment | None, geometry: Geometry, store: Path) -> Experiment | None:
    """*experiment* with a note, where valid volumes and betas of *store* disagree inside the brain mask, with counts.

    Outside of the mask the dataset's betas are 0, whatever is valid there; without a mask, voxels that vary in any
    session are the brain. Errors as make_valid_volumes.
    """
    if experiment is None or not any(experiment.files.valid):
        return experiment
    counts: dict[SessionNumber, tuple[int, ...]] = {}
    brain = _find_brain(experiment, geometry, store)
    for position, valid in enumerate(make_valid_volumes(experiment, geometry, store)):
        varying = find_varying(geometry, store, position)
        pair = tuple(int(np.count_nonzero(odd & brain)) for odd in (varying & ~valid, valid & ~varying))
        counts |= {geometry.sessions[position]: pair} if any(pair) else {}
    if not counts:
        return experiment
    note = (
        f"valid_sessionBB.nii.gz of {name_sessions(counts)} and the betas disagree: "
        f"{sum(pair[0] for pair in counts.values()):,} times a voxel varies over a session where it is not valid, "
        f"{sum(pair[1] for pair in counts.values()):,} times a valid one does not vary; both count as without data"
    )
    return replace(experiment, notes=(*experiment.notes, note))


def _find_brain(experiment: Experiment, geometry: Geometry, store: Path) -> np.ndarray:
    """The brain mask; without one, voxels that vary in any session."""
    path = experiment.files.brainmask
    if path is not None:
        return make_mask(parse_volume(experiment.read(path), path))
    brain = np.zeros(geometry.volume_shape, bool)
    for position in range(len(geometry.sessions)):
        brain |= find_varying(geometry, store, position)
    return brain
