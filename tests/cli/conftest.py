"""What tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsd_zarr.simulate import Simulation, simulate_root


@pytest.fixture(scope="session")
def simulated(tmp_path_factory) -> Path:
    """Folder of two synthetic sessions of 14 trials of 5 x 11 x 7 voxels. Never to be changed."""
    simulation = Simulation(sessions=2, shape=(14, 5, 11, 7))
    return simulate_root(tmp_path_factory.mktemp("nsd"), simulation).betas_folder
