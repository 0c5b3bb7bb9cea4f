"""What tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import builders
import pytest

from nsd_zarr.simulate import Simulation, simulate_root


@pytest.fixture(scope="session")
def simulated(tmp_path_factory) -> Path:
    """Folder of two synthetic sessions of 14 trials of 5 x 11 x 7 voxels. Never to be changed."""
    simulation = Simulation(sessions=2, shape=(14, 5, 11, 7), rois=("nsdgeneral", "streams"), hemispheres=False)
    return simulate_root(tmp_path_factory.mktemp("nsd"), simulation).betas_folder


@pytest.fixture(scope="session")
def plain(tmp_path_factory) -> Path:
    """The same sessions without the tables and volumes of a root, which take a process of its own 2 s of imports."""
    return builders.create_source(tmp_path_factory.mktemp("plain"), (1, 2), trials=14, shape=(5, 11, 7))
