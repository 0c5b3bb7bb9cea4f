"""convert as a process that is killed at any moment, and the same command again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from nsd_zarr.conversion.ledger import Ledger

# Each shard is one trial: many small files, so that a kill falls between any two.
OPTIONS = ("--trials-per-shard", 1, "--workers", 2)


@pytest.fixture
def source(make_source):
    return make_source(trials=24, volume=(2, 3, 5))


@pytest.fixture
def undisturbed(source, convert, digest_tree):
    return digest_tree(convert(source, "undisturbed.zarr", trials_per_shard=1))


def _wait_for(condition, process):
    deadline = time.monotonic() + 30
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def _count_shards(store):
    return sum(1 for _ in store.glob("betas/c/*/0/0/0"))


def _count_records(store):
    return sum(1 for _ in store.with_name(store.name + ".run").glob("session-*.json"))


MOMENTS = {
    "the lock is there": lambda store: store.with_name(store.name + ".run").exists(),
    "the root document is there": lambda store: (store / "zarr.json").exists(),
    "five shards are there": lambda store: _count_shards(store) >= 5,
    "the first record is there": lambda store: _count_records(store) >= 1,
    "forty shards are there": lambda store: _count_shards(store) >= 40,
    "all shards are there": lambda store: _count_shards(store) >= 72,
    "all records are there": lambda store: _count_records(store) >= 3,
    "the first coordinate is there": lambda store: (store / "session").exists(),
}


@pytest.mark.slow
def test_conversion_killed_eight_times_ends_as_an_undisturbed_one(
    source, tmp_path, start_cli, run_child, undisturbed, digest_tree
):
    store, killed, recorded = tmp_path / "subj01.zarr", 0, {}
    for condition in MOMENTS.values():
        process = start_cli("convert", source, store, *OPTIONS)
        _wait_for(lambda condition=condition: condition(store), process)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        for session, modified in recorded.items():
            # What was recorded is not written again by any later run.
            assert _modified(store, session) == modified
        recorded = {n: _modified(store, n) for n in (1, 2, 3) if Ledger(store).read_session(n) is not None}
        assert not _is_complete(store) or digest_tree(store) == undisturbed
    assert killed >= 6
    assert run_child("convert", source, store, *OPTIONS).code == 0
    assert digest_tree(store) == undisturbed
    assert not list(tmp_path.rglob("*.partial"))


def _modified(store, session):
    shards = (store / f"betas/c/{number}/0/0/0" for number in range(24 * (session - 1), 24 * session))
    return [shard.stat().st_mtime_ns for shard in shards]


def _is_complete(store):
    root = store / "zarr.json"
    return root.exists() and json.loads(root.read_bytes())["attributes"]["status"] == "complete"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_conversion_stopped_by_a_signal_says_so_and_goes_on(
    number, source, tmp_path, start_cli, undisturbed, digest_tree, make_recorder, convert, recorded_sessions
):
    store = tmp_path / "subj01.zarr"
    process = start_cli("convert", source, store, *OPTIONS)
    _wait_for(lambda: _count_records(store) >= 1, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert err.splitlines()[-1] == (
        "nsd-zarr: interrupted. Nothing that was finished is lost: run the same command again to go on."
    )
    assert not list(tmp_path.rglob("*.partial"))
    recorded, recorder = recorded_sessions(store), make_recorder()
    convert(source, trials_per_shard=1, on_event=recorder)
    assert recorder.sessions == sorted({1, 2, 3} - set(recorded))
    assert digest_tree(store) == undisturbed


def test_conversion_begun_in_the_background_of_a_script_is_stopped_by_sigterm(source, tmp_path, start_cli):
    """A shell without job control has such a job ignore SIGINT: SIGTERM must not depend on it."""
    store = tmp_path / "subj01.zarr"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = start_cli("convert", source, store, *OPTIONS)
    finally:
        signal.signal(signal.SIGINT, before)
    _wait_for(lambda: _count_records(store) >= 1, process)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")


def test_what_a_worker_left_that_was_killed_under_the_run_is_removed(
    source, tmp_path, convert, make_recorder, undisturbed, digest_tree
):
    """Its session is written by another: only the run that goes on can tell that nobody will rename the file."""
    left = tmp_path / "subj01.zarr/betas/c/3/0/0/0.0123.partial"

    def leave():
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_bytes(b"half a shard")

    store = convert(source, trials_per_shard=1, on_event=make_recorder(60, leave))
    assert not left.exists()
    assert digest_tree(store) == undisturbed


# Exits, as a kill does, before the nth rename of a conversion (its partial file is left); then goes on, in a process
# forked from one that has everything imported. Prints the digest of each finished store.
EVERY_RENAME = """
import os, sys, warnings, xxhash
from pathlib import Path
import nsd_zarr, dask.threaded, nsd_zarr.conversion.run
source, folder = sys.argv[1], Path(sys.argv[2])
os.fsync = lambda descriptor: None
warnings.simplefilter("ignore", DeprecationWarning)  # of fork with NumPy's own threads, which stand still

def convert_and_die(store, number):
    replace, calls = os.replace, []
    def die(old, new):
        calls.append(new)
        if len(calls) == number:
            os._exit(9)
        replace(old, new)
    os.replace = die
    nsd_zarr.convert(source, store, trials_per_shard=3, workers=2)
    os._exit(0)

def in_child(work, *words):
    pid = os.fork()
    if pid == 0:
        try:
            work(*words)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def go_on(store):
    nsd_zarr.convert(source, store, trials_per_shard=3, workers=2)
    os._exit(0)

number, code = 0, 9
while code == 9:
    number += 1
    store = folder / f"{number}.zarr"
    code = in_child(convert_and_die, store, number)
    assert code in (0, 9), code
    assert in_child(go_on, store) == 0, number
    assert not list(folder.rglob("*.partial"))
    files = sorted(path for path in store.rglob("*") if path.is_file())
    digest = xxhash.xxh3_128()
    for path in files:
        digest.update(str(path.relative_to(store)).encode() + path.read_bytes())
    print(number, digest.hexdigest())
"""


@pytest.mark.slow
def test_conversion_killed_at_each_rename_ends_as_an_undisturbed_one(make_source, tmp_path):
    source, folder = make_source(sessions=(1, 2), trials=6, volume=(2, 3, 5)), tmp_path / "stores"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", EVERY_RENAME, str(source), str(folder)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    numbers, digests = zip(*(line.split() for line in done.stdout.splitlines()), strict=True)
    # Run, root and betas; four shards, four statistics, two records, the run again; betas again, four small arrays of
    # two files, metadata of statistics, the count of rails; the copy of the root, the root; no kill.
    assert len(numbers) == 3 + 4 + 4 + 2 + 1 + 1 + 8 + 2 + 2 + 1 + 1 + 1
    assert len(set(digests)) == 1
