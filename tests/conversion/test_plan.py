"""plan: what it tells, and every source that it refuses, in one paragraph, before anything is written."""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pytest

import nsd_zarr
from nsd_zarr.config import make_config
from nsd_zarr.conversion.plan import make_plan
from nsd_zarr.conversion.resume import TargetState
from nsd_zarr.errors import SourceError


@pytest.fixture(params=["plan", "convert"])
def command(request):
    """Both commands refuse the same."""
    return request.param


# -- what it tells -----------------------------------------------------------------------------------------------


def test_plan_tells_sessions_sizes_files_and_units(source, tmp_path, run_cli):
    outcome = run_cli("plan", source, tmp_path / "subj01.zarr", "--trials-per-shard", 2, "--json")
    printed = json.loads(outcome.out)
    assert (outcome.code, outcome.err) == (0, "")
    assert [entry["session"] for entry in printed["sessions"]] == [1, 2, 3]
    assert {entry["read"] for entry in printed["sessions"]} == {"by offset"}
    assert (printed["state"], printed["trials"], printed["shape"], printed["shards"]) == ("new", 18, [18, 5, 7, 11], 9)
    assert (printed["bytes_in"], printed["units_of_work"], printed["passes"]) == (18 * 770, 3, 1)
    assert printed["peak_memory_bytes"] <= printed["memory_limit_bytes"]
    assert printed["free_bytes"] > printed["bytes_out_expected"]


def test_plan_writes_nothing(source, tmp_path, run_cli, digest_tree):
    before = digest_tree(tmp_path)
    assert run_cli("plan", source, tmp_path / "deep" / "subj01.zarr").code == 0
    assert digest_tree(tmp_path) == before


def test_plan_counts_the_files_of_the_store(source, tmp_path, convert):
    plan = make_plan(source, tmp_path / "subj01.zarr", make_config(trials_per_shard=2))
    assert plan.space.files == sum(path.is_file() for path in convert(source).rglob("*"))


def test_plan_of_an_unfinished_store_tells_what_is_left(source, interrupt, run_cli):
    store = interrupt(source, at_trial=9)
    printed = json.loads(run_cli("plan", source, store, "--trials-per-shard", 2, "--json").out)
    assert (printed["state"], printed["units_of_work"]) == ("unfinished", 2)
    assert [entry["done"] for entry in printed["sessions"]] == [True, False, False]


def test_plan_of_a_finished_store_tells_nothing_to_do(source, convert, run_cli):
    printed = json.loads(run_cli("plan", source, convert(source), "--trials-per-shard", 2, "--json").out)
    assert (printed["state"], printed["units_of_work"], printed["bytes_out_expected"]) == ("finished", 0, 0)


def test_plan_is_picklable(source, tmp_path):
    import pickle

    plan = make_plan(source, tmp_path / "subj01.zarr", make_config())
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert plan.progress.state is TargetState.NEW


# -- sources that are refused ------------------------------------------------------------------------------------


def test_folder_that_is_not_there_is_refused(command, tmp_path, check_refused):
    paragraph = check_refused(3, command, tmp_path / "nowhere", tmp_path / "subj01.zarr")
    assert paragraph.startswith("no such file or folder. Check the path")
    assert "nowhere" in paragraph


def test_folder_without_sessions_is_refused(command, tmp_path, check_refused):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("nothing here")
    paragraph = check_refused(3, command, tmp_path / "empty", tmp_path / "subj01.zarr")
    assert "no session files (betas_session*.hdf5, .nii.gz; " in paragraph


def test_several_betas_folders_are_refused_and_listed(command, make_source, tmp_path, check_refused):
    for betas in ("betas_assumehrf", "betas_fithrf"):
        make_source(sessions=(1,), folder=f"root/subj01/func1pt8mm/{betas}")
    paragraph = check_refused(3, command, tmp_path / "root", tmp_path / "subj01.zarr")
    assert "2 betas folders below this one, expected exactly one" in paragraph
    for word in ("betas_assumehrf", "betas_fithrf", "--subject", "--space", "--betas"):
        assert word in paragraph


def test_one_of_several_betas_folders_is_taken_when_named(make_source, tmp_path, run_cli):
    for betas in ("betas_assumehrf", "betas_fithrf"):
        make_source(sessions=(1,), folder=f"root/subj01/func1pt8mm/{betas}")
    words = ("plan", tmp_path / "root", tmp_path / "subj01.zarr", "--betas", "betas_fithrf", "--json")
    assert "betas_fithrf" in json.loads(run_cli(*words).out)["sessions"][0]["file"]


def test_session_missing_from_the_middle_is_refused(command, source, tmp_path, check_refused):
    (source / "betas_session02.hdf5").unlink()
    paragraph = check_refused(3, command, source, tmp_path / "subj01.zarr")
    assert "session 02 is missing: found 1,3, expected every session from 1 to 3" in paragraph
    assert "--sessions 1,3" in paragraph


def test_session_that_is_asked_for_and_not_there_is_refused(command, source, tmp_path, check_refused):
    paragraph = check_refused(3, command, source, tmp_path / "subj01.zarr", "--sessions", "1-4")
    assert "session 04 is missing" in paragraph
    assert "--sessions asks for 1-4" in paragraph


def test_two_files_for_one_session_are_refused(command, source, tmp_path, make_session, check_refused):
    make_session(2, prefix="lh.")
    paragraph = check_refused(3, command, source, tmp_path / "subj01.zarr")
    assert "two files for one session: betas_session02.hdf5 and lh.betas_session02.hdf5" in paragraph


def test_session_with_fewer_trials_is_refused_with_both_counts(command, source, tmp_path, make_session, check_refused):
    make_session(2, trials=5)
    paragraph = check_refused(3, command, source, tmp_path / "subj01.zarr")
    assert paragraph.startswith("session 02: dataset /betas: shape (5, 5, 7, 11), expected (6, 5, 7, 11)")
    assert "probably cut short" in paragraph
    assert "betas_session02.hdf5" in paragraph


def test_one_of_two_sessions_with_fewer_trials_is_the_one_refused(make_source, make_session, tmp_path, check_refused):
    make_source(sessions=(1, 2))
    make_session(1, trials=5)
    assert check_refused(3, "plan", tmp_path / "source", tmp_path / "s.zarr").startswith("session 01: dataset /betas")


def test_session_of_another_volume_is_refused(command, source, tmp_path, make_session, check_refused):
    make_session(3, volume=(5, 11, 7))
    paragraph = check_refused(3, command, source, tmp_path / "subj01.zarr")
    assert "session 03: dataset /betas: shape (6, 5, 11, 7), expected (6, 5, 7, 11) as in 2 of 3 sessions" in paragraph


@pytest.mark.parametrize(("dtype", "name"), [("<f4", "float32"), (">i4", "int32"), ("u2", "uint16")])
def test_session_of_another_dtype_is_refused_as_numpy_names_it(
    dtype, name, command, source, tmp_path, make_session, check_refused
):
    make_session(1, dtype=dtype)
    paragraph = check_refused(3, command, source, tmp_path / "subj01.zarr")
    assert f"session 01: dataset /betas: dtype {name}, expected int16 as in 2 of 3 sessions" in paragraph


def test_sessions_that_differ_in_byte_order_alone_are_one_dtype(source, tmp_path, make_session, convert, read_source):
    make_session(2, dtype=">i2")
    convert(source)


def test_file_without_betas_is_refused_with_what_it_holds(command, source, tmp_path, make_session, check_refused):
    make_session(2, name="betas_FIR")
    paragraph = check_refused(3, command, source, tmp_path / "subj01.zarr")
    assert paragraph.startswith("session 02: no dataset /betas: found /betas_FIR")
    assert "--dataset" in paragraph


def test_file_that_is_not_hdf5_is_refused(command, source, tmp_path, check_refused):
    (source / "betas_session02.hdf5").write_bytes(b"<html>Access denied</html>" * 99)
    assert check_refused(3, command, source, tmp_path / "subj01.zarr").startswith("session 02: not an HDF5 file")


@pytest.mark.parametrize("left", [0, 100, 20_000])
def test_file_that_is_truncated_is_refused(left, command, source, tmp_path, check_refused):
    path = source / "betas_session02.hdf5"
    path.write_bytes(path.read_bytes()[:left])
    paragraph = check_refused(3, command, source, tmp_path / "subj01.zarr")
    assert paragraph.startswith("session 02: ")
    assert "Fetch it again" in paragraph


def test_file_that_may_not_be_read_is_refused(source, tmp_path, run_child, without_privileges, digest_tree):
    before = digest_tree(tmp_path)
    (source / "betas_session02.hdf5").chmod(0)
    outcome = run_child("convert", source, tmp_path / "subj01.zarr", prefix=without_privileges)
    assert outcome.code == 3
    assert outcome.paragraph.startswith("session 02: cannot read the file: Permission denied")
    assert digest_tree(tmp_path) == before


@pytest.mark.parametrize("dtype", ["S3", "c8", "?"])
def test_values_that_are_no_numbers_are_refused(dtype, command, tmp_path, make_session, check_refused):
    path = make_session(1)
    with h5py.File(path, "w") as file:
        file["betas"] = np.zeros((6, 5, 7, 11), dtype)
    paragraph = check_refused(3, command, path, tmp_path / "subj01.zarr")
    assert "expected integers or floats" in paragraph


def test_trials_per_shard_that_do_not_divide_are_refused_with_those_that_do(command, source, tmp_path, check_refused):
    paragraph = check_refused(2, command, source, tmp_path / "subj01.zarr", "--trials-per-shard", 4)
    assert "trials_per_shard = 4 does not divide the 6 trials of a session. Give one of 1, 2, 3, 6." in paragraph


@pytest.mark.parametrize("number", [10_000, 32_768])
def test_session_number_that_no_reader_takes_is_refused(number, command, make_session, tmp_path, check_refused):
    path = make_session(number)
    assert f"session number {number}, expected at most 9999" in check_refused(
        3, command, path, tmp_path / "subj01.zarr"
    )


def test_largest_session_number_converts_and_opens(make_session, tmp_path):
    nsd_zarr.convert(make_session(9_999), tmp_path / "subj01.zarr")
    assert nsd_zarr.open_dataset(tmp_path / "subj01.zarr").session.values.tolist() == [9_999] * 6
    assert nsd_zarr.verify(tmp_path / "subj01.zarr").is_whole


def test_trials_that_no_coordinate_counts_are_refused(command, make_session, tmp_path, check_refused):
    path = make_session(1, trials=32_768, volume=(1,))
    assert "trial count 32768, expected at most 32767" in check_refused(3, command, path, tmp_path / "subj01.zarr")


def test_refusals_are_reported_by_processes_as_in_process(source, tmp_path, run_child, digest_tree):
    before = digest_tree(tmp_path)
    missing = run_child("convert", tmp_path / "nowhere", tmp_path / "subj01.zarr")
    assert (missing.code, missing.paragraph.partition(".")[0]) == (3, "no such file or folder")
    assert run_child("plan", source, tmp_path / "subj01.zarr", "--trials-per-shard", 4).code == 2
    assert digest_tree(tmp_path) == before


def test_refusal_in_python_carries_what_was_found(source, tmp_path, make_session):
    path = make_session(2, trials=5)
    with pytest.raises(SourceError) as caught:
        make_plan(source, tmp_path / "subj01.zarr", make_config())
    error = caught.value
    assert (error.session, error.path, error.expected, error.found) == (2, path, (6, 5, 7, 11), (5, 5, 7, 11))


def test_session_left_out_by_sessions_is_not_looked_at(source, tmp_path, convert):
    shutil.copy(source / "betas_session01.hdf5", source / "betas_session04.hdf5")
    (source / "betas_session02.hdf5").write_bytes(b"not HDF5")
    assert convert(source, sessions="1,3-4").exists()
