import json
import pickle

import numpy as np
import pytest

import nsd_zarr
from nsd_zarr.bench.copies import GzipTrials, MappedTrials, make_gzip, make_memory_map
from nsd_zarr.bench.run import bench, make_table
from nsd_zarr.bench.workers import TensorStoreTrials, ZarrTrials
from nsd_zarr.cli.main import run
from nsd_zarr.maintenance.convert import convert
from nsd_zarr.science import kernels
from nsd_zarr.simulate import Simulation, simulate_root


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    root = simulate_root(
        folder / "nsd", Simulation(sessions=2, shape=(12, 7, 5, 3), rois=("streams",), hemispheres=False)
    )
    convert(root.betas_folder, folder / "subj01.zarr")
    return root.betas_folder, folder / "subj01.zarr"


def test_bench_with_source_measures_floors_ours_and_the_others(made):
    source, store = made
    steps = []
    report = bench(store, source, rounds=2, trials=40, threads=2, on_step=steps.append)
    names = {row.name for row in report.rows}
    assert {"nsd_zarr engine", "nsd_zarr loader", "ds.betas[i].values", "zarr-python", "h5py, session file"} <= names
    assert all(row.trials_per_second > 0 and row.cpu_ms_per_trial >= 0 for row in report.rows)
    assert any("round 2 of 2" in step for step in steps)
    ceilings = {row.name: row.percent_of_ceiling for row in report.rows if row.delivers == "float32"}
    assert ceilings["floor: pread + crc + decode + cast"] == pytest.approx(100)
    assert ceilings["nsd_zarr engine"] > 0


@pytest.mark.parametrize("is_there", [True, False])
def test_ceiling_is_the_best_known_way_and_says_which_it_was(made, monkeypatch, is_there):
    if is_there:
        pytest.importorskip("numba")
    monkeypatch.setattr(kernels, "_loaded", None)
    monkeypatch.setattr(kernels, "_cut_off", not is_there)
    report = bench(made[1], rounds=1, trials=32, threads=1)
    assert report.scaled_by == ("numba" if is_there else "NumPy")
    assert report.scaled_by in make_table(report).splitlines()[0]
    names = [row.name for row in report.rows]
    assert ("floor: pread + crc + decode + cast by NumPy" in names) == is_there
    of_ceiling = {row.name: row.percent_of_ceiling for row in report.rows if row.delivers == "float32"}
    assert of_ceiling["floor: pread + crc + decode + cast"] == pytest.approx(100)


def test_bench_cold_measures_what_lies_in_files(made):
    rows = bench(made[1], made[0], rounds=2, trials=32, threads=1, cold=True).rows
    cold = {row.name for row in rows if row.cold_trials_per_second}
    assert {"nsd_zarr engine", "nsd_zarr loader", "zarr-python", "h5py, session file"} <= cold
    assert not any(name.startswith("floor") for name in cold)
    stored = {row.name: row.stored_bytes for row in rows}
    assert stored["h5py, session file"] == 2 * 7 * 5 * 3
    assert stored["nsd_zarr engine"] == stored["zarr-python"] > 0


def test_bench_with_workers_measures_stock_loaders(made, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr("nsd_zarr.bench.workers.WORKERS", (1,))
    monkeypatch.setattr("nsd_zarr.bench.workers.START", "forkserver")  # imports PyTorch once for all workers
    rows = bench(made[1], rounds=1, trials=32, threads=1, workers=True).rows
    found = {(row.name, row.threads) for row in rows if row.name.startswith("DataLoader")}
    assert {("DataLoader over TrialDataset", 1), ("DataLoader over zarr-python", 1)} <= found


@pytest.mark.parametrize("make", [MappedTrials, GzipTrials])
def test_copies_of_a_store_hold_its_percent(made, tmp_path, make):
    ours = nsd_zarr.open_dataset(made[1]).betas
    (make_gzip if make is GzipTrials else make_memory_map)(made[1], tmp_path / "copy")
    trials = pickle.loads(pickle.dumps(make(tmp_path / "copy")))
    for trial in (0, 17, 23):
        np.testing.assert_array_equal(trials[trial], ours[trial].values)


@pytest.mark.parametrize("name", ["zarr-python", "TensorStore"])
def test_trials_by_hand_are_the_stores_percent(made, name):
    if name == "TensorStore":
        pytest.importorskip("tensorstore")
    trials = (TensorStoreTrials if name == "TensorStore" else ZarrTrials)(made[1])
    np.testing.assert_array_equal(trials[13], nsd_zarr.open_dataset(made[1]).betas[13].values)


def test_bench_table_has_a_line_a_row(made):
    report = bench(made[1], rounds=1, trials=32, threads=1)
    assert len(make_table(report).splitlines()) == len(report.rows) + 2


def test_bench_command_prints_one_json_object(made, capsys):
    assert run(["bench", str(made[1]), "--rounds", "1", "--trials", "32", "--json", "--quiet"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["rows"]
    assert not printed.err


def test_bench_of_a_missing_store_is_refused(tmp_path, capsys):
    assert run(["bench", str(tmp_path / "none.zarr")]) == 4
    assert "no such store" in capsys.readouterr().err
