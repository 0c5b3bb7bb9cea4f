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


def test_convert_all_subjects_makes_a_store_each_and_names_the_one_that_fails(root, tmp_path, capsys):
    run_script("pipelines/convert_all_subjects.py", root, tmp_path / "stores")
    assert [zarr.open_group(tmp_path / "stores" / f"subj0{n}.zarr", mode="r")["betas"].shape for n in (1, 2)] == [
        (24, 7, 5, 3),
        (24, 5, 7, 3),
    ]
    next((root / "nsddata_betas/ppdata/subj02").rglob("*session01*")).unlink()
    with pytest.raises(SystemExit, match="subject 2: session 01 is missing"):
        run_script("pipelines/convert_all_subjects.py", root, tmp_path / "stores")
