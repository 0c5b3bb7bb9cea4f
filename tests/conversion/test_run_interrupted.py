"""convert, stopped by an exception and run again: it goes on, writes only what is missing, and gives the same bytes."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from builders import count_renames

import nsd_zarr
from nsd_zarr.conversion import unit
from nsd_zarr.errors import DoesNotFit, SourceError, StoreError
from nsd_zarr.store import shard as shard_module
from nsd_zarr.store.root import open_store

ALL = [1, 2, 3]


@pytest.fixture
def undisturbed(prepared_store, digest_tree):
    """The bytes of a store whose conversion nothing disturbed."""
    return digest_tree(prepared_store)


@pytest.fixture
def go_on(source, make_recorder, digest_tree, undisturbed):
    """Run the command again; the finished store must be the undisturbed one. Returns the sessions that were done."""

    def resume(store, **options):
        recorder = make_recorder()
        nsd_zarr.convert(source, store, on_event=recorder, **{"trials_per_shard": 2, "workers": 1} | options)
        assert digest_tree(store) == undisturbed
        return recorder.sessions

    return resume


def _shard(store, number):
    return store / f"betas/c/{number}/0/0/0"


# -- interruptions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_trial", [1, 2, 6, 7, 9, 13, 18])
def test_conversion_interrupted_at_a_trial_goes_on_at_its_session(
    at_trial, source, interrupt, go_on, recorded_sessions
):
    store = interrupt(source, at_trial=at_trial)
    recorded = recorded_sessions(store)
    assert recorded == ALL[: (at_trial - 1) // 6]
    assert not list(store.rglob("*.partial"))
    assert go_on(store) == ALL[len(recorded) :]


@pytest.mark.parametrize("options", [{"workers": 2}, {"workers": 4}, {"scheduler": "synchronous"}], ids=str)
def test_conversion_by_several_threads_interrupted_goes_on(options, source, interrupt, go_on, recorded_sessions):
    store = interrupt(source, at_trial=11, **options)
    recorded = recorded_sessions(store)
    assert go_on(store, **options) == sorted(set(ALL) - set(recorded))


def test_conversion_interrupted_five_times_never_loses_a_session(source, interrupt, go_on, recorded_sessions):
    recorded = []
    for at_trial in (4, 7, 3, 9, 1):
        store = interrupt(source, at_trial=at_trial)
        assert set(recorded) <= set(recorded_sessions(store))
        recorded = recorded_sessions(store)
    assert recorded == [1, 2]
    assert go_on(store) == [3]


def test_conversion_interrupted_releases_its_lock_and_its_threads(source, interrupt, go_on):
    import threading

    before = threading.active_count()
    store = interrupt(source, workers=3)
    assert threading.active_count() == before
    assert go_on(store) != []


@pytest.mark.parametrize("number", [1, 4, 8])
def test_write_that_fails_midway_is_reported_and_gone_on_from(
    number, source, tmp_path, monkeypatch, go_on, undisturbed, recorded_sessions
):
    calls, encode = [], shard_module.encode_shard_index

    def fail(lengths, *slots):
        calls.append(1)
        if len(calls) == number:
            raise OSError(28, "No space left on device")
        return encode(lengths, *slots)

    store = tmp_path / "subj01.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(shard_module, "encode_shard_index", fail)
        with pytest.raises(DoesNotFit, match=r"session 0\d: cannot write: the disk is full") as caught:
            nsd_zarr.convert(source, store, trials_per_shard=2, workers=1)
    assert caught.value.session == (number - 1) // 3 + 1
    assert not list(store.rglob("*.partial"))
    recorded = recorded_sessions(store)
    assert recorded == ALL[: (number - 1) // 3]
    assert go_on(store) == ALL[len(recorded) :]


def test_conversion_killed_before_each_rename_goes_on(source, tmp_path, go_on, stop_at_rename, undisturbed):
    # Every file of a store is there by one rename: this stops before each of them in turn.
    seen = []
    # run, root, betas; shards; statistics; records; run; betas; small arrays; metadata of statistics, rails; copy, root
    renames = 2 + 1 + 9 + 6 + 3 + 1 + 1 + 8 + 2 + 2 + 1 + 1
    for number in range(1, renames + 1):
        store = tmp_path / f"killed{number}.zarr"
        with stop_at_rename(number):
            nsd_zarr.convert(source, store, trials_per_shard=2, workers=1)
        seen.append(len(go_on(store)))
    assert seen == sorted(seen, reverse=True)
    assert (seen[0], seen[-1]) == (3, 0)
    # One more would not have stopped it.
    with count_renames() as targets:
        nsd_zarr.convert(source, tmp_path / "counted.zarr", trials_per_shard=2, workers=1)
    assert len(targets) == renames


# -- what is trusted when going on -------------------------------------------------------------------------------


def _lose(path):
    path.unlink()


def _cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def _lengthen(path):
    path.write_bytes(path.read_bytes() + b"x")


def _blank(path):
    path.write_bytes(b"")


def _other_json(path):
    path.write_text("[1, 2]")


def _change_a_digit(path):
    record = json.loads(path.read_bytes())
    digest = record["shards"][1]["trial_digests"][0]
    path.write_text(path.read_text().replace(digest, digest[:-1] + ("0" if digest[-1] != "0" else "1")))


def _forget_a_shard(path):
    record = json.loads(path.read_bytes())
    record["shards"].pop()
    path.write_text(json.dumps(record))


@pytest.mark.parametrize("damage", [_lose, _cut, _lengthen, _blank])
def test_shard_damaged_in_size_has_its_session_written_again(damage, source, interrupt, go_on):
    store = interrupt(source, at_trial=15)
    damage(_shard(store, 1))
    assert go_on(store) == [1, 3]


@pytest.mark.parametrize("damage", [_lose, _cut, _blank, _other_json, _change_a_digit, _forget_a_shard])
def test_record_that_is_damaged_has_its_session_written_again(damage, source, interrupt, go_on):
    store = interrupt(source, at_trial=15)
    damage(store.with_name(store.name + ".run") / "session-02.json")
    assert go_on(store) == [2, 3]


def test_record_that_no_longer_holds_vouches_for_no_later_shard(source, interrupt, go_on, recorded_sessions):
    store = interrupt(source, at_trial=15)
    kept = _shard(store, 1).read_bytes()
    _lose(_shard(store, 1))
    interrupt(source, at_trial=1)
    assert recorded_sessions(store) == [2]
    _shard(store, 1).write_bytes(kept[::-1])
    assert go_on(store) == [1, 3]


def test_record_of_other_settings_is_not_believed(source, interrupt, go_on):
    store, other = interrupt(source, at_trial=15), interrupt(source, "other.zarr", at_trial=15, codec="zstd")
    record = "session-01.json"
    shutil.copy(other.with_name("other.zarr.run") / record, store.with_name("subj01.zarr.run") / record)
    assert go_on(store) == [1, 3]


def test_shards_without_a_record_are_written_again(source, interrupt, go_on):
    store = interrupt(source, at_trial=5, workers=1)
    assert _shard(store, 1).exists()
    _shard(store, 1).write_bytes(b"half a shard")
    assert go_on(store) == ALL


def test_leftovers_of_killed_writers_are_removed(source, interrupt, go_on):
    store = interrupt(source, at_trial=9)
    run_folder = store.with_name(store.name + ".run")
    for leftover in (store / "zarr.json.1.partial", _shard(store, 0).parent / "0.2.partial", run_folder / "x.partial"):
        leftover.write_bytes(b"left over")
    go_on(store)
    assert not [*store.rglob("*.partial"), *run_folder.rglob("*.partial")]


def test_run_folder_that_is_gone_has_every_session_written_again(source, interrupt, go_on):
    store = interrupt(source, at_trial=15)
    shutil.rmtree(store.with_name(store.name + ".run"))
    assert go_on(store) == ALL


@pytest.mark.parametrize("leave", ["nothing", "a partial file"])
def test_start_killed_before_the_root_document_begins_anew(leave, source, tmp_path, go_on):
    store = tmp_path / "subj01.zarr"
    store.mkdir()
    if leave == "a partial file":
        (store / "zarr.json.0.partial").write_bytes(b"{")
    assert go_on(store) == ALL


def test_start_killed_between_skeleton_files_goes_on(source, interrupt, go_on):
    store = interrupt(source, at_trial=1)
    shutil.rmtree(store / "betas")
    assert go_on(store) == ALL


def test_record_that_vanishes_during_the_run_is_reported_and_gone_on_from(source, tmp_path, go_on, undisturbed):
    store = tmp_path / "subj01.zarr"

    def lose_first(event):
        record = tmp_path / "subj01.zarr.run" / "session-01.json"
        if getattr(event, "session", None) == 3:
            record.unlink()

    with pytest.raises(StoreError, match="a record of a finished session is gone"):
        nsd_zarr.convert(source, store, trials_per_shard=2, workers=1, on_event=lose_first)
    assert not open_store(store, allow_unfinished=True).is_complete
    assert go_on(store) == [1]


def test_source_that_changes_while_it_is_read_is_refused_and_may_be_replaced(
    source, tmp_path, make_session, make_recorder, go_on, undisturbed
):
    path = source / "betas_session02.hdf5"

    def touch():
        os.utime(path, ns=(5, 5))

    with pytest.raises(SourceError, match="session 02: the file changed while it was read") as caught:
        nsd_zarr.convert(
            source, tmp_path / "subj01.zarr", trials_per_shard=2, workers=1, on_event=make_recorder(8, touch)
        )
    assert caught.value.path == path
    assert go_on(tmp_path / "subj01.zarr") == [2, 3]


def test_memory_that_runs_out_midway_does_not_fit(source, tmp_path, monkeypatch, go_on):
    def refuse(shape, dtype):
        raise MemoryError("Unable to allocate 1.05 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(unit.np, "empty", refuse)
        with pytest.raises(DoesNotFit, match="memory"):
            nsd_zarr.convert(source, tmp_path / "subj01.zarr", trials_per_shard=2)
    assert go_on(tmp_path / "subj01.zarr") == ALL
