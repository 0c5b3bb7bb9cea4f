"""The trial table: read as pandas reads it, and refused where betas could not be matched to it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nsd_zarr.errors import SourceError
from nsd_zarr.nsd import RESPONSE_COLUMNS
from nsd_zarr.simulate import make_trial_table
from nsd_zarr.simulate.trial_table import write_trial_table
from nsd_zarr.source.trial_table import parse_trial_table, select_rows

PATH = Path("responses.tsv")


@pytest.fixture
def table(tmp_path):
    """Three sessions of 53 trials, as columns that may be changed."""
    return make_trial_table(3, 53, seed=4, subject=2)


@pytest.fixture
def write(tmp_path):
    """The bytes of a table as responses.tsv has it."""

    def make(columns):
        write_trial_table(tmp_path / "responses.tsv", columns)
        return (tmp_path / "responses.tsv").read_bytes()

    return make


def test_every_column_equals_what_pandas_reads(table, write):
    data = write(table)
    read, frame = parse_trial_table(data, PATH), pd.read_csv(io.BytesIO(data), sep="\t")
    assert list(read.columns) == list(RESPONSE_COLUMNS)
    assert set(RESPONSE_COLUMNS) == set(frame.columns)
    for name, values in read.columns.items():
        assert values.dtype == np.float64
        assert np.array_equal(values, frame[name], equal_nan=True)
    assert read.subject == 2
    assert np.isnan(read.columns["RT"]).any()


def test_showings_are_numbered_over_the_whole_table(table, write):
    read = parse_trial_table(write(table), PATH)
    frame = pd.DataFrame(table)
    assert np.array_equal(read.number_showings(), frame.groupby("73KID").cumcount())
    assert set(read.number_showings()) == {0, 1, 2}


def test_rows_of_some_sessions_are_selected_and_a_gap_is_allowed(table, write):
    read = parse_trial_table(write(table), PATH)
    assert np.array_equal(select_rows(read, (1, 3), 53), [*range(53), *range(106, 159)])


@pytest.mark.parametrize(
    ("sessions", "trials", "message"),
    [
        ((2, 4), 53, "session 04: .* has 0 rows for it, expected 53"),
        ((1, 2), 54, "session 01: .* has 53 rows for it, expected 54"),
    ],
)
def test_rows_that_are_not_as_many_as_trials_are_refused_with_both_counts(sessions, trials, message, table, write):
    with pytest.raises(SourceError, match=message) as caught:
        select_rows(parse_trial_table(write(table), PATH), sessions, trials)
    assert (caught.value.found, caught.value.expected) == (0 if trials == 53 else 53, trials)


def _swap(table):
    for column in table.values():
        column[[7, 8]] = column[[8, 7]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.pop("73KID"), "no column 73KID: found SUBJECT, SESSION"),
        (lambda table: table["73KID"].__setitem__(3, 0), "row 4: 73KID is 0, expected a whole number from 1 to 73000"),
        (lambda table: table["73KID"].__setitem__(3, 73_001), "73KID is 73001"),
        (lambda table: table["10KID"].__setitem__(3, 1.5), "10KID is 1.5, expected a whole number from 1 to 10000"),
        (lambda table: table["ISOLD"].__setitem__(3, np.nan), "ISOLD is nan, expected a whole number from 0 to 1"),
        (lambda table: table["SUBJECT"].__setitem__(3, 5), r"subjects \[2, 5\] in one table"),
        (lambda table: table["73KID"].__setitem__(slice(0, 4), 9), "row 4 .* shows image 9 .* for the fourth time"),
        (_swap, r"row 9 \(session 01, run 2, trial 3\) comes after row 8 \(session 01, run 2, trial 4\)"),
    ],
)
def test_table_that_no_dataset_has_is_refused(change, message, table, write):
    table = {name: column.copy() for name, column in table.items()}
    change(table)
    with pytest.raises(SourceError, match=message) as caught:
        parse_trial_table(write(table), PATH)
    assert caught.value.path == PATH
    assert caught.value.hint


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00\xff\xfe", b"SUBJECT\tSESSION\n", b"<html>not found</html>", b"a\tb\n1\t2\t3\t4\n5\n"],
    ids=["empty", "binary", "header alone", "markup", "ragged"],
)
def test_file_that_is_no_table_is_refused(data):
    with pytest.raises(SourceError):
        parse_trial_table(data, PATH)


def test_text_where_a_number_belongs_is_refused(table, write):
    data = write(table).replace(b"NaN", b"<b>", 1)
    with pytest.raises(SourceError, match="no table of numbers"):
        parse_trial_table(data, PATH)
