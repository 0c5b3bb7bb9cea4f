"""The recipe of a synthetic root: everything that decides its bytes, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass

from nsd_zarr.errors import ConfigError
from nsd_zarr.forms import FORM_NAMES, HDF5
from nsd_zarr.image_sets import NSD, NSDIMAGERY, NSDSYNTHETIC
from nsd_zarr.nsd import (
    ALL_IMAGES,
    IMAGE_SIZE,
    MAX_EXPERIMENT_TRIALS,
    MAX_SESSIONS,
    ROI_SETS,
    SUBJECTS,
    TRIALS_PER_SESSION,
    VOLUME_BETAS,
    VOLUME_SECONDS,
    VOXEL_MM,
)

LAYOUTS = ("nsd", "contiguous", "gzip")
"""How a session file may lie: one voxel per chunk as delivered, one block, or one compressed trial per chunk."""
ALL_ROIS = tuple(roi.name for roi in ROI_SETS)
"""Every set of regions that can be made."""
EXPERIMENTS = (NSD, NSDSYNTHETIC, NSDIMAGERY)
"""Experiments that can be made."""
MAX_PIXELS = 4096
"""Largest edge of an image that is made; our choice."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """What to simulate. Equal recipes give equal roots. Raises ConfigError if it cannot be made."""

    sessions: int = 3
    """Number of sessions, 1 to 40; they are numbered from 1."""
    shape: tuple[int, int, int, int] = (TRIALS_PER_SESSION, 83, 104, 81)
    """Shape of one session: (trials, z, y, x), each at least 2. The default is subject 1 at 1.8 mm."""
    layout: str = "nsd"
    """How the session files lie, one of LAYOUTS."""
    seed: int = 0
    """Seed of every random choice, not negative."""
    subject: int = 1
    """Subject number, 1 to 8; enters the seed of everything but the image features."""
    space: str = "func1pt8mm"
    """Volume space, a key of VOXEL_MM: names the folders and sets the voxel size."""
    betas: str = "betas_fithrf_GLMdenoise_RR"
    """Preparation, one of VOLUME_BETAS: names the folder."""
    images: int = 0
    """Stimulus images to write, 0 to 73,000: those of 73k ids 1 and up. The same for every subject."""
    image_size: int = IMAGE_SIZE
    """Edge of a stimulus image in pixels, at least 8."""
    rois: tuple[str, ...] = ALL_ROIS
    """Sets of regions to write, of ALL_ROIS."""
    hemispheres: bool = True
    """Whether region volumes of each hemisphere stand beside those of the whole brain."""
    mess: bool = False
    """Whether to add what real disks add, and to cut the trial table; see simulate.mess."""
    forms: tuple[str, ...] = (HDF5.name,)
    """Forms in which every session is written, of FORM_NAMES: the same trials in each."""

    experiments: tuple[str, ...] = (NSD,)
    """Experiments to write, of EXPERIMENTS: the core one, and one session of each of the others."""

    def __post_init__(self) -> None:
        check_shape(self.shape)
        check_range("sessions", self.sessions, 1, MAX_SESSIONS)
        check_range("subject", self.subject, SUBJECTS[0], SUBJECTS[-1])
        check_choice("layout", self.layout, LAYOUTS)
        check_choice("space", self.space, tuple(VOXEL_MM))
        check_choice("betas", self.betas, VOLUME_BETAS)
        check_range("images", self.images, 0, ALL_IMAGES)
        check_range("image_size", self.image_size, 8, MAX_PIXELS)
        for name in self.rois:
            check_choice("rois", name, ALL_ROIS)
        for name in self.forms:
            check_choice("forms", name, FORM_NAMES)
        check_forms(self.forms)
        check_experiments(self.experiments, self.betas)
        check_seed(self.seed)
        check_trials(self.sessions, self.trials_per_session)

    @property
    def trials_per_session(self) -> int:
        """Trials in every session."""
        return self.shape[0]

    @property
    def volume_shape(self) -> tuple[int, int, int]:
        """Shape of one trial: (z, y, x)."""
        return self.shape[1:]

    @property
    def voxel_mm(self) -> float:
        """Edge of a voxel in mm."""
        return VOXEL_MM[self.space]

    @property
    def seconds_per_volume(self) -> float:
        """Time from one fMRI volume to the next, in seconds."""
        return VOLUME_SECONDS[self.space]


def is_whole(value: object) -> bool:
    """Whether *value* is an int; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_shape(shape: tuple[int, ...]) -> None:
    """Refuse a *shape* that is not four whole numbers of at least 2."""
    if len(shape) != 4 or not all(is_whole(length) and length >= 2 for length in shape):
        # One trial cannot touch both int16 rails, one voxel along an axis cannot be inside and outside.
        raise ConfigError(
            f"shape {tuple(shape)} is not four whole numbers of at least 2",
            hint="Give trials,z,y,x, for example 750,83,104,81.",
            expected="(trials, z, y, x)",
            found=shape,
        )


def check_range(name: str, value: int, first: int, last: int) -> None:
    """Refuse a *value* that is not a whole number from *first* to *last*, both inclusive."""
    if not is_whole(value) or not first <= value <= last:
        raise ConfigError(
            f"{name} {value!r} is not a whole number from {first} to {last}",
            hint=f"The dataset itself has {first} to {last}: choose one of these.",
            expected=(first, last),
            found=value,
        )


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a *value* that is none of *choices*."""
    if value not in choices:
        raise ConfigError(
            f"{name} {value!r} is unknown", hint=f"Choose one of {', '.join(choices)}.", expected=choices, found=value
        )


def check_forms(forms: tuple[str, ...]) -> None:
    """Refuse *forms* that are none, or that name one twice."""
    if not forms or len(set(forms)) < len(forms):
        raise ConfigError(
            f"forms {', '.join(forms) or 'none'}: expected at least one, and each once",
            hint=f"Choose among {', '.join(FORM_NAMES)}.",
            expected=FORM_NAMES,
            found=forms,
        )


def check_experiments(experiments: tuple[str, ...], betas: str) -> None:
    """Refuse *experiments* that are unknown, named twice or without the core one, or that have no such *betas*."""
    for name in experiments:
        check_choice("experiments", name, EXPERIMENTS)
    if NSD not in experiments or len(set(experiments)) < len(experiments):
        raise ConfigError(
            f"experiments {', '.join(experiments) or 'none'}: expected {NSD}, and each once",
            hint=f"The others go beside the core experiment: {','.join(EXPERIMENTS)}.",
            expected=EXPERIMENTS,
            found=experiments,
        )
    if len(experiments) > 1 and betas == VOLUME_BETAS[0]:
        raise ConfigError(
            f"{experiments[-1]} has no {betas}", hint=f"Choose {' or '.join(VOLUME_BETAS[1:])}.", found=betas
        )


def check_seed(seed: int) -> None:
    """Refuse a *seed* that NumPy's seed sequences cannot take."""
    if not is_whole(seed) or seed < 0:
        raise ConfigError(
            f"seed {seed!r} is not a whole number of at least 0", hint="Give 0, 1, 2, ...", expected=0, found=seed
        )


def check_trials(sessions: int, trials_per_session: int) -> None:
    """Refuse more trials than 10,000 images shown three times can fill."""
    if sessions * trials_per_session > MAX_EXPERIMENT_TRIALS:
        raise ConfigError(
            f"{sessions} sessions of {trials_per_session} trials are {sessions * trials_per_session:,} trials, "
            f"more than the {MAX_EXPERIMENT_TRIALS:,} of a whole experiment",
            hint="Ask for fewer sessions or fewer trials.",
            expected=MAX_EXPERIMENT_TRIALS,
            found=sessions * trials_per_session,
        )
