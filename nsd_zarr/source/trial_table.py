"""The trial table, responses.tsv: which image each trial showed and what the subject did, checked against the betas."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nsd_zarr.errors import SourceError
from nsd_zarr.nsd import COLUMN_RANGES, RESPONSE_COLUMNS, SHOWINGS

_HINT = "Give the dataset's own responses.tsv of this subject, or leave it out with --no-trial-table."


@dataclass(frozen=True, slots=True)
class TrialTable:
    """A trial table, one entry a trial, in time order, all sessions behind each other."""

    path: Path
    """The file."""
    columns: dict[str, np.ndarray]
    """Each of RESPONSE_COLUMNS by its name in the file, float64 of shape (row,); ids and counts from 1 as there."""

    @property
    def subject(self) -> int:
        """Subject, from 1."""
        return int(self.columns["SUBJECT"][0])

    def count(self, name: str) -> np.ndarray:
        """A column of whole numbers, int64."""
        return self.columns[name].astype(np.int64)

    def number_showings(self) -> np.ndarray:
        """Which showing of its image each row is, from 0, over the whole table in time order; int64 of shape (row,)."""
        ids = self.count("73KID")
        order = np.argsort(ids, kind="stable")
        starts = np.flatnonzero(np.diff(ids[order], prepend=-1))
        numbers = np.empty(len(ids), np.int64)
        numbers[order] = np.arange(len(ids)) - np.repeat(starts, np.diff([*starts, len(ids)]))
        return numbers

    def describe_row(self, row: int) -> str:
        """Where a row is, for people."""
        session, run, trial = (int(self.columns[name][row]) for name in ("SESSION", "RUN", "TRIAL"))
        return f"row {row + 1} (session {session:02d}, run {run}, trial {trial})"


def parse_trial_table(data: bytes, path: Path) -> TrialTable:
    """The trial table in the bytes of responses.tsv: tab separated, "NaN" as text.

    Raises SourceError: a column is missing or no number, an id is outside its range, rows are out of order, or an
    image is shown more than three times. Source: data manual, "Behavioral data".
    """
    import pandas as pd

    try:
        frame = pd.read_csv(io.BytesIO(data), sep="\t", encoding="utf-8")
        found = [str(name) for name in frame.columns]
        _check_columns(found, path)
        columns = {name: frame[name].to_numpy(np.float64, na_value=np.nan) for name in RESPONSE_COLUMNS}
    except (ValueError, TypeError, UnicodeDecodeError) as error:
        if isinstance(error, SourceError):
            raise
        text = " ".join(str(error).split())
        raise SourceError(f"no table of numbers can be read from it: {text}", hint=_HINT, path=path) from error
    table = TrialTable(path, columns)
    _check_values(table)
    _check_order(table)
    return table


def select_rows(table: TrialTable, sessions: Sequence[int], trials_per_session: int) -> np.ndarray:
    """Rows of *sessions*, in the order of the store; int64 of shape (trial,).

    Raises SourceError when a session has not as many rows as its file has trials.
    """
    session = table.count("SESSION")
    for number in sessions:
        rows = int(np.count_nonzero(session == number))
        if rows != trials_per_session:
            raise SourceError(
                f"{table.path.name} has {rows} rows for it, expected {trials_per_session}, as its betas have trials",
                hint=_HINT,
                path=table.path,
                session=number,
                expected=trials_per_session,
                found=rows,
            )
    return np.flatnonzero(np.isin(session, sessions))


def _check_columns(found: list[str], path: Path) -> None:
    missing = [name for name in RESPONSE_COLUMNS if name not in found]
    if missing:
        raise SourceError(
            f"no column {', '.join(missing)}: found {', '.join(found)[:300]}",
            hint=_HINT,
            path=path,
            expected=list(RESPONSE_COLUMNS),
            found=found,
        )


def _check_values(table: TrialTable) -> None:
    if not len(table.columns["SUBJECT"]):
        raise SourceError("a trial table without rows", hint=_HINT, path=table.path, expected="rows", found=0)
    for name, (least, largest) in COLUMN_RANGES.items():
        values = table.columns[name]
        odd = np.flatnonzero(~((values == np.rint(values)) & (values >= least) & (values <= largest)))
        if odd.size:
            raise SourceError(
                f"row {odd[0] + 1}: {name} is {values[odd[0]]:g}, expected a whole number from {least} to {largest}",
                hint=_HINT,
                path=table.path,
                expected=(least, largest),
                found=float(values[odd[0]]),
            )
    subjects = np.unique(table.columns["SUBJECT"]).astype(int).tolist()
    if len(subjects) > 1:
        raise SourceError(
            f"subjects {subjects} in one table, expected one", hint=_HINT, path=table.path, found=subjects
        )
    often = np.flatnonzero(table.number_showings() >= SHOWINGS)
    if often.size:
        image = int(table.columns["73KID"][often[0]])
        raise SourceError(
            f"{table.describe_row(int(often[0]))} shows image {image} (73KID) for the fourth time, expected at most "
            f"{SHOWINGS}",
            hint=_HINT,
            path=table.path,
            expected=SHOWINGS,
            found=image,
        )


def _check_order(table: TrialTable) -> None:
    """Refuse rows that are not in the order in which they happened: betas are matched to rows by their place."""
    session, run, trial = (np.diff(table.count(name)) for name in ("SESSION", "RUN", "TRIAL"))
    forward = (session > 0) | ((session == 0) & ((run > 0) | ((run == 0) & (trial > 0))))
    if not forward.all():
        row = int(np.argmin(forward)) + 1
        raise SourceError(
            f"{table.describe_row(row)} comes after {table.describe_row(row - 1)}, expected rows in trial order",
            hint=_HINT,
            path=table.path,
        )
