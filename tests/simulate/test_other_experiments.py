"""Simulated sessions of nsdsynthetic and nsdimagery: the dataset's places and counts, and a whole way to images."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from scipy.io import loadmat

import nsd_zarr
from nsd_zarr.errors import ConfigError
from nsd_zarr.loading.images import PairedImages
from nsd_zarr.simulate import Simulation, locate_root, make_roi, simulate_root
from nsd_zarr.store.root import open_store

RECIPE = {
    "sessions": 2,
    "shape": (13, 5, 11, 7),
    "rois": ("nsdgeneral",),
    "hemispheres": False,
    "experiments": ("nsd", "nsdsynthetic", "nsdimagery"),
    "images": 3,
    "image_size": 9,
}
STIMULI = "nsddata_stimuli/stimuli/nsdsynthetic"
DESIGN = "nsddata/experiments/nsdsynthetic/nsdsynthetic_expdesign.mat"


def read_tree(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return simulate_root(tmp_path_factory.mktemp("others") / "nsd", Simulation(**RECIPE))


def test_files_lie_at_the_datasets_own_places_beside_the_same_core_experiment(made, tmp_path):
    core = simulate_root(tmp_path, Simulation(**RECIPE | {"experiments": ("nsd",)}))
    found, before = read_tree(made.root), read_tree(core.root)
    assert {*found} - {*before} == {
        DESIGN,
        f"{STIMULI}/nsdsynthetic_stimuli.hdf5",
        f"{STIMULI}/nsdsynthetic_colorstimuli_subj01.hdf5",
        "nsddata/ppdata/subj01/func1pt8mm/valid_nsdsynthetic.nii.gz",
        "nsddata/ppdata/subj01/func1pt8mm/valid_nsdimagery.nii.gz",
        "nsddata_betas/ppdata/subj01/func1pt8mm/nsdsyntheticbetas_fithrf_GLMdenoise_RR/betas_nsdsynthetic.hdf5",
        "nsddata_betas/ppdata/subj01/func1pt8mm/nsdimagerybetas_fithrf_GLMdenoise_RR/betas_nsdimagery.hdf5",
    }
    assert {name for name in before if found[name] != before[name]} == {"simulation/subj01/simulation.json"}


def test_equal_recipes_give_equal_bytes(made, tmp_path):
    steps = []
    for _ in range(2):  # The second time over itself.
        again = simulate_root(tmp_path, Simulation(**RECIPE), lambda done, total: steps.append((done, total)))
        assert read_tree(again.root) == read_tree(made.root)
    assert steps == [(done, 20) for done in range(1, 21)] * 2


def test_design_has_the_counts_of_the_data_manual(made):
    design = loadmat(made.root / DESIGN)
    ordering, pattern = design["masterordering"], design["stimpattern"]
    assert (ordering.shape, pattern.shape) == ((1, 744), (1, 8, 107))
    assert np.array_equal(np.unique(ordering), np.arange(1, 285))
    assert pattern.sum(axis=2).tolist() == [[93] * 8]
    for run in ordering.reshape(8, 93):
        assert np.count_nonzero(np.diff(run) == 0) >= 10


def test_second_subject_shares_design_and_images_but_not_its_colors(made, tmp_path):
    first = simulate_root(tmp_path, Simulation(**RECIPE))
    shared = {name: data for name, data in read_tree(first.root).items() if "subj01" not in name}
    simulate_root(tmp_path, Simulation(**RECIPE | {"subject": 2}))
    found = read_tree(tmp_path)
    assert {name: found[name] for name in shared} == shared
    one, two = (found[f"{STIMULI}/nsdsynthetic_colorstimuli_subj{subject:02d}.hdf5"] for subject in (1, 2))
    assert one != two


def test_trials_are_paired_with_the_image_of_the_design(made, tmp_path):
    nsd_zarr.convert(made.root, tmp_path / "s.zarr", betas=made.other_betas["nsdsynthetic"].name, workers=1)
    nsd_zarr.convert_images(made.root, tmp_path / "i.zarr", experiment="nsdsynthetic", subject=1, workers=1)
    images = []
    for name in ("nsdsynthetic_stimuli", "nsdsynthetic_colorstimuli_subj01"):
        with h5py.File(made.root / STIMULI / f"{name}.hdf5") as file:
            images += list(file["imgBrick"][...])
    assert len({image.tobytes() for image in images}) == 284
    ordering = loadmat(made.root / DESIGN)["masterordering"][0].astype(int)
    paired = PairedImages(open_store(tmp_path / "s.zarr"), tmp_path / "i.zarr", None)
    out = np.empty(paired.shape, np.uint8)
    for trial, number in enumerate(ordering):
        paired.read_into(trial, out)
        assert np.array_equal(out, images[number - 1])
    assert nsd_zarr.verify(tmp_path / "s.zarr", made.other_betas["nsdsynthetic"]).is_whole


def test_betas_of_one_image_are_more_alike_than_those_of_two(made):
    with h5py.File(made.other_betas["nsdsynthetic"] / "betas_nsdsynthetic.hdf5") as file:
        betas = file["betas"][...][:, make_roi("nsdgeneral", (5, 11, 7)) > 0].astype(float)
    alike = np.corrcoef((betas - betas.mean(axis=0)) / betas.std(axis=0))
    ordering = loadmat(made.root / DESIGN)["masterordering"][0]
    same = ordering[:, np.newaxis] == ordering
    others = ~same
    np.fill_diagonal(same, False)
    assert alike[same].mean() > alike[others].mean() + 0.2


def test_imagery_converts_with_its_runs_and_tasks(made, tmp_path):
    report = nsd_zarr.convert(made.root, tmp_path / "s.zarr", betas=made.other_betas["nsdimagery"].name, workers=1)
    assert report.trials == 720
    assert {"task", "stimulus_set", "run", "valid"} <= {*open_store(tmp_path / "s.zarr").members}


def test_other_forms_hold_the_same_trials(tmp_path):
    forms = ("hdf5", "nifti", "fsaverage")
    root = simulate_root(tmp_path / "nsd", Simulation(**RECIPE | {"forms": forms, "images": 0}))
    folder = root.other_betas["nsdimagery"]
    digests = []
    for form in forms[:2]:
        nsd_zarr.convert(folder, tmp_path / f"{form}.zarr", form=form, workers=1)
        digests.append(nsd_zarr.open_dataset(tmp_path / f"{form}.zarr", raw=True).betas.values)
    assert np.array_equal(*digests)
    assert (tmp_path / "nsd/nsddata_betas/ppdata/subj01/fsaverage" / folder.name / "lh.betas_nsdimagery.mgh").exists()


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        ({"experiments": ("nsdsynthetic",)}, "expected nsd, and each once"),
        ({"experiments": ("nsd", "nsd")}, "expected nsd, and each once"),
        ({"experiments": ("nsd", "prf")}, "experiments 'prf' is unknown"),
        ({"experiments": ("nsd", "nsdimagery"), "betas": "betas_assumehrf"}, "nsdimagery has no betas_assumehrf"),
    ],
)
def test_experiments_that_cannot_be_made_are_refused(recipe, problem):
    with pytest.raises(ConfigError, match=problem):
        Simulation(**recipe)


@pytest.mark.parametrize("name", [DESIGN, f"{STIMULI}/nsdsynthetic_stimuli.hdf5"])
def test_files_that_were_not_simulated_are_never_touched(name, tmp_path):
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("the dataset's own")
    with pytest.raises(ConfigError, match="another experiment's design"):
        simulate_root(tmp_path, Simulation(**RECIPE))
    assert list(read_tree(tmp_path).values()) == [b"the dataset's own"]
    assert not locate_root(tmp_path, Simulation(**RECIPE)).recipe.exists()


def test_command_makes_what_is_asked_for(tmp_path, run_cli):
    words = ("--sessions", 1, "--shape", "13,3,5,4", "--experiments", "nsd,nsdimagery")
    assert run_cli("simulate", tmp_path / "nsd", *words).code == 0
    assert list((tmp_path / "nsd").rglob("betas_nsdimagery.hdf5"))
    assert not list((tmp_path / "nsd").rglob("*nsdsynthetic*"))
