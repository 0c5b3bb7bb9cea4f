"""The trial table: one row per stimulus trial, as in responses.tsv, every column consistent with the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nsd_zarr.layout import runs_of
from nsd_zarr.nsd import BUTTON_NEW, BUTTON_OLD, RESPONSE_COLUMNS, RUNS_PER_SESSION, SECONDS_PER_TRIAL
from nsd_zarr.simulate.images import make_73k_ids, make_image_order
from nsd_zarr.simulate.streams import Stream, make_generator

SECONDS_PER_DAY = 86_400
_SECONDS_BETWEEN_RUNS = 60
_DAYS_BETWEEN_SESSIONS = 7
_FIRST_TRIAL_OF_DAY = 10 * 3600  # sessions begin at ten in the morning

Column = NDArray[np.float64]


def make_trial_table(sessions: int, trials_per_session: int, seed: int = 0, subject: int = 1) -> dict[str, Column]:
    """All columns of responses.tsv by name, in file order.

    Returns float64 columns of shape (sessions * trials_per_session,) in beta order, NaN where undefined; SESSION,
    RUN, TRIAL, 73KID and 10KID count from 1, RT is in ms, TIME in days since midnight of the first session's day.
    About one trial in fifty has no press, and one run of the last of several sessions has lost its presses.
    """
    columns = make_schedule_columns(sessions, trials_per_session)
    ids = make_image_order(sessions, trials_per_session, seed)
    columns |= {"73KID": make_73k_ids(ids, subject), "10KID": ids, "SUBJECT": np.full(len(ids), subject)}
    columns |= make_memory_columns(ids, columns["SESSION"])
    columns |= make_press_columns(columns, make_generator(seed, Stream.BEHAVIOUR, subject))
    return {name: np.asarray(columns[name], dtype=np.float64) for name in RESPONSE_COLUMNS}


def make_schedule_columns(sessions: int, trials_per_session: int) -> dict[str, NDArray[np.generic]]:
    """SESSION, RUN, TRIAL (all from 1) and TIME (days)."""
    lengths = runs_of(trials_per_session)
    run = np.tile(np.repeat(np.arange(1, RUNS_PER_SESSION + 1), lengths), sessions)
    trial = np.tile(np.concatenate([np.arange(1, length + 1) for length in lengths]), sessions)
    session = np.repeat(np.arange(1, sessions + 1), trials_per_session)
    position = np.tile(np.arange(trials_per_session), sessions)
    seconds = _FIRST_TRIAL_OF_DAY + position * SECONDS_PER_TRIAL + (run - 1) * _SECONDS_BETWEEN_RUNS
    time = (session - 1) * _DAYS_BETWEEN_SESSIONS + seconds / SECONDS_PER_DAY
    return {"SESSION": session, "RUN": run, "TRIAL": trial, "TIME": time}


def find_earlier_showing(ids: NDArray[np.int64], back: int) -> NDArray[np.int64]:
    """Row of the *back*-th latest earlier showing of each row's image (1: the latest), -1 if there is none."""
    order = np.argsort(ids, kind="stable")
    later, earlier = order[back:], order[:-back]
    same = ids[later] == ids[earlier]
    rows = np.full(len(ids), -1)
    rows[later[same]] = earlier[same]
    return rows


def count_trials_since(rows: NDArray[np.int64]) -> Column:
    """Stimulus trials between each trial and row *rows* of it, 0 if they follow one another, NaN where -1."""
    return np.where(rows < 0, np.nan, np.arange(len(rows)) - rows - 1)


def make_memory_columns(ids: NDArray[np.int64], session: NDArray[np.generic]) -> dict[str, NDArray[np.generic]]:
    """Columns that follow from the order of the images alone.

    MEMORYRECENT counts the trials in between, 0 when the two showings follow one another. Source: data manual,
    "Behavioral data". MEMORYFIRST does the same for the second latest earlier showing.
    """
    latest = find_earlier_showing(ids, 1)
    return {
        "ISOLD": latest >= 0,
        "ISOLDCURRENT": (latest >= 0) & (session[latest] == session),
        "MEMORYRECENT": count_trials_since(latest),
        "MEMORYFIRST": count_trials_since(find_earlier_showing(ids, 2)),
    }


def make_press_columns(
    columns: dict[str, NDArray[np.generic]], rng: np.random.Generator
) -> dict[str, NDArray[np.generic]]:
    """Columns that follow from what the subject pressed; the last press is the one that is scored.

    Whoever changes their mind presses the other button first, once; nobody presses the same button twice.
    """
    is_old, is_old_current = columns["ISOLD"], columns["ISOLDCURRENT"]
    missing = find_missing_run(columns["SESSION"], columns["RUN"], rng)
    draws = rng.random((3, len(is_old)))
    pressed = (draws[0] > 0.02) & ~missing
    says_old = draws[1] < np.where(is_old, 0.75, 0.2)  # hits and false alarms of a middling subject
    changed = draws[2] < 0.03
    seconds = 0.3 + rng.lognormal(-0.5, 0.35, len(is_old)) + 0.5 * changed
    button = np.where(says_old, BUTTON_OLD, BUTTON_NEW)
    return {
        "ISCORRECT": np.where(pressed, says_old == is_old, np.nan),
        "ISCORRECTCURRENT": np.where(pressed, says_old == is_old_current, np.nan),
        "RT": np.where(pressed, 1000 * np.minimum(seconds, SECONDS_PER_TRIAL), np.nan),
        "CHANGEMIND": np.where(pressed, changed, np.nan),
        "TOTAL1": np.where(missing, np.nan, pressed & (~says_old | changed)),
        "TOTAL2": np.where(missing, np.nan, pressed & (says_old | changed)),
        "BUTTON": np.where(pressed, button, np.nan),
        "MISSINGDATA": missing,
    }


def find_missing_run(
    session: NDArray[np.generic], run: NDArray[np.generic], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Trials of the one run whose presses were lost: in the last session, none if there is only one."""
    lost_run = rng.integers(1, RUNS_PER_SESSION + 1)
    lost_session = session[-1] if session[-1] > 1 else 0
    lost: NDArray[np.bool_] = np.equal(session, lost_session) & np.equal(run, lost_run)
    return lost


def format_value(value: float) -> str:
    """*value* as the dataset writes it: whole numbers without a point, NaN as text."""
    if np.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) else f"{value:.15g}"


def write_trial_table(path: Path, table: dict[str, Column]) -> None:
    """Write *table* as tab separated text with a header, one row per trial."""
    rows = zip(*(column.tolist() for column in table.values()), strict=True)
    lines = ["\t".join(table), *("\t".join(map(format_value, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="ascii", newline="\n")
