import importlib.util
import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from nsd_zarr.errors import DamageFound
from nsd_zarr.simulate import Simulation, simulate_root
from nsd_zarr.store.small import read_chunk

PIPELINES = Path(__file__).parent.parent / "pipelines"


@pytest.fixture
def run(monkeypatch):
    def run_pipeline(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(PIPELINES / f"{name}.py"), run_name="__main__")

    return run_pipeline


@pytest.fixture
def root(tmp_path):
    for subject, shape in ((1, (12, 7, 5, 3)), (2, (12, 5, 7, 3))):
        made = simulate_root(tmp_path / "nsd", Simulation(sessions=2, shape=shape, subject=subject))
    return made.root


def test_convert_subject_on_simulated_root_tells_sessions_and_a_trial(run, root, tmp_path, capsys):
    run("convert_subject", root / "nsddata_betas/ppdata/subj01", tmp_path / "subj01.zarr")
    told = capsys.readouterr().out
    assert "session 02" in told
    assert "percent signal change" in told


def test_convert_all_subjects_makes_a_store_each_and_tells_the_one_that_fails(run, root, tmp_path, capsys):
    run("convert_all_subjects", root, tmp_path / "stores")
    assert [zarr.open_group(tmp_path / "stores" / f"subj0{n}.zarr", mode="r")["betas"].shape for n in (1, 2)] == [
        (24, 7, 5, 3),
        (24, 5, 7, 3),
    ]
    next((root / "nsddata_betas/ppdata/subj02").rglob("*session01*")).unlink()
    with pytest.raises(SystemExit, match="subject 2: session 01 is missing"):
        run("convert_all_subjects", root, tmp_path / "stores")


def test_benchmark_convert_on_small_sessions_prints_every_row(run, tmp_path, capsys):
    run("benchmark_convert", tmp_path, "--sessions", 2, "--shape", "12,7,5,3", "--rounds", 1)
    told = capsys.readouterr().out
    for row in ("h5py reads", "nsd-zarr converts", "dask converts", "ds.betas[i].values", "zarr-python"):
        assert row in told


def test_benchmark_read_on_small_sessions_prints_floors_and_every_reader(run, tmp_path, capsys):
    shapes = ("--shape", "12,7,5,3", "--shape", "24,5,7,3")
    run("benchmark_read", tmp_path, *shapes, "--rounds", 1, "--trials", 32, "--no-workers", "--out", tmp_path / "out/r")
    told = capsys.readouterr().out
    for row in ("floor: pread + crc + decode", "nsd_zarr loader", "zarr-python", "h5py, gzip", "float32 memory map"):
        assert told.count(f"\n{row} ") >= 2
    reports = json.loads((tmp_path / "out/r.json").read_text())
    assert [report["trial_bytes"] for report in reports] == [210, 210]
    assert all(row["trials_per_second"] > 0 for report in reports for row in report["rows"])
    assert (tmp_path / "out/r.png").exists() == bool(importlib.util.find_spec("matplotlib"))


def test_damage_store_names_and_repairs_all_that_it_damages(run, capsys, tmp_path):
    run("damage_store", "--flips", 30, "--others", 30, "--seed", 3, "--json", tmp_path / "damage.json")
    told = capsys.readouterr().out
    assert "60 damages, seed 3: 0 failures" in told
    rows = json.loads((tmp_path / "damage.json").read_text())
    kinds = {"root document", "array metadata", "shard, chunks", "small arrays", "volumes", "statistics", "trial table"}
    assert {row["kind"] for row in rows} >= kinds
    assert sum(row["silent"] for row in rows) == 0


def test_damage_store_fails_where_a_reader_takes_what_is_damaged_for_zeros(run, monkeypatch):
    def read_forgivingly(store, name, row=0):
        try:
            return read_chunk(store, name, row)
        except DamageFound:
            metadata = store.members[name]
            kind = metadata["data_type"].replace("string", "U32")
            return np.zeros(metadata["chunk_grid"]["configuration"]["chunk_shape"], kind)

    monkeypatch.setattr("nsd_zarr.read.lazy.read_chunk", read_forgivingly)
    with pytest.raises(SystemExit, match=r"silent \[\('arrays'"):
        run("damage_store", "--flips", 30, "--others", 0, "--seed", 3)


@pytest.mark.slow
def test_kill_conversions_ends_each_store_as_the_undisturbed_one(tmp_path):
    # A process of its own: it forks before anything has threads.
    words = ["--kills", "8", "--schedulers", "synchronous,threads", "--folder", str(tmp_path)]
    command = [sys.executable, str(PIPELINES / "kill_conversions.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert "| **all** | **4** | **4** |" in done.stdout
    assert "| stores that differ | 0 | 0 |" in done.stdout
