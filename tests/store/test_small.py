"""Arrays beside betas: whole, or a session at a time; or an error that names the file."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import numpy as np
import pytest
import zarr

from nsd_zarr.errors import DamageFound
from nsd_zarr.places.local import LocalPlace
from nsd_zarr.store.root import open_store
from nsd_zarr.store.small import find_chunk_rows, iterate_chunks, read_array, read_chunk


@pytest.fixture
def damaged(experiment, tmp_path):
    return experiment.store.copy_to(tmp_path / "subj01.zarr").path


def test_every_array_beside_betas_is_read_as_it_was_written(experiment):
    store = open_store(experiment.path)
    for name, values in experiment.arrays.items():
        found = read_array(store, name)
        assert found.dtype == values.dtype
        assert np.array_equal(found, values, equal_nan=values.dtype.kind == "f")


def test_every_array_reads_the_same_through_zarr_python(experiment):
    group, store = zarr.open_group(experiment.path, mode="r"), open_store(experiment.path)
    for name in set(store.members) - {"betas"}:
        found, theirs = read_array(store, name), group[name][...]
        assert found.tolist() == theirs.tolist() or np.array_equal(found, theirs, equal_nan=True)


def test_one_sessions_chunk_is_read_alone(experiment, monkeypatch):
    store = open_store(experiment.path)
    assert [find_chunk_rows(store.members[name]) for name in ("session_mean", "valid", "ncsnr")] == [1, 1, 5]
    for row in (0, 2):
        chunk = read_chunk(store, "session_mean", row)
        assert np.array_equal(chunk, experiment.arrays["session_mean"][row : row + 1])
    assert [row for row, _ in iterate_chunks(store, "session_mean")] == [0, 1, 2]


@pytest.mark.parametrize("name", ["session_mean/c/1/0/0/0", "valid/c/0/0/0/0", "roi_nsdgeneral/c/0/0/0"])
@pytest.mark.parametrize("harm", ["flip", "cut", "lose", "empty"])
@pytest.mark.parametrize("manifest", [True, False], ids=["manifest", "no manifest"])
def test_damage_is_reported_with_its_file(damaged, name, harm, manifest):
    store = open_store(damaged)
    if not manifest:
        store.manifest.clear()
    path = damaged / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes({"flip": data, "cut": data[:-3], "lose": b"", "empty": b""}[harm])
    if harm == "lose":
        path.unlink()
    with pytest.raises(DamageFound, match=f"array {name.split('/')[0]} is lost or damaged") as caught:
        read_array(store, name.split("/")[0])
    assert caught.value.path == path


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT])
def test_one_error_that_passes_is_survived(number, experiment, monkeypatch):
    store, read, fails = open_store(experiment.path), LocalPlace.read, [True]

    def read_second_time(place, key, max_bytes):
        if fails and fails.pop():
            raise OSError(number, os.strerror(number))
        return read(place, key, max_bytes)

    waited = []
    monkeypatch.setattr("nsd_zarr.retry.time.sleep", waited.append)
    monkeypatch.setattr(LocalPlace, "read", read_second_time)
    assert np.array_equal(read_array(store, "valid"), experiment.arrays["valid"])
    fails.append(True)
    assert open_store(experiment.path).attributes == store.attributes
    assert set(waited) == {0.1}


def test_array_cut_along_other_axes_is_refused(experiment):
    store = open_store(experiment.path)
    rows, _, *rest = store.members["ncsnr"].chunk_shape
    store.members["ncsnr"] = replace(store.members["ncsnr"], chunk_shape=(rows, 2, *rest))
    with pytest.raises(ValueError, match="cut more than the first axis"):
        find_chunk_rows(store.members["ncsnr"])
