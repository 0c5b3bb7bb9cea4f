"""Small stores, made from session files in the dataset's own layout, for the tests of everything that reads."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pytest

import nsd_zarr

SESSIONS = (2, 3, 5)
TRIALS_PER_SESSION = 14
TRIALS_PER_SHARD = 7


@dataclass(frozen=True)
class MadeStore:
    """A store, and what its sources hold: the oracle."""

    path: Path
    """The store's folder."""
    stored: np.ndarray = field(repr=False)
    """Values of all trials as the session files hold them."""
    sessions: tuple[int, ...]
    """Session numbers."""
    trials_per_shard: int
    """Trials in a shard."""

    @property
    def percent(self) -> np.ndarray:
        """What readers deliver."""
        return self.stored if self.stored.dtype.kind == "f" else np.float32(self.stored) / np.float32(300)

    @property
    def trials(self) -> int:
        """Trials in the store."""
        return len(self.stored)

    def locate(self, trial: int) -> tuple[int, int]:
        """Session number and trial in session of *trial*."""
        position, inside = divmod(trial, self.trials // len(self.sessions))
        return self.sessions[position], inside

    def shard_path(self, trial: int) -> Path:
        """The file in which *trial* lies."""
        place = [trial // self.trials_per_shard] + [0] * (self.stored.ndim - 1)
        return self.path.joinpath("betas", "c", *map(str, place))

    def copy_to(self, folder: Path) -> MadeStore:
        """A copy of the store, to be damaged."""
        shutil.copytree(self.path, folder)
        return MadeStore(folder, self.stored, self.sessions, self.trials_per_shard)


def make_values(trials: int, shape: Sequence[int], dtype: str = "int16") -> np.ndarray:
    """Values that tell their place: no two are equal, none is zero."""
    places = np.arange(trials * math.prod(shape)).reshape(trials, *shape)
    if np.dtype(dtype).kind == "f":
        return (places * 0.25 - 431.125).astype(dtype)
    return (places * 9 - 31_000).astype(dtype)


MakeStore = Callable[..., MadeStore]


@pytest.fixture(scope="session")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> MakeStore:
    """Write session files (chunk: all trials of one voxel, earliest format), convert them; the odd store is a keyword.

    The default has sizes that no two axes share: 3 sessions of 14 trials, 7 to a shard, of 5 x 11 x 3 voxels.
    """

    def make(values=None, *, sessions=SESSIONS, trials_per_shard=TRIALS_PER_SHARD, **options) -> MadeStore:
        if values is None:
            values = make_values(len(sessions) * TRIALS_PER_SESSION, (5, 11, 3))
        folder = tmp_path_factory.mktemp("store")
        (folder / "source").mkdir()
        for number, betas in zip(sessions, np.split(values, len(sessions)), strict=True):
            chunk = (len(betas), *(1 for _ in betas.shape[1:]))
            with h5py.File(folder / f"source/betas_session{number:02d}.hdf5", "w", libver="earliest") as file:
                file.create_dataset("betas", data=betas, chunks=chunk)
        options = {"sessions": list(sessions), "trials_per_shard": trials_per_shard, "workers": 1} | options
        nsd_zarr.convert(folder / "source", folder / "subj01.zarr", **options)
        return MadeStore(folder / "subj01.zarr", values, tuple(sessions), trials_per_shard)

    return make


@pytest.fixture(scope="session")
def volumes(make_store: MakeStore) -> MadeStore:
    """int16 volumes: what NSD delivers. Never to be changed: copy it."""
    return make_store()


@pytest.fixture(scope="session")
def surfaces(make_store: MakeStore) -> MadeStore:
    """int16 surfaces, (trial, vertex)."""
    return make_store(make_values(3 * TRIALS_PER_SESSION, (23,)))


@pytest.fixture(scope="session")
def floats(make_store: MakeStore) -> MadeStore:
    """float32 volumes with NaN and infinity: percent signal change already."""
    values = make_values(2 * TRIALS_PER_SESSION, (5, 3, 11), "float32")
    values.reshape(-1)[::13] = np.nan
    values.reshape(-1)[5:8] = np.inf, -np.inf, -0.0
    return make_store(values, sessions=(1, 2))


@pytest.fixture(scope="session")
def every_code(make_store: MakeStore) -> MadeStore:
    """A store in which each of the 65,536 int16 codes occurs."""
    values = (np.arange(263 * 5 * 17 * 3) % 65_536 - 32_768).astype("int16").reshape(263, 5, 17, 3)
    return make_store(values, sessions=(1,), trials_per_shard=263)
