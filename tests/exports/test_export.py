"""What is exported is what the store holds: read back by the library that each form is for."""

import importlib.util
import json
import shutil
import types

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest

import nsd_zarr
from nsd_zarr.errors import ConfigError, DoesNotFit, ResumeRefused, StoreError
from nsd_zarr.exports import run
from nsd_zarr.places import growing
from nsd_zarr.read import lazy

ROWS = 42


@pytest.fixture
def export(experiment, tmp_path):
    """Export the store of `experiment` to a folder; returns the folder."""

    def make(form, folder="out", **options):
        nsd_zarr.export(experiment.path, tmp_path / folder, form, **options)
        return tmp_path / folder

    return make


@pytest.fixture
def small_blocks(monkeypatch):
    """Five samples of V1v, or one volume, at a time."""
    monkeypatch.setattr(run, "MAX_BLOCK_BYTES", 600)


@pytest.fixture
def inside(experiment):
    return experiment.arrays["roi_prf-visualrois"].reshape(-1) == 1


def scored_zeros(experiment):
    return np.nan_to_num(experiment.scored.reshape(ROWS, -1))


def list_files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# -- each form read back -----------------------------------------------------------------------------------------


def test_npy_holds_whole_volumes_as_stored(experiment, export, small_blocks):
    folder = export("npy")
    betas = np.load(folder / "betas.npy", mmap_mode="r")
    np.testing.assert_array_equal(betas, experiment.percent, strict=True)
    table = pd.read_csv(folder / "trials.csv", index_col="trial")
    np.testing.assert_array_equal(table.nsd_id, experiment.arrays["nsd_id"])
    np.testing.assert_array_equal(table.session, experiment.session)
    assert list_files(folder) == ["betas.npy", "export.json", "trials.csv"]


def test_missing_voxels_of_whole_volumes_are_what_is_asked_for(experiment, export, small_blocks, monkeypatch):
    reads, read = [], lazy.read_chunk
    monkeypatch.setattr(
        lazy, "read_chunk", lambda store, name, chunk: reads.append((name, chunk)) or read(store, name, chunk)
    )
    sessions = np.unique(experiment.session)
    mine = experiment.session == sessions[1]
    lacks, percent = np.isnan(experiment.scored[mine]), experiment.percent[mine]
    assert 0 < lacks.sum() < lacks.size
    for missing, value in (("nan", np.nan), ("zero", percent)):
        betas = np.load(export("npy", missing, missing=missing, sessions=[int(sessions[1])]) / "betas.npy")
        np.testing.assert_array_equal(betas, np.where(lacks, value, percent))
    assert {chunk for name, chunk in reads if name == "session_std"} == {1}


def test_npy_of_a_region_and_a_split_has_the_voxels_of_its_table(experiment, export, inside, small_blocks):
    folder = export("npy", roi="V1v", split="shared1000", zscore="session", missing="zero")
    shared = experiment.arrays["shared1000"]
    for side, mine in (("train", ~shared), ("test", shared)):
        values = np.load(folder / side / "betas.npy")
        np.testing.assert_allclose(values, scored_zeros(experiment)[mine][:, inside], atol=1e-5)
        np.testing.assert_array_equal(
            pd.read_csv(folder / side / "trials.csv").nsd_id, experiment.arrays["nsd_id"][mine]
        )
    voxels = pd.read_csv(folder / "voxels.csv", index_col="voxel")
    np.testing.assert_array_equal(voxels[["z", "y", "x"]], np.argwhere(inside.reshape(5, 11, 3)))
    assert set(voxels.label) == {"V1v"}


def test_hdf5_has_values_trials_and_voxels(experiment, export, inside, small_blocks):
    folder = export("hdf5", roi=["V1v"], sessions="3,5")
    with h5py.File(folder / "betas.hdf5") as file:
        np.testing.assert_array_equal(file["betas"][:], experiment.percent.reshape(ROWS, -1)[14:, inside], strict=True)
        assert file["betas"].chunks is None
        np.testing.assert_array_equal(file["trials/nsd_id"][:], experiment.arrays["nsd_id"][14:])
        np.testing.assert_array_equal(file["voxels/y"][:], np.argwhere(inside.reshape(5, 11, 3))[:, 1])
        assert file["voxels/label"].asstr()[0] == "V1v"
        assert file["betas"].attrs["units"] == "percent"


def test_raw_counts_are_the_stored_ones_and_axes_those_of_nibabel(experiment, export):
    with h5py.File(export("hdf5", raw=True, order="xyz") / "betas.hdf5") as file:
        np.testing.assert_array_equal(file["betas"][:], experiment.store.stored.transpose(0, 3, 2, 1), strict=True)


def test_voxels_in_the_order_of_masked_nibabel_arrays(experiment, export):
    values = np.load(export("npy", roi="nsdgeneral", order="xyz") / "betas.npy")
    mask = experiment.arrays["roi_nsdgeneral"].transpose(2, 1, 0) > 0
    expected = [volume[mask] for volume in experiment.percent.transpose(0, 3, 2, 1)]
    np.testing.assert_array_equal(values, expected)


def test_parquet_is_read_by_pandas_with_every_column_of_a_trial(experiment, export, inside, small_blocks):
    pytest.importorskip("pyarrow")
    folder = export("parquet", roi="V1v")
    table = pd.concat(pd.read_parquet(folder / f"betas_session{session:02d}.parquet") for session in (2, 3, 5))
    np.testing.assert_array_equal(np.stack(table.betas), experiment.percent.reshape(ROWS, -1)[:, inside])
    np.testing.assert_array_equal(table.nsd_id, experiment.arrays["nsd_id"])
    np.testing.assert_array_equal(table.session, experiment.session)
    assert list_files(folder)[-2:] == ["trials.csv", "voxels.csv"]


def test_nifti_is_read_by_nibabel_in_the_place_of_the_store(experiment, export, small_blocks):
    folder = export("nifti")
    for position, session in enumerate(experiment.store.sessions):
        image = nibabel.load(folder / f"betas_session{session:02d}.nii.gz")
        expected = experiment.percent[14 * position :][:14].transpose(3, 2, 1, 0)
        np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), expected)
        np.testing.assert_allclose(image.affine, experiment.arrays["affine"], rtol=1e-6)
        assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 0)


def test_nifti_of_counts_is_what_the_dataset_delivers(experiment, export):
    image = nibabel.load(export("nifti", raw=True) / "betas_session03.nii.gz")
    assert image.get_data_dtype() == np.int16
    np.testing.assert_array_equal(np.asarray(image.dataobj), experiment.store.stored[14:28].transpose(3, 2, 1, 0))


def test_nifti_of_a_region_is_zero_elsewhere_and_has_its_mask(experiment, export, inside):
    folder = export("nifti", roi="V1v", average=True)
    mask = np.asarray(nibabel.load(folder / "mask.nii.gz").dataobj) > 0
    np.testing.assert_array_equal(mask, inside.reshape(5, 11, 3).transpose(2, 1, 0))
    values = nibabel.load(folder / "betas_images01.nii.gz").get_fdata(dtype=np.float32)
    averaged = nsd_zarr.open_dataset(experiment.path).nsd.roi("V1v").nsd.average_repeats()
    np.testing.assert_array_equal(values[mask].T, averaged.nsd.to_nilearn().get_fdata(dtype=np.float32)[mask].T)
    assert not values[~mask].any()


# -- MindEye2 ----------------------------------------------------------------------------------------------------


@pytest.fixture
def subject_store(experiment, tmp_path, rewrite):
    """The store of `experiment`, which knows its subject."""
    shutil.copytree(experiment.path, tmp_path / "subj02.zarr")
    rewrite(tmp_path / "subj02.zarr", subject=2)
    return tmp_path / "subj02.zarr"


@pytest.fixture
def rewrite():
    from builders import change_root

    return lambda store, **changes: change_root(store, lambda attributes, _: attributes.update(changes))


def test_mindeye2_has_its_name_and_z_scores_as_scikit_learn_makes_them(experiment, subject_store, tmp_path):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    nsd_zarr.export(subject_store, tmp_path / "out", "hdf5", layout="mindeye2")
    mask = experiment.arrays["roi_nsdgeneral"].transpose(2, 1, 0) > 0
    values = np.float64([volume[mask] for volume in experiment.percent.transpose(0, 3, 2, 1)])
    scored = [preprocessing.StandardScaler().fit_transform(part) for part in np.split(values, 3)]
    with h5py.File(tmp_path / "out/betas_all_subj02_fp32_renorm.hdf5") as file:
        assert list(file) == ["betas"]
        assert file["betas"].dtype == np.float32
        np.testing.assert_allclose(file["betas"][:], np.concatenate(scored), atol=1e-5)


def test_layout_that_names_files_by_the_subject_needs_one(export):
    with pytest.raises(ConfigError, match="of which subject"):
        export("hdf5", layout="mindeye2")


# -- stopped and gone on -----------------------------------------------------------------------------------------


class Stop(BaseException):
    pass


def stop_after(trials):
    """A listener that stops an export once so many samples are written."""
    counts = []

    def listen(event):
        if isinstance(event, nsd_zarr.TrialsDone):
            counts.append(event.trials)
            if sum(counts) >= trials:
                raise Stop

    return listen


FORMS = ["hdf5", "npy", "nifti", *(["parquet"] if importlib.util.find_spec("pyarrow") else [])]


@pytest.mark.parametrize("form", FORMS)
def test_stopped_export_goes_on_and_ends_with_the_same_bytes(export, digest_tree, small_blocks, form, reads, tmp_path):
    whole = digest_tree(export(form, "whole", roi="V1v"))
    with pytest.raises(Stop):
        export(form, roi="V1v", on_event=stop_after(20))
    reads.trials.clear()
    kept = sum(json.loads((tmp_path / "out/export.json").read_text())["samples"].values())
    folder = export(form, roi="V1v")
    assert digest_tree(folder) == whole
    # Of one array the rows that were kept stay; of a form with a file a session the sessions do.
    assert kept >= (20 if form in ("hdf5", "npy") else 14)
    assert reads.trials == list(range(kept, ROWS))


@pytest.fixture
def reads(monkeypatch):
    """Counts the trials that are decoded."""
    from nsd_zarr.store import reader

    seen, real = types.SimpleNamespace(trials=[]), reader.TrialReader.read_into

    def watched(self, trial, *arguments, **options):
        seen.trials.append(trial)
        return real(self, trial, *arguments, **options)

    monkeypatch.setattr(reader.TrialReader, "read_into", watched)
    return seen


def test_every_trial_is_decoded_once(export, reads, small_blocks):
    reads.trials.clear()
    export("npy", roi="V1v", zscore="session")
    assert sorted(reads.trials) == list(range(ROWS))


def test_finished_export_is_left_as_it_is(export, digest_tree, experiment, tmp_path):
    folder = export("npy", roi="V1v")
    before = digest_tree(folder)
    report = nsd_zarr.export(experiment.path, folder, "npy", roi="V1v")
    assert (report.written, digest_tree(folder)) == (0, before)
    (folder / "betas.npy").unlink()
    assert nsd_zarr.export(experiment.path, folder, "npy", roi="V1v").written == ROWS
    assert digest_tree(folder) == before


def test_unfinished_export_of_something_else_is_refused_and_may_be_forgotten(export, small_blocks):
    with pytest.raises(Stop):
        export("npy", roi="V1v", on_event=stop_after(9))
    with pytest.raises(ResumeRefused, match=r"roi \['V1v'\], now \['V1d'\]") as refused:
        export("npy", roi="V1d")
    assert refused.value.exit_code == 5
    folder = export("npy", roi="V1d", fresh=True)
    assert list_files(folder) == ["betas.npy", "export.json", "trials.csv", "voxels.csv"]


def test_finished_export_of_something_else_and_other_folders_are_refused(export, tmp_path):
    export("npy", roi="V1v")
    with pytest.raises(StoreError, match="finished export of something else"):
        export("npy", roi="V1d", fresh=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="something else"):
        export("npy", "full", roi="V1v")


def test_two_exports_to_one_folder_are_refused(export, tmp_path):
    (tmp_path / "out").mkdir()
    with run._alone(tmp_path / "out"), pytest.raises(StoreError, match="another process"):
        export("npy", roi="V1v")


def test_damaged_note_of_what_is_done_is_refused(export):
    folder = export("npy", roi="V1v")
    document = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps(document | {"samples": 3}))
    with pytest.raises(StoreError, match=r"export\.json"):
        export("npy", roi="V1v")


def test_full_disk_is_told_and_the_next_run_goes_on(export, monkeypatch, small_blocks):
    real, calls = growing.os.pwrite, []

    def fail_once(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(growing.os, "pwrite", fail_once)
    with pytest.raises(DoesNotFit, match="disk is full"):
        export("npy", roi="V1v")
    assert len(np.load(export("npy", roi="V1v") / "betas.npy")) == ROWS


# -- refused before anything is written --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "options", "words"),
    [
        ("hdf", {}, "hdf5"),
        ("npy", {"layout": "mindeye2"}, "--as hdf5"),
        ("npy", {"raw": True, "zscore": "session"}, "counts"),
        ("npy", {"missing": "mean"}, "nan"),
        ("npy", {"roi": "V1V"}, "V1v"),
        ("npy", {"split": "shared"}, "shared1000"),
        ("npy", {"sessions": "1-3"}, "no such session"),
        ("npy", {"zcore": "session"}, "zscore"),
        ("npy", {"layout": "algonauts"}, "surfaces"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_written(export, tmp_path, form, options, words):
    with pytest.raises(ConfigError, match=words):
        export(form, **options)
    assert not (tmp_path / "out").exists()


def test_memory_that_is_too_small_is_refused(export, tmp_path):
    with pytest.raises(DoesNotFit, match="--memory"):
        export("npy", memory="64MiB")
    assert not (tmp_path / "out").exists()


# -- Algonauts ---------------------------------------------------------------------------------------------------


@pytest.fixture
def surface(surfaces, tmp_path, rewrite, extend_store):
    """A store of 11 and 12 vertices that knows its images, regions and hemispheres."""
    from builders import add_experiment

    store = surfaces.copy_to(tmp_path / "subj01.zarr")
    made = add_experiment(store)
    sides = np.repeat([0, 1], [11, 12]).astype(np.int8)
    numbers = np.concatenate([np.arange(11), np.arange(12)]).astype(np.int32)
    extend_store(
        store.path,
        {
            "hemisphere": (sides, ("vertex",), {"flag_values": [0, 1], "flag_meanings": "lh rh"}),
            "vertex_in_hemisphere": (numbers, ("vertex",), {}),
        },
    )
    rewrite(store.path, subject=1)
    return made


def test_algonauts_files_are_as_its_script_makes_them(surface, tmp_path):
    nsd_zarr.export(surface.path, tmp_path / "out", "npy", layout="algonauts", split="shared1000")
    home, chosen = tmp_path / "out/subj01", surface.arrays["roi_nsdgeneral"] > 0
    complete = chosen & ~np.isnan(surface.scored).any(0)
    images, shared = surface.arrays["nsd_id"], surface.arrays["shared1000"]
    sides = {"lh": np.arange(23) < 11, "rh": np.arange(23) >= 11}
    for folder, word, rows in (("training", "training", ~shared), ("test", "test", shared)):
        ids = np.unique(images[rows])
        means = np.array([surface.scored[images == each].mean(0) for each in ids])
        for name, side in sides.items():
            values = np.load(home / f"{folder}_split/{word}_fmri/{name}_{word}_fmri.npy")
            assert values.dtype == np.float32
            np.testing.assert_allclose(values, means[:, complete & side], atol=1e-5)
    listed = (home / "training_split/images.csv").read_text().splitlines()
    assert listed[1] == f"train-0001_nsd-{np.unique(images[~shared])[0]:05d}.png"
    for name, side in sides.items():
        whole = np.load(home / f"roi_masks/{name}.all-vertices_fsaverage_space.npy")
        np.testing.assert_array_equal(whole, complete[side])
        labels = np.load(home / f"roi_masks/{name}.prf-visualrois_challenge_space.npy")
        expected = np.maximum(surface.arrays["roi_prf-visualrois"], 0)
        np.testing.assert_array_equal(labels, expected[complete & side])
    mapping = np.load(home / "roi_masks/mapping_prf-visualrois.npy", allow_pickle=True).item()
    assert (mapping[0], mapping[1], mapping[7]) == ("Unknown", "V1v", "hV4")


def test_algonauts_tests_on_the_last_three_sessions_where_no_split_is_named(surface, tmp_path):
    with pytest.raises(ConfigError, match="last 3 sessions"):
        nsd_zarr.export(surface.path, tmp_path / "out", "npy", layout="algonauts")


# -- the command -------------------------------------------------------------------------------------------------


def test_command_writes_says_what_and_goes_on(run_cli, experiment, tmp_path):
    words = (
        "export",
        experiment.path,
        tmp_path / "out",
        "--as",
        "npy",
        "--roi",
        "V1v",
        "--roi",
        "V1d",
        "--split",
        "test",
    )
    outcome = run_cli(*words)
    assert outcome.code == 0, outcome.err
    assert "betas.npy" in outcome.out
    assert "nothing to do" in run_cli(*words).out
    again = json.loads(run_cli(*words, "--json").out)
    assert (again["form"], again["written"], again["files"][0]) == ("npy", 0, "betas.npy")


def test_command_without_a_form_names_the_forms(run_cli, experiment, tmp_path):
    outcome = run_cli("export", experiment.path, tmp_path / "out")
    assert outcome.code == 2
    assert run_cli("export", experiment.path, tmp_path / "out", "--as", "nyp").code == 2


def test_store_of_several_subjects_is_a_folder_a_subject(run_cli, whole_tree, subjects, tmp_path):
    outcome = run_cli("export", whole_tree, tmp_path / "out", "--as", "npy", "--raw", "--json")
    assert outcome.code == 0, outcome.err
    assert set(json.loads(outcome.out)["subjects"]) == {"1", "2"}
    for subject in (1, 2):
        values = np.load(tmp_path / f"out/subj0{subject}/betas.npy")
        np.testing.assert_array_equal(values, subjects.read_counts(subject))
