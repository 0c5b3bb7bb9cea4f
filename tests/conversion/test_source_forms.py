"""A form of session file that the package does not know: whoever converts needs of it what source/protocol.py lists."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import zarr

import nsd_zarr
from nsd_zarr.errors import ResumeRefused, SourceError
from nsd_zarr.source import inspect
from nsd_zarr.source.identity import FileIdentity, read_identity

SHAPE = (6, 2, 3, 5)


class ArrayReader:
    by_offset = can_hand_rows = False
    how = "through NumPy"

    def __init__(self, values):
        self.values = values

    def read_into(self, trials, out, executor, check_stop=lambda: None, on_rows=None, on_read=None):
        check_stop()
        out[:] = self.values[trials.start : trials.stop].reshape(len(trials), -1)
        if on_read is not None:
            on_read(out.size)


@dataclass(frozen=True)
class ArraySession:
    """A session in a .npy file. The members of SourcePart, and nothing else."""

    session: int
    path: Path
    identity: FileIdentity
    shape: tuple[int, ...]
    dtype: str
    parts = ()
    by_offset = in_order = False
    affine = vertices = None
    how = "through NumPy"
    values_name = "array"
    chunk_bytes = 0

    @property
    def error_session(self):
        return self.session

    @property
    def trials(self):
        return self.shape[0]

    @property
    def voxels(self):
        return math.prod(self.shape[1:])

    @property
    def trial_bytes(self):
        return self.voxels * np.dtype(self.dtype).itemsize

    def describe_trial(self, trial):
        return f"row {trial} of the array"

    @contextmanager
    def open(self, cache=None, *, trust_offsets=True):
        yield ArrayReader(np.load(self.path, mmap_mode="r"))


def inspect_array(file, dataset):
    values = np.load(file.path, mmap_mode="r")
    return ArraySession(file.session, file.path, read_identity(file.path), values.shape, values.dtype.name)


@pytest.fixture
def arrays(tmp_path, monkeypatch):
    """Two sessions as .npy files, and their values."""
    monkeypatch.setattr(
        inspect, "FORMS", [(lambda path, content: path.suffix == ".npy", inspect_array), *inspect.FORMS]
    )
    values = np.arange(2 * math.prod(SHAPE), dtype="i2").reshape(2, *SHAPE)
    paths = [tmp_path / f"betas_session{session:02d}.npy" for session in (1, 2)]
    for path, each in zip(paths, values, strict=True):
        np.save(path, each)
    return paths, values


def test_a_new_form_is_planned_converted_verified_and_repaired_by_its_members_alone(arrays, tmp_path):
    paths, values = arrays
    store = tmp_path / "s.zarr"
    assert "2 read through NumPy" in str(nsd_zarr.plan(paths, store))
    nsd_zarr.convert(paths, store, trials_per_shard=2)
    group = zarr.open_group(store, mode="r")
    assert np.array_equal(group["betas"][...], values.reshape(-1, *SHAPE[1:]))
    percent = values / 300
    np.testing.assert_allclose(group["session_mean"][...], percent.mean(axis=1), rtol=1e-6)
    assert nsd_zarr.verify(store, paths).damages == ()
    (store / "betas/c/4/0/0/0").unlink()
    assert nsd_zarr.repair(store, paths).rewritten == ("betas/c/4/0/0/0",)
    assert np.array_equal(zarr.open_group(store, mode="r")["betas"][...], values.reshape(-1, *SHAPE[1:]))


def test_messages_name_trials_and_values_as_the_form_names_them(arrays, tmp_path):
    paths, values = arrays
    nsd_zarr.convert(paths, tmp_path / "s.zarr")
    changed = values[1].copy()
    changed[3] += 1
    np.save(paths[1], changed)
    with pytest.raises(ResumeRefused, match=r"session 02: .*row 3 of the array and 0 others"):
        nsd_zarr.convert(paths, tmp_path / "s.zarr")
    np.save(paths[1], changed[:5])
    with pytest.raises(SourceError, match=r"session 02: array: shape \(5, 2, 3, 5\), expected \(6, 2, 3, 5\)"):
        nsd_zarr.convert(paths, tmp_path / "t.zarr")


def test_forms_of_the_package_still_get_their_own_inspector(arrays, make_source, tmp_path):
    nsd_zarr.convert(make_source(), tmp_path / "s.zarr")
    assert nsd_zarr.plan(arrays[0], tmp_path / "t.zarr").sources[0].how == "through NumPy"
