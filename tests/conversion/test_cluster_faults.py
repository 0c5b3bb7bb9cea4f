"""A Dask cluster whose parts die while it converts: one paragraph, and the same bytes in the end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict

import pytest

pytestmark = pytest.mark.slow

OPTIONS = ("--trials-per-shard", 1)
TRIALS = 24  # a session; each a shard

# Loaded by each worker: writing a shard takes its time, so that a kill lands while data are written, and is noted.
# While the file `hold` is there, no more than eight shards are begun: a run cannot end before what a test does to it.
SLOW = """
import os, time
from nsd_zarr.conversion import unit
from nsd_zarr.store.shard import write_shard
def write_slowly(store, key, *words):
    with open({log!r}, "a") as log:
        log.write(f"{{os.getpid()}} {{store.name}} {{key}}\\n")
    time.sleep({seconds})
    while os.path.exists({hold!r}) and sum(1 for _ in open({log!r})) > 8:
        time.sleep(0.01)
    return write_shard(store, key, *words)
unit.write_shard = write_slowly
"""
CHAOS = """
from distributed.chaos import KillWorker
async def dask_setup(worker):
    await worker.plugin_add(KillWorker(delay="{delay} s", mode="{mode}"))
"""
HOG = """
import time
from nsd_zarr.conversion import unit
def take_memory(*words):
    hog = [bytearray(b"x" * 2**20) for _ in range(2000)]
    time.sleep(30)
unit.write_shard = take_memory
"""


class Cluster:
    """A scheduler and workers, each a process; a worker that dies is started again, as a batch system does."""

    def __init__(self, folder, preload, workers=2, options=("--no-nanny",)):
        self.folder, self.options = folder, options
        self.log, self.hold = folder / "written.txt", folder / "hold"
        (folder / "preload.py").write_text(preload)
        self.scheduler = self._start("scheduler", "--port", "0", "--scheduler-file", folder / "scheduler.json")
        while not (folder / "scheduler.json").exists():
            time.sleep(0.05)
        self.address = json.loads((folder / "scheduler.json").read_bytes())["address"]
        self.deaths, self._closing = 0, threading.Event()
        self.workers = [self._start_worker() for _ in range(workers)]
        self._keeper = threading.Thread(target=self._keep)
        self._keeper.start()

    def _start(self, *words):
        words = [sys.executable, "-m", f"distributed.cli.dask_{words[0]}", "--no-dashboard", *map(str, words[1:])]
        host = ["--host", "127.0.0.1"]
        return subprocess.Popen([*words, *host], cwd=self.folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def _start_worker(self):
        preload = ("--preload", self.folder / "preload.py")
        return self._start("worker", self.address, "--nthreads", 1, *preload, "--death-timeout", 10, *self.options)

    def _keep(self):
        while not self._closing.wait(0.05):
            for place, worker in enumerate(self.workers):
                if worker.poll() is not None and self.scheduler.poll() is None:
                    self.deaths += 1
                    self.workers[place] = self._start_worker()

    def wait_for_workers(self):
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(len(self.workers), timeout=40)

    def close(self):
        self._closing.set()
        self._keeper.join()
        for process in (*self.workers, self.scheduler):
            # A nanny has a child of its own to end.
            process.terminate() if "--nanny" in self.options else process.kill()
            process.wait(30)

    def written(self, store):
        """(pid, session) of every shard of *store* that was begun, in order."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [(int(pid), int(key.split("/")[2]) // TRIALS + 1) for pid, name, key in lines if name == store.name]


@pytest.fixture
def start_cluster(tmp_path):
    started = []

    def start(preload="", *, seconds=0.03, **options):
        folder = tmp_path / f"cluster{len(started)}"
        folder.mkdir()
        files = {"log": str(folder / "written.txt"), "hold": str(folder / "hold")}
        text = SLOW.format(seconds=seconds, **files) + preload
        started.append(Cluster(folder, text, **options))
        started[-1].wait_for_workers()
        return started[-1]

    yield start
    for cluster in started:
        cluster.close()


@pytest.fixture
def source(make_source):
    return make_source(trials=TRIALS, volume=(2, 3, 5))


@pytest.fixture
def undisturbed(source, convert, digest_tree):
    return digest_tree(convert(source, "undisturbed.zarr", trials_per_shard=1))


def _wait_for(condition):
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _count_shards(store):
    return sum(1 for _ in store.glob("betas/c/*/0/0/0"))


def _read_paragraph(process, code):
    out, err = process.communicate(timeout=90)
    assert (process.returncode, out) == (code, ""), err
    assert "Traceback" not in err
    assert len(err) < 1200, err
    return err.strip().splitlines()[-1]


def test_worker_that_is_killed_has_its_session_done_by_another(
    start_cluster, source, tmp_path, start_cli, undisturbed, digest_tree
):
    cluster, store = start_cluster(), tmp_path / "subj01.zarr"
    process = start_cli("convert", source, store, *OPTIONS, "--scheduler", cluster.address)
    _wait_for(lambda: _count_shards(store) >= 5)
    cluster.workers[0].kill()
    _, err = process.communicate(timeout=40)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert digest_tree(store) == undisturbed
    pids = defaultdict(set)
    for pid, session in cluster.written(store):
        pids[session].add(pid)
    assert sum(len(each) > 1 for each in pids.values()) == 1


@pytest.mark.parametrize("mode", ["sys.exit", "graceful", "segfault"])
def test_conversion_under_chaos_ends_as_an_undisturbed_one(
    mode, start_cluster, source, tmp_path, run_child, undisturbed, digest_tree
):
    """Dask's own plugin kills every worker after a while, again and again; the same command until it is done."""
    cluster, landed = start_cluster(CHAOS.format(delay=1.5, mode=mode)), 0
    for attempt in range(6):
        store = tmp_path / f"chaos{attempt}.zarr"
        for _ in range(20):
            outcome = run_child("convert", source, store, *OPTIONS, "--scheduler", cluster.address)
            assert "Traceback" not in outcome.err
            if outcome.code == 0:
                break
            # Two of these: a session whose workers died four times; a moment without any worker.
            assert outcome.code in (2, 6), outcome.err
        assert digest_tree(store) == undisturbed
        # A session that two processes began: the first was killed while it wrote.
        begun = set(cluster.written(store))
        landed += len(begun) - len({session for _, session in begun})
        if landed:
            break
    assert landed
    assert cluster.deaths


def test_scheduler_that_is_lost_is_reported_and_the_run_goes_on(
    start_cluster, source, tmp_path, start_cli, convert, undisturbed, digest_tree
):
    cluster, store = start_cluster(), tmp_path / "subj01.zarr"
    cluster.hold.touch()
    process = start_cli("convert", source, store, *OPTIONS, "--scheduler", cluster.address)
    _wait_for(lambda: _count_shards(store) >= 5)
    cluster.scheduler.kill()
    paragraph = _read_paragraph(process, 2)
    assert "the Dask scheduler went away in the middle of the run. Start it again, or leave out --schedule" in paragraph
    assert digest_tree(convert(source, trials_per_shard=1)) == undisturbed


def test_workers_stop_when_the_run_that_they_work_for_is_interrupted(
    start_cluster, source, tmp_path, start_cli, convert, undisturbed, digest_tree, recorded_sessions
):
    cluster, store = start_cluster(seconds=0.2), tmp_path / "subj01.zarr"
    process = start_cli("convert", source, store, *OPTIONS, "--scheduler", cluster.address)
    _wait_for(lambda: _count_shards(store) >= 3)
    process.send_signal(signal.SIGINT)
    assert "interrupted. Nothing that was finished is lost" in _read_paragraph(process, 130)
    time.sleep(2)
    before = _count_shards(store)
    assert before < TRIALS
    time.sleep(1)
    assert (_count_shards(store), recorded_sessions(store)) == (before, [])
    assert digest_tree(convert(source, trials_per_shard=1)) == undisturbed


def test_worker_killed_for_memory_is_reported_and_gone_on_from(
    start_cluster, source, tmp_path, start_cli, convert, undisturbed, digest_tree
):
    options = ("--nanny", "--memory-limit", "600MiB")
    cluster, store = start_cluster(HOG, workers=1, options=options), tmp_path / "subj01.zarr"
    process = start_cli("convert", source, store, *OPTIONS, "--scheduler", cluster.address)
    paragraph = _read_paragraph(process, 6)
    died = re.search(r"session \d\d: (\d+) workers of the cluster died while they converted the session", paragraph)
    assert died, paragraph
    assert int(died[1]) == 8  # four by Dask's own count, and once more
    assert "more memory than they may" in paragraph
    assert "taken away by the batch system" in paragraph
    assert "--memory" in paragraph
    assert "betas_session0" in paragraph
    assert digest_tree(convert(source, trials_per_shard=1)) == undisturbed
