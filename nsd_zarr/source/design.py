"""The experiment's design as other files of the dataset give it, and whether the trial table agrees with it."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nsd_zarr.errors import SourceError
from nsd_zarr.nsd import SESSIONS_OF_ALL, SHARED_IMAGES, SHOWINGS
from nsd_zarr.source.bounded import check_zlib
from nsd_zarr.source.find import format_sessions, name_sessions
from nsd_zarr.source.trial_table import TrialTable

_VARIABLES = ("masterordering", "subjectim")
MAX_VARIABLE_BYTES = 16 * 2**20
"""Of one variable of the design, decoded: 25 times subjectim as float64, the largest that is read."""
_MAT_HEADER_BYTES, _MAT_COMPRESSED = 128, 15
_HINT = "One of the two files is not of this dataset or this subject: give the right ones, or leave one out."


@dataclass(frozen=True, slots=True)
class Design:
    """What nsd_expdesign.mat says of all subjects. All ids from 1."""

    path: Path
    """The file."""
    masterordering: np.ndarray
    """10k id of each trial of the experiment, int64 of shape (30000,). The same for every subject."""
    subjectim: np.ndarray
    """73k id of each 10k id, int64 of shape (subject, 10000)."""


def parse_design(data: bytes, path: Path) -> Design:
    """The design in the bytes of nsd_expdesign.mat, MATLAB 5 to 7.2, or 7.3 (HDF5). Raises SourceError."""
    try:
        variables = _load_hdf5(data) if data[:10] == b"MATLAB 7.3" else _load_matlab(data)
        ordering, images = (np.asarray(variables[name]) for name in _VARIABLES)
        design = Design(path, ordering.ravel().astype(np.int64), np.atleast_2d(images).astype(np.int64))
    except Exception as error:  # Whatever the libraries make of bytes that are something else.
        raise SourceError(
            f"{' and '.join(_VARIABLES)} cannot be read from it: {error}", hint="Fetch it again.", path=path
        ) from error
    last = design.subjectim.shape[1]
    if design.masterordering.min(initial=1) < 1 or design.masterordering.max(initial=0) > last:
        raise SourceError(
            f"masterordering leads outside the {last} images of subjectim", hint="Fetch it again.", path=path
        )
    return design


def read_ordering(data: bytes, path: Path) -> np.ndarray:
    """Variable masterordering in a design of any experiment, int64 of shape (trial,). Raises SourceError."""
    try:
        load = _load_hdf5 if data[:10] == b"MATLAB 7.3" else _load_matlab
        found: np.ndarray = np.asarray(load(data, _VARIABLES[:1])[_VARIABLES[0]]).ravel().astype(np.int64)
    except Exception as error:  # Whatever the libraries make of bytes that are something else.
        raise SourceError(
            f"no masterordering can be read from it: {error}", hint="Fetch it again.", path=path
        ) from error
    return found


def _load_matlab(data: bytes, names: Sequence[str] = _VARIABLES) -> dict[str, Any]:
    from scipy.io import loadmat

    _check_elements(data)
    variables: dict[str, Any] = loadmat(io.BytesIO(data), variable_names=list(names))
    return variables


def _check_elements(data: bytes) -> None:
    """Refuse compressed variables that are larger than any of the design's. Raises ValueError.

    Behind 128 bytes of header each has a tag, kind and length, of two 32-bit numbers. Source: MATLAB's description of
    MAT-files of level 5.
    """
    order = "<" if data[126:128] == b"IM" else ">"
    position = _MAT_HEADER_BYTES
    while position + 8 <= len(data):
        kind, length = struct.unpack_from(f"{order}II", data, position)
        if kind == _MAT_COMPRESSED:
            check_zlib(data[position + 8 : position + 8 + length], MAX_VARIABLE_BYTES)
        position += 8 + length


def _load_hdf5(data: bytes, names: Sequence[str] = _VARIABLES) -> dict[str, Any]:
    import h5py

    # MATLAB's first axis is the last one here.
    with h5py.File(io.BytesIO(data), "r") as file:
        for name in names:
            _check_dataset(file[name])
        return {name: file[name][()].T for name in names}


def _check_dataset(dataset: Any) -> None:
    """Refuse a variable that is larger than any of the design's, or that lies in other files. Raises ValueError."""
    chunk = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
    if max(dataset.nbytes, chunk) > MAX_VARIABLE_BYTES:
        raise ValueError(f"{dataset.name} holds more than {MAX_VARIABLE_BYTES} bytes")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{dataset.name} lies in another file")


def check_design(table: TrialTable, design: Design, trials_per_session: int) -> None:
    """Refuse a trial table whose images are not those of the design. Raises SourceError with both ids.

    A row is the trial (SESSION - 1) * *trials_per_session* + its place in its session; its 10KID must be
    masterordering there, its 73KID subjectim of subject and 10KID.
    """
    trials = number_trials(table, trials_per_session)
    subjects, last = len(design.subjectim), int(trials.max())
    if table.subject > subjects or last >= len(design.masterordering):
        raise SourceError(
            f"{design.path.name} has {subjects} subjects and {len(design.masterordering)} trials, and the table is of "
            f"subject {table.subject} with trials up to {last + 1}",
            hint=_HINT,
            path=table.path,
            expected=(subjects, len(design.masterordering)),
            found=(table.subject, last + 1),
        )
    ids_10k = design.masterordering[trials]
    _compare(table, "10KID", ids_10k, design.path)
    _compare(table, "73KID", design.subjectim[table.subject - 1, ids_10k - 1], design.path)


def find_shared515(design: Design, trials_per_session: int) -> np.ndarray | None:
    """10k ids, ascending, of the shared images that all eight subjects saw three times; None where *design* is short.

    All three showings of such an image are in the sessions that every subject took part in, the first 30. All subjects
    have the same order, so one design gives it for each. Source: Allen et al. 2022, which counts 515; data manual,
    "Experiments", for masterordering.
    """
    trials = SESSIONS_OF_ALL * trials_per_session
    if len(design.masterordering) < trials:
        return None
    ids, showings = np.unique(design.masterordering[:trials], return_counts=True)
    found: np.ndarray = ids[(showings == SHOWINGS) & (ids <= SHARED_IMAGES)]
    return found


def complete_table(
    table: TrialTable, design: Design | None, sessions: Sequence[int], trials_per_session: int
) -> TrialTable:
    """*table* with rows for those of *sessions* that it does not have: their images from *design*, responses missing.

    No image number could stand for a missing one, so they come from the design. RUN and TRIAL are those of another
    session: they are the same in all. ISOLD follows from the images; what was measured is NaN, MISSINGDATA 1. Earlier
    sessions that the table lacks are put in as well, so that showings are counted right. Raises SourceError when no
    design lists the images.
    """
    have = set(table.count("SESSION").tolist())
    absent = sorted(set(sessions) - have)
    if not absent:
        return table
    added = sorted(set(range(1, max(sessions) + 1)) - have)
    pattern = _find_session_rows(table, trials_per_session)
    fits = design is not None and table.subject <= len(design.subjectim) and pattern.size > 0
    if design is None or not fits or max(added) * trials_per_session > len(design.masterordering):
        raise SourceError(
            f"{table.path.name} has no rows of {name_sessions(absent)}, and no design says their images",
            hint="Fetch the newest responses.tsv, or nsd_expdesign.mat beside it; or convert the sessions that it has "
            f"(--sessions {format_sessions(set(sessions) & have) or 'N'}), or leave it out (--no-trial-table).",
            path=table.path,
            expected=list(sessions),
            found=sorted(have),
        )
    rows = {name: [values] for name, values in table.columns.items()}
    for session in added:
        ids = design.masterordering[(session - 1) * trials_per_session :][:trials_per_session]
        new = {name: np.full(trials_per_session, np.nan) for name in rows}
        new |= {"RUN": table.columns["RUN"][pattern], "TRIAL": table.columns["TRIAL"][pattern], "10KID": ids}
        new |= {"73KID": design.subjectim[table.subject - 1, ids - 1], "SESSION": np.full(len(ids), session)}
        new |= {"SUBJECT": np.full(len(ids), table.subject), "MISSINGDATA": np.ones(len(ids))}
        for name, values in new.items():
            rows[name].append(values.astype(np.float64))
    joined = {name: np.concatenate(parts) for name, parts in rows.items()}
    order = np.argsort(joined["SESSION"], kind="stable")
    completed = TrialTable(table.path, {name: values[order] for name, values in joined.items()})
    unknown = np.isin(completed.count("SESSION"), added)
    completed.columns["ISOLD"][unknown] = completed.number_showings()[unknown] > 0
    return completed


def _find_session_rows(table: TrialTable, trials_per_session: int) -> np.ndarray:
    """Rows of a session that has as many as its betas have trials; empty where none has."""
    numbers, counts = np.unique(table.columns["SESSION"], return_counts=True)
    whole = numbers[counts == trials_per_session]
    return np.flatnonzero(table.columns["SESSION"] == whole[0]) if whole.size else np.zeros(0, np.intp)


def check_stimulus_info(table: TrialTable, data: bytes, path: Path, trials_per_session: int) -> None:
    """Refuse a trial table that contradicts nsd_stim_info_merged.csv: the trial of each showing, and shared1000.

    Raises SourceError with both values. Source: data manual, "Experiments".
    """
    import pandas as pd

    names = [f"subject{table.subject}_rep{repeat}" for repeat in range(SHOWINGS)]
    try:
        frame = pd.read_csv(io.BytesIO(data), usecols=["nsdId", "shared1000", *names]).set_index("nsdId")
        rows = frame.reindex(table.count("73KID") - 1)
        showings = rows[names].to_numpy(np.float64)
        shared = rows["shared1000"].to_numpy(np.float64)
    except (ValueError, TypeError, LookupError) as error:
        raise SourceError(
            f"no stimulus table can be read from it: {' '.join(str(error).split())}", hint="Fetch it again.", path=path
        ) from error
    trials = number_trials(table, trials_per_session)
    repeats = np.minimum(table.number_showings(), SHOWINGS - 1)
    _compare_with(table, "trial", trials + 1, showings[np.arange(len(trials)), repeats], path)
    _compare_with(table, "shared1000", table.count("10KID") <= SHARED_IMAGES, shared, path)


def number_trials(table: TrialTable, trials_per_session: int) -> np.ndarray:
    """Which trial of the subject's experiment each row is, from 0; int64 of shape (row,)."""
    session = table.count("SESSION")
    trials: np.ndarray = (session - 1) * trials_per_session + np.arange(len(session))
    trials -= np.searchsorted(session, session)
    return trials


def _compare(table: TrialTable, name: str, expected: np.ndarray, path: Path) -> None:
    _compare_with(table, name, table.count(name), expected, path)


def _compare_with(table: TrialTable, name: str, found: np.ndarray, expected: np.ndarray, path: Path) -> None:
    differing = np.flatnonzero(found != expected)
    if differing.size:
        row = int(differing[0])
        raise SourceError(
            f"{table.describe_row(row)} of {table.path.name}: {name} {float(found[row]):g}, expected "
            f"{float(expected[row]):g} by {path.name}; {differing.size} rows differ",
            hint=_HINT,
            path=table.path,
            expected=float(expected[row]),
            found=float(found[row]),
        )
