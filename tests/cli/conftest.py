"""Command lines, in this process and as processes of their own."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nsd_zarr.cli.main import run
from nsd_zarr.simulate import Simulation, simulate_root

CLI = [sys.executable, "-W", "error", "-c", "from nsd_zarr.cli import main; main()"]


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """What stdout holds, which must be one JSON object and nothing else."""
        told = json.loads(self.out)
        assert isinstance(told, dict)
        return told


@pytest.fixture(scope="session")
def simulated(tmp_path_factory) -> Path:
    """Folder of two synthetic sessions of 14 trials of 5 x 11 x 7 voxels. Never to be changed."""
    simulation = Simulation(sessions=2, shape=(14, 5, 11, 7))
    return simulate_root(tmp_path_factory.mktemp("nsd"), simulation).betas_folder


@pytest.fixture
def run_cli(capsys) -> Callable[..., Outcome]:
    """Run one command line in this process."""

    def call(*words) -> Outcome:
        capsys.readouterr()
        code = run([str(word) for word in words])
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def run_child() -> Callable[..., Outcome]:
    """Run one command line as a process of its own."""

    def call(*words) -> Outcome:
        done = subprocess.run([*CLI, *map(str, words)], capture_output=True, text=True, timeout=60)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def run_on_terminal() -> Callable[..., Outcome]:
    """Run one command line whose stderr is a terminal of 100 columns."""

    def call(*words) -> Outcome:
        ours, theirs = pty.openpty()
        environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
        process = subprocess.Popen(
            [*CLI, *map(str, words)], stdout=subprocess.PIPE, stderr=theirs, text=True, env=environment
        )
        os.close(theirs)
        shown = bytearray()

        def read():
            while True:
                try:
                    data = os.read(ours, 4096)
                except OSError:  # the other end is closed
                    return
                shown.extend(data)

        reader = threading.Thread(target=read)
        reader.start()
        out, _ = process.communicate(timeout=60)
        reader.join()
        os.close(ours)
        return Outcome(process.returncode, out, shown.decode())

    return call
