"""The scripts of pipelines/slurm on a real Slurm of two nodes: `pytest -m slurm tests/servers/test_slurm.py`.

Needs root and Debian's packages (tests/servers/slurm.sh names them). Takes minutes: Slurm itself waits two before it
starts a job again that it sent back to the queue.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from builders import REPOSITORY, digest_tree

import nsd_zarr
from nsd_zarr.simulate import Simulation, simulate_root

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
START = REPOSITORY / "tests/servers/slurm.sh"
PATIENCE_SECONDS = 420


@pytest.fixture(scope="module")
def site(tmp_path_factory, request) -> Iterator[Path]:
    """A folder with eight sessions and the store that one run makes of them, beside a Slurm that runs."""
    if "slurm" not in request.config.getoption("markexpr"):
        pytest.skip("takes minutes: asked for by -m slurm")
    if os.geteuid() != 0 or not all(map(shutil.which, ("slurmctld", "slurmd", "munged", "sbatch"))):
        pytest.skip("needs root, and Slurm and munge of Debian")
    top = tmp_path_factory.mktemp("slurm")
    simulate_root(top / "nsd", Simulation(8, (60, 10, 12, 11), rois=("nsdgeneral",), hemispheres=False))
    nsd_zarr.convert(top / "nsd", top / "plain.zarr", trials_per_shard=20, workers=1)
    (top / "bin").mkdir()
    (top / "bin/nsd-zarr").write_text(f'#!/bin/sh\nexec {sys.executable} -m nsd_zarr "$@"\n')
    (top / "bin/nsd-zarr").chmod(0o755)
    folder = top / "slurm"
    subprocess.run([START, "start", folder], check=True, timeout=90, stdout=subprocess.DEVNULL)
    yield top
    subprocess.run([START, "stop", folder], check=True, timeout=30)


@pytest.fixture
def run(site: Path) -> Callable[..., str]:
    """Run a command as on a login node; what it printed."""
    paths = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    path = os.pathsep.join([str(site / "bin"), os.environ["PATH"]])
    env = os.environ | {"SLURM_CONF": str(site / "slurm/slurm.conf"), "PATH": path, "PYTHONPATH": paths}

    def run_command(*words: object, **more: str) -> str:
        words = tuple(map(str, words))
        done = subprocess.run(words, cwd=site, env=env | more, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    return run_command


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_array_of_eight_parts_of_which_two_are_preempted_makes_the_store_of_one_run(site, run):
    words = (REPOSITORY / "pipelines/slurm/array.sh", "nsd", "array.zarr", "--trials-per-shard", 20)
    job, _ = run(*words, PARTS="8", AT_ONCE="8").split()
    wait_until(lambda: run("squeue", "--noheader", "--states=running", "--format=%i").count(job + "_") == 2)
    run("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=urgent.log", "--wrap", "sleep 3")
    wait_until(lambda: run("squeue", "--noheader") == "")
    assert digest_tree(site / "array.zarr") == digest_tree(site / "plain.zarr")
    logs = [path.read_text() for path in site.glob(f"nsd-zarr-{job}-*.log")]
    assert sum("DUE TO PREEMPTION" in log for log in logs) == 2
    assert sum("done in" in log for log in logs) == 8


def test_dask_cluster_of_slurm_jobs_makes_the_store_of_one_run(site, run):
    pytest.importorskip("dask_jobqueue")
    words = [sys.executable, REPOSITORY / "pipelines/slurm/dask_cluster.py", "nsd", "dask.zarr", "--jobs", 2]
    words += ["--memory", "2GiB", "--interface", "lo", "--trials-per-shard", 20]
    words += ["--prologue", f"export SLURM_CONF={site}/slurm/slurm.conf"]
    run(*words)
    assert digest_tree(site / "dask.zarr") == digest_tree(site / "plain.zarr")
