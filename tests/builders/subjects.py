"""NSD roots of several subjects, whose volumes have different shapes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from nsd_zarr.simulate import Simulation, simulate_root

SUBJECT_SHAPES = {1: (12, 7, 5, 3), 2: (12, 5, 3, 11)}
"""Shape of a session of each subject: (trials, z, y, x)."""


@dataclass(frozen=True)
class MadeSubjects:
    """A root of several subjects: the oracle of what is made of it."""

    root: Path
    """The NSD root."""
    files: dict[int, tuple[Path, ...]]
    """Session files of each subject, session 1 first."""

    def read_counts(self, subject: int) -> np.ndarray:
        """All trials of a subject through h5py, (trial, z, y, x)."""
        parts = []
        for path in self.files[subject]:
            with h5py.File(path, "r") as file:
                parts.append(file["betas"][...])
        return np.concatenate(parts)


def create_subjects(folder: Path, sessions: int = 3, images: int = 0) -> MadeSubjects:
    """Write a root with the subjects of SUBJECT_SHAPES: trial table, masks, one region, and what is asked for."""
    files = {}
    for subject, shape in SUBJECT_SHAPES.items():
        recipe = Simulation(
            sessions=sessions,
            shape=shape,
            subject=subject,
            rois=("nsdgeneral",),
            hemispheres=False,
            images=images,
            image_size=8,
        )
        files[subject] = simulate_root(folder, recipe).session_files
    return MadeSubjects(folder, files)
