"""The drivers find no fault in short runs, and find the faults that are put there."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders import run_script
from stress.start_together import find_problem

from nsd_zarr.errors import DamageFound
from nsd_zarr.store.small import read_chunk

HERE = Path(__file__).parent.parent
KILL_CONVERSIONS = Path(__file__).with_name("kill_conversions.py")


def test_damage_store_names_and_repairs_all_that_it_damages(capsys, tmp_path):
    run_script(
        "tests/stress/damage_store.py", "--flips", 30, "--others", 30, "--seed", 3, "--json", tmp_path / "damage.json"
    )
    shown = capsys.readouterr().out
    assert "60 damages, seed 3: 0 failures" in shown
    rows = json.loads((tmp_path / "damage.json").read_text())
    kinds = {"root document", "array metadata", "shard, chunks", "small arrays", "volumes", "statistics", "trial table"}
    assert {row["kind"] for row in rows} >= kinds
    assert sum(row["silent"] for row in rows) == 0


def test_damage_store_fails_where_a_reader_takes_what_is_damaged_for_zeros(monkeypatch):
    def read_forgivingly(store, name, row=0):
        try:
            return read_chunk(store, name, row)
        except DamageFound:
            metadata = store.members[name]
            return np.zeros(metadata.chunk_shape, metadata.dtype.replace("string", "U32"))

    monkeypatch.setattr("nsd_zarr.read.lazy.read_chunk", read_forgivingly)
    with pytest.raises(SystemExit, match=r"silent \[\('arrays'"):
        run_script("tests/stress/damage_store.py", "--flips", 30, "--others", 0, "--seed", 3)


@pytest.mark.slow
def test_kill_conversions_ends_each_store_as_the_undisturbed_one(tmp_path):
    # A process of its own: it forks before anything has threads.
    words = ["--kills", "8", "--schedulers", "synchronous,threads", "--folder", str(tmp_path)]
    command = [sys.executable, str(KILL_CONVERSIONS), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert "| **all** | **4** | **4** |" in done.stdout
    assert "| stores that differ | 0 | 0 |" in done.stdout


@pytest.mark.slow
def test_start_together_ends_each_round_with_the_undisturbed_store():
    # Seed 6 has, in its first four rounds, new and resumed stores by two and by five processes.
    command = [sys.executable, "-m", "stress.start_together", "--rounds", "4", "--seed", "6"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"| {kind}, {count} at once |" in done.stdout for kind in ("new", "resumed") for count in (2, 5))
    assert "4 rounds, seed 6: 0 broken" in done.stdout


@pytest.mark.parametrize("codes", [[4, 4], [0, 1], [0, 70, 4], [0, -9], [0, None]])
def test_start_together_takes_no_other_exit_codes_than_success_and_in_use(codes, tmp_path):
    assert find_problem(codes, tmp_path, tmp_path, {}) == f"exit codes {codes}"
