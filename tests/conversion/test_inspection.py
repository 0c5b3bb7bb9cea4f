"""A real tree: what lies beside the betas never stops the conversion, and nothing that is right is lost."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import zlib
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy.io import loadmat, savemat

import nsd_zarr
from nsd_zarr.errors import ConfigError, SourceError
from nsd_zarr.simulate import Simulation, locate_root, simulate_root
from nsd_zarr.source.design import complete_table, parse_design
from nsd_zarr.source.trial_table import parse_trial_table
from nsd_zarr.source.volume import parse_volume

ROIS = ("nsdgeneral", "prf-visualrois", "streams", "floc-faces")
"""A few of the sets of regions: each is parsed twice in a conversion."""
SIMULATION = Simulation(3, (24, 5, 7, 3), rois=ROIS, hemispheres=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return simulate_root(tmp_path_factory.mktemp("real") / "nsd", SIMULATION)


@pytest.fixture
def root(made, tmp_path):
    shutil.copytree(made.root, tmp_path / "nsd")
    return locate_root(tmp_path / "nsd", SIMULATION)


@pytest.fixture
def convert(root, tmp_path):
    """Convert the root; returns the report and the store."""

    def run(name="new.zarr", **options):
        report = nsd_zarr.convert(root.root, tmp_path / name, workers=1, **options)
        return report, zarr.open_group(tmp_path / name, mode="r")

    return run


def read_volume(path):
    return np.asarray(nibabel.load(path).dataobj).transpose(2, 1, 0)


def save_like(path, values, other):
    nibabel.save(nibabel.Nifti1Image(values, nibabel.load(other).affine), path)


def test_files_that_begin_with_a_dot_are_no_regions(root, convert):
    for path in [path for path in root.root.rglob("*") if path.is_file()]:
        (path.parent / f"._{path.name}").write_bytes(bytes.fromhex("0005160700020000") + bytes(4000))
    report, group = convert()
    assert report.experiment.notes == ()
    assert sorted(name for name in group if name.startswith("roi_")) == sorted(f"roi_{name}" for name in root.rois)


ODD = {
    "a float map of the user's": (
        lambda shape: np.linspace(0, 1, np.prod(shape)).reshape(shape),
        "expected whole number",
    ),
    "a mask with NaN": (lambda shape: np.where(np.indices(shape)[0] > 1, np.nan, 1.0), "expected whole numbers"),
    "another shape": (lambda shape: np.ones((2, 3, 4), "i2"), "a volume of shape (4, 3, 2)"),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_region_volume_is_a_note_with_its_name_and_skipped_by_name(kind, root, convert, run_cli, tmp_path):
    make, words = ODD[kind]
    folder = root.rois["streams"].parent
    save_like(folder / "mine.nii.gz", make(nibabel.load(root.brainmask).shape), root.brainmask)
    notes = json.loads(run_cli("plan", root.root, tmp_path / "new.zarr", "--json").out)["experiment"]["notes"]
    assert len(notes) == 1
    assert notes[0].startswith("nsddata/ppdata/subj01/func1pt8mm/roi/mine.nii.gz is left out: ")
    assert words in notes[0]
    assert "mine.nii.gz is left out" in run_cli("plan", root.root, tmp_path / "new.zarr").out
    report, group = convert(skip_roi=["mine", "streams"])
    assert report.experiment.notes == ()
    assert not {"roi_mine", "roi_streams"} & set(group)
    assert "roi_nsdgeneral" in group


def test_pipe_folder_and_damaged_gzip_are_notes_or_missing(root, convert):
    folder = root.rois["streams"].parent
    os.mkfifo(folder / "pipe.nii.gz")
    (folder / "folder.nii.gz").mkdir()
    (folder / "cut.nii.gz").write_bytes(root.rois["streams"].read_bytes()[:60])
    root.brainmask.unlink()
    os.mkfifo(root.brainmask)
    report, group = convert()
    (note,) = report.experiment.notes
    assert "cut.nii.gz is left out: no NIfTI volume can be read from it" in note
    assert "nsddata/ppdata/subj01/func1pt8mm/brainmask.nii.gz (no file)" in report.experiment.missing
    assert "roi_streams" in group


def test_labels_that_become_one_word_drop_their_set_alone(root, convert):
    root.roi_names["streams"].write_text("0 Unknown\n1 a b\n2 a_b\n")
    report, group = convert()
    (note,) = report.experiment.notes
    assert "labels 1 (a b) and 2 (a_b) of streams are both called a_b" in note
    assert "roi_streams" not in group
    assert not any("streams" in entry["name"] for entry in group.attrs["experiment"])


def test_names_that_readers_refuse_are_notes(root, convert, tmp_path):
    folder = root.rois["streams"].parent
    for name in ("a\u00a0b", "a\tb", "a\\b", "n" * 195):
        shutil.copy(root.rois["nsdgeneral"], folder / f"{name}.nii.gz")
    report, _ = convert()
    assert len(report.experiment.notes) == 4
    assert nsd_zarr.open_dataset(tmp_path / "new.zarr").sizes["trial"] == 72


def test_volumes_of_the_dataset_have_these_headers(root, convert):
    """0/1 float32 valid masks, int16 brain mask, float32 regions; sform 1, qform 0, no units, slope 0. Source:
    nsd_savenifti.m."""
    dtypes = {root.brainmask: "i2", root.rois["streams"]: "f4", root.rois["floc-faces"]: "f8"}
    for path, dtype in (dtypes | dict.fromkeys(root.valid, "f4")).items():
        image = nibabel.load(path)
        header = nibabel.Nifti1Header()
        header.set_data_shape(image.shape)
        header.set_data_dtype(dtype)
        header.set_sform(image.affine, 1)
        header["vox_offset"] = 352
        raw = bytearray(header.binaryblock)
        raw[112:120] = bytes(8)
        values = np.asarray(image.dataobj).astype(dtype)
        path.write_bytes(gzip.compress(bytes(raw) + bytes(4) + values.tobytes("F")))
    _, group = convert()
    expected = locate_root(root.root, SIMULATION)
    assert group["brainmask"].dtype == bool
    for name, path in {"brainmask": expected.brainmask, "roi_streams": expected.rois["streams"]}.items():
        assert np.array_equal(group[name][...], read_volume(path))
    assert group["roi_floc-faces"].dtype == "i2"
    assert np.array_equal(group["valid"][...], [read_volume(path) == 1 for path in expected.valid])
    assert np.array_equal(group["affine"][...], nibabel.load(expected.brainmask).affine)


# -- the trial table ---------------------------------------------------------------------------------------------


def cut_table(root, last):
    frame = pd.read_csv(root.trial_table, sep="\t")
    frame[last >= frame.SESSION].to_csv(root.trial_table, sep="\t", index=False, na_rep="NaN")
    return frame


def test_sessions_that_the_table_lacks_have_images_of_the_design_and_no_responses(root, convert):
    whole = cut_table(root, 1)
    report, group = convert()
    assert report.experiment.notes == (
        "responses.tsv has no rows of sessions 2-3: their images are those of the design, their responses are missing",
    )
    design = loadmat(root.expdesign)
    ids_10k = design["masterordering"].ravel()[: 3 * 24].astype(int)
    ids_73k = design["subjectim"][0, ids_10k - 1].astype(int)
    assert np.array_equal(group["nsd_id"][...], ids_73k - 1)
    assert np.array_equal(group["image_10k"][...], ids_10k)
    assert np.array_equal(group["repeat"][...], pd.Series(ids_73k).groupby(ids_73k).cumcount())
    for name in ("RUN", "TRIAL", "ISOLD"):
        assert np.array_equal(group[{"TRIAL": "trial_in_run"}.get(name, name.lower())][...], whole[name])
    for name in ("rt", "time", "iscorrect", "memoryfirst"):
        assert np.isnan(group[name][24:]).all()
        assert np.array_equal(group[name][:24], whole[name.upper()][:24].astype("f8" if name == "time" else "f4"), True)
    assert group["missingdata"][24:].all()
    assert not group["missingdata"][:24].any()


def test_sessions_that_nothing_tells_of_are_refused_with_two_ways_out(root, convert, check_refused, tmp_path):
    cut_table(root, 2)
    root.expdesign.unlink()
    root.stim_info.unlink()
    paragraph = check_refused(3, "convert", root.root, tmp_path / "new.zarr")
    assert "no rows of session 3" in paragraph
    assert "--sessions 1-2" in paragraph
    report, group = convert(no_trial_table=True)
    assert "nsd_id" not in group
    assert "trial table" not in report.experiment.found
    assert "brainmask" in group
    assert "nsd_id" in convert("two.zarr", sessions="1-2")[1]


def test_table_of_more_sessions_is_reported(root, convert, tmp_path):
    for file in root.session_files[1:]:
        file.unlink()
    report, group = convert()
    assert report.experiment.notes == ("the trial table has 3 sessions, 1 are here",)
    assert group.attrs["experiment_notes"] == ["the trial table has 3 sessions, 1 are here"]


def test_damaged_design_is_a_note_and_a_damaged_table_names_the_option(root, convert, check_refused, tmp_path):
    root.expdesign.write_bytes(b"no MATLAB")
    root.stim_info.write_bytes(b"nsdId\n")
    with pytest.raises(SourceError, match="no stimulus table"):
        nsd_zarr.convert(root.root, tmp_path / "x.zarr", stim_info=root.stim_info)
    root.stim_info.unlink()
    report, group = convert()
    assert "nsd_expdesign.mat is left out: masterordering and subjectim cannot be read" in report.experiment.notes[0]
    assert "nsd_id" in group
    root.trial_table.write_bytes(b"no table")
    assert "--no-trial-table" in check_refused(3, "plan", root.root, tmp_path / "other.zarr")


def test_table_named_and_unwanted_is_refused(root, tmp_path):
    with pytest.raises(ConfigError, match="no_trial_table, and a file of it"):
        nsd_zarr.convert(root.root, tmp_path / "x.zarr", no_trial_table=True, expdesign=root.expdesign)


@pytest.mark.parametrize("folder", ["restingbetas_fithrf", "nsdimagerybetas_fithrf", "nsdsyntheticbetas_fithrf"])
def test_betas_of_other_experiments_have_masks_and_regions_and_no_trial_table(folder, root, convert):
    root.betas_folder.rename(root.betas_folder.with_name(folder))
    report, group = convert()
    assert report.experiment.notes[0].startswith(f"{folder} are of ")
    assert {"brainmask", "roi_streams"} <= set(group)
    assert ("valid" in group) == folder.startswith("resting")  # of the others they have names of their own
    assert not {"nsd_id", "ncsnr"} & set(group)
    assert not [name for name in report.experiment.missing if "responses" in name or "nsd_expdesign" in name]


# -- where the betas come from -----------------------------------------------------------------------------------


def test_store_says_whose_betas_it_holds_and_no_path_of_the_host(root, convert, tmp_path):
    _, group = convert()
    assert {name: group.attrs[name] for name in ("subject", "space", "betas")} == {
        "subject": 1,
        "space": "func1pt8mm",
        "betas": "betas_fithrf_GLMdenoise_RR",
    }
    assert str(tmp_path).encode() not in (tmp_path / "new.zarr/zarr.json").read_bytes()
    ds = nsd_zarr.open_dataset(tmp_path / "new.zarr")
    assert (ds.attrs["subject"], ds.attrs["space"]) == (1, "func1pt8mm")


def test_session_that_is_still_downloaded_is_reported_and_stored(root, convert, run_cli, tmp_path):
    last = root.session_files[2]
    last.rename(last.with_name(last.name + ".6eF12aB3"))
    (last.parent / "betas_session02.hdf5.sha256").write_text("x")
    (last.parent / ".betas_session02.hdf5.x1Y2z3").write_text("")
    words = "betas_session03.hdf5.6eF12aB3 looks like an unfinished download of session 3, which is not here"
    assert words in run_cli("plan", root.root, tmp_path / "new.zarr").out
    report, group = convert()
    assert report.experiment.notes == (words, "the trial table has 3 sessions, 2 are here")
    assert group.attrs["notes"] == [words]
    printed = run_cli("info", tmp_path / "new.zarr").out
    assert f"note       {words}" in printed
    assert "origin     subject 1, space func1pt8mm, betas betas_fithrf_GLMdenoise_RR" in printed


@pytest.mark.parametrize("change", ["space", "betas", "subject"])
def test_attach_refuses_files_of_another_preparation(change, root, tmp_path, convert):
    convert(no_experiment=True)
    parts = ["subj01", "func1pt8mm", "betas_fithrf_GLMdenoise_RR"]
    other = {"subject": (0, "subj02"), "space": (1, "func1mm"), "betas": (2, "betas_fithrf")}[change]
    parts[other[0]] = other[1]
    folder = root.root.joinpath("nsddata_betas/ppdata", *parts)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(root.betas_folder, folder)
    with pytest.raises(SourceError, match=rf"{change} \S+, expected \S+ as in the store"):
        nsd_zarr.attach(tmp_path / "new.zarr", root.root)
    with pytest.raises(SourceError, match=rf"{change} \S+, expected \S+ as in the store"):
        nsd_zarr.attach(tmp_path / "new.zarr", ncsnr=folder / "ncsnr.nii.gz")


def test_attach_compares_a_trial_where_folders_do_not_tell(root, tmp_path, convert):
    other = tmp_path / "other"
    shutil.copytree(root.betas_folder, other)
    nsd_zarr.convert(other, tmp_path / "plain.zarr", workers=1)
    assert nsd_zarr.attach(tmp_path / "plain.zarr", root.root).experiment.found
    with h5py.File(root.session_files[0], "r+") as file:
        file["betas"][0, 2, 3, 1] += 1
    with pytest.raises(SourceError, match="session 01: its first trial is not the one in the store"):
        nsd_zarr.attach(tmp_path / "plain.zarr", root.root)


# -- small files that stand for large ones -----------------------------------------------------------------------


def test_files_that_are_too_large_are_refused_unread(root, convert):
    os.truncate(root.roi_names["streams"], 3 * 10**9)
    os.truncate(root.rois["floc-faces"], 3 * 10**9)
    os.truncate(root.expdesign, 3 * 10**9)
    report, group = convert()
    assert sum("has 3000000000 bytes, expected at most" in note for note in report.experiment.notes) == 3
    assert "label_1" in group["roi_streams"].attrs["flag_meanings"]


@pytest.mark.parametrize("shape", [(32_767, 32_767, 2), (3, 7, 5)])
def test_volume_that_unpacks_to_more_than_it_tells_is_refused(shape):
    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype("u1")
    data = gzip.compress(header.binaryblock + bytes(4 + 4 * 2**20))
    with pytest.raises(SourceError, match=r"its header says|more than the .* bytes that its header"):
        parse_volume(data, Path("x.nii.gz"))


def test_design_that_unpacks_to_more_than_any_is_refused(tmp_path):
    ordering = np.zeros((1, 3_000_000))
    savemat(tmp_path / "x.mat", {"masterordering": ordering, "subjectim": np.ones((8, 10))}, do_compression=True)
    with pytest.raises(SourceError, match="holds more than 16777216 bytes"):
        parse_design((tmp_path / "x.mat").read_bytes(), tmp_path / "x.mat")
    assert len(zlib.compress(bytes(ordering.nbytes))) < 100_000
    with h5py.File(tmp_path / "y.mat", "w", userblock_size=512) as file:
        file.create_dataset("masterordering", (3_000_000, 1), "f8", chunks=(1000, 1))
        file.create_dataset("subjectim", (10, 8), "f8")
    with (tmp_path / "y.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(128))
    with pytest.raises(SourceError, match="holds more than 16777216 bytes"):
        parse_design((tmp_path / "y.mat").read_bytes(), tmp_path / "y.mat")


def test_rows_of_an_earlier_session_count_as_showings(root):
    """A table without session 1, a store of sessions 2 and 3: the first showing of an image is in session 1."""
    whole = pd.read_csv(root.trial_table, sep="\t")
    part = parse_trial_table(
        whole[whole.SESSION == 2].to_csv(sep="\t", index=False, na_rep="NaN").encode(), root.trial_table
    )
    design = parse_design(root.expdesign.read_bytes(), root.expdesign)
    completed = complete_table(part, design, (2, 3), 24)
    assert np.array_equal(completed.number_showings(), whole.groupby("73KID").cumcount())
