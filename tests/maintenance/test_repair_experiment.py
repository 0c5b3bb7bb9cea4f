"""repair of a store that knows its experiment: statistics, tables and volumes come back byte for byte."""

import shutil

import nibabel
import numpy as np
import pytest

import nsd_zarr
from nsd_zarr.errors import ResumeRefused, SourceError, StoreError
from nsd_zarr.simulate import Simulation, simulate_root

ROIS = ("nsdgeneral", "prf-visualrois", "streams", "floc-faces")
"""A few of the sets of regions, so that few files are written."""
SIMULATION = Simulation(3, (26, 5, 11, 7), rois=ROIS, hemispheres=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A root and its store: three sessions in shards of 13."""
    top = tmp_path_factory.mktemp("repair")
    root = simulate_root(top / "nsd", SIMULATION)
    nsd_zarr.convert(top / "nsd", top / "subj01.zarr", trials_per_shard=13)
    return root, top


@pytest.fixture
def store(made, tmp_path):
    shutil.copytree(made[1] / "subj01.zarr", tmp_path / "subj01.zarr")
    shutil.copytree(made[1] / "subj01.zarr.run", tmp_path / "subj01.zarr.run")
    return tmp_path / "subj01.zarr"


def list_files(store):
    return sorted(path for path in store.rglob("*") if path.is_file())


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def test_every_file_that_is_lost_or_changed_is_made_again(made, store, digest_tree):
    whole = digest_tree(store)
    for number, path in enumerate(list_files(store)):
        (flip if number % 2 else type(path).unlink)(path)
        key = path.relative_to(store).as_posix()
        report = nsd_zarr.repair(store, made[1] / "nsd", workers=1)
        assert report.rewritten == (key,)
        assert digest_tree(store) == whole


@pytest.mark.parametrize("key", ["session_mean/c/1/0/0/0", "valid/c/1/0/0/0"])
def test_volume_of_one_session_is_reported_and_repaired_with_it(key, made, store, digest_tree):
    whole = digest_tree(store)
    flip(store / key)
    flip(store / "session_std/c/2/0/0/0")
    report = nsd_zarr.verify(store, made[1] / "nsd")
    assert {(damage.session, damage.path) for damage in report.damages} == {(3, "session_std/c/2/0/0/0"), (2, key)}
    assert report.repair_command == f"nsd-zarr repair {store} --source {made[1] / 'nsd'} --sessions 2-3"
    assert nsd_zarr.repair(store, made[1] / "nsd", sessions=2).rewritten == (key,)
    assert not nsd_zarr.verify(store).is_whole
    assert nsd_zarr.repair(store, made[1] / "nsd", sessions="2-3").is_whole
    assert digest_tree(store) == whole


def test_all_but_the_root_document_is_made_again_at_once(made, store, digest_tree):
    whole = digest_tree(store)
    for path in list_files(store):
        if path != store / "zarr.json":
            path.unlink()
    assert nsd_zarr.repair(store, made[1] / "nsd").is_whole
    assert digest_tree(store) == whole


def test_root_document_is_made_again_with_the_experiment(made, store, digest_tree):
    whole = digest_tree(store)
    flip(store / "zarr.json")
    assert nsd_zarr.repair(store, made[1] / "nsd").rewritten == ("zarr.json",)
    assert digest_tree(store) == whole


def test_root_document_of_a_store_without_experiment_is_made_without_one(made, store, digest_tree):
    nsd_zarr.attach(store, no_experiment=True)
    whole = digest_tree(store)
    flip(store / "zarr.json")
    assert nsd_zarr.repair(store, made[1] / "nsd").rewritten == ("zarr.json",)
    assert digest_tree(store) == whole


def test_root_document_lost_with_the_run_is_refused_and_comes_back_from_a_backup(made, store, digest_tree):
    whole, root = digest_tree(store), (store / "zarr.json").read_bytes()
    flip(store / "zarr.json")
    shutil.rmtree(f"{store}.run")
    with pytest.raises(StoreError, match=r"comes back from its copy.*missing"):
        nsd_zarr.repair(store, made[1] / "nsd")
    (store / "zarr.json").write_bytes(root)
    assert nsd_zarr.repair(store, made[1] / "nsd").is_whole
    assert digest_tree(store) == whole


def test_volume_that_changed_since_is_refused_and_nothing_is_written(made, store, tmp_path, digest_tree):
    shutil.copytree(made[1] / "nsd", tmp_path / "nsd")
    changed = tmp_path / "nsd" / made[0].brainmask.relative_to(made[1] / "nsd")
    image = nibabel.load(changed)
    nibabel.save(nibabel.Nifti1Image(1 - np.asarray(image.dataobj, np.int16), image.affine), changed)
    flip(store / "brainmask/c/0/0/0")
    flip(store / "betas/c/2/0/0/0")
    before = digest_tree(store)
    with pytest.raises(ResumeRefused, match=r"brainmask/c/0/0/0 cannot be made again: other bytes"):
        nsd_zarr.repair(store, tmp_path / "nsd")
    assert digest_tree(store) == before
    assert nsd_zarr.repair(store, made[1] / "nsd").is_whole


def test_experiment_that_is_not_found_is_asked_for_and_given_by_hand(made, store, digest_tree):
    whole = digest_tree(store)
    (store / "nsd_id/c/0").unlink()
    folder = store.parent / "sessions"
    folder.mkdir()
    for path in made[0].session_files:
        shutil.copy(path, folder)
    with pytest.raises(SourceError, match="nothing of an experiment was found"):
        nsd_zarr.repair(store, folder)
    assert nsd_zarr.repair(store, folder, trial_table=made[0].trial_table).rewritten == ("nsd_id/c/0",)
    assert digest_tree(store) == whole
