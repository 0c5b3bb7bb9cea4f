"""The lock: one run a store, whoever holds it named, and nobody locked out by the dead."""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta

import pytest

import nsd_zarr
from nsd_zarr.conversion import lock
from nsd_zarr.conversion.context import RunEnded
from nsd_zarr.conversion.lock import check_free, hold_lock
from nsd_zarr.errors import StoreError

HOLD = """
import sys
from pathlib import Path
from nsd_zarr.conversion.lock import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path):
    return tmp_path / "subj01.zarr"


@pytest.fixture
def lock_path(store):
    return store.with_name("subj01.zarr.run") / "lock"


@pytest.fixture
def holder(store):
    """Another process that holds the lock of the store until its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def quick(monkeypatch):
    """Beats and patience short enough to wait for."""
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.2)


def _write_foreign_lock(lock_path, beat="000000000000"):
    lock_path.parent.mkdir(exist_ok=True)
    holder = {"host": "elsewhere", "pid": 4321, "started": "2026-01-02T03:04:05+00:00", "beat": beat}
    with lock_path.open("r+" if lock_path.exists() else "w") as file:  # In place, as the package: never empty between.
        file.write(json.dumps(holder))


# -- one host ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["plan", "convert"])
def test_store_in_use_by_another_process_is_refused_with_its_name(command, source, store, holder, check_refused):
    paragraph = check_refused(4, command, source, store)
    match = re.search(r"in use by a live run: process (\d+) on (\S+), started (\S+)\. Wait for it", paragraph)
    assert (int(match[1]), match[2]) == (holder.pid, socket.gethostname())
    assert abs(datetime.now().astimezone() - datetime.fromisoformat(match[3])) < timedelta(minutes=1)


def test_store_in_use_is_free_once_its_process_ends(source, store, holder, run_cli):
    holder.communicate()
    assert run_cli("convert", source, store).code == 0


def test_lock_of_a_killed_process_is_taken_over_at_once(source, store, holder, run_cli, lock_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert json.loads(lock_path.read_bytes())["pid"] == holder.pid
    started = time.monotonic()
    assert run_cli("convert", source, store).code == 0
    assert time.monotonic() - started < lock.PATIENCE_SECONDS


def test_second_run_in_one_process_is_refused(source, tmp_path, make_recorder):
    refused = []

    def run_again():
        with pytest.raises(StoreError) as caught:
            nsd_zarr.convert(source, tmp_path / "subj01.zarr", trials_per_shard=2)
        refused.append(caught.value.found["pid"])

    nsd_zarr.convert(source, tmp_path / "subj01.zarr", trials_per_shard=2, on_event=make_recorder(7, run_again))
    assert refused == [os.getpid()]


def test_processes_that_begin_together_make_one_store(source, store, start_cli, convert, digest_tree):
    words = ("convert", source, store, "--trials-per-shard", 1)
    processes = [start_cli(*words) for _ in range(3)]
    codes = [(process.communicate(timeout=60), process.returncode)[1] for process in processes]
    # Who comes when it is finished has nothing to do.
    assert set(codes) <= {0, 4}
    assert 0 in codes
    assert digest_tree(store) == digest_tree(convert(source, "alone.zarr", trials_per_shard=1))


def test_runs_of_two_stores_do_not_hinder_each_other(source, tmp_path, make_recorder, convert):
    convert(source, on_event=make_recorder(7, lambda: convert(source, "other.zarr")))
    assert nsd_zarr.verify(tmp_path / "other.zarr").is_whole


def test_lock_is_given_back_when_a_run_ends_badly(source, interrupt, lock_path):
    interrupt(source)
    assert lock_path.read_bytes() == b""
    check_free(lock_path.parent.with_name("subj01.zarr"))


def test_looking_whether_a_store_is_free_writes_nothing(store, tmp_path):
    check_free(store)
    assert list(tmp_path.iterdir()) == []


def test_looking_turns_no_run_away(store, lock_path):
    lock_path.parent.mkdir()
    with open(lock_path, "w") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        release = threading.Timer(lock.LOOK_SECONDS / 4, looked_at.close)
        release.start()
        with hold_lock(store):
            release.join()


def test_holder_is_named_from_the_first_moment(store, lock_path):
    with hold_lock(store):
        assert json.loads(lock_path.read_bytes())["pid"] == os.getpid()
        with pytest.raises(StoreError, match=f"process {os.getpid()} on "):
            check_free(store)


def test_lock_that_cannot_be_written_is_reported(store, monkeypatch):
    def fail(*words):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        with pytest.raises(nsd_zarr.errors.DoesNotFit, match="the disk is full"), hold_lock(store):
            pass
    with hold_lock(store):
        pass


def test_beat_that_fails_once_ends_no_run(store, monkeypatch, quick, lock_path):
    pwrite, failed = os.pwrite, []

    def fail_once(*words):
        if len(failed) == 1:
            failed.append(2)
            raise OSError(122, "Disk quota exceeded")
        failed.append(1)
        return pwrite(*words)

    monkeypatch.setattr(os, "pwrite", fail_once)
    with hold_lock(store):
        _wait_until(lambda: json.loads(lock_path.read_bytes())["beat"] >= "000000000003")


def _wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# -- another host ------------------------------------------------------------------------------------------------


def test_lock_of_another_host_that_does_not_beat_is_taken_over(source, store, lock_path, run_cli, quick):
    _write_foreign_lock(lock_path)
    started = time.monotonic()
    assert run_cli("convert", source, store).code == 0
    assert time.monotonic() - started >= lock.PATIENCE_SECONDS


def test_lock_of_another_host_that_beats_is_respected(source, store, lock_path, run_cli, quick):
    _write_foreign_lock(lock_path)
    stop = threading.Event()

    def beat():
        count = 0
        while not stop.wait(0.02):
            count += 1
            _write_foreign_lock(lock_path, beat=f"{count:012d}")

    other = threading.Thread(target=beat)
    other.start()
    try:
        outcome = run_cli("convert", source, store)
    finally:
        stop.set()
        other.join()
    assert outcome.code == 4
    assert "process 4321 on elsewhere, started 2026-01-02T03:04:05+00:00" in outcome.paragraph
    assert not store.exists()


def test_held_lock_beats(store, lock_path, quick):
    with hold_lock(store):
        first = json.loads(lock_path.read_bytes())["beat"]
        _wait_until(lambda: json.loads(lock_path.read_bytes())["beat"] != first)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe"])
def test_lock_file_that_says_nothing_hinders_nobody(content, store, lock_path):
    lock_path.parent.mkdir()
    lock_path.write_bytes(content)
    with hold_lock(store):
        pass


# -- those who work for a run --------------------------------------------------------------------------------------


@pytest.fixture
def often(monkeypatch):
    """Look at the lock each time that one asks."""
    monkeypatch.setattr(lock, "LOOK_AGAIN_SECONDS", 0)


@pytest.mark.usefixtures("often", "quick")
def test_run_has_ended_for_its_workers_once_it_gives_its_lock_back(store, lock_path):
    with hold_lock(store):
        ended = pickle.loads(pickle.dumps(RunEnded.of_present_run(store)))
        deadline = time.monotonic() + 0.1
        while time.monotonic() < deadline:  # through several beats
            assert not ended.is_set()
    assert ended.is_set()


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("end", [_write_foreign_lock, lambda path: path.unlink()], ids=["taken by another", "removed"])
def test_run_has_ended_for_its_workers_once_its_lock_is_anothers(end, store, lock_path):
    with hold_lock(store):
        ended = RunEnded.of_present_run(store)
        end(lock_path)
        assert ended.is_set()
        lock_path.touch()


@pytest.mark.usefixtures("often")
def test_lock_that_cannot_be_read_for_a_moment_ends_nothing(store, monkeypatch):
    with hold_lock(store):
        ended = RunEnded.of_present_run(store)
        with monkeypatch.context() as patch:
            patch.setattr(lock.Path, "read_bytes", _fail_to_read)
            assert not ended.is_set()
        assert not ended.is_set()


def _fail_to_read(path):
    raise OSError(116, "Stale file handle")


def test_lock_is_looked_at_once_a_second_however_often_one_asks(store):
    with hold_lock(store):
        ended = RunEnded.of_present_run(store)
        assert not ended.is_set()
    assert not ended.is_set()
    ended._next_look = 0
    assert ended.is_set()
