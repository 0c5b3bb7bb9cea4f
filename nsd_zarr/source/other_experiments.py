"""Betas of resting runs, nsdsynthetic and nsdimagery: which run each trial is of, what was done, which image was shown.

Their trials are not those of responses.tsv. Source: data manual, "Functional data (nsdsynthetic)" and "(nsdimagery)";
glm_nsdrestingstate.m for resting runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nsd_zarr.errors import SourceError
from nsd_zarr.image_sets import SYNTHETIC_COLOR_IMAGES, SYNTHETIC_IMAGES
from nsd_zarr.nsd import OTHER_EXPERIMENTS, TRIALS_OF_EVEN_RUN, TRIALS_OF_ODD_RUN, NsdPaths
from nsd_zarr.source.design import read_ordering

RESTING = "restingbetas_"
"""How names of folders of betas of resting runs begin."""
FIRST_RESTING_SESSION = 21
"""Resting runs began with this session. Source: glm_nsdrestingstate.m."""
COLUMNS = ("run", "trial_in_run", "task", "stimulus_set", "stimulus_id", "repeat")
"""Arrays along trial that an experiment may bring."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run, or what there is of it."""

    number: int
    """From 1."""
    trials: int
    """Trials that have betas."""
    task: str
    """What the subject did."""
    stimulus_set: str = ""
    """Which set of stimuli, where there are several."""


@dataclass(frozen=True, slots=True)
class OtherExperiment:
    """What is known of an experiment without its files."""

    start: str
    """How names of its betas folders begin; a key of OTHER_EXPERIMENTS."""
    runs: tuple[Run, ...]
    """Its runs, in the order of the betas; of resting those of one session."""
    design: str = ""
    """Its design, below the NSD root, which lists the images; empty where none does."""
    images: int = 0
    """Images that the design numbers from 1."""

    @property
    def has_sessions(self) -> bool:
        """Whether its betas are of several, numbered sessions."""
        return self.start == RESTING

    @property
    def words(self) -> str:
        """Its name, for people."""
        return OTHER_EXPERIMENTS[self.start]

    @property
    def trials(self) -> int:
        """Trials of a session."""
        return sum(run.trials for run in self.runs)


def _make_imagery_runs() -> tuple[Run, ...]:
    first = [(task, letter) for letter in "ABC" for task in ("vision", "attention", "imagery")]
    second = [("imagery", letter) for letter in "ABC"]
    lengths = {"vision": 48, "attention": 96, "imagery": 48}
    return tuple(Run(place, lengths[task], task, letter) for place, (task, letter) in enumerate([*first, *second], 1))


OTHERS = (
    OtherExperiment(RESTING, (Run(1, TRIALS_OF_ODD_RUN, "rest"), Run(14, TRIALS_OF_EVEN_RUN, "rest"))),
    OtherExperiment(
        "nsdsyntheticbetas_",
        tuple(Run(number, 93, "fixation" if number % 2 else "memory") for number in range(1, 9)),
        "nsddata/experiments/nsdsynthetic/nsdsynthetic_expdesign.mat",
        SYNTHETIC_IMAGES + SYNTHETIC_COLOR_IMAGES,
    ),
    OtherExperiment("nsdimagerybetas_", _make_imagery_runs()),
)
"""Every other experiment of the dataset."""


def find_other(betas: str) -> OtherExperiment | None:
    """The experiment of a betas folder of this name; None of the core experiment's."""
    return next((other for other in OTHERS if betas.startswith(other.start)), None)


def find_first_session(folder: Path) -> int:
    """The first session that a betas folder can have."""
    return FIRST_RESTING_SESSION if folder.resolve().name.startswith(RESTING) else 1


def locate_design(places: NsdPaths) -> Path | None:
    """The design of the betas' experiment; None where none lists its images."""
    other = find_other(places.betas)
    return places.root / other.design if other is not None and other.design else None


def parse_ordering(other: OtherExperiment, data: bytes, path: Path) -> np.ndarray:
    """Image of each trial, from 1, by the design. Raises SourceError where it is not that of *other*'s trials."""
    ordering: np.ndarray = read_ordering(data, path)
    if len(ordering) != other.trials or ordering.min() < 1 or ordering.max() > other.images:
        raise SourceError(
            f"masterordering of {len(ordering)} trials with images {ordering.min(initial=1)} to "
            f"{ordering.max(initial=0)}, expected {other.trials} trials with images 1 to {other.images}",
            hint="Fetch it again, or leave it out.",
            path=path,
        )
    return ordering


def list_columns(other: OtherExperiment, has_ordering: bool) -> tuple[str, ...]:
    """Names of the arrays along trial that make_columns makes."""
    has_sets = any(run.stimulus_set for run in other.runs)
    known = {"run", "trial_in_run", "task", *(["stimulus_set"] * has_sets), *(["stimulus_id", "repeat"] * has_ordering)}
    return tuple(name for name in COLUMNS if name in known)


def make_columns(
    other: OtherExperiment, ordering: np.ndarray | None, sessions: int
) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
    """Values of shape (trial,) and attributes of each of list_columns, by name, for so many *sessions*."""
    lengths = [run.trials for run in other.runs]

    def spread(values: list[int]) -> np.ndarray:
        return np.tile(np.repeat(np.array(values, np.int8), lengths), sessions)

    trial = np.concatenate([np.arange(1, length + 1, dtype=np.int8) for length in lengths])
    found: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "run": (spread([run.number for run in other.runs]), {"long_name": "run of its session, counted from 1"}),
        "trial_in_run": (np.tile(trial, sessions), {"long_name": "trial with betas in its run, counted from 1"}),
    }
    for name, about in (("task", "what the subject did"), ("stimulus_set", "set of stimuli")):
        words = sorted({getattr(run, name) for run in other.runs} - {""})
        if words:
            codes = spread([words.index(getattr(run, name)) for run in other.runs])
            flags = {"flag_values": list(range(len(words))), "flag_meanings": " ".join(words)}
            found[name] = (codes, {"long_name": about} | flags)
    if ordering is not None:
        repeat = np.array([np.count_nonzero(ordering[:place] == shown) for place, shown in enumerate(ordering)])
        about = f"image among the {other.images} of the experiment, counted from 0 as its files have them"
        found["stimulus_id"] = (np.tile((ordering - 1).astype(np.int16), sessions), {"long_name": about})
        found["repeat"] = (
            np.tile(repeat.astype(np.int8), sessions),
            {"long_name": "which showing of its image, counted from 0"},
        )
    return found
