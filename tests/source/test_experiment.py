"""Where the experiment's files are looked for: at the dataset's own places around the betas, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nsd_zarr.errors import SourceError
from nsd_zarr.simulate import Simulation, simulate_root
from nsd_zarr.source.experiment import ExperimentFiles, GivenFiles, find_experiment, find_experiment_below
from nsd_zarr.source.find import Choice

SESSIONS = (1, 2)


@pytest.fixture
def root(tmp_path):
    return simulate_root(tmp_path / "nsd", Simulation(2, (6, 5, 7, 3), subject=4, space="func1mm", hemispheres=False))


def test_everything_lies_at_its_own_place(root):
    found = find_experiment(root.session_files[0], SESSIONS, GivenFiles())
    assert (found.root, found.subject, found.missing) == (root.root, 4, ())
    assert (found.trial_table, found.expdesign, found.stim_info) == (root.trial_table, root.expdesign, root.stim_info)
    assert (found.brainmask, found.ncsnr, found.valid) == (root.brainmask, root.ncsnr, root.valid)
    assert {roi.name: roi.volumes for roi in found.rois} == {name: (path,) for name, path in root.rois.items()}
    assert {roi.name: roi.labels for roi in found.rois} == root.roi_names


def test_label_names_of_the_subject_win_over_those_of_fsaverage(root):
    own = root.root / "nsddata/freesurfer/subj04/label/streams.mgz.ctab"
    own.write_text("1 mine\n")
    rois = {roi.name: roi.labels for roi in find_experiment(root.session_files[0], SESSIONS, GivenFiles()).rois}
    assert rois["streams"] == own


def test_betas_reached_through_a_link_lie_where_it_leads(root, tmp_path):
    os.symlink(root.betas_folder, tmp_path / "betas")
    found = find_experiment(tmp_path / "betas/betas_session01.hdf5", SESSIONS, GivenFiles())
    assert (found.root, found.trial_table) == (root.root, root.trial_table)


@pytest.mark.parametrize("place", ["betas_session01.hdf5", "nsddata_betas/ppdata/sub4/func1mm/b/betas_session01.hdf5"])
def test_betas_elsewhere_have_no_experiment(place, tmp_path):
    found = find_experiment(tmp_path / place, SESSIONS, GivenFiles())
    assert found == ExperimentFiles()
    assert found.is_empty


def test_every_place_that_is_empty_is_named_below_the_root(tmp_path):
    file = tmp_path / "nsddata_betas/ppdata/subj04/func1mm/betas_fithrf/betas_session01.hdf5"
    found = find_experiment(file, SESSIONS, GivenFiles())
    assert found.is_empty
    assert found.missing == (
        "nsddata/ppdata/subj04/behav/responses.tsv",
        "nsddata/experiments/nsd/nsd_expdesign.mat",
        "nsddata/experiments/nsd/nsd_stim_info_merged.csv",
        "nsddata/ppdata/subj04/func1mm/brainmask.nii.gz",
        "nsddata_betas/ppdata/subj04/func1mm/betas_fithrf/ncsnr.nii.gz",
        "valid_sessionBB.nii.gz of sessions 1-2",
        "nsddata/ppdata/subj04/func1mm/roi/*.nii.gz",
    )


def test_valid_volumes_are_those_of_the_sessions_that_have_one(root):
    assert find_experiment(root.session_files[0], (2,), GivenFiles()).valid == (root.valid[1],)
    found = find_experiment(root.session_files[0], (1, 3), GivenFiles())
    assert found.valid == (root.valid[0], None)
    assert found.missing == ("valid_sessionBB.nii.gz of session 3",)
    assert find_experiment(root.session_files[0], (3, 4), GivenFiles()).valid == ()


@pytest.mark.parametrize("word", ["{0}", "{0}/valid_session*.nii.gz", "{0}/*.nii*"])
def test_valid_volumes_are_given_by_folder_or_glob(word, root):
    given = GivenFiles(valid=word.format(root.valid[0].parent))
    assert find_experiment(None, SESSIONS, given).valid == root.valid
    with pytest.raises(SourceError, match=r"no valid_sessionBB\.nii\.gz of session 3, expected one of each session"):
        find_experiment(None, (1, 3), given)


def test_region_volumes_that_are_given_need_a_name_each(root, tmp_path):
    path = root.rois["streams"]
    (roi,) = find_experiment(None, SESSIONS, GivenFiles(rois=(path,))).rois
    assert (roi.name, roi.volumes, roi.labels) == ("streams", (path,), None)
    with pytest.raises(SourceError, match="a second region volume of the name streams"):
        find_experiment(None, SESSIONS, GivenFiles(rois=(path, path)))
    with pytest.raises(SourceError, match="the name of a region volume ends otherwise"):
        find_experiment(None, SESSIONS, GivenFiles(rois=(root.trial_table,)))


def test_root_without_betas_needs_subject_and_space(root):
    words, choice = [root.root], Choice(4, "func1mm", root.betas_folder.name)
    assert find_experiment_below(words, choice, SESSIONS, GivenFiles()) == find_experiment(
        root.session_files[0], SESSIONS, GivenFiles()
    )
    assert find_experiment_below(words, Choice(4, "func1mm"), SESSIONS, GivenFiles()).ncsnr is None
    for less in (Choice(4), Choice(None, "func1mm"), Choice()):
        assert find_experiment_below(words, less, SESSIONS, GivenFiles()) is None
    assert find_experiment_below([Path("nowhere")], choice, SESSIONS, GivenFiles()) is None
