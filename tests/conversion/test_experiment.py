"""The experiment in the store: every array equal to an independent computation from the files, or a refusal."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.io import loadmat, savemat

import nsd_zarr
from nsd_zarr.conversion import run
from nsd_zarr.conversion.experiment.arrays import RoiVolumes
from nsd_zarr.conversion.experiment.inspection import read_experiment
from nsd_zarr.errors import SourceError, StoreError
from nsd_zarr.simulate import ROI_LABELS, Simulation, locate_root, simulate_root

TRIALS = 53
ROIS = ("nsdgeneral", "prf-visualrois", "streams", "floc-faces")
"""A few of the sets of regions, so that few files are written."""
SIMULATIONS = {
    1: Simulation(3, (TRIALS, 5, 11, 7), rois=ROIS, hemispheres=False),
    2: Simulation(3, (TRIALS, 7, 3, 13), subject=2, rois=ROIS, hemispheres=False),
}
NOTE_OF_VALID = (
    "valid_sessionBB.nii.gz of session {} cannot be used or is not there: valid there are the voxels whose betas vary "
    "over the session"
)
BEHAVIOUR = (
    *("ISCORRECT", "RT", "CHANGEMIND", "MEMORYRECENT", "MEMORYFIRST", "ISOLDCURRENT", "ISCORRECTCURRENT"),
    *("TOTAL1", "TOTAL2", "BUTTON"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One root with two subjects of different volumes, and a store of each."""
    top = tmp_path_factory.mktemp("experiment")
    for subject, simulation in SIMULATIONS.items():
        simulate_root(top / "nsd", simulation)
        nsd_zarr.convert(top / "nsd", top / f"subj{subject:02d}.zarr", subject=subject, workers=1)
    return top


@pytest.fixture(params=SIMULATIONS, ids=lambda subject: f"subj{subject:02d}")
def pair(request, made):
    """Where the files of a subject lie, and its store."""
    return locate_root(made / "nsd", SIMULATIONS[request.param]), made / f"subj{request.param:02d}.zarr"


@pytest.fixture
def copy(made, tmp_path):
    """A copy of the root, to be spoiled; returns where subject 1's files lie."""
    shutil.copytree(made / "nsd", tmp_path / "nsd")
    return locate_root(tmp_path / "nsd", SIMULATIONS[1])


def read_volume(path):
    return np.asarray(nibabel.load(path).dataobj).transpose(2, 1, 0)


def open_store(path):
    return zarr.open_group(path, mode="r")


# -- equal to an independent computation -------------------------------------------------------------------------


def test_every_column_of_the_trial_table_is_there(pair):
    root, store = pair
    frame, group = pd.read_csv(root.trial_table, sep="\t"), open_store(store)
    expected = {
        "run": frame.RUN.astype("i1"),
        "trial_in_run": frame.TRIAL.astype("i1"),
        "nsd_id": (frame["73KID"] - 1).astype("i4"),
        "image_10k": frame["10KID"].astype("i2"),
        "repeat": frame.groupby("73KID").cumcount().astype("i1"),
        "shared1000": frame["10KID"] <= 1000,
        "shared515": frame["10KID"].isin(find_shared_three_times(root.expdesign)),
        "time": frame.TIME.astype("f8"),
        "isold": frame.ISOLD.astype("i1"),
        "missingdata": frame.MISSINGDATA.astype(bool),
    } | {name.lower(): frame[name].astype("f4") for name in BEHAVIOUR}
    for name, values in expected.items():
        assert group[name].dtype == values.dtype, name
        assert group[name].metadata.dimension_names == ("trial",)
        assert np.array_equal(group[name][...], values, equal_nan=values.dtype.kind == "f"), name
    assert np.array_equal(group["session"][...], frame.SESSION)
    assert group["betas"].attrs["coordinates"].split() == [
        "session",
        "trial_in_session",
        "trial_digest",
        *_order(expected),
    ]
    assert np.isnan(group["rt"][...]).any()


def find_shared_three_times(expdesign):
    """The rule, by pandas: shared, and all three showings within the first 30 sessions."""
    first = pd.Series(loadmat(expdesign)["masterordering"].ravel()[: 30 * TRIALS].astype(int)).value_counts()
    return [image for image, times in first.items() if times == 3 and image <= 1000]


def _order(names):
    first = ["run", "trial_in_run", "nsd_id", "image_10k", "repeat", "shared1000", "shared515", "time", "isold"]
    return [*first, *(name.lower() for name in BEHAVIOUR), "missingdata"]


def test_images_that_all_saw_three_times_are_stored_of_any_sessions(pair, run_cli, tmp_path):
    """Of 3 sessions, where the trials alone do not tell them."""
    root, store = pair
    frame, ids = pd.read_csv(root.trial_table, sep="\t"), find_shared_three_times(root.expdesign)
    expected = frame["10KID"].isin(ids).to_numpy()
    assert 0 < expected.sum() < (frame["10KID"] <= 1000).sum()
    ds = nsd_zarr.open_dataset(store)
    for chosen in (np.arange(0, len(frame), 2), np.flatnonzero(ds.repeat.values == 0)):
        part = ds.isel(trial=chosen)
        train, test = part.nsd.split("shared515")
        assert test.trial_in_session.values.tolist() == part.trial_in_session.values[expected[chosen]].tolist()
        assert not train.shared1000.any()
        averaged = part.nsd.average_repeats().nsd.split("shared515").test
        assert set(averaged.nsd_id.values) == set(frame["73KID"].to_numpy()[chosen][expected[chosen]] - 1)
    attributes = json.loads((store / "zarr.json").read_bytes())["attributes"]
    assert (attributes["format_version"], attributes["format_minor"]) == (1, 1)
    assert "format version 1.1" in run_cli("info", store).out


def test_without_a_design_there_is_no_such_column(copy, tmp_path):
    copy.expdesign.unlink()
    ds = nsd_zarr.open_dataset(_convert(copy, tmp_path))
    assert "shared515" not in ds
    assert "format_minor" not in ds.attrs
    with pytest.raises(StoreError, match="attach STORE NSD_ROOT"):
        ds.nsd.split("shared515")


def test_every_volume_is_there_transposed(pair):
    root, store = pair
    group = open_store(store)
    expected = {"brainmask": read_volume(root.brainmask).astype(bool), "ncsnr": read_volume(root.ncsnr)}
    expected |= {f"roi_{name}": read_volume(path).astype("i2") for name, path in root.rois.items()}
    for name, values in expected.items():
        assert group[name].dtype == values.dtype
        assert group[name].metadata.dimension_names == ("z", "y", "x")
        assert np.array_equal(group[name][...], values, equal_nan=values.dtype.kind == "f"), name
    assert np.isnan(group["ncsnr"][...]).any()
    assert np.array_equal(group["valid"][...], [read_volume(path) == 1 for path in root.valid])
    assert (group["valid"].dtype, group["valid"].chunks[0]) == (bool, 1)
    image = nibabel.load(root.brainmask)
    assert np.array_equal(group["affine"][...], image.affine)
    assert group["affine"].metadata.dimension_names == ("ras", "ijk1")


def test_voxel_goes_back_to_where_nibabel_says_it_lies(pair):
    root, store = pair
    group, image = open_store(store), nibabel.load(root.brainmask)
    z, y, x = np.argwhere(group["brainmask"][...])[7]
    assert image.get_fdata()[x, y, z] == 1
    assert np.allclose(group["affine"][...] @ [x, y, z, 1], [*nibabel.affines.apply_affine(image.affine, [x, y, z]), 1])


def test_labels_are_those_of_the_label_files_and_a_mask_is_above_zero(pair):
    root, store = pair
    group = open_store(store)
    for name, labels in ((name, ROI_LABELS[name]) for name in ROIS):
        attributes = group[f"roi_{name}"].attrs
        flags = dict(zip(attributes["flag_values"], attributes["flag_meanings"].split(), strict=True))
        names = dict(line.split(" ", 1) for line in root.roi_names[name].read_text().splitlines())
        assert flags == {-1: "not_cortex"} | {int(number): label for number, label in names.items()}
        values = group[f"roi_{name}"][...]
        for number, label in enumerate(labels, 1):
            value = {meaning: number for number, meaning in flags.items()}[label]
            assert np.count_nonzero(values == value) == np.count_nonzero(read_volume(root.rois[name]) == number) > 0
        # Neither code below the labels is in a mask.
        assert np.count_nonzero(values > 0) < np.count_nonzero(values)


def test_statistics_are_those_of_the_session_files(pair):
    root, store = pair
    group = open_store(store)
    for number, path in enumerate(root.session_files):
        with h5py.File(path) as file:
            counts = file["betas"][...]
        percent = counts.astype("f8") / 300
        np.testing.assert_allclose(group["session_mean"][number], percent.mean(axis=0), rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(group["session_std"][number], percent.std(axis=0), rtol=1e-6)
        rails = ((counts == -32_768) | (counts == 32_767)).any(axis=0).sum()
        assert group["rail_count"][number] == rails > 0
    assert group["session_std"].attrs["ddof"] == 0


def test_root_tells_subject_and_every_file_that_went_in(pair):
    root, store = pair
    attributes = json.loads((store / "zarr.json").read_bytes())["attributes"]
    assert attributes["subject"] == int(root.trial_table.parts[-3][-2:])
    files = [root.trial_table, root.expdesign, root.stim_info, root.brainmask, root.ncsnr, *root.valid]
    files += [*root.rois.values(), *root.roi_names.values()]
    names = sorted(path.relative_to(root.root).as_posix() for path in files)
    assert [entry["name"] for entry in attributes["experiment"]] == names
    for entry in attributes["experiment"]:
        assert entry["size"] == (root.root / entry["name"]).stat().st_size


def test_store_is_proved_and_opens_by_every_reader_without_a_warning(pair):
    root, store = pair
    assert nsd_zarr.verify(store, root.betas_folder).is_whole
    theirs, ours = xr.open_zarr(store).load(), nsd_zarr.open_dataset(store).load()
    # Our engine makes z, y and x of the affine, and store of the root document.
    assert set(theirs.variables) - {"trial_digest"} == set(ours.variables) - {"z", "y", "x", "store"}
    for name in set(theirs.variables) - {"betas", "trial_digest"}:
        assert theirs[name].dtype == ours[name].dtype, name
        np.testing.assert_array_equal(theirs[name].values, ours[name].values)
    assert "nsd_id" in theirs.coords
    manifest = json.loads((store / "zarr.json").read_bytes())["attributes"]["manifest"]
    files = {path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file()}
    assert files == {*manifest, "zarr.json"}


def test_plan_counts_the_files_of_a_store_with_an_experiment(pair, run_cli, tmp_path):
    root, store = pair
    outcome = run_cli("plan", root.betas_folder, tmp_path / "new.zarr", "--json")
    assert json.loads(outcome.out)["files"] == sum(path.is_file() for path in store.rglob("*"))


# -- rules pinned by values that are known -----------------------------------------------------------------------


def _write_table(root, ids, ids_10k):
    """A table that shows given images, and nothing that contradicts it."""
    frame = pd.read_csv(root.trial_table, sep="\t")
    frame["73KID"], frame["10KID"] = ids, ids_10k
    frame.to_csv(root.trial_table, sep="\t", index=False, na_rep="NaN")
    root.expdesign.unlink()
    root.stim_info.unlink()


def test_known_ids_of_subject_1_map_to_rows_of_the_image_file(copy, tmp_path):
    """Source: printed output of public code for subject 1: first 73KIDs, shared images by trial, a repeat."""
    ids = 10_000 + np.arange(3 * TRIALS)
    ids_10k = 2000 + np.arange(3 * TRIALS)
    shared = {0: 46_002, 28: 48_617, 35: 44_980, 44: 32_625, 53: 53_052, 90: 32_625}
    ids[[1, 2]] = 61_883, 829
    for trial, nsd_id in shared.items():
        ids[trial], ids_10k[trial] = nsd_id + 1, 1 + nsd_id % 1000
    _write_table(copy, ids, ids_10k)
    group = open_store(_convert(copy, tmp_path))
    assert group["nsd_id"][:3].tolist() == [46_002, 61_882, 828]
    assert np.flatnonzero(group["shared1000"][...]).tolist() == list(shared)
    assert group["nsd_id"][...][list(shared)].tolist() == list(shared.values())
    assert group["repeat"][...][[44, 90]].tolist() == [0, 1]
    assert group["repeat"][...].sum() == 1
    assert group["nsd_id"][...].min() >= 0


def test_label_counts_are_of_equal_values_and_nothing_else(copy, tmp_path):
    """Source: label counts of prf-visualrois of subject 1, a hundredth of them, printed by public code."""
    counts = {1: 6, 2: 8, 3: 8, 4: 6, 5: 6, 6: 5, 7: 7}
    codes = np.repeat([*counts, -1, 0], [*counts.values(), 301, 38])
    image = nibabel.load(copy.rois["prf-visualrois"])
    volume = np.random.default_rng(0).permutation(codes).reshape(image.shape).astype("i2")
    nibabel.save(nibabel.Nifti1Image(volume, image.affine), copy.rois["prf-visualrois"])
    values = open_store(_convert(copy, tmp_path))["roi_prf-visualrois"][...]
    assert {label: np.count_nonzero(values == label) for label in counts} == counts
    assert np.count_nonzero(values > 0) == 46


# -- what may differ ---------------------------------------------------------------------------------------------


def _convert(root, folder, name="new.zarr", **options):
    nsd_zarr.convert(root.betas_folder, folder / name, **{"workers": 1} | options)
    return folder / name


def test_sessions_with_a_gap_take_their_own_rows_and_volumes(copy, tmp_path):
    group = open_store(_convert(copy, tmp_path, sessions="1,3"))
    frame = pd.read_csv(copy.trial_table, sep="\t")
    repeat = frame.groupby("73KID").cumcount()[frame.SESSION != 2]
    assert np.array_equal(group["repeat"][...], repeat)
    assert np.array_equal(group["nsd_id"][...], frame[frame.SESSION != 2]["73KID"] - 1)
    assert np.array_equal(group["valid"][...], [read_volume(copy.valid[number]) for number in (0, 2)])
    assert group["session_mean"].shape[0] == group["rail_count"].shape[0] == 2


def test_hemispheres_make_a_region_volume_where_the_whole_one_is_missing(copy, tmp_path):
    path = copy.rois["streams"]
    image = nibabel.load(path)
    whole = np.asarray(image.dataobj)
    left = np.arange(whole.shape[0])[:, np.newaxis, np.newaxis] < 3
    for side, inside in (("lh", left), ("rh", ~left)):
        half = nibabel.Nifti1Image(np.where(inside, whole, -1), image.affine)
        nibabel.save(half, path.with_name(f"{side}.streams.nii.gz"))
        nibabel.save(half, path.with_name(f"{side}.nsdgeneral.nii.gz"))
    path.unlink()
    group = open_store(_convert(copy, tmp_path))
    assert np.array_equal(group["roi_streams"][...], whole.transpose(2, 1, 0))
    assert np.array_equal(group["roi_nsdgeneral"][...], read_volume(copy.rois["nsdgeneral"]))
    assert not [name for name in group if "lh." in name]


def test_what_is_missing_is_reported_and_gone_on_without(copy, tmp_path, run_cli):
    for path in (copy.trial_table, copy.ncsnr, copy.valid[1], copy.roi_names["streams"]):
        path.unlink()
    for command in ("plan", "convert"):
        printed = json.loads(run_cli(command, copy.betas_folder, tmp_path / "new.zarr", "--json").out)["experiment"]
        assert "nsddata/ppdata/subj01/behav/responses.tsv" in printed["missing"]
        assert any(word.endswith("ncsnr.nii.gz") for word in printed["missing"])
        assert "valid_sessionBB.nii.gz of session 2" in printed["missing"]
        assert printed["notes"] == [NOTE_OF_VALID.format(2), "no label names for streams"]
        assert printed["found"][0] == "brain mask"
    names = set(open_store(tmp_path / "new.zarr"))
    assert not names & {"nsd_id", "ncsnr"}
    assert {"brainmask", "valid", "roi_streams", "affine", "session_mean"} <= names
    assert "label_7" in open_store(tmp_path / "new.zarr")["roi_streams"].attrs["flag_meanings"]


def test_plan_and_convert_say_so_in_words(copy, tmp_path, run_cli):
    copy.ncsnr.unlink()
    for command in ("plan", "convert"):
        out = run_cli(command, copy.betas_folder, tmp_path / "new.zarr").out
        assert "experiment  trial table, design, stimulus table, brain mask, valid voxels, regions floc-faces" in out
        assert "not found   nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/ncsnr.nii.gz" in out


def test_each_note_has_a_line_of_its_own_with_file_and_reason(copy, tmp_path, run_cli):
    roi = copy.rois["streams"].parent
    (roi / "own.nii.gz").write_bytes(b"no volume")
    image = nibabel.load(copy.brainmask)
    nibabel.save(nibabel.Nifti1Image(np.full(image.shape, np.nan, "f4"), image.affine), roi / "map.nii.gz")
    for command in ("plan", "convert"):
        lines = run_cli(command, copy.betas_folder, tmp_path / "new.zarr").out.splitlines()
        notes = [line for line in lines if line.startswith("note        nsddata/ppdata/subj01/func1pt8mm/roi/")]
        assert len(notes) == 2
        assert "/map.nii.gz is left out: a region volume that holds nan, expected whole numbers" in notes[0]
        assert "/own.nii.gz is left out: no NIfTI volume can be read from it" in notes[1]


def test_other_origin_is_a_note_and_the_brain_masks_affine_counts(copy, tmp_path):
    image = nibabel.load(copy.ncsnr)
    affine = image.affine.copy()
    affine[0, 3] += 0.9
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), copy.ncsnr)
    report = nsd_zarr.convert(copy.betas_folder, tmp_path / "new.zarr")
    assert report.experiment.notes == (
        "the origin of ncsnr.nii.gz differs from that of brainmask.nii.gz by up to 0.9 mm",
    )
    assert np.array_equal(open_store(tmp_path / "new.zarr")["affine"][...], nibabel.load(copy.brainmask).affine)


def test_betas_elsewhere_have_no_experiment_and_nothing_is_missed(copy, tmp_path, run_cli):
    shutil.move(copy.betas_folder, tmp_path / "betas")
    outcome = run_cli("convert", tmp_path / "betas", tmp_path / "new.zarr", "--json")
    assert json.loads(outcome.out)["experiment"] == {"found": [], "missing": [], "notes": []}
    attributes = json.loads((tmp_path / "new.zarr/zarr.json").read_bytes())["attributes"]
    assert not {"experiment", "subject"} & set(attributes)
    assert set(open_store(tmp_path / "new.zarr")) == {
        *("betas", "session", "trial_in_session", "session_number", "trial_digest"),
        *("session_mean", "session_std", "rail_count"),
    }


def test_no_experiment_leaves_it_out(copy, tmp_path, digest_tree):
    store = _convert(copy, tmp_path, no_experiment=True)
    betas = tmp_path / "subj01/func1pt8mm" / copy.betas_folder.name
    betas.parent.mkdir(parents=True)
    shutil.move(copy.betas_folder, betas)
    nsd_zarr.convert(betas, tmp_path / "elsewhere.zarr")
    assert digest_tree(store) == digest_tree(tmp_path / "elsewhere.zarr")


def test_files_given_by_hand_make_the_store_that_files_found_make(copy, tmp_path, made):
    words = {
        "trial_table": copy.trial_table,
        "expdesign": copy.expdesign,
        "stim_info": copy.stim_info,
        "brainmask": copy.brainmask,
        "ncsnr": tmp_path / "ncsnr.nii.gz",
        "valid": str(copy.valid[0].parent),
        "roi": [str(path) for path in copy.rois.values()],
    }
    shutil.move(copy.ncsnr, words["ncsnr"])
    shutil.move(copy.betas_folder, tmp_path / "betas")
    for path in copy.roi_names.values():
        shutil.move(path, copy.rois["streams"].parent)
    nsd_zarr.convert(tmp_path / "betas", tmp_path / "new.zarr", **words)
    new, expected = open_store(tmp_path / "new.zarr"), open_store(made / "subj01.zarr")
    assert set(new) == set(expected)
    for name in set(new) - {"trial_digest"}:
        assert new[name].metadata == expected[name].metadata
        np.testing.assert_array_equal(new[name][...], expected[name][...])
    assert new.attrs["subject"] == 1
    assert [entry["name"] for entry in new.attrs["experiment"]] == sorted(
        Path(e["name"]).name for e in expected.attrs["experiment"]
    )


def test_region_volume_given_by_hand_wins_over_the_one_that_is_found(copy, tmp_path):
    image = nibabel.load(copy.rois["streams"])
    mine = (np.asarray(image.dataobj) > 2).astype("i2")
    nibabel.save(nibabel.Nifti1Image(mine, image.affine), tmp_path / "streams.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mine, image.affine), tmp_path / "mine.nii.gz")
    group = open_store(_convert(copy, tmp_path, roi=[tmp_path / "streams.nii.gz", tmp_path / "mine.nii.gz"]))
    for name in ("roi_streams", "roi_mine"):
        assert np.array_equal(group[name][...], mine.transpose(2, 1, 0))
    assert group["roi_mine"].attrs["flag_meanings"] == "not_cortex unlabelled mine"
    assert "roi_nsdgeneral" in group


def test_labels_with_markup_reach_the_store_as_plain_words(copy, tmp_path):
    copy.roi_names["streams"].write_text("0 Unknown\n1 <script>alert(1)</script>\n2 a b\x1b[31m\n")
    report = nsd_zarr.convert(copy.betas_folder, tmp_path / "new.zarr")
    attributes = open_store(tmp_path / "new.zarr")["roi_streams"].attrs
    assert attributes["flag_meanings"].split()[2:4] == ["_script_alert_1___script_", "a_b__31m"]
    assert len(attributes["flag_meanings"].split()) == len(attributes["flag_values"]) == 9
    assert report.experiment.notes == ("streams.mgz.ctab names no label 3, 4, 5, 6, 7 of streams",)


def test_surfaces_get_the_trial_table_and_no_volumes(copy, tmp_path):
    for path in copy.session_files:
        with h5py.File(path) as file:
            values = file["betas"][...].reshape(TRIALS, -1)
        with h5py.File(path, "w") as file:
            file["betas"] = values
    group = open_store(_convert(copy, tmp_path))
    assert "nsd_id" in group
    assert "brainmask" not in group
    assert group["session_mean"].metadata.dimension_names == ("session_number", "vertex")


# -- contradictions ----------------------------------------------------------------------------------------------


def _change_table(root, change):
    frame = pd.read_csv(root.trial_table, sep="\t")
    frame = change(frame)
    frame.to_csv(root.trial_table, sep="\t", index=False, na_rep="NaN")


def _drop_last_row(root):
    _change_table(root, lambda frame: frame.iloc[:-1])


def _swap_images(root):
    def swap(frame):
        frame.loc[[3, 4], "73KID"] = frame.loc[[4, 3], "73KID"].to_numpy()
        return frame

    _change_table(root, swap)


def _take_other_subject(root):
    _change_table(root, lambda frame: frame.assign(SUBJECT=3))


def _change_design(root):
    design = {name: value for name, value in loadmat(root.expdesign).items() if name[0] != "_"}
    design["subjectim"][0, int(design["masterordering"][0, 5]) - 1] = 7
    savemat(root.expdesign, design)


def _change_stimulus_table(root):
    info = pd.read_csv(root.stim_info, index_col=0)
    info.loc[:, "subject1_rep0"] += 1
    info.to_csv(root.stim_info)


def _take_other_volume(root):
    shutil.copy(locate_root(root.root, SIMULATIONS[2]).brainmask, root.brainmask)


def _mirror(root):
    image = nibabel.load(root.rois["streams"])
    mirrored = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine @ np.diag([-1, 1, 1, 1]))
    nibabel.save(mirrored, root.rois["streams"])


def _cut_volume(root):
    root.valid[2].write_bytes(root.valid[2].read_bytes()[:-20])


def _spoil_packed(root):
    data = bytearray(gzip.decompress(root.ncsnr.read_bytes()))
    data[40:44] = b"\x09\x00\x63\x00"
    root.ncsnr.write_bytes(gzip.compress(bytes(data)))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_drop_last_row, ("session 03", "has 52 rows for it", "expected 53")),
        (_swap_images, ("row 4 (session 01, run 1, trial 4) of responses.tsv: 73KID", "expected", "2 rows differ")),
        (_take_other_subject, ("a trial table of subject 3, expected subject 1",)),
        (_change_design, ("row 6 (session 01", "expected 7 by nsd_expdesign.mat")),
        (_change_stimulus_table, ("row 1 (session 01, run 1, trial 1) of responses.tsv: trial 1, expected 2 by",)),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
@pytest.mark.parametrize("command", ["plan", "convert"])
def test_contradiction_is_refused_with_both_values_and_nothing_is_written(
    command, spoil, words, copy, tmp_path, check_refused
):
    spoil(copy)
    paragraph = check_refused(3, command, copy.betas_folder, tmp_path / "new.zarr")
    for word in words:
        assert word in paragraph


UNFIT = {
    _take_other_volume: ("brainmask", "shape (7, 3, 13) (z, y, x), expected (5, 11, 7)"),
    _mirror: ("roi_streams", "affine -1.8 0 0 -5.4; 0 1.8 0 -9; 0 0 1.8 -3.6, expected 1.8 0 0"),
    _spoil_packed: ("ncsnr", "no NIfTI volume can be read"),
}


@pytest.mark.parametrize("spoil", UNFIT, ids=lambda spoil: spoil.__name__.strip("_"))
def test_volume_that_is_unfit_is_left_out_with_a_note_and_nothing_else(spoil, copy, tmp_path, made, run_cli):
    name, words = UNFIT[spoil]
    spoil(copy)
    notes = json.loads(run_cli("plan", copy.betas_folder, tmp_path / "new.zarr", "--json").out)["experiment"]["notes"]
    assert len(notes) == 1
    assert words in notes[0]
    assert " is left out: " in notes[0]
    report = nsd_zarr.convert(copy.betas_folder, tmp_path / "new.zarr")
    group = open_store(tmp_path / "new.zarr")
    assert report.experiment.notes == tuple(group.attrs["experiment_notes"]) == tuple(notes)
    assert set(open_store(made / "subj01.zarr")) - set(group) == {name}
    assert nsd_zarr.verify(tmp_path / "new.zarr").is_whole


GIVEN = {
    _take_other_volume: ("brainmask", lambda root: root.brainmask),
    _mirror: ("roi", lambda root: root.rois["streams"]),
    _cut_volume: ("valid", lambda root: root.valid[0].parent),
    _spoil_packed: ("ncsnr", lambda root: root.ncsnr),
}


@pytest.mark.parametrize("spoil", GIVEN, ids=lambda spoil: spoil.__name__.strip("_"))
def test_volume_that_is_unfit_and_was_named_by_hand_is_refused(spoil, copy, tmp_path, check_refused):
    option, find = GIVEN[spoil]
    spoil(copy)
    words = (f"--{option}", find(copy))
    words_of_reason = UNFIT[spoil][1] if spoil in UNFIT else "no NIfTI volume can be read"
    assert words_of_reason in check_refused(3, "convert", copy.betas_folder, tmp_path / "new.zarr", *words)


@pytest.mark.parametrize("option", ["trial-table", "brainmask", "roi", "ncsnr", "expdesign", "stim-info", "valid"])
def test_file_named_and_not_there_is_refused(option, copy, tmp_path, check_refused):
    paragraph = check_refused(3, "convert", copy.betas_folder, tmp_path / "new.zarr", f"--{option}", tmp_path / "no")
    assert "no such file" in paragraph or "no valid_sessionBB.nii.gz of sessions 1-3" in paragraph


def test_no_experiment_and_a_file_of_one_are_refused(copy, tmp_path, check_refused):
    words = ("--no-experiment", "--brainmask", copy.brainmask)
    assert "no_experiment, and a file" in check_refused(2, "convert", copy.betas_folder, tmp_path / "new.zarr", *words)


def test_file_that_changes_while_the_run_goes_on_is_refused_and_the_run_can_go_on(copy, tmp_path, make_recorder, made):
    before = copy.trial_table.read_bytes()

    def change():
        copy.trial_table.write_bytes(before.replace(b"\tNaN\t", b"\t0\t", 1))

    with pytest.raises(SourceError, match=r"the file changed since the run began.*responses.tsv"):
        nsd_zarr.convert(copy.betas_folder, tmp_path / "new.zarr", on_event=make_recorder(2, change))
    copy.trial_table.write_bytes(before)
    report = nsd_zarr.convert(copy.betas_folder, tmp_path / "new.zarr")
    assert report.finished_before == 3
    assert (tmp_path / "new.zarr/zarr.json").read_bytes() == (made / "subj01.zarr/zarr.json").read_bytes()


def test_finished_store_keeps_its_experiment_and_says_how_to_change_it(copy, tmp_path, digest_tree):
    store = _convert(copy, tmp_path, no_experiment=True)
    before = digest_tree(store)
    report = nsd_zarr.convert(copy.betas_folder, store)
    assert "nsd-zarr attach gives it" in report.experiment.notes[0]
    assert digest_tree(store) == before


def test_every_set_of_regions_of_a_whole_root_is_stored_as_nibabel_reads_it(tmp_path):
    root = simulate_root(tmp_path / "nsd", Simulation(2, (12, 11, 13, 7)))
    nsd_zarr.convert(root.betas_folder, tmp_path / "new.zarr")
    group = open_store(tmp_path / "new.zarr")
    assert len(root.rois) == 13
    for name, path in root.rois.items():
        assert np.array_equal(group[f"roi_{name}"][...] > 0, read_volume(path) > 0), name
        assert (group[f"roi_{name}"][...] > 0).any()
    for session, path in enumerate(root.valid):
        valid, brain = read_volume(path) == 1, read_volume(root.brainmask) == 1
        betas = group["betas"][12 * session : 12 * session + 12]
        assert np.array_equal((betas != 0).any(axis=0), valid & brain)
        assert (brain & ~valid).any()


def test_experiment_is_inspected_once_for_both_plans(copy, tmp_path, monkeypatch):
    asked = []

    def read(files, geometry):
        asked.append(files)
        return read_experiment(files, geometry)

    monkeypatch.setattr(run, "read_experiment", read)
    nsd_zarr.convert(copy.root, tmp_path / "s.zarr", subject=1, workers=1)
    nsd_zarr.convert(copy.root, tmp_path / "s.zarr", subject=1, workers=1)  # Finished: its experiment is not read.
    assert len(asked) == 1


@given(volumes=hnp.arrays(np.int16, (3, 2, 3, 2)), has_sides=st.booleans())
def test_codes_are_the_values_that_occur(volumes, has_sides):
    regions = RoiVolumes(volumes[0], volumes[1:] if has_sides else None)
    expected = np.unique(volumes if has_sides else volumes[0])
    assert (regions.codes.dtype, regions.codes.tolist()) == (np.int16, expected.tolist())
