"""Benchmarks print every row that the documents quote."""

import importlib.util
import json

from builders import run_script
from builders.commands import REPOSITORY

from nsd_zarr.config import CODECS


def test_benchmark_convert_on_small_sessions_prints_every_row(tmp_path, capsys):
    run_script("benchmarks/benchmark_convert.py", tmp_path, "--sessions", 2, "--shape", "12,7,5,3", "--rounds", 1)
    shown = capsys.readouterr().out
    for row in ("h5py reads", "nsd-zarr converts", "dask converts", "ds.betas[i].values", "zarr-python"):
        assert row in shown


def test_benchmark_read_on_small_sessions_prints_floors_and_every_reader(tmp_path, capsys):
    shapes = ("--shape", "12,7,5,3", "--shape", "24,5,7,3")
    run_script(
        "benchmarks/benchmark_read.py",
        tmp_path,
        *shapes,
        "--rounds",
        1,
        "--trials",
        32,
        "--no-workers",
        "--out",
        tmp_path / "out/r",
    )
    shown = capsys.readouterr().out
    for row in ("floor: pread + crc + decode", "nsd_zarr loader", "zarr-python", "h5py, gzip", "float32 memory map"):
        assert shown.count(f"\n{row} ") >= 2
    reports = json.loads((tmp_path / "out/r.json").read_text())
    assert [report["trial_bytes"] for report in reports] == [210, 210]
    assert all(row["trials_per_second"] > 0 for report in reports for row in report["rows"])
    assert (tmp_path / "out/r.png").exists() == bool(importlib.util.find_spec("matplotlib"))


def test_forms_are_compared_with_what_unpacking_and_compressing_take(tmp_path, capsys):
    run_script("benchmarks/forms.py", tmp_path, "--shape", "12,7,5,3", "--rounds", 1)
    shown = capsys.readouterr().out
    for row in ("nifti: unpacking alone", "nifti: all work", "hdf5 ", "nifti ", "nativesurface ", "fsaverage "):
        assert f"\n  {row}" in f"\n{shown}"


def test_shards_are_compared_in_pairs(tmp_path, capsys):
    run_script("benchmarks/shards.py", tmp_path, "--shape", "12,7,5,3", "--shards", "2,12", "--rounds", 1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["2", "shards"], ["12", "shards"]]
    assert "(1.000)" in lines[0]


def test_full_subject_measures_every_step_beside_its_floors(tmp_path, capsys):
    words = ("--sessions", 4, "--shape", "12,7,5,3", "--versus", REPOSITORY)
    run_script("benchmarks/full_subject.py", tmp_path, *words)
    shown = capsys.readouterr().out
    for row in ("disk floor", "processor floor", "convert", "the other version", "memory", "verify", "cached before"):
        assert f"\n  {row}" in shown
    (found,) = json.loads(shown.splitlines()[-1])
    assert found["convert seconds"] > 0
    assert len(list((tmp_path / "nsddata_betas").rglob("betas_session*.hdf5"))) == 4


def test_engine_cpu_compares_two_checkouts(tmp_path, capsys):
    words = ("--shape", "7,5,3", "--rounds", 1, "--trials", 3, "--scratch", tmp_path)
    run_script("benchmarks/engine_cpu.py", REPOSITORY, REPOSITORY, *words)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows] == [["7x5x3.zarr", "engine"], ["7x5x3.zarr", "xarray"]]
    assert all(float(row[-1]) > 0 for row in rows)


def test_codecs_prints_ratio_and_processor_time_of_each(capsys):
    run_script("benchmarks/codecs.py", "--shape", "12,7,5,3", "--rounds", 1)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == list(CODECS)
    assert all(row[4:6] == ["times", "smaller"] and float(row[6]) > 0 for row in rows)
