"""Sessions of nsdsynthetic and nsdimagery: one of each, of the same voxels; of nsdsynthetic its design and images too.

Of nsdimagery there is no more here, because the form of its other files is not known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nsd_zarr.forms import get_form
from nsd_zarr.image_sets import (
    NSD,
    NSDIMAGERY,
    NSDSYNTHETIC,
    SYNTHETIC_COLOR_IMAGES,
    SYNTHETIC_IMAGES,
    SYNTHETIC_STIMULI,
    locate_colors,
)
from nsd_zarr.nsd import MAX_SESSIONS, SUBJECTS, NsdPaths
from nsd_zarr.simulate.design import format_mat
from nsd_zarr.simulate.images import IMAGE_FEATURES
from nsd_zarr.simulate.nifti import write_nifti
from nsd_zarr.simulate.recipe import Simulation
from nsd_zarr.simulate.session import make_slabs
from nsd_zarr.simulate.session_file import OnStep
from nsd_zarr.simulate.session_forms import count_form_steps, create_forms
from nsd_zarr.simulate.stimuli import create_image_file, draw_images
from nsd_zarr.simulate.streams import Stream, make_generator
from nsd_zarr.simulate.voxels import VoxelTruth

RUNS, RUN_IMAGES, RUN_REPEATS, RUN_SLOTS = 8, 83, 10, 107
"""Of nsdsynthetic: runs, and in each regular trials, trials that repeat the one before, and slots. Source: data manual,
"Functional data (nsdsynthetic)"."""
TARGETS = 6
"""Things that are seen, attended or imagined in a run of nsdimagery. Source: data manual, "Functional data
(nsdimagery)"."""
IMAGERY_RUNS = (*((letter, trials) for letter in range(3) for trials in (48, 96, 48)), *((n, 48) for n in range(3)))
"""Set of targets and trials with betas of each run of nsdimagery. Source: as above."""
DESIGN = Path("nsddata/experiments/nsdsynthetic/nsdsynthetic_expdesign.mat")
"""The design of nsdsynthetic, below the NSD root. Source: data manual, "Experiments"."""
_SESSIONS = {NSDSYNTHETIC: MAX_SESSIONS + 1, NSDIMAGERY: MAX_SESSIONS + 2}
"""Numbers that enter the seed in place of a session's; our choice, behind all sessions."""


def make_synthetic_ordering(seed: int = 0) -> NDArray[np.int64]:
    """The image of each trial of nsdsynthetic, counted from 1, the same for every subject; shape (744,).

    Each comes two or three times, and ten times a run the same one at once again.
    """
    rng, images = make_generator(seed, Stream.OTHER_ORDER), np.arange(1, SYNTHETIC_IMAGES + SYNTHETIC_COLOR_IMAGES + 1)
    more = rng.choice(images, RUNS * RUN_IMAGES - 2 * len(images), replace=False)
    runs = []
    for shown in rng.permutation(np.concatenate([images, images, more])).reshape(RUNS, RUN_IMAGES):
        times = np.ones(RUN_IMAGES, np.int64)
        times[rng.choice(RUN_IMAGES, RUN_REPEATS, replace=False)] = 2
        runs.append(np.repeat(shown, times))
    return np.concatenate(runs)


def make_imagery_targets(seed: int = 0) -> NDArray[np.int64]:
    """The target of each trial of nsdimagery, counted from 0 over the three sets; shape (720,)."""
    rng = make_generator(seed, Stream.OTHER_ORDER, 1)
    runs = [rng.permutation(np.arange(trials) % TARGETS) + TARGETS * letter for letter, trials in IMAGERY_RUNS]
    return np.concatenate(runs)


def make_synthetic_features(subject: int, seed: int = 0) -> NDArray[np.float32]:
    """Latent features of the 284 images that *subject* saw, shape (image, 8): the last 64 are its own."""
    colors = SYNTHETIC_COLOR_IMAGES * len(SUBJECTS)
    rng = make_generator(seed, Stream.OTHER_FEATURES)
    every = rng.standard_normal((SYNTHETIC_IMAGES + colors, IMAGE_FEATURES), dtype=np.float32)
    return np.concatenate([every[:SYNTHETIC_IMAGES], every[_find_own(subject)]])


def _find_own(subject: int) -> slice:
    """Where a subject's colors lie behind each other and behind the images that all saw."""
    first = SYNTHETIC_IMAGES + SYNTHETIC_COLOR_IMAGES * (subject - SUBJECTS[0])
    return slice(first, first + SYNTHETIC_COLOR_IMAGES)


@lru_cache(maxsize=4)
def format_synthetic_design(seed: int = 0) -> bytes:
    """nsdsynthetic_expdesign.mat as bytes: masterordering (1, 744) from 1; stimpattern (1, 8, 107)."""
    pattern, trials = np.zeros((1, RUNS, RUN_SLOTS)), RUN_IMAGES + RUN_REPEATS
    pattern[..., np.arange(trials) * RUN_SLOTS // trials] = 1
    ordering = make_synthetic_ordering(seed)[np.newaxis].astype(np.float64)
    return format_mat({"masterordering": ordering, "stimpattern": pattern})


def locate_betas(paths: NsdPaths, experiment: str) -> NsdPaths:
    """The dataset's paths around the betas of another experiment than the core one."""
    return replace(paths, betas=experiment + paths.betas)


def list_others(simulation: Simulation) -> list[str]:
    """The other experiments of a recipe."""
    return [name for name in simulation.experiments if name != NSD]


def count_other_steps(simulation: Simulation) -> int:
    """Steps that writing the sessions of all other experiments takes."""
    return sum(count_form_steps(_make_recipe(simulation, name)) for name in list_others(simulation))


def is_other_synthetic(root: Path, simulation: Simulation) -> bool:
    """Whether a design or images of nsdsynthetic are there that are not this simulation's."""
    if NSDSYNTHETIC not in simulation.experiments:
        return False
    if not (root / DESIGN).exists():  # Images are written after it.
        return (root / SYNTHETIC_STIMULI).exists()
    return (root / DESIGN).read_bytes() != format_synthetic_design(simulation.seed)


def write_synthetic_design(root: Path, simulation: Simulation) -> None:
    """Write the design of nsdsynthetic and, when images are asked for, all of its images that the subject saw."""
    if NSDSYNTHETIC not in simulation.experiments:
        return
    (root / DESIGN).parent.mkdir(parents=True, exist_ok=True)
    (root / DESIGN).write_bytes(format_synthetic_design(simulation.seed))
    if not simulation.images:
        return
    features, own = make_synthetic_features(simulation.subject, simulation.seed), _find_own(simulation.subject)
    numbers = np.concatenate([np.arange(SYNTHETIC_IMAGES), np.arange(own.start, own.stop)])
    stimuli, size = root / SYNTHETIC_STIMULI, simulation.image_size
    for path, part in (
        (stimuli, slice(SYNTHETIC_IMAGES)),
        (locate_colors(stimuli, simulation.subject), slice(SYNTHETIC_IMAGES, None)),
    ):
        create_image_file(path, len(numbers[part]), size, _Draw(features[part], numbers[part], size))


@dataclass(frozen=True, slots=True)
class _Draw:
    """Draws some of many images."""

    features: NDArray[np.float32]
    """Shape (image, 8)."""
    numbers: NDArray[np.int64]
    """Shape (image,)."""
    size: int
    """Edge in pixels."""

    def __call__(self, first: int, stop: int) -> NDArray[np.uint8]:
        return draw_images(self.features[first:stop], self.numbers[first:stop], self.size)


def write_other_sessions(paths: NsdPaths, simulation: Simulation, truth: VoxelTruth, on_step: OnStep) -> None:
    """Write the session of every other experiment, and its valid voxels: all of the brain."""
    for name in list_others(simulation):
        recipe, number = _make_recipe(simulation, name), _SESSIONS[name]
        own = locate_betas(paths, name)
        files = {form: _locate_files(own, form, name) for form in simulation.forms}
        for path in (path for group in files.values() for path in group):
            path.parent.mkdir(parents=True, exist_ok=True)
        valid = paths.volumes / f"valid_{name}.nii.gz"
        write_nifti(valid, truth.mask.astype("i2"), simulation.voxel_mm, simulation.seconds_per_volume)
        whole = replace(truth, valid=np.broadcast_to(np.True_, (number, truth.valid.shape[1])))
        slabs = make_slabs(whole, _make_features(simulation, name), recipe, number)
        create_forms(files, recipe, slabs, truth.mask, on_step)


def _make_features(simulation: Simulation, experiment: str) -> NDArray[np.float32]:
    """Latent features of what each trial was about, shape (trial, 8)."""
    seed = simulation.seed
    if experiment == NSDSYNTHETIC:
        return make_synthetic_features(simulation.subject, seed)[make_synthetic_ordering(seed) - 1]
    rng = make_generator(seed, Stream.OTHER_FEATURES, 1)
    targets: NDArray[np.float32] = rng.standard_normal((3 * TARGETS, IMAGE_FEATURES), dtype=np.float32)
    return targets[make_imagery_targets(seed)]


def _make_recipe(simulation: Simulation, experiment: str) -> Simulation:
    """The recipe of its session: that of the core experiment with as many trials as it has."""
    trials = RUNS * (RUN_IMAGES + RUN_REPEATS) if experiment == NSDSYNTHETIC else sum(n for _, n in IMAGERY_RUNS)
    return replace(simulation, sessions=1, shape=(trials, *simulation.volume_shape))


def _locate_files(paths: NsdPaths, form: str, experiment: str) -> tuple[Path, ...]:
    """Its session in a form: betas_nsdsynthetic.hdf5, without a number."""
    files = get_form(form).locate(paths, 1)
    return tuple(path.with_name(path.name.replace("session01", experiment)) for path in files)
