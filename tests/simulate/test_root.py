import json
import subprocess
import sys
from dataclasses import asdict

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest

from nsd_zarr.errors import ConfigError
from nsd_zarr.simulate import (
    ROI_LABELS,
    Simulation,
    locate_root,
    make_brain_mask,
    make_hemisphere,
    make_ncsnr,
    make_planted_ncsnr,
    make_roi,
    make_trial_table,
    make_valid,
    simulate_root,
)


def read_tree(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def read_betas(path):
    with h5py.File(path) as file:
        return file["betas"][...]


def read_volume(path):
    return np.asarray(nibabel.load(path).dataobj).transpose(2, 1, 0)


def test_files_lie_at_the_datasets_own_places(make_root):
    made = make_root(subject=3, space="func1mm", betas="betas_fithrf", rois=("streams", "prf-visualrois", "MTL"))
    assert sorted(str(path) for path in read_tree(made.root)) == [
        "nsddata/experiments/nsd/nsd_expdesign.mat",
        "nsddata/experiments/nsd/nsd_stim_info_merged.csv",
        "nsddata/freesurfer/fsaverage/label/streams.mgz.ctab",
        "nsddata/freesurfer/subj03/label/prf-visualrois.mgz.ctab",
        "nsddata/ppdata/subj03/behav/responses.tsv",
        "nsddata/ppdata/subj03/func1mm/brainmask.nii.gz",
        "nsddata/ppdata/subj03/func1mm/roi/MTL.nii.gz",
        "nsddata/ppdata/subj03/func1mm/roi/lh.MTL.nii.gz",
        "nsddata/ppdata/subj03/func1mm/roi/lh.prf-visualrois.nii.gz",
        "nsddata/ppdata/subj03/func1mm/roi/lh.streams.nii.gz",
        "nsddata/ppdata/subj03/func1mm/roi/prf-visualrois.nii.gz",
        "nsddata/ppdata/subj03/func1mm/roi/rh.MTL.nii.gz",
        "nsddata/ppdata/subj03/func1mm/roi/rh.prf-visualrois.nii.gz",
        "nsddata/ppdata/subj03/func1mm/roi/rh.streams.nii.gz",
        "nsddata/ppdata/subj03/func1mm/roi/streams.nii.gz",
        "nsddata/ppdata/subj03/func1mm/valid.nii.gz",
        "nsddata/ppdata/subj03/func1mm/valid_session01.nii.gz",
        "nsddata/ppdata/subj03/func1mm/valid_session02.nii.gz",
        "nsddata/templates/MTL.ctab",
        "nsddata_betas/ppdata/subj03/func1mm/betas_fithrf/betas_session01.hdf5",
        "nsddata_betas/ppdata/subj03/func1mm/betas_fithrf/betas_session02.hdf5",
        "nsddata_betas/ppdata/subj03/func1mm/betas_fithrf/ncsnr.nii.gz",
        "simulation/subj03/planted_ncsnr.nii.gz",
        "simulation/subj03/simulation.json",
    ]
    assert [path.parent for path in made.session_files] == [made.betas_folder] * 2
    assert nibabel.load(made.brainmask).header.get_zooms() == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("layout", ["nsd", "contiguous", "gzip"])
def test_equal_recipes_give_equal_bytes(make_root, layout):
    assert read_tree(make_root("one", layout=layout).root) == read_tree(make_root("two", layout=layout).root)


def test_recipe_file_holds_the_recipe_and_nothing_of_the_machine(make_root):
    made = make_root(seed=11)
    recipe = json.loads(made.recipe.read_text())
    assert recipe.pop("about").startswith("synthetic")
    assert recipe | {"experiments": ["nsd"]} == json.loads(json.dumps(asdict(Simulation(2, (13, 5, 11, 7), seed=11))))


def test_other_seed_and_other_subject_give_other_values(make_root):
    betas = [
        read_betas(make_root(str(n), **recipe).session_files[0])
        for n, recipe in enumerate(({}, {"seed": 1}, {"subject": 2}))
    ]
    mask = make_brain_mask((5, 11, 7)) & (np.arange(5) > 1)[:, None, None]  # above the slab's edge
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.mean(betas[one][:, mask] == betas[other][:, mask]) < 0.01


def test_sessions_of_one_root_hold_different_betas(make_root):
    made = make_root(sessions=3)
    mask = make_brain_mask((5, 11, 7)) & (np.arange(5) > 1)[:, None, None]  # above the slab's edge
    first, second, third = (read_betas(path)[:, mask] for path in made.session_files)
    for one, other in ((first, second), (first, third), (second, third)):
        assert np.mean(one == other) < 0.01


@pytest.mark.parametrize("layout", ["contiguous", "gzip"])
def test_other_layouts_hold_the_values_of_the_nsd_layout(make_root, layout):
    nsd, other = make_root("nsd"), make_root("other", layout=layout)
    for one, two in zip(nsd.session_files, other.session_files, strict=True):
        assert np.array_equal(read_betas(one), read_betas(two))


@pytest.mark.parametrize("shape", [(13, 5, 11, 7), (6, 5, 7, 3), (2, 2, 3, 5), (3, 17, 31, 23)])
def test_betas_are_zero_where_mask_or_valid_say_so_and_reach_both_rails(make_root, shape):
    made = make_root(shape=shape)
    mask = read_volume(made.brainmask).astype(bool)
    for path, valid in zip(made.session_files, made.valid, strict=True):
        betas = read_betas(path)
        assert (betas.shape, betas.dtype) == (shape, np.int16)
        assert np.array_equal((betas != 0).any(axis=0), mask & (read_volume(valid) == 1))
        assert (betas.min(), betas.max()) == (-32768, 32767)
        assert np.count_nonzero((betas == 32767).any(axis=0)) <= 4


def test_volumes_are_the_pure_functions_transposed(make_root):
    shape = (5, 11, 7)
    made = make_root(seed=3)
    assert np.array_equal(read_volume(made.brainmask), make_brain_mask(shape))
    planted = make_planted_ncsnr(shape, seed=3)
    assert np.array_equal(read_volume(made.planted_ncsnr), planted, equal_nan=True)
    assert np.array_equal(read_volume(made.ncsnr), make_ncsnr(Simulation(2, (13, *shape), seed=3)), equal_nan=True)
    for session, path in enumerate(made.valid, 1):
        assert np.array_equal(read_volume(path), make_valid(shape, seed=3, session=session))
    assert np.array_equal(read_volume(made.valid_fraction), np.mean([read_volume(path) for path in made.valid], axis=0))
    for name, path in made.rois.items():
        assert np.array_equal(read_volume(path), make_roi(name, shape))
        assert nibabel.load(path).get_data_dtype() == np.int16
        halves = [make_hemisphere(name, shape, hemisphere) for hemisphere in ("lh", "rh")]
        assert np.array_equal([read_volume(half) for half in made.hemispheres[name]], halves)
    for path, dtype in ((made.brainmask, "i2"), (made.valid[0], "i2"), (made.valid_fraction, "f4"), (made.ncsnr, "f4")):
        assert nibabel.load(path).get_data_dtype() == np.dtype(dtype)


def test_label_names_stand_one_to_a_line(make_root):
    lines = make_root().roi_names["prf-visualrois"].read_text().splitlines()
    assert lines[:3] == ["0 Unknown", "1 V1v", "2 V1d"]
    assert len(lines) == 1 + len(ROI_LABELS["prf-visualrois"])


def test_trial_table_has_one_row_per_beta(make_root):
    made = make_root(seed=3, subject=2)
    read = pd.read_csv(made.trial_table, sep="\t", dtype=float)
    pd.testing.assert_frame_equal(read, pd.DataFrame(make_trial_table(2, 13, seed=3, subject=2)), rtol=1e-12)


@pytest.mark.parametrize(("layout", "total"), [("nsd", 10), ("contiguous", 10), ("gzip", 36)])
def test_progress_counts_every_step_once(tmp_path, layout, total):
    seen = []
    simulation = Simulation(2, (13, 5, 11, 7), layout)
    simulate_root(tmp_path, simulation, lambda done, all_steps: seen.append((done, all_steps)))
    assert seen == [(done, total) for done in range(1, total + 1)]


def test_interrupted_simulation_is_made_whole_by_running_it_again(tmp_path, make_root):
    def interrupt(done, total):
        if done == 7:
            raise KeyboardInterrupt

    simulation = Simulation(2, (13, 5, 11, 7))
    with pytest.raises(KeyboardInterrupt):
        simulate_root(tmp_path / "broken", simulation, interrupt)
    assert not locate_root(tmp_path / "broken", simulation).session_files[1].exists()
    assert read_tree(simulate_root(tmp_path / "broken", simulation).root) == read_tree(make_root("whole").root)


def test_other_recipe_in_the_same_place_is_refused(tmp_path, make_root):
    made = make_root(seed=1)
    before = read_tree(made.root)
    with pytest.raises(ConfigError, match="subj01, but not this simulation"):
        make_root(seed=2)
    assert read_tree(made.root) == before


@pytest.mark.parametrize("folder", ["nsddata_betas/ppdata/subj01", "nsddata/ppdata/subj01"])
def test_data_that_were_not_simulated_are_never_touched(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(ConfigError, match="Choose another directory"):
        simulate_root(tmp_path, Simulation(2, (13, 5, 11, 7)))
    assert not read_tree(tmp_path)


def test_place_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is a file"):
        simulate_root(tmp_path / "file", Simulation(2, (13, 5, 11, 7)))
    assert (tmp_path / "file").read_text() == "mine"


def test_second_subject_of_another_volume_goes_beside_the_first(tmp_path):
    first = simulate_root(tmp_path, Simulation(2, (13, 5, 11, 7)))
    shared = first.expdesign.read_bytes(), first.stim_info.read_bytes()
    second = simulate_root(tmp_path, Simulation(2, (13, 7, 5, 3), subject=2))
    assert all(path.exists() for path in (*first.session_files, *second.session_files))
    assert (first.expdesign.read_bytes(), first.stim_info.read_bytes()) == shared


@pytest.mark.parametrize("other", [{"seed": 1}, {"sessions": 1}, {"shape": (11, 5, 11, 7)}], ids=str)
def test_second_subject_of_another_design_is_refused(other, make_root):
    make_root()
    with pytest.raises(ConfigError, match="another experiment's design"):
        make_root(**{"subject": 2} | other)


@pytest.mark.parametrize("name", ["expdesign", "stim_info", "stimuli"])
def test_design_that_was_not_simulated_is_never_touched(name, tmp_path):
    place = getattr(locate_root(tmp_path, Simulation(2, (13, 5, 11, 7))), name)
    place.parent.mkdir(parents=True)
    place.write_text("the dataset's own")
    with pytest.raises(ConfigError, match="another experiment's design"):
        simulate_root(tmp_path, Simulation(2, (13, 5, 11, 7), images=3, image_size=9))
    assert list(read_tree(tmp_path).values()) == [b"the dataset's own"]


def test_import_brings_neither_h5py_nor_nibabel_nor_pandas():
    code = (
        "import sys, nsd_zarr.simulate; print([m for m in ('h5py', 'nibabel', 'pandas', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
