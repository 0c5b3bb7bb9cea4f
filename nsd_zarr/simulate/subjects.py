"""Several subjects in one synthetic root: one experiment, and volumes of different shapes, as in the dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nsd_zarr.errors import ConfigError
from nsd_zarr.nsd import SUBJECTS
from nsd_zarr.simulate.recipe import Simulation
from nsd_zarr.simulate.root import OnProgress, SimulatedRoot, simulate_root

SUBJECT_VOLUMES = {
    1: (83, 104, 81),
    2: (84, 106, 82),
    3: (82, 106, 81),
    4: (80, 99, 85),
    5: (78, 97, 79),
    6: (83, 113, 85),
    7: (81, 95, 78),
    8: (78, 103, 80),
}
"""Shape (z, y, x) of each subject's volumes at 1.8 mm. Source: data manual, "Functional data (NSD)"."""
Shape = tuple[int, int, int, int]


def scale_shape(shape: Shape, subject: int) -> Shape:
    """The shape of a session of *subject*, where *shape* is that of subject 1: (trials, z, y, x).

    Axes are longer and shorter than those of subject 1 as they are in the dataset, by one voxel at least, so that small
    volumes differ too; none becomes shorter than 2.
    """
    sizes = zip(shape[1:], SUBJECT_VOLUMES[subject], SUBJECT_VOLUMES[1], strict=True)
    z, y, x = (max(2, _scale(size, own, first)) for size, own, first in sizes)
    return shape[0], z, y, x


def _scale(size: int, own: int, first: int) -> int:
    scaled = round(size * own / first)
    return scaled if scaled != size else size + (own > first) - (own < first)


def simulate_subjects(
    directory: Path, simulation: Simulation, subjects: Sequence[int], on_progress: OnProgress | None = None
) -> dict[int, SimulatedRoot]:
    """Write the root of several *subjects* below *directory*; returns what belongs to each, by subject.

    *simulation*: the recipe, with the shape of subject 1; others have theirs (scale_shape). *on_progress*: as of
    simulate_root, which is called for each; the steps of all count as of one size. Raises ConfigError.
    """
    if unknown := sorted(set(subjects) - set(SUBJECTS)):
        raise ConfigError(
            f"subject {unknown[0]}, expected {SUBJECTS[0]} to {SUBJECTS[-1]}",
            hint="The dataset has eight.",
            found=unknown,
        )
    report = on_progress or (lambda done, total: None)
    made = {}
    for number, subject in enumerate(subjects):

        def advance(done: int, total: int, before: int = number) -> None:
            report(before * total + done, len(subjects) * total)

        recipe = replace(simulation, subject=subject, shape=scale_shape(simulation.shape, subject))
        made[subject] = simulate_root(directory, recipe, advance)
    return made
