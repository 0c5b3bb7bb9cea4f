"""Resting runs, nsdsynthetic and nsdimagery: their own runs, tasks and images, from what their designs say."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from builders import create_session, create_source
from scipy.io import savemat

import nsd_zarr

SHAPE = (2, 3, 5)
PLACE = "nsddata_betas/ppdata/subj01/func1pt8mm/{}_fithrf"


def create_betas(root, name, trials, file):
    folder = root / PLACE.format(name)
    create_session(folder / file, trials=trials, shape=SHAPE, session=4)
    (root / "nsddata").mkdir(exist_ok=True)
    return folder


def read_flags(array):
    words = array.attrs["flag_meanings"].split()
    return [words[code] for code in array[...]]


def convert(folder, store, **options):
    report = nsd_zarr.convert(folder, store, **options)
    return report, zarr.open_group(store, mode="r")


@pytest.mark.parametrize("file", ["betas_nsdsynthetic.hdf5", "betas_session01.hdf5"])
def test_synthetic_trials_have_runs_tasks_and_images(tmp_path, file):
    folder = create_betas(tmp_path, "nsdsyntheticbetas", 744, file)
    ordering = np.random.default_rng(0).permutation(np.repeat(np.arange(1, 285), 3))[:744]
    design = tmp_path / "nsddata/experiments/nsdsynthetic/nsdsynthetic_expdesign.mat"
    design.parent.mkdir(parents=True)
    savemat(design, {"masterordering": ordering[None].astype("f8"), "stimpattern": np.zeros((1, 8, 107))})
    report, group = convert(folder, tmp_path / "s.zarr")
    assert np.array_equal(group["run"][...], np.repeat(np.arange(1, 9), 93))
    assert np.array_equal(group["trial_in_run"][...], np.tile(np.arange(1, 94), 8))
    assert read_flags(group["task"]) == (["fixation"] * 93 + ["memory"] * 93) * 4
    assert np.array_equal(group["stimulus_id"][...], ordering - 1)
    shown = [np.count_nonzero(ordering[:trial] == ordering[trial]) for trial in range(744)]
    assert np.array_equal(group["repeat"][...], shown)
    assert "nsd_id" not in group
    assert {"design", "runs of the synthetic images (nsdsynthetic)"} <= set(report.experiment.found)
    assert nsd_zarr.verify(tmp_path / "s.zarr", folder).is_whole
    ds = nsd_zarr.open_dataset(tmp_path / "s.zarr")
    assert {"task", "stimulus_id"} <= set(ds.coords)


def test_imagery_trials_have_runs_tasks_and_sets(tmp_path):
    folder = create_betas(tmp_path, "nsdimagerybetas", 720, "betas_nsdimagery.hdf5")
    report, group = convert(folder, tmp_path / "s.zarr")
    names = ["visA", "attA", "imgA", "visB", "attB", "imgB", "visC", "attC", "imgC", "imgA", "imgB", "imgC"]
    lengths = [96 if name.startswith("att") else 48 for name in names]
    whole = {"vis": "vision", "att": "attention", "img": "imagery"}
    expected = [name for name, length in zip(names, lengths, strict=True) for _ in range(length)]
    assert read_flags(group["task"]) == [whole[name[:3]] for name in expected]
    assert read_flags(group["stimulus_set"]) == [name[3] for name in expected]
    assert np.array_equal(group["run"][...], np.repeat(np.arange(1, 13), lengths))
    assert "stimulus_id" not in group
    assert report.experiment.notes[0].startswith("nsdimagerybetas_fithrf are of the imagery experiment")


def test_resting_sessions_begin_at_21_and_have_two_runs(tmp_path):
    folder = tmp_path / PLACE.format("restingbetas")
    create_source(folder, (21, 22), trials=125, shape=SHAPE)
    (tmp_path / "nsddata").mkdir()
    _, group = convert(folder, tmp_path / "s.zarr")
    assert group["session_number"][...].tolist() == [21, 22]
    assert np.array_equal(group["run"][...], np.tile(np.repeat([1, 14], [63, 62]), 2))
    assert set(read_flags(group["task"])) == {"rest"}
    (folder / "betas_session21.hdf5").unlink()
    with pytest.raises(nsd_zarr.SourceError, match="session 21 is missing: found 22"):
        nsd_zarr.plan(folder, tmp_path / "t.zarr")


def test_other_trial_count_or_unfit_design_leaves_out_what_is_not_known(tmp_path):
    folder = create_betas(tmp_path, "nsdsyntheticbetas", 12, "betas_nsdsynthetic.hdf5")
    report, group = convert(folder, tmp_path / "s.zarr")
    assert any("12 trials a session, expected 744" in note for note in report.experiment.notes)
    assert "run" not in group
    folder = create_betas(tmp_path, "nsdsyntheticbetas", 744, "betas_nsdsynthetic.hdf5")
    design = tmp_path / "mine.mat"
    savemat(design, {"masterordering": np.full((1, 744), 285.0)})
    with pytest.raises(nsd_zarr.SourceError, match="expected 744 trials with images 1 to 284"):
        nsd_zarr.plan(folder, tmp_path / "t.zarr", expdesign=design)
    _, group = convert(folder, tmp_path / "u.zarr", no_trial_table=True)
    assert "run" not in group


def test_numbered_sessions_are_read_where_betas_of_one_session_lie_beside_them(tmp_path):
    source = create_source(tmp_path / "betas", (1, 2), trials=6, shape=SHAPE)
    create_session(source / "betas_nsdsynthetic.hdf5", trials=7, shape=SHAPE)
    plan = nsd_zarr.plan(source, tmp_path / "s.zarr")
    assert [info.path.name for info in plan.sources] == ["betas_session01.hdf5", "betas_session02.hdf5"]
