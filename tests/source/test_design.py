"""The design: what the trial table has to agree with, in MATLAB's old format and its new one."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np
import pytest

from nsd_zarr.errors import SourceError
from nsd_zarr.simulate import make_expdesign, make_trial_table
from nsd_zarr.simulate.design import format_expdesign, format_stim_info
from nsd_zarr.simulate.trial_table import write_trial_table
from nsd_zarr.source.design import Design, check_design, check_stimulus_info, find_shared515, parse_design
from nsd_zarr.source.trial_table import parse_trial_table

PATH, INFO = Path("nsd_expdesign.mat"), Path("nsd_stim_info_merged.csv")


@pytest.fixture
def make_table(tmp_path):
    """A trial table of three sessions of 53 trials, as parsed; *change* may spoil its columns before."""

    def make(subject=2, change=lambda table: None):
        columns = make_trial_table(3, 53, subject=subject)
        change(columns)
        write_trial_table(tmp_path / "responses.tsv", columns)
        return parse_trial_table((tmp_path / "responses.tsv").read_bytes(), tmp_path / "responses.tsv")

    return make


def _write_as_hdf5():
    """As MATLAB writes 7.3: a user block that says so, and every array with its axes reversed."""
    file = io.BytesIO()
    with h5py.File(file, "w", userblock_size=512) as hdf5:
        for name, values in make_expdesign(3, 53).items():
            hdf5[name] = values.T
    return b"MATLAB 7.3 MAT-file".ljust(512) + file.getvalue()[512:]


@pytest.mark.parametrize("data", [format_expdesign(3, 53), _write_as_hdf5()], ids=["MATLAB 5", "MATLAB 7.3"])
def test_design_is_read_from_both_formats(data):
    design, expected = parse_design(data, PATH), make_expdesign(3, 53)
    assert np.array_equal(design.masterordering, expected["masterordering"][0])
    assert np.array_equal(design.subjectim, expected["subjectim"])
    assert (design.masterordering.dtype, design.subjectim.dtype) == (np.int64, np.int64)


@pytest.mark.parametrize(
    "data", [b"", b"no MATLAB at all" * 20, b"MATLAB 7.3 MAT-file, cut", format_expdesign(3, 53)[:4000]]
)
def test_design_that_cannot_be_read_is_refused(data):
    with pytest.raises(SourceError, match="masterordering and subjectim cannot be read"):
        parse_design(data, PATH)


@pytest.mark.parametrize("subject", [1, 2, 8])
def test_table_of_the_same_experiment_agrees(subject, make_table):
    check_design(make_table(subject), parse_design(format_expdesign(3, 53), PATH), 53)
    check_stimulus_info(make_table(subject), format_stim_info(3, 53), INFO, 53)


def test_table_whose_images_are_another_subjects_is_refused_with_both_ids(make_table):
    table = make_table(2, lambda columns: columns["SUBJECT"].fill(3))
    with pytest.raises(
        SourceError, match=r"row \d+ .*: 73KID \d+, expected \d+ by nsd_expdesign.mat; \d+ rows"
    ) as caught:
        check_design(table, parse_design(format_expdesign(3, 53), PATH), 53)
    row = int(np.argmax(table.columns["10KID"] > 1000))
    assert caught.value.found == table.columns["73KID"][row]
    images = make_expdesign(3, 53)["subjectim"]
    assert caught.value.expected == images[2, int(table.columns["10KID"][row]) - 1]


def test_table_of_another_order_is_refused(make_table):
    with pytest.raises(SourceError, match=r"row 1 \(session 01, run 1, trial 1\) of responses.tsv: 10KID"):
        check_design(make_table(), parse_design(format_expdesign(3, 53, seed=1), PATH), 53)
    with pytest.raises(SourceError, match=r"row 1 .*: trial 1, expected \d+ by nsd_stim_info_merged.csv"):
        check_stimulus_info(make_table(), format_stim_info(3, 53, seed=1), INFO, 53)


def test_table_without_some_early_session_is_compared_by_its_session_numbers(make_table):
    def drop_first(columns):
        for name in columns:
            columns[name] = columns[name][53:]

    check_design(make_table(change=drop_first), parse_design(format_expdesign(3, 53), PATH), 53)


def test_design_of_fewer_trials_is_refused_with_both_counts(make_table):
    design = parse_design(format_expdesign(3, 53), PATH)
    with pytest.raises(SourceError, match="30000 trials, and the table is of subject 2 with trials up to 40053"):
        check_design(make_table(), design, 20_000)


@pytest.mark.parametrize("data", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00"])
def test_stimulus_table_that_cannot_be_read_is_refused(data, make_table):
    with pytest.raises(SourceError, match="no stimulus table can be read"):
        check_stimulus_info(make_table(), data, INFO, 53)


def test_images_that_all_saw_three_times_are_shared_and_whole_within_thirty_sessions():
    """The rule by counting: 10KID up to 1000, all three showings before trial 30 * 4."""
    trials, rng = 4, np.random.default_rng(3)
    ordering = rng.permutation(np.repeat([7, *range(990, 1040)], 3))  # 153 trials of 38 sessions
    ordering = np.concatenate([ordering, [7000] * 7])
    first = ordering[: 30 * trials].tolist()
    expected = [image for image in range(1, 1001) if first.count(image) == 3]
    whole = [image for image in range(1, 1001) if ordering.tolist().count(image) == 3]
    assert 0 < len(expected) < len(whole) == 12
    design = Design(PATH, ordering, np.zeros((8, 10_000), np.int64))
    assert find_shared515(design, trials).tolist() == expected


def test_design_of_fewer_than_thirty_sessions_does_not_tell():
    design = Design(PATH, np.arange(1, 120), np.zeros((8, 10_000), np.int64))
    assert find_shared515(design, 4) is None
    assert find_shared515(design, 3).tolist() == []
