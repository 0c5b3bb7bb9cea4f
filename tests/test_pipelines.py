"""Whole workflows, as their users call them."""

import pytest
import zarr
from builders import run_script

from nsd_zarr.simulate import Simulation, simulate_root


@pytest.fixture
def root(tmp_path):
    for subject, shape in ((1, (12, 7, 5, 3)), (2, (12, 5, 7, 3))):
        made = simulate_root(tmp_path / "nsd", Simulation(sessions=2, shape=shape, subject=subject))
    return made.root


def test_convert_subject_on_simulated_root_prints_sessions_and_a_trial(root, tmp_path, capsys):
    run_script("pipelines/convert_subject.py", root / "nsddata_betas/ppdata/subj01", tmp_path / "subj01.zarr")
    shown = capsys.readouterr().out
    assert "session 02" in shown
    assert "percent signal change" in shown


def test_convert_all_subjects_makes_one_store_and_names_the_subject_that_fails(root, tmp_path, capsys):
    next((root / "nsddata_betas/ppdata/subj02").rglob("*session01*")).rename(tmp_path / "away.hdf5")
    with pytest.raises(SystemExit, match="subject 2: session 01 is missing"):
        run_script("pipelines/convert_all_subjects.py", root, tmp_path / "nsd.zarr")
    assert capsys.readouterr().out == f"24 trials in {tmp_path / 'nsd.zarr/subj01'}\n"
    (tmp_path / "away.hdf5").rename(
        next(root.rglob("ppdata/subj02/**/*session02.hdf5")).with_name("betas_session01.hdf5")
    )
    run_script("pipelines/convert_all_subjects.py", root, tmp_path / "nsd.zarr")
    tree = zarr.open_group(tmp_path / "nsd.zarr", mode="r")
    assert [tree[f"subj0{n}/betas"].shape for n in (1, 2)] == [(24, 7, 5, 3), (24, 5, 7, 3)]
