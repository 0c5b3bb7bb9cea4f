"""verify, repair, attach, info and bench of a store with a group for each subject: all of them, or those chosen."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import xarray as xr
from builders import digest_tree, run_cli

import nsd_zarr
from nsd_zarr.errors import ConfigError, SourceError, StoreError
from nsd_zarr.store.format import encode_json

SHARD = "betas/c/2/0/0/0"
"""Of session 3: a shard is a session here."""


def flip(path, at=70):
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def test_whole_tree_is_proved_with_and_without_its_sources(whole_tree, subjects):
    report = nsd_zarr.verify(whole_tree)
    assert (report.is_whole, report.trials, len(report.parts)) == (True, 72, 2)
    assert report.files == sum(path.is_file() for path in whole_tree.rglob("*"))
    assert nsd_zarr.verify(whole_tree, subjects.root).strength == "source"
    assert nsd_zarr.verify(whole_tree, quick=True, subjects=2).files == report.parts[1].files + 1
    json.dumps(report.as_dict())


def test_damage_names_subject_session_and_trial_and_is_repaired(tree, whole_tree, subjects, capsys):
    flip(tree / "subj02" / SHARD)
    (tree / "subj01/session/c/0").unlink()
    outcome = run_cli(capsys, "verify", tree, "--source", subjects.root)
    assert outcome.code == 1
    assert "  subject 1, subj01/session/c/0: missing" in outcome.out
    assert (
        "  subject 2, session 03, trials 24 to 35, " in outcome.out or "subject 2, session 03, trial 24" in outcome.out
    )
    (command,) = [line for line in outcome.out.splitlines() if line.startswith("Repair it: ")]
    assert "--subjects 1-2" in command
    assert (tree / "subj02" / SHARD).exists()
    words = command.removeprefix("Repair it: nsd-zarr ").split()
    outcome = run_cli(capsys, *words)
    assert (outcome.code, outcome.out.count("made again")) == (0, 1)
    assert digest_tree(tree) == digest_tree(whole_tree)


def test_repair_of_chosen_subjects_and_sessions_leaves_the_others(tree, whole_tree, subjects):
    for subject in (1, 2):
        flip(tree / f"subj0{subject}" / SHARD)
    flip(tree / "subj02/betas/c/0/0/0/0")
    report = nsd_zarr.verify(tree, subjects=[2])
    assert {(damage.subject, damage.session) for damage in report.damages} == {(2, 1), (2, 3)}
    assert report.repair_command.endswith("--subjects 2 --sessions 1,3")
    repaired = nsd_zarr.repair(tree, subjects.root, sessions=3, subjects=2)
    assert repaired.rewritten == (f"subj02/{SHARD}",)
    assert {(damage.subject, damage.session) for damage in repaired.left} == {(2, 1)}
    assert not repaired.is_whole
    assert nsd_zarr.repair(tree, subjects.root).is_whole
    assert digest_tree(tree) == digest_tree(whole_tree)


@pytest.mark.parametrize("damage", ["lost", "flipped", "stale"])
def test_root_document_above_the_groups_is_proved_and_repaired(damage, tree, whole_tree, subjects):
    root = tree / "zarr.json"
    document = json.loads(root.read_bytes())
    document["consolidated_metadata"]["metadata"].pop("subj02/betas")
    if damage == "lost":
        root.unlink()
    elif damage == "flipped":
        flip(root)
    else:
        root.write_bytes(encode_json(document))
    (found,) = nsd_zarr.verify(tree).damages
    assert (found.path, found.subject, found.session) == ("zarr.json", None, None)
    repaired = nsd_zarr.repair(tree, subjects.root)
    assert (repaired.is_whole, repaired.rewritten) == (True, ("zarr.json",))
    assert digest_tree(tree) == digest_tree(whole_tree)


def test_root_document_of_a_group_that_is_lost_comes_back_and_the_tree_lists_it_all_the_while(
    tree, whole_tree, subjects
):
    (tree / "subj02/zarr.json").unlink()
    (found,) = nsd_zarr.verify(tree).damages
    assert (found.path, found.subject) == ("subj02/zarr.json", 2)
    nsd_zarr.attach(tree / "subj01", subjects.root, subject=1)  # writes the root document above as well
    assert set(xr.open_datatree(tree, engine="zarr").children) == {"subj01", "subj02"}
    assert nsd_zarr.repair(tree, subjects.root).rewritten == ("subj02/zarr.json",)
    assert digest_tree(tree) == digest_tree(whole_tree)


def test_files_that_are_not_of_the_store_are_told_apart_from_damage(tree):
    (tree / "notes").mkdir()
    for name in ("notes/mine.txt", ".DS_Store", "subj01/mine.txt"):
        (tree / name).write_text("mine")
    report = nsd_zarr.verify(tree, quick=True)
    assert report.is_whole
    assert report.untracked_files == (".DS_Store", "notes/mine.txt", "subj01/mine.txt")


def test_subject_that_is_gone_fails_and_the_others_are_proved(tree, capsys):
    shutil.rmtree(tree / "subj01")
    outcome = run_cli(capsys, "verify", tree, "--json")
    assert outcome.code == 4
    assert outcome.json["trials"] == 36
    assert "nsd-zarr: subject 1: no such store" in outcome.err


def test_subject_without_a_source_fails_and_the_other_is_repaired(tree, subjects, tmp_path):
    root = shutil.copytree(subjects.root, tmp_path / "nsd")
    shutil.rmtree(next(root.glob("nsddata_betas/ppdata/subj01")))
    for subject in (1, 2):
        flip(tree / f"subj0{subject}" / SHARD)
    with pytest.raises(SourceError, match=r"^subject 1: no session files") as caught:
        nsd_zarr.repair(tree, root)
    assert caught.value.report.rewritten == (f"subj02/{SHARD}",)


def test_attach_takes_and_gives_the_experiment_of_every_subject(tree, whole_tree, subjects):
    taken = nsd_zarr.attach(tree, no_experiment=True)
    assert (taken.experiment.found, len(taken.parts)) == ((), 2)
    assert all("nsd_id" not in node for node in xr.open_datatree(tree, engine="zarr").children.values())
    assert "trial table" in nsd_zarr.attach(tree, subjects.root).experiment.found
    assert digest_tree(tree) == digest_tree(whole_tree)


def test_options_of_one_subject_are_refused(whole_tree, subjects, tmp_path):
    with pytest.raises(ConfigError, match="several subjects"):
        nsd_zarr.verify(whole_tree, subject=1)
    with pytest.raises(ConfigError, match="brainmask names a file of one subject"):
        nsd_zarr.attach(whole_tree, brainmask="mask.nii.gz")
    with pytest.raises(ConfigError, match="files as SOURCE"):
        nsd_zarr.verify(whole_tree, subjects.files[1])
    with pytest.raises(ConfigError, match="is not one with a group for each subject"):
        nsd_zarr.verify(whole_tree / "subj01", subjects=1)
    with pytest.raises(StoreError, match="subject 7: no such store"):
        nsd_zarr.verify(whole_tree, subjects=7)


def test_info_and_bench_show_each_subject(whole_tree, capsys):
    outcome = run_cli(capsys, "info", whole_tree)
    assert [line for line in outcome.out.splitlines() if line.startswith("subject")] == ["subject 1", "subject 2"]
    values = run_cli(capsys, "info", whole_tree, "--subjects", "2", "--json").json
    assert values["subjects"]["2"]["shape"] == [36, 5, 3, 11]
    assert list(values["subjects"]) == ["2"]
    assert run_cli(capsys, "info", whole_tree / "subj01", "--json").json["trials"] == 36
    options = ("--rounds", 1, "--trials", 1, "--workers", 1, "--json")
    values = run_cli(capsys, "bench", whole_tree, "--subjects", "1", *options).json
    assert values["subjects"]["1"]["trial_bytes"] == 7 * 5 * 3 * 2


def test_images_of_several_subjects_are_those_that_any_of_them_saw(whole_tree, subjects, tmp_path):
    report = nsd_zarr.convert_images(subjects.root, tmp_path / "images.zarr", subjects="1,2")
    tree = xr.open_datatree(whole_tree, engine="zarr")
    seen = np.unique(np.concatenate([tree[f"subj0{n}"]["nsd_id"].values for n in (1, 2)]))
    assert report.images == len(seen)
    assert nsd_zarr.verify(tmp_path / "images.zarr", subjects.root, subjects="1,2").is_whole
    with pytest.raises(ConfigError, match="subject = 1, and several subjects"):
        nsd_zarr.convert_images(subjects.root, tmp_path / "others.zarr", subjects="1,2", subject=1)
