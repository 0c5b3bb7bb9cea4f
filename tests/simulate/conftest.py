"""Small synthetic roots for the tests of simulate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nsd_zarr.simulate import SimulatedRoot, Simulation, simulate_root

MakeRoot = Callable[..., SimulatedRoot]


@pytest.fixture
def make_root(tmp_path: Path) -> MakeRoot:
    """Write a root of small, pairwise different primes; every odd root is one keyword."""

    def make(name: str = "root", sessions: int = 2, shape=(13, 5, 11, 7), **recipe) -> SimulatedRoot:
        return simulate_root(tmp_path / name, Simulation(sessions=sessions, shape=shape, **recipe))

    return make
