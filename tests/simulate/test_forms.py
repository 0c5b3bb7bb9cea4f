"""Every form of a simulated session holds the same trials, as h5py and nibabel read them."""

from __future__ import annotations

import gzip
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

from nsd_zarr.errors import ConfigError
from nsd_zarr.forms import FORM_NAMES, FORMS, HDF5, NATIVESURFACE, NIFTI, find_form
from nsd_zarr.nsd import NsdPaths
from nsd_zarr.simulate import Simulation, make_brain_mask, make_roi, simulate_root
from nsd_zarr.simulate.surfaces import make_vertices

SHAPE = (13, 5, 11, 7)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return simulate_root(tmp_path_factory.mktemp("forms"), Simulation(2, SHAPE, forms=FORM_NAMES))


def read_hdf5(path):
    with h5py.File(path) as file:
        return file["betas"][...], file["betas"].chunks


def load(path):
    """As nibabel.load, which leaves the file of an .mgh open."""
    if path.suffix not in (".mgh", ".mgz"):
        return nibabel.load(path)
    data = path.read_bytes()
    return nibabel.MGHImage.from_bytes(gzip.decompress(data) if path.suffix == ".mgz" else data)


def read_image(path):
    return np.asarray(load(path).dataobj)


def test_forms_lie_at_the_datasets_own_places(made):
    folder = "nsddata_betas/ppdata/subj01/{}/betas_fithrf_GLMdenoise_RR/{}"
    expected = {
        "hdf5": ["func1pt8mm/betas_session02.hdf5"],
        "nifti": ["func1pt8mm/betas_session02.nii.gz"],
        "nativesurface": ["nativesurface/lh.betas_session02.hdf5", "nativesurface/rh.betas_session02.hdf5"],
        "fsaverage": ["fsaverage/lh.betas_session02.mgh", "fsaverage/rh.betas_session02.mgh"],
    }
    for name, files in expected.items():
        whole = tuple(made.root / folder.format(*file.split("/")) for file in files)
        assert made.forms[name][1] == whole
        assert all(path.is_file() for path in whole)


@pytest.mark.parametrize("session", [0, 1])
def test_every_form_holds_the_trials_of_the_hdf5_file(made, session):
    betas, chunks = read_hdf5(made.session_files[session])
    assert chunks == (13, 1, 1, 1)
    image = nibabel.load(made.forms["nifti"][session][0])
    assert (image.get_data_dtype(), image.shape) == (np.int16, SHAPE[::-1])
    assert np.array_equal(np.asarray(image.dataobj).T, betas)
    assert np.array_equal(image.affine, nibabel.load(made.brainmask).affine)
    flat, missing = betas.reshape(13, -1), ~(betas != 0).any(axis=0).ravel()
    for form in FORMS[2:]:
        for path, voxels in zip(made.forms[form.name][session], make_vertices(form, SHAPE[1:]), strict=True):
            if form is NATIVESURFACE:
                values, chunks = read_hdf5(path)
                assert (values.dtype, chunks) == (np.int16, (13, 1))
                assert np.array_equal(values, flat[:, voxels])
                continue
            assert path.stat().st_size == 284 + 4 * 13 * len(voxels)
            assert load(path).get_data_dtype() == np.dtype(">f4")
            percent = np.where(missing[voxels], np.nan, flat[:, voxels] / np.float32(300))
            assert np.isnan(percent).any()
            assert np.array_equal(read_image(path)[:, 0, 0].T, percent.astype("f4"), equal_nan=True)


def test_hemispheres_differ_and_fsaverage_has_as_many_vertices_in_both(made):
    native, common = (make_vertices(form, SHAPE[1:]) for form in FORMS[2:])
    assert len(native[0]) != len(native[1])
    assert len(common[0]) == len(common[1]) > len(native[0])
    assert not set(native[0]) & set(native[1])
    assert make_brain_mask(SHAPE[1:]).ravel()[np.concatenate(native)].all()


def test_side_files_are_coded_from_0_and_have_the_vertices_of_the_betas(made):
    labels = made.root / "nsddata/freesurfer"
    sides = zip(("lh", "rh"), make_vertices(NATIVESURFACE, SHAPE[1:]), strict=True)
    for side, voxels in sides:
        for name in ("prf-visualrois", "HCP_MMP1"):
            codes = read_image(labels / f"subj01/label/{side}.{name}.mgz")
            assert (codes.shape, codes.dtype) == ((len(voxels), 1, 1), np.dtype(">f4"))
            assert np.array_equal(codes.ravel(), np.maximum(make_roi(name, SHAPE[1:]), 0).ravel()[voxels])
        ncsnr = read_image(made.forms["nativesurface"][0][0].with_name(f"{side}.ncsnr.mgh"))
        assert np.array_equal(ncsnr.ravel(), read_image(made.ncsnr).T.ravel()[voxels], equal_nan=True)
    assert not (labels / "subj01/label/lh.MTL.mgz").exists()
    assert (labels / "fsaverage/label/lh.streams.mgz").exists()
    assert not (labels / "fsaverage/label/lh.floc-faces.mgz").exists()


def test_a_form_alone_is_what_it_is_among_others(made, make_root):
    for name in FORM_NAMES:
        alone = make_root(name, forms=(name,))
        for one, other in zip(alone.forms[name], made.forms[name], strict=True):
            assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    assert not list(make_root("nifti", forms=("nifti",)).root.rglob("*.hdf5"))


def test_second_subject_of_another_volume_is_refused_on_fsaverage_alone(tmp_path):
    simulate_root(tmp_path, Simulation(1, SHAPE, forms=("fsaverage",)))
    simulate_root(tmp_path, Simulation(1, SHAPE, subject=2, forms=("fsaverage",)))
    simulate_root(tmp_path, Simulation(1, (13, 7, 5, 11), subject=3, forms=("nativesurface",)))
    with pytest.raises(ConfigError, match="labels on fsaverage of a subject of another volume"):
        simulate_root(tmp_path, Simulation(1, (13, 7, 5, 11), subject=4, forms=("fsaverage",)))


def test_progress_counts_every_step_once(tmp_path):
    seen = []
    simulation = Simulation(2, SHAPE, forms=("fsaverage", "nifti"))
    simulate_root(tmp_path, simulation, lambda done, total: seen.append((done, total)))
    assert seen == [(done, 62) for done in range(1, 63)]


@pytest.mark.parametrize("forms", [(), ("hdf5", "hdf5"), ("nii",)], ids=str)
def test_unknown_or_repeated_forms_are_refused(forms):
    with pytest.raises(ConfigError, match="forms"):
        Simulation(forms=forms)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("betas_session07.hdf5", HDF5),
        ("betas_session07.nii.gz", NIFTI),
        ("betas_session07.nii", NIFTI),
        ("rh.betas_session07.hdf5", NATIVESURFACE),
        ("LH.betas_session07.MGH", FORMS[3]),
        ("betas_session07.mgh", None),
        ("lh.betas_session07.nii.gz", None),
        ("meanbeta_session07.nii.gz", None),
        ("betas_session07.hdf5.6eF12aB3", None),
    ],
)
def test_form_of_a_name(name, form):
    assert find_form(Path("folder", name)) is form


def test_places_of_a_form_are_those_of_the_dataset():
    paths = NsdPaths(Path("/nsd"), 3, "func1mm", "betas_fithrf")
    assert [str(path) for path in FORMS[3].locate(paths, 5)] == [
        f"/nsd/nsddata_betas/ppdata/subj03/fsaverage/betas_fithrf/{side}.betas_session05.mgh" for side in ("lh", "rh")
    ]


def test_command_writes_the_forms_asked_for(tmp_path, run_cli):
    words = ["--sessions", 1, "--shape", "6,3,5,7", "--forms", "nifti,fsaverage", "--quiet"]
    outcome = run_cli("simulate", tmp_path / "nsd", *words)
    assert (outcome.code, outcome.err) == (0, "")
    names = {path.name for path in (tmp_path / "nsd/nsddata_betas").rglob("*.*")}
    assert names == {f"betas_session01.{end}" for end in ("nii.gz",)} | {
        f"{side}.{name}.mgh" for side in ("lh", "rh") for name in ("betas_session01", "ncsnr")
    } | {"ncsnr.nii.gz"}
    assert run_cli("simulate", tmp_path / "x", "--forms", "zarr").code == 2
