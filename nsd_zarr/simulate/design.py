"""The experiment's design, the same for all subjects: nsd_expdesign.mat and nsd_stim_info_merged.csv."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nsd_zarr.layout import runs_of
from nsd_zarr.nsd import (
    ALL_IMAGES,
    IMAGES_PER_SUBJECT,
    MAX_SESSIONS,
    SHARED_IMAGES,
    SHOWINGS,
    SLOTS_PER_RUN,
    SUBJECTS,
)
from nsd_zarr.simulate.images import make_73k_ids, make_master_ordering

HEADER_TEXT_BYTES = 116
"""Length of the text at the start of a MATLAB 5 file. Source: MAT-file format, "Header"."""
STIM_INFO_COLUMNS = (
    *("", "cocoId", "cocoSplit", "cropBox", "loss", "nsdId", "flagged", "BOLD5000", "shared1000"),
    *(f"subject{subject}" for subject in SUBJECTS),
    *(f"subject{subject}_rep{repeat}" for subject in SUBJECTS for repeat in range(SHOWINGS)),
)
"""Columns of nsd_stim_info_merged.csv in file order. Source: data manual, "Experiments"."""


def make_expdesign(sessions: int, trials_per_session: int, seed: int = 0) -> dict[str, NDArray[np.float64]]:
    """The variables of nsd_expdesign.mat, in the shapes that MATLAB gives them; all ids from 1.

    masterordering (1, 30000): 10k id of each trial. subjectim (8, 10000): 73k id of each 10k id. sharedix (1, 1000):
    73k ids of the shared images. basiccnt (3, 40): how many distinct images a session shows exactly once, twice,
    three times. stimpattern (40, 12, 75): whether a slot shows an image.
    """
    ordering = make_master_ordering(sessions, trials_per_session, seed)
    ids = np.arange(1, IMAGES_PER_SUBJECT + 1)
    images = np.stack([make_73k_ids(ids, subject) for subject in SUBJECTS])
    variables = {
        "masterordering": ordering[np.newaxis],
        "subjectim": images,
        "sharedix": images[:1, :SHARED_IMAGES],
        "basiccnt": count_in_sessions(ordering, trials_per_session),
        "stimpattern": make_stimulus_pattern(trials_per_session),
    }
    return {name: np.asarray(values, np.float64) for name, values in variables.items()}


def count_in_sessions(ordering: NDArray[np.int64], trials_per_session: int) -> NDArray[np.int64]:
    """How many distinct images a session shows exactly k times; shape (SHOWINGS, session), row k - 1."""
    counts = np.zeros((SHOWINGS, MAX_SESSIONS), np.int64)
    for session in range(MAX_SESSIONS):
        trials = ordering[session * trials_per_session : (session + 1) * trials_per_session]
        times = np.bincount(np.bincount(trials), minlength=SHOWINGS + 1)
        counts[:, session] = times[1 : SHOWINGS + 1]
    return counts


def make_stimulus_pattern(trials_per_session: int) -> NDArray[np.bool_]:
    """Slots that show an image, blank ones spread evenly; shape (session, run, slot)."""
    pattern = np.zeros((MAX_SESSIONS, len(runs_of(trials_per_session)), SLOTS_PER_RUN), bool)
    for run, trials in enumerate(runs_of(trials_per_session)):
        shown = min(trials, SLOTS_PER_RUN)
        pattern[:, run, np.arange(shown) * SLOTS_PER_RUN // max(1, shown)] = True
    return pattern


@lru_cache(maxsize=4)
def format_expdesign(sessions: int, trials_per_session: int, seed: int = 0) -> bytes:
    """nsd_expdesign.mat as bytes, MATLAB 5: equal arguments, equal bytes."""
    return format_mat(make_expdesign(sessions, trials_per_session, seed))


def format_mat(variables: dict[str, NDArray[np.float64]]) -> bytes:
    """A file of *variables* as bytes, MATLAB 5: equal variables, equal bytes."""
    from scipy.io import savemat

    file = io.BytesIO()
    savemat(file, variables, do_compression=True)
    # SciPy writes the time and the kind of system into the text.
    text = b"MATLAB 5.0 MAT-file, synthetic values made by nsd-zarr simulate"
    return text.ljust(HEADER_TEXT_BYTES) + file.getvalue()[HEADER_TEXT_BYTES:]


@lru_cache(maxsize=4)
def format_stim_info(sessions: int, trials_per_session: int, seed: int = 0) -> bytes:
    """nsd_stim_info_merged.csv as bytes: one row an image, nsdId from 0, trials of its showings from 1.

    The columns on COCO are made up; each value contains the number of its row.
    """
    ordering = make_master_ordering(sessions, trials_per_session, seed)
    trials = 1 + np.argsort(ordering, kind="stable").reshape(-1, SHOWINGS)
    ids = np.arange(1, IMAGES_PER_SUBJECT + 1)
    tails = [""] * ALL_IMAGES
    texts = [",".join(map(str, showings)) for showings in trials.tolist()]
    for subject in SUBJECTS:
        before, after = _format_own(subject)
        for row, text in zip((make_73k_ids(ids, subject) - 1).tolist(), texts, strict=True):
            tails[row] = before + text + after
    for row, text in zip((make_73k_ids(ids[:SHARED_IMAGES]) - 1).tolist(), texts, strict=False):
        tails[row] = ",".join(["1"] * len(SUBJECTS) + [text] * len(SUBJECTS))
    shared = set((make_73k_ids(ids[:SHARED_IMAGES]) - 1).tolist())
    lines = [",".join(STIM_INFO_COLUMNS)]
    lines += [
        f'{row},{9 + 7 * row},{"val2017" if row % 13 == 0 else "train2017"},"(0, 0, 0.{row % 9}, 0.{row % 7})",'
        f"0.{1 + row},{row},False,{row % 97 == 0},{row in shared},{tail}"
        for row, tail in enumerate(tails)
    ]
    return ("\n".join(lines) + "\n").encode("ascii")


def _format_own(subject: int) -> tuple[str, str]:
    """What stands before and after the showings of an image that *subject* alone sees, in the columns of subjects."""
    seen = [",".join(str(int(subject == other)) for other in SUBJECTS)]
    none = ["0,0,0"]
    before = seen + none * (subject - SUBJECTS[0])
    return ",".join(before) + ",", "".join("," + text for text in none * (SUBJECTS[-1] - subject))
