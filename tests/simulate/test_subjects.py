"""Roots of several subjects: one experiment, volumes of different shapes."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from builders import digest_tree, run_cli

import nsd_zarr
from nsd_zarr.errors import ConfigError
from nsd_zarr.simulate import Simulation, scale_shape, simulate_root, simulate_subjects

RECIPE = Simulation(sessions=2, shape=(12, 7, 5, 3), rois=("nsdgeneral",), hemispheres=False)


def test_shapes_are_those_of_the_dataset_where_subject_1_has_its_own():
    # Source: data manual, "Functional data (NSD)"; voxels of each volume at 1.8 mm.
    voxels = (699_192, 730_128, 704_052, 673_200, 597_714, 797_215, 600_210, 642_720)
    shapes = [scale_shape((750, 83, 104, 81), subject) for subject in range(1, 9)]
    assert tuple(int(np.prod(shape[1:])) for shape in shapes) == voxels
    assert {shape[0] for shape in shapes} == {750}


@pytest.mark.parametrize("shape", [(12, 7, 5, 3), (12, 2, 2, 2), (750, 41, 52, 40)])
def test_small_shapes_differ_from_that_of_subject_1_and_none_is_too_short(shape):
    assert scale_shape(shape, 1) == shape
    others = [scale_shape(shape, subject) for subject in range(2, 9)]
    assert all(other != shape for other in others) or min(shape) == 2
    assert min(min(other) for other in others) >= 2


def test_command_writes_each_subject_as_one_alone_would_be(tmp_path, capsys):
    words = ("--sessions", 2, "--shape", "12,7,5,3", "--subjects", "1,2", "--quiet")
    assert run_cli(capsys, "simulate", tmp_path / "nsd", *words).code == 0
    for subject in (1, 2):
        (path,) = (tmp_path / "nsd").rglob(f"ppdata/subj0{subject}/**/betas_session02.hdf5")
        with h5py.File(path) as file:
            assert file["betas"].shape == scale_shape((12, 7, 5, 3), subject)
    report = nsd_zarr.convert(tmp_path / "nsd", tmp_path / "nsd.zarr", subjects="1,2")
    assert (report.trials, [part.experiment.missing for part in report.parts]) == (48, [(), ()])


def test_subjects_may_come_at_once_or_one_after_the_other(tmp_path):
    done = []
    simulate_subjects(tmp_path / "once", RECIPE, (1, 2), lambda step, total: done.append((step, total)))
    assert done[-1][0] <= done[-1][1]
    for subject in (1, 2):
        shape = scale_shape(RECIPE.shape, subject)
        simulate_root(
            tmp_path / "other",
            Simulation(sessions=2, shape=shape, subject=subject, rois=("nsdgeneral",), hemispheres=False),
        )
    assert digest_tree(tmp_path / "once") == digest_tree(tmp_path / "other")


def test_unknown_subject_and_both_options_are_refused(tmp_path, capsys):
    with pytest.raises(ConfigError, match="subject 9, expected 1 to 8"):
        simulate_subjects(tmp_path / "nsd", RECIPE, (1, 9))
    assert run_cli(capsys, "simulate", tmp_path / "nsd", "--subject", 1, "--subjects", "1,2").code == 2
    assert run_cli(capsys, "simulate", tmp_path / "nsd", "--subjects", "none").code == 2
    assert list(tmp_path.iterdir()) == []
