"""The copy of the root document: who writes it, who does not, and what a kill at any rename leaves."""

from __future__ import annotations

import os
import shutil

import h5py
import pytest

import nsd_zarr
from nsd_zarr.conversion.root_copy import add_copy
from nsd_zarr.errors import StoreError

ROOT, COPY = "subj01.zarr/zarr.json", "subj01.zarr.run/root.json"


@pytest.fixture
def renamed(monkeypatch, tmp_path):
    """What was renamed into place, in order, by its path in the test's folder."""
    replace, paths = os.replace, []

    def note(old, new):
        replace(old, new)
        paths.append(new.relative_to(tmp_path).as_posix())

    monkeypatch.setattr(os, "replace", note)
    return paths


@pytest.fixture
def copy(tmp_path):
    return tmp_path / COPY


def read_both(folder):
    return (folder / ROOT).read_bytes(), (folder / COPY).read_bytes()


def test_copy_is_written_right_before_the_root_document_that_completes_a_store(source, convert, renamed, tmp_path):
    convert(source)
    assert renamed[-2:] == [COPY, ROOT]
    assert COPY not in renamed[:-2]
    root, copy = read_both(tmp_path)
    assert root == copy


def test_store_of_images_has_a_copy_and_its_root_document_comes_back(make_stimuli, tmp_path, digest_tree, renamed):
    make_stimuli(tmp_path / "nsd_stimuli.hdf5", 29)
    store = tmp_path / "subj01.zarr"
    nsd_zarr.convert_images(tmp_path / "nsd_stimuli.hdf5", store, images_per_shard=5)
    assert renamed[-2:] == [COPY, ROOT]
    whole = digest_tree(store)
    (store / "zarr.json").unlink()
    (store / "images/c/2/0/0/0").unlink()
    report = nsd_zarr.repair(store, tmp_path / "nsd_stimuli.hdf5")
    assert report.rewritten == ("images/c/2/0/0/0", "zarr.json")
    assert digest_tree(store) == whole


def test_store_killed_between_copy_and_root_document_is_whole_by_its_copy(
    source, stop_at_rename, renamed, tmp_path, convert, digest_tree
):
    whole = digest_tree(convert(source, "subj01.zarr"))
    count = len(renamed)
    for path in tmp_path.glob("subj01.*"):
        shutil.rmtree(path)
    with stop_at_rename(count):
        convert(source)
    with pytest.raises(StoreError, match="has not finished"):
        nsd_zarr.repair(tmp_path / "subj01.zarr", source)
    (tmp_path / ROOT).unlink()
    assert nsd_zarr.repair(tmp_path / "subj01.zarr", source).rewritten == ("zarr.json",)
    assert digest_tree(tmp_path / "subj01.zarr") == whole


def test_no_copy_outlives_the_start_of_a_run_that_writes(source, convert, copy, interrupt, tmp_path):
    store = convert(source)
    shutil.rmtree(store)
    interrupt(source)
    assert not copy.exists()


def test_run_that_goes_on_after_a_kill_before_the_root_document_begins_without_a_copy(
    source, convert, copy, stop_at_rename, renamed, interrupt, tmp_path
):
    convert(source)
    count = len(renamed)
    for path in tmp_path.glob("subj01.*"):
        shutil.rmtree(path)
    with stop_at_rename(count):
        convert(source)
    assert copy.exists()
    with stop_at_rename(1):
        convert(source)
    assert not copy.exists()


def test_commands_that_only_read_write_no_copy(source, convert, copy, run_cli, digest_tree, tmp_path):
    store = convert(source)
    copy.unlink()
    before = digest_tree(tmp_path)
    for words in (["info", store], ["verify", store], ["verify", store, "--source", source], ["plan", source, store]):
        options = ["--trials-per-shard", 2] if words[0] == "plan" else []
        assert run_cli(*words, *options).code == 0
    nsd_zarr.open_dataset(store).load()
    assert digest_tree(tmp_path) == before


def _convert(store, source):
    (store.with_name("subj01.zarr.run") / "run.json").unlink()  # Sources are read again, under the lock.
    nsd_zarr.convert(source, store, trials_per_shard=2)


def _attach(store, source):
    nsd_zarr.attach(store, no_experiment=True)


def _repair(store, source):
    (store / "session/c/0").unlink()
    nsd_zarr.repair(store, source)


@pytest.mark.parametrize("command", [_convert, _attach, _repair])
@pytest.mark.parametrize("found", ["missing", "damaged", "former"])
def test_command_that_holds_the_lock_of_a_whole_store_adds_the_copy(command, found, source, convert, copy, tmp_path):
    store = convert(source)
    data = copy.read_bytes()
    copy.unlink()
    if found != "missing":
        copy.write_bytes(data[:-300] if found == "damaged" else data.replace(b"complete", b"incomplete"))
    command(store, source)
    root, copied = read_both(tmp_path)
    assert root == copied


def test_root_document_of_another_store_does_not_replace_a_copy(source, make_source, convert, tmp_path):
    store = convert(source)
    other = convert(make_source(folder="others", dtype=">i4"), "other.zarr")
    shutil.copy(other / "zarr.json", store / "zarr.json")
    add_copy(store)
    root, copy = read_both(tmp_path)
    assert root != copy
    (store / "zarr.json").unlink()
    assert nsd_zarr.repair(store, source).is_whole


def test_unfinished_and_damaged_root_documents_are_not_copied(source, interrupt, convert, copy, tmp_path):
    store = interrupt(source)
    add_copy(store)
    assert not copy.exists()
    convert(source)
    data = (store / "zarr.json").read_bytes()
    (store / "zarr.json").write_bytes(data[:-9])
    add_copy(store)
    assert copy.read_bytes() == data


def test_run_folder_with_nothing_but_the_copy_is_one_of_ours(source, convert, copy, tmp_path):
    store = convert(source)
    shutil.rmtree(tmp_path / "subj01.zarr.run")
    _attach(store, source)
    assert {path.name for path in copy.parent.iterdir()} == {"lock", "root.json"}
    report = nsd_zarr.convert(source, store, trials_per_shard=2)
    assert [session.stored_bytes for session in report.sessions] == [0, 0, 0]


# -- what another run does before the lock is held ---------------------------------------------------------------


def test_repair_looks_again_under_the_lock(source, convert, monkeypatch, digest_tree, tmp_path):
    from nsd_zarr.maintenance import repair as module

    store = convert(source)
    whole = digest_tree(store)
    (store / "session/c/0").unlink()
    real = module.hold_lock

    def hold_after_another_run(path):
        (store / "betas/c/4/0/0/0").unlink()  # Whatever changed since the first look.
        return real(path)

    monkeypatch.setattr(module, "hold_lock", hold_after_another_run)
    report = nsd_zarr.repair(store, source)
    assert set(report.rewritten) == {"session/c/0", "betas/c/4/0/0/0"}
    assert digest_tree(store) == whole


def test_repair_beside_an_attach_leaves_the_store_that_attach_made(tmp_path, monkeypatch, digest_tree):
    from nsd_zarr.maintenance import repair as module
    from nsd_zarr.simulate import Simulation, simulate_root

    simulate_root(tmp_path / "nsd", Simulation(1, (26, 5, 11, 7), rois=("streams",), hemispheres=False))
    for name in ("subj01.zarr", "bare.zarr"):
        nsd_zarr.convert(tmp_path / "nsd", tmp_path / name, no_experiment=name == "bare.zarr")
    store, real = tmp_path / "subj01.zarr", module.hold_lock
    for key in ("brainmask/c/0/0/0", "betas/zarr.json"):
        (store / key).unlink()

    def hold_after_attach(path):
        with monkeypatch.context() as patch:
            patch.setattr(module, "hold_lock", real)
            nsd_zarr.attach(store, no_experiment=True)
        return real(path)

    monkeypatch.setattr(module, "hold_lock", hold_after_attach)
    assert nsd_zarr.repair(store, tmp_path / "nsd").rewritten == ()
    assert nsd_zarr.verify(store).is_whole
    assert digest_tree(store) == digest_tree(tmp_path / "bare.zarr")


def test_attach_reads_the_experiment_for_the_store_that_it_locked(tmp_path, make_source, monkeypatch):
    from nsd_zarr.maintenance import attach as module
    from nsd_zarr.simulate import Simulation, simulate_root

    root = simulate_root(tmp_path / "nsd", Simulation(2, (26, 5, 11, 7), rois=("streams",), hemispheres=False))
    store, real = tmp_path / "subj01.zarr", module.hold_lock
    nsd_zarr.convert(tmp_path / "nsd", store, sessions=1, no_experiment=True)

    def hold_after_another_run(path):
        for folder in tmp_path.glob("subj01.zarr*"):
            shutil.rmtree(folder)
        nsd_zarr.convert(tmp_path / "nsd", store, sessions="1-2", no_experiment=True)
        return real(path)

    monkeypatch.setattr(module, "hold_lock", hold_after_another_run)
    nsd_zarr.attach(store, brainmask=root.brainmask, trial_table=root.trial_table)
    assert nsd_zarr.verify(store).is_whole
    assert nsd_zarr.open_dataset(store).nsd_id.shape == (52,)
    with h5py.File(root.session_files[1], "r") as file:
        assert (nsd_zarr.open_dataset(store, raw=True).betas[26].values == file["betas"][0]).all()
