"""Several subjects in one store: a group for each, whatever happens to the others or to the run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import xarray as xr
import zarr
from builders import (
    count_renames,
    digest_tree,
    finish,
    run_cli,
    start_cli,
    stop_at_rename,
)

import nsd_zarr
from nsd_zarr.errors import ConfigError, DoesNotFit, ResumeRefused, SourceError, StoreError

OPTIONS = {"subjects": "1-2", "workers": 1}


def test_tree_opens_in_xarray_without_our_package_and_without_a_warning(whole_tree, subjects):
    tree = xr.open_datatree(whole_tree, engine="zarr")  # warnings are errors here
    assert sorted(tree.children) == ["subj01", "subj02"]
    for subject in (1, 2):
        counts = subjects.read_counts(subject)
        node = tree[f"subj0{subject}"]
        np.testing.assert_array_equal(np.float32(node["betas"].values), np.float32(counts) / np.float32(300))
        xr.testing.assert_equal(node.to_dataset(), xr.open_zarr(whole_tree / f"subj0{subject}"))
        np.testing.assert_array_equal(zarr.open_group(whole_tree, mode="r")[f"subj0{subject}/betas"][...], counts)


def test_each_group_is_the_store_that_a_conversion_of_the_subject_alone_makes(whole_tree, subjects, tmp_path):
    for subject in (1, 2):
        nsd_zarr.convert(subjects.root, tmp_path / f"{subject}.zarr", subject=subject)
        assert digest_tree(whole_tree / f"subj0{subject}") == digest_tree(tmp_path / f"{subject}.zarr")


def test_runs_lie_beside_the_tree_and_nothing_of_them_in_it(whole_tree):
    assert sorted(path.name for path in whole_tree.iterdir()) == ["subj01", "subj02", "zarr.json"]
    folder = whole_tree.with_name("nsd.zarr.run")
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "subj01", "subj02"]
    assert (folder / "subj02/root.json").read_bytes() == (whole_tree / "subj02/zarr.json").read_bytes()


def test_tree_is_the_same_whatever_the_order_of_subjects(whole_tree, subjects, tmp_path):
    for subject in (2, 1):
        nsd_zarr.convert(subjects.root, tmp_path / "nsd.zarr", subjects=[subject])
    assert digest_tree(tmp_path / "nsd.zarr") == digest_tree(whole_tree)


# Exits, as a kill does, before a rename of a conversion (its partial file is left); then goes on, each time in a
# process forked from one that has everything imported. Prints the digest of each finished tree.
KILLED = """
import os, sys, warnings, numpy, xxhash
from pathlib import Path
import nsd_zarr, dask.threaded, nsd_zarr.maintenance.convert
source, folder = sys.argv[1], Path(sys.argv[2])
os.fsync = lambda descriptor: None
warnings.simplefilter("ignore", DeprecationWarning)  # of fork with NumPy's own threads, which stand still

def convert(tree, number=None):
    replace, calls = os.replace, []
    def die(old, new):
        calls.append(new)
        if len(calls) == number:
            os._exit(9)
        replace(old, new)
    os.replace = die
    nsd_zarr.convert(source, tree, subjects="1-2", workers=2, no_experiment=True)
    (folder / "count").write_text(str(len(calls)))
    os._exit(0)

def in_child(*words):
    pid = os.fork()
    if pid == 0:
        try:
            convert(*words)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def digest(tree):
    found = xxhash.xxh3_128()
    for path in sorted(path for path in tree.rglob("*") if path.is_file()):
        found.update(str(path.relative_to(tree)).encode() + path.read_bytes())
    return found.hexdigest()

assert in_child(folder / "undisturbed.zarr") == 0
renames = int((folder / "count").read_text())
print(0, digest(folder / "undisturbed.zarr"))
for number in numpy.linspace(1, renames, 20, dtype=int).tolist():
    tree = folder / f"{number}.zarr"
    assert in_child(tree, number) == 9
    assert in_child(tree) == 0
    assert not list(folder.rglob("*.partial"))
    print(number, digest(tree))
"""


@pytest.mark.slow
def test_conversion_killed_at_twenty_renames_ends_as_an_undisturbed_one(subjects, tmp_path):
    code = [sys.executable, "-c", KILLED, str(subjects.root), str(tmp_path)]
    done = subprocess.run(code, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    numbers, digests = zip(*(line.split() for line in done.stdout.splitlines()), strict=True)
    assert len(set(numbers)) == 21
    assert len(set(digests)) == 1


def test_root_document_lists_finished_groups_alone(subjects, tmp_path):
    tree = tmp_path / "nsd.zarr"
    with count_renames() as targets:
        nsd_zarr.convert(subjects.root, tmp_path / "counted.zarr", **OPTIONS)
    last = next(number for number, path in enumerate(targets, 1) if str(path).endswith("subj02/zarr.json"))
    with stop_at_rename(last + 5):
        nsd_zarr.convert(subjects.root, tree, **OPTIONS)
    assert (tree / "subj02/zarr.json").exists()
    assert list(xr.open_datatree(tree, engine="zarr").children) == ["subj01"]


def test_finished_tree_is_left_as_it_is(whole_tree, subjects, tmp_path):
    tree = shutil.copytree(whole_tree, tmp_path / "nsd.zarr")
    shutil.copytree(whole_tree.with_name("nsd.zarr.run"), tmp_path / "nsd.zarr.run")
    with count_renames() as targets:
        report = nsd_zarr.convert(subjects.root, tree, **OPTIONS)
    assert (report.sessions, report.finished_before, len(report.parts)) == ((), 6, 2)
    assert [path for path in targets if "run.json" not in str(path)] == []


def test_report_adds_up_and_names_the_subject_of_each_session(subjects, tmp_path):
    events = []
    report = nsd_zarr.convert(subjects.root, tmp_path / "nsd.zarr", on_event=events.append, **OPTIONS)
    pairs = [(subject, session) for subject in (1, 2) for session in (1, 2, 3)]
    assert [(done.subject, done.session) for done in report.sessions] == pairs
    assert (report.trials, report.store) == (72, tmp_path / "nsd.zarr")
    assert [part.trials for part in report.parts] == [36, 36]
    done = [(event.subject, event.session) for event in events if isinstance(event, nsd_zarr.SessionDone)]
    assert done == pairs
    assert [event.subject for event in events if isinstance(event, nsd_zarr.RunStarted)] == [1, 2]
    json.dumps(report.as_dict())


# -- a subject that fails ----------------------------------------------------------------------------------------


@pytest.fixture
def root(subjects, tmp_path):
    return shutil.copytree(subjects.root, tmp_path / "nsd")


def lose_session(root, subject):
    next(root.rglob(f"ppdata/subj0{subject}/**/betas_session02.hdf5")).unlink()


def test_subject_that_fails_does_not_hold_up_the_others(root, whole_tree, tmp_path, caplog):
    lose_session(root, 1)
    with pytest.raises(SourceError, match=r"^subject 1: session 02 is missing") as caught:
        nsd_zarr.convert(root, tmp_path / "nsd.zarr", **OPTIONS)
    assert (caught.value.subject, caught.value.exit_code) == (1, 3)
    assert [part.store.name for part in caught.value.report.parts] == ["subj02"]
    assert digest_tree(tmp_path / "nsd.zarr/subj02") == digest_tree(whole_tree / "subj02")
    assert sum("gone on with the others: subject 1" in line for line in caplog.messages) == 1


def test_several_that_fail_are_all_named_with_the_highest_exit_code(root, whole_tree, tmp_path):
    tree = tmp_path / "nsd.zarr"
    nsd_zarr.convert(root, tree, subjects=2)
    lose_session(root, 1)
    with pytest.raises(StoreError, match="2 of 2 subjects failed") as caught:
        nsd_zarr.convert(root, tree, codec="zstd", **OPTIONS)
    assert "subject 1: session 02 is missing" in str(caught.value)
    assert "subject 2: the store is finished, with other settings" in str(caught.value)
    assert caught.value.exit_code == 4


def test_command_prints_what_was_done_and_what_failed(root, tmp_path, capsys):
    lose_session(root, 2)
    outcome = run_cli(capsys, "convert", root, tmp_path / "nsd.zarr", "--subjects", "1-2", "--json")
    assert outcome.code == 3
    assert [part["trials"] for part in outcome.json["parts"]] == [36]
    assert "nsd-zarr: subject 2: session 02 is missing" in outcome.err
    assert re.search(r"subject 1: session 0\d done \(3 of 3\)", outcome.err)  # Two at a time: either may be the last.


def test_change_of_a_source_is_refused_for_its_subject_alone(root, tmp_path):
    tree = tmp_path / "nsd.zarr"
    with stop_at_rename(9):
        nsd_zarr.convert(root, tree, **OPTIONS)
    assert sorted(path.name for path in (tmp_path / "nsd.zarr.run/subj01").glob("session-*")) == ["session-01.json"]
    path = next(root.rglob("ppdata/subj01/**/betas_session03.hdf5"))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ResumeRefused, match="subject 1, session 03: the source changed"):
        nsd_zarr.convert(root, tree, **OPTIONS)
    assert xr.open_datatree(tree, engine="zarr").children.keys() == {"subj02"}


# -- what is refused ---------------------------------------------------------------------------------------------


def test_place_of_something_else_is_refused_with_nothing_written(subjects, tmp_path):
    nsd_zarr.convert(subjects.root, tmp_path / "one.zarr", subject=1)
    before = digest_tree(tmp_path)
    with pytest.raises(StoreError, match="the store of one subject stands where the store of several"):
        nsd_zarr.convert(subjects.root, tmp_path / "one.zarr", **OPTIONS)
    assert digest_tree(tmp_path) == before


def test_store_of_one_subject_is_not_made_in_place_of_several(whole_tree, subjects):
    with pytest.raises(StoreError, match="Say which subjects: --subjects 1-2"):
        nsd_zarr.convert(subjects.root, whole_tree, subject=1)
    with pytest.raises(StoreError, match="Say which subjects: --subjects 1-2"):
        nsd_zarr.plan(subjects.root, whole_tree)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"subjects": "1-2", "subject": 1}, "subject = 1, and several subjects"),
        ({"subjects": "0-2"}, "expected subject numbers such as 1-8"),
        ({"subjects": "1-2", "brainmask": "mask.nii.gz"}, "brainmask names a file of one subject"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, words, subjects, tmp_path):
    with pytest.raises(ConfigError, match=words):
        nsd_zarr.convert(subjects.root, tmp_path / "nsd.zarr", **options)
    assert list(tmp_path.iterdir()) == []


def test_files_as_source_are_refused_for_several_subjects(subjects, tmp_path):
    with pytest.raises(ConfigError, match="files as SOURCE, and several subjects"):
        nsd_zarr.convert(subjects.files[1], tmp_path / "nsd.zarr", **OPTIONS)


def test_disk_that_holds_one_subject_and_not_all_is_refused_before_anything_is_written(subjects, tmp_path, monkeypatch):
    from nsd_zarr.conversion import space
    from nsd_zarr.places.free import FreeSpace

    needed = nsd_zarr.plan(subjects.root, tmp_path / "nsd.zarr", **OPTIONS).expected_bytes
    monkeypatch.setattr(space, "read_free_space", lambda path: FreeSpace(needed - 1, None))
    for call in (nsd_zarr.plan, nsd_zarr.convert):
        with pytest.raises(DoesNotFit, match="are needed for all 2 subjects"):
            call(subjects.root, tmp_path / "nsd.zarr", **OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_plan_lists_each_subject_and_all(subjects, tmp_path, capsys):
    plan = nsd_zarr.plan(subjects.root, tmp_path / "nsd.zarr", **OPTIONS)
    assert (sorted(plan.plans), plan.todo) == ([1, 2], 6)
    outcome = run_cli(capsys, "plan", subjects.root, tmp_path / "nsd.zarr", "--subjects", "1,2")
    assert outcome.code == 0
    assert [line for line in outcome.out.splitlines() if line.startswith(("subject", "all"))][:2] == [
        "subject 1",
        "subject 2",
    ]
    assert "6 sessions to convert" in outcome.out
    assert list(tmp_path.iterdir()) == []


# -- at once -----------------------------------------------------------------------------------------------------


def test_processes_that_convert_different_subjects_at_once_make_the_same_tree(subjects, whole_tree, tmp_path):
    tree = tmp_path / "nsd.zarr"
    processes = [start_cli("convert", subjects.root, tree, "--subjects", subject) for subject in (1, 2)]
    assert [finish(process).code for process in processes] == [0, 0]
    assert digest_tree(tree) == digest_tree(whole_tree)


def test_threads_that_finish_at_once_lose_no_group(subjects, whole_tree, tmp_path):
    tree = tmp_path / "nsd.zarr"
    convert = [
        threading.Thread(
            target=nsd_zarr.convert, args=(subjects.root, tree), kwargs={"subjects": subject, "workers": 1}
        )
        for subject in (1, 2)
    ]
    for thread in convert:
        thread.start()
    for thread in convert:
        thread.join()
    assert digest_tree(tree) == digest_tree(whole_tree)


def test_subject_in_use_is_refused_and_the_other_is_converted(subjects, tmp_path):
    from nsd_zarr.conversion.lock import hold_lock
    from nsd_zarr.conversion.subjects.root import create_tree

    tree = tmp_path / "nsd.zarr"
    create_tree(tree)
    with hold_lock(tree / "subj01"), pytest.raises(StoreError, match="subject 1: the store is in use") as caught:
        nsd_zarr.convert(subjects.root, tree, **OPTIONS)
    assert [part.trials for part in caught.value.report.parts] == [36]
    assert (tmp_path / "nsd.zarr.run/subj01/lock").exists()


# -- the root document above groups ------------------------------------------------------------------------------


def test_attach_to_one_group_is_seen_through_the_root_document(tree):
    nsd_zarr.attach(tree / "subj01", no_experiment=True)
    opened = xr.open_datatree(tree, engine="zarr")
    assert "nsd_id" not in opened["subj01"]
    assert "nsd_id" in opened["subj02"]


@pytest.mark.parametrize("damage", ["lost", "cut", "stale"])
def test_root_document_that_is_lost_or_wrong_is_written_again(damage, tree, whole_tree, subjects):
    root = tree / "zarr.json"
    document = json.loads(root.read_bytes())
    document["consolidated_metadata"]["metadata"].pop("subj02")
    contents = {"cut": root.read_bytes()[:99], "stale": json.dumps(document).encode()}
    root.unlink() if damage == "lost" else root.write_bytes(contents[damage])
    assert nsd_zarr.convert(subjects.root, tree, **OPTIONS).sessions == ()
    assert digest_tree(tree) == digest_tree(whole_tree)
    assert sorted(path.name for path in tree.with_name("nsd.zarr.run").iterdir()) == ["lock", "subj01", "subj02"]


def test_tree_is_no_store_of_one_subject_and_says_how_to_open_one(whole_tree):
    with pytest.raises(StoreError, match=r'Name one, such as ".*nsd.zarr/subj01", or open them all') as caught:
        nsd_zarr.open_dataset(whole_tree)
    assert caught.value.found == (1, 2)
    assert nsd_zarr.open_dataset(whole_tree / "subj02").sizes["trial"] == 36
