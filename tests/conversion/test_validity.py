"""Valid voxels of each session: of the authors' volume, else of the betas; and where the two disagree."""

from __future__ import annotations

import json
import shutil

import h5py
import nibabel
import numpy as np
import pytest
import zarr

import nsd_zarr
from nsd_zarr.errors import DamageFound
from nsd_zarr.simulate import Simulation, locate_root, simulate_root

SIMULATION = Simulation(3, (24, 7, 11, 5), rois=("nsdgeneral",), hemispheres=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return simulate_root(tmp_path_factory.mktemp("validity") / "nsd", SIMULATION)


@pytest.fixture
def root(made, tmp_path):
    shutil.copytree(made.root, tmp_path / "nsd")
    return locate_root(tmp_path / "nsd", SIMULATION)


@pytest.fixture
def store(root, tmp_path):
    """Where the store goes."""
    return tmp_path / "new.zarr"


def read_volume(path):
    return np.asarray(nibabel.load(path).dataobj).transpose(2, 1, 0)


def save_volume(path, values):
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(values.T), nibabel.load(path).affine), path)


def find_varying(root, session):
    """By h5py and NumPy, from the session file."""
    with h5py.File(root.session_files[session - 1]) as file:
        counts = file["betas"][...]
    return counts.max(axis=0) != counts.min(axis=0)


def remove(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def take_other_shape(path):
    save_volume(path, np.ones((7, 11, 6), np.int16))


def put_two(path):
    save_volume(path, read_volume(path) * np.int16(2))


SPOILED = {
    remove: "",
    cut: "is left out: no NIfTI volume can be read from it",
    take_other_shape: "is left out: a volume of shape (7, 11, 6) (z, y, x), expected (7, 11, 5)",
    put_two: "is left out: a mask that holds 2, expected 0 and 1 alone",
}


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_session_without_a_usable_volume_takes_its_voxels_from_the_betas(spoil, root, store, digest_tree, tmp_path):
    spoil(root.valid[1])
    report = nsd_zarr.convert(root.betas_folder, store, workers=1)
    group = zarr.open_group(store, mode="r")
    assert np.array_equal(group["valid"][...][[0, 2]], [read_volume(root.valid[place]) == 1 for place in (0, 2)])
    assert np.array_equal(group["valid"][1], find_varying(root, 2))
    *reasons, note = report.experiment.notes
    assert note.startswith("valid_sessionBB.nii.gz of session 2 cannot be used or is not there")
    assert [SPOILED[spoil] in reason and "valid_session02.nii.gz" in reason for reason in reasons] == [True] * (
        SPOILED[spoil] != ""
    )
    assert group.attrs["experiment_notes"] == list(report.experiment.notes)
    assert not any("valid_session02" in entry["name"] for entry in group.attrs["experiment"])
    # Attached to a store without an experiment, by its statistics, and repaired: the same bytes.
    whole = digest_tree(store)
    nsd_zarr.convert(root.betas_folder, tmp_path / "later.zarr", no_experiment=True)
    nsd_zarr.attach(tmp_path / "later.zarr", root.betas_folder)
    assert digest_tree(tmp_path / "later.zarr") == whole
    (store / "valid/c/1/0/0/0").unlink()
    assert nsd_zarr.repair(store, root.betas_folder).rewritten == ("valid/c/1/0/0/0",)
    assert digest_tree(store) == whole


def test_no_session_with_a_usable_volume_makes_no_array(root, store):
    for path in root.valid:
        path.unlink()
    report = nsd_zarr.convert(root.betas_folder, store)
    assert "valid" not in zarr.open_group(store, mode="r")
    assert report.experiment.missing == ("valid_sessionBB.nii.gz of sessions 1-3",)
    assert report.experiment.notes == ()


@pytest.fixture
def disagreeing(root):
    """Volumes of sessions 1 and 3 that contradict the betas; how often each way, inside the brain mask."""
    brain, counts = read_volume(root.brainmask) == 1, np.zeros(2, int)
    for session, (wrong, right) in {1: (2, 3), 3: (1, 0)}.items():
        valid, varies = read_volume(root.valid[session - 1]) == 1, find_varying(root, session)
        live, dead = np.flatnonzero(brain & varies), np.flatnonzero(brain & ~varies)
        assert len(dead) >= right
        valid.reshape(-1)[live[:wrong]] = False
        valid.reshape(-1)[dead[:right]] = True
        valid |= ~brain  # The volume covers the slab; betas outside the brain are 0, and that is no news.
        save_volume(root.valid[session - 1], valid.astype(np.int16))
        counts += [np.count_nonzero(brain & varies & ~valid), np.count_nonzero(brain & ~varies & valid)]
    assert counts.tolist() == [3, 3]
    return root


NOTE = (
    "valid_sessionBB.nii.gz of sessions 1,3 and the betas disagree: 3 times a voxel varies over a session where it is "
    "not valid, 3 times a valid one does not vary; both count as without data"
)


def test_disagreement_of_valid_and_betas_is_reported_with_counts(disagreeing, store, run_cli, tmp_path, digest_tree):
    printed = json.loads(run_cli("convert", disagreeing.betas_folder, store, "--json").out)
    assert printed["experiment"]["notes"] == [NOTE]
    assert zarr.open_group(store, mode="r").attrs["experiment_notes"] == [NOTE]
    assert f"note       {NOTE}" in run_cli("info", store).out
    lines = run_cli("convert", disagreeing.betas_folder, tmp_path / "other.zarr").out.splitlines()
    assert f"note        {NOTE}" in lines
    nsd_zarr.convert(disagreeing.betas_folder, tmp_path / "later.zarr", no_experiment=True)
    assert nsd_zarr.attach(tmp_path / "later.zarr", disagreeing.betas_folder).experiment.notes == (NOTE,)
    assert digest_tree(tmp_path / "later.zarr") == digest_tree(store)


def test_without_a_brain_mask_voxels_that_vary_in_any_session_count(disagreeing, store):
    disagreeing.brainmask.unlink()
    brain = np.any([find_varying(disagreeing, session) for session in (1, 2, 3)], axis=0)
    still = [
        np.count_nonzero(brain & (read_volume(path) == 1) & ~find_varying(disagreeing, session))
        for session, path in enumerate(disagreeing.valid, 1)
    ]
    (note,) = nsd_zarr.convert(disagreeing.betas_folder, store).experiment.notes
    assert f"{sum(still)} times a valid one does not vary" in note


def test_agreement_is_not_reported(root, store):
    assert nsd_zarr.convert(root.betas_folder, store).experiment.notes == ()


def test_attach_to_a_store_with_damaged_statistics_says_so_and_changes_nothing(root, store, digest_tree):
    nsd_zarr.convert(root.betas_folder, store, no_experiment=True)
    chunk = store / "session_std/c/1/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"\0")
    before = digest_tree(store)
    with pytest.raises(DamageFound, match=r"session_std/c/1/0/0/0\]") as caught:
        nsd_zarr.attach(store, root.betas_folder)
    assert "nsd-zarr repair STORE" in str(caught.value)
    assert digest_tree(store) == before
