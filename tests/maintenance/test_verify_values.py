"""verify against sources, and where there is no finished store to prove."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest

import nsd_zarr
from nsd_zarr.errors import DoesNotFit, SourceError

SHARD = "betas/c/4/0/0/0"  # trials 8 and 9: trials 2 and 3 of session 2


@pytest.fixture
def store(copied_store):
    """Three sessions of six trials in nine shards of two."""
    return copied_store


def _places(report):
    return {(damage.path, damage.session, damage.trials) for damage in report.damages}


def test_source_whose_value_changed_differs_in_that_trial(store, source):
    with h5py.File(source / "betas_session03.hdf5", "r+") as file:
        file["betas"][5, 4, 3, 2] += 1
    report = nsd_zarr.verify(store, source)
    assert _places(report) == {("betas/c/8/0/0/0", 3, (17, 17))}
    assert report.damages[0].problem == "its values differ from betas_session03.hdf5"
    assert nsd_zarr.verify(store).is_whole


def test_source_of_sessions_that_are_swapped_differs_everywhere(store, source):
    first, second, spare = (source / f"{name}.hdf5" for name in ("betas_session01", "betas_session02", "spare"))
    first.rename(spare)
    second.rename(first)
    spare.rename(second)
    assert {place[2][0] for place in _places(nsd_zarr.verify(store, source))} == set(range(12))


def test_source_of_another_shape_is_refused(store, source, make_session):
    make_session(2, volume=(5, 11, 7))
    with pytest.raises(SourceError, match=r"session 02: int16 of shape \(6, 5, 11, 7\), expected int16 of shape"):
        nsd_zarr.verify(store, source)


def test_source_without_one_of_the_sessions_is_refused(store, source, run_cli):
    (source / "betas_session02.hdf5").unlink()
    outcome = run_cli("verify", store, "--source", source)
    assert outcome.code == 3
    assert "session 02 is missing" in outcome.paragraph


def test_source_with_more_sessions_than_the_store_is_no_difference(store, source, make_session):
    make_session(4)
    assert nsd_zarr.verify(store, source).is_whole


def test_source_compared_in_several_steps_equals_too(store, source):
    # The least that suffices for one shard of two trials and one thread.
    with pytest.raises(DoesNotFit) as caught:
        nsd_zarr.verify(store, source, workers=1, memory=1)
    assert nsd_zarr.verify(store, source, workers=1, memory=caught.value.expected).is_whole


def test_comparison_with_sources_reads_neither_by_our_own_code(store, source, monkeypatch):
    """Each value as h5py and zarr-python have it: a mistake in our reading of both cannot hide itself."""
    from nsd_zarr.maintenance import verify_shards
    from nsd_zarr.source.hdf5 import reader
    from nsd_zarr.store.reader import TrialReader

    with h5py.File(source / "betas_session03.hdf5", "r+") as file:
        file["betas"][5, 4, 3, 2] += 1
    monkeypatch.setattr(verify_shards, "decode_chunk", lambda chunk, out: out.fill(7))
    monkeypatch.setattr(verify_shards, "make_digest", lambda values: "")
    monkeypatch.setattr("nsd_zarr.maintenance.verify_shards.check_shard", lambda *_: [])
    monkeypatch.setattr(reader, "gather_trials", lambda *_: pytest.fail("read by offset"))
    monkeypatch.setattr(TrialReader, "read_into", lambda *_: pytest.fail("read by our reader"))
    assert _places(nsd_zarr.verify(store, source)) == {("betas/c/8/0/0/0", 3, (17, 17))}


def test_chunk_that_zarr_python_cannot_read_is_reported(store, source, monkeypatch):
    path = store / SHARD
    data = bytearray(path.read_bytes())
    data[30] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr("nsd_zarr.maintenance.verify_shards.check_shard", lambda *_: [])
    (damage,) = nsd_zarr.verify(store, source).damages
    assert (damage.path, damage.session, damage.trials) == (SHARD, 2, (8, 8))
    assert damage.problem.startswith("zarr-python cannot read it: ")


# -- no finished store -------------------------------------------------------------------------------------------


def test_store_that_is_not_there_is_refused(tmp_path, run_cli):
    outcome = run_cli("verify", tmp_path / "nowhere.zarr")
    assert (outcome.code, outcome.paragraph.partition(".")[0]) == (4, "no such store")


def test_store_that_is_unfinished_is_refused(source, interrupt, run_cli):
    outcome = run_cli("verify", interrupt(source))
    assert outcome.code == 4
    assert "has not finished" in outcome.paragraph


def test_store_of_someone_else_is_refused(tmp_path, run_cli):
    import zarr

    zarr.save_array(tmp_path / "other.zarr", np.arange(7))
    assert run_cli("verify", tmp_path / "other.zarr").code == 4


def test_trial_that_the_disk_cannot_read_is_reported_as_damage(store, source, monkeypatch):
    def fail(descriptor, buffers, offset, *flags, _preadv=os.preadv):
        is_index = offset + sum(map(len, buffers)) == os.fstat(descriptor).st_size
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(SHARD) and offset and not is_index:
            raise OSError(5, "Input/output error")
        return _preadv(descriptor, buffers, offset, *flags)

    monkeypatch.setattr(os, "preadv", fail)
    for report in (nsd_zarr.verify(store), nsd_zarr.verify(store, source)):
        assert _places(report) == {(SHARD, 2, (9, 9))}
        assert "Input/output error" in report.damages[0].problem


def test_store_that_may_not_be_read_is_reported(store, run_child, without_privileges):
    (store / SHARD).chmod(0)
    outcome = run_child("verify", store, prefix=without_privileges)
    assert outcome.code == 1
    assert "session 02, trials 8 to 9, betas/c/4/0/0/0: cannot be read: Permission denied" in outcome.out
    (store / "zarr.json").chmod(0)
    assert run_child("verify", store, prefix=without_privileges).code == 4
    store.chmod(0)
    outcome = run_child("verify", store, prefix=without_privileges)
    store.chmod(0o755)
    assert (outcome.code, outcome.paragraph.partition(". ")[0]) == (
        4,
        "cannot list the folder: Permission denied",
    )
