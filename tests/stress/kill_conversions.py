"""Kill conversions at random moments, go on each time, and compare every store with an undisturbed one.

    python tests/stress/kill_conversions.py [--kills 200] [--schedulers threads,dask] [--seed 0] [--folder DIR]

Each time a run of its own (a process and all that it started, forked from one that has everything imported) converts to
a new store and is sent SIGKILL at a moment drawn over the time that an undisturbed run takes, once its folder is there.
Where it was is read off the files that it left. Then the same command runs until it ends: every file of the store must
have the bytes of the undisturbed one, no recorded session may be written again, and no more begun ones than are under
way at once. On Dask, scheduler and two worker processes live on while the client is killed, or a worker is killed under
the client, or all of them at once. Sources are a simulated root with its experiment. Shards are single trials, flushed
one by one, so that most of a run is writing. Prints a tally; exit code 1 where a store differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dask.threaded  # noqa: F401 - all imports before the first fork
import distributed  # noqa: F401
import nibabel  # noqa: F401
import pandas  # noqa: F401
import scipy.io  # noqa: F401
import xxhash

import nsd_zarr.conversion.run  # noqa: F401
from nsd_zarr.cli.main import run
from nsd_zarr.places import direct
from nsd_zarr.simulate import Simulation, simulate_root

SESSIONS, TRIALS, VOLUME = 5, 30, (5, 7, 11)
direct.PIECE_BYTES = 512
"""Such small shards go past the page cache as well, in a piece and a rest."""
AT_ONCE = {"synchronous": 1, "threads": 2, "dask": 2}
"""Sessions that may be under way at once: units in flight."""
VICTIMS = ("client", "worker", "all")
"""Who is killed on Dask."""
STATISTICS = ("session_mean", "session_std")
"""Written when a session's last shard is, before its record."""


@dataclass
class Tally:
    """What became of the kills on one scheduler."""

    kills: int = 0
    too_late: int = 0
    """The run had ended; not counted, drawn again."""
    again: Counter = field(default_factory=Counter)
    """Kills after which so many sessions that had begun were written again."""
    places: Counter = field(default_factory=Counter)
    """Where they landed."""
    failures: list[str] = field(default_factory=list)


# -- sources and stores ------------------------------------------------------------------------------------------


def make_source(folder: Path) -> Path:
    """A root with trial table, masks, ROIs and noise ceiling."""
    rois = ("nsdgeneral", "streams")  # reading all sets is half of a run
    root = simulate_root(folder, Simulation(SESSIONS, (TRIALS, *VOLUME), seed=7, rois=rois, hemispheres=False))
    # 73,000 rows that are compared with the trial table, and not stored: reading them is most of a run otherwise.
    root.stim_info.unlink()
    return folder


def digest_store(store: Path) -> dict[str, str]:
    files = (path for path in sorted(store.rglob("*")) if path.is_file())
    return {path.relative_to(store).as_posix(): xxhash.xxh3_128_hexdigest(path.read_bytes()) for path in files}


def run_of(store: Path) -> Path:
    return store.with_name(store.name + ".run")


def find_recorded(store: Path) -> set[int]:
    return {int(path.stem.split("-")[1]) for path in run_of(store).glob("session-*.json")}


def find_begun(store: Path) -> set[int]:
    """Sessions of which any shard is there, whole or in part."""
    return {int(folder.name) // TRIALS + 1 for folder in (store / "betas/c").glob("*") if any(folder.rglob("*0*"))}


def find_counted(store: Path) -> set[int]:
    """Sessions of which any statistics are there, whole or in part."""
    folders = (folder for name in STATISTICS for folder in (store / name / "c").glob("*"))
    return {int(folder.name) + 1 for folder in folders if any(folder.rglob("*0*"))}


def find_place(store: Path) -> str:
    """Where a run was, by the files that it left."""
    partials = [path.name for folder in (store, run_of(store)) for path in folder.rglob("*.partial")]
    if not (store / "zarr.json").exists():
        return "before the store" if not run_of(store).exists() else "in run folder and skeleton"
    if json.loads((store / "zarr.json").read_bytes())["attributes"]["status"] == "complete":
        return "after the last write"
    if any(name.startswith("session-") for name in partials):
        return "in a session's record"
    recorded = find_recorded(store)
    if len(recorded) == SESSIONS:
        return "in the finish"
    if find_counted(store) - recorded:
        return "in statistics"
    if any(name.startswith("0.") for name in partials):
        return "while a shard is written"
    return "between two shards" if find_begun(store) else "before the first shard"


# -- runs --------------------------------------------------------------------------------------------------------


def start(words: list[str], log: Path) -> int:
    """A conversion as a process group of its own; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(target, 1)
        os.dup2(target, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        code = run(words)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def finish(words: list[str], log: Path) -> tuple[int, set[int]]:
    """Run a command to its end: its exit code, and the sessions that it wrote."""
    _, status = os.waitpid(start([*words, "--json"], log), 0)
    code, text = os.waitstatus_to_exitcode(status), log.read_text()
    if code:
        return code, set()
    report = json.loads(text[text.index("{") :])
    return code, {done["session"] for done in report["sessions"]}


def wait_for(pid: int, seconds: float) -> bool:
    """Wait for a process so long; whether it ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return True
        time.sleep(0.0005)
    return False


def wait_for_folder(store: Path, pid: int) -> None:
    """Until the run has its folder, or ended."""
    while not run_of(store).exists() and not wait_for(pid, 0.001):
        pass


# -- Dask --------------------------------------------------------------------------------------------------------


class Cluster:
    """A scheduler and two workers, each a process of its own that can be killed and replaced."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.workers = folder, []
        folder.mkdir()
        self._scheduler = self._start(
            "dask_scheduler", "--port", "0", "--scheduler-file", str(folder / "scheduler.json")
        )
        while not (folder / "scheduler.json").exists():
            time.sleep(0.05)
        self.address = json.loads((folder / "scheduler.json").read_bytes())["address"]
        self.fill()

    def _start(self, module: str, *words: str) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.{module}", *words, "--dashboard-address", "127.0.0.1:0"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen([*command, "--host", "127.0.0.1"], start_new_session=True, **quiet)

    def fill(self) -> None:
        """Replace workers that are gone, and wait until the scheduler knows two."""
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < 2:
            words = (self.address, "--nthreads", "1", "--no-nanny", "--local-directory", str(self.folder))
            self.workers.append(self._start("dask_worker", *words))
        count = "from distributed import Client; import sys\nwith Client(sys.argv[1]) as c: c.wait_for_workers(2, 60)"
        subprocess.run([sys.executable, "-c", count, self.address], check=True, capture_output=True)

    def kill_workers(self, count: int) -> None:
        """SIGKILL so many of them."""
        for worker in self.workers[:count]:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()

    def close(self) -> None:
        """End all its processes."""
        for process in (*self.workers, self._scheduler):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def open_cluster(folder: Path, scheduler: str) -> Iterator[Cluster | None]:
    cluster = Cluster(folder) if scheduler == "dask" else None
    try:
        yield cluster
    finally:
        if cluster is not None:
            cluster.close()


# -- kills -------------------------------------------------------------------------------------------------------


def kill_once(
    command: list[str], cluster: Cluster | None, victim: str, moment: float, tally: Tally, expected: dict[str, str]
) -> None:
    """Convert, kill at *moment* seconds after the run's folder is there, go on, compare."""
    store, most = Path(command[-1]), AT_ONCE.get(command[command.index("--scheduler") + 1], AT_ONCE["dask"])
    log = store.with_suffix(".log")
    if cluster is not None:
        cluster.fill()
    pid = start(command, log)
    wait_for_folder(store, pid)
    if wait_for(pid, moment):
        tally.too_late += 1
        os.waitpid(pid, 0)
        return
    if victim in ("worker", "all"):
        cluster.kill_workers(1 if victim == "worker" else 2)
    if victim in ("client", "all"):
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    place, begun, recorded = find_place(store), find_begun(store), find_recorded(store)
    tally.kills += 1
    tally.places[place] += 1
    if victim == "worker":
        cluster.fill()
        os.waitpid(pid, 0)
    elif victim == "all":
        cluster.fill()
    code, written = finish(command, log)
    again = len(written & begun)
    tally.again[again] += 1
    problems = [] if code == 0 else [f"exit code {code}: {log.read_text()[-300:]}"]
    problems += [] if is_same(store, expected) else ["other bytes"]
    problems += [f"{again} sessions written again"] if again > most else []
    problems += ["a recorded session written again"] if written & recorded and victim != "worker" else []
    if problems:
        tally.failures.append(f"{place}, {victim} killed after {moment:.3f} s: {'; '.join(problems)} [{store}]")


def is_same(store: Path, expected: dict[str, str]) -> bool:
    """Whether the store has the bytes that it should have.

    A worker that lost its client may still be writing what it was at (the same bytes, under a name of its own until it
    renames): it has a few seconds.
    """
    deadline = time.monotonic() + 10
    while digest_store(store) != expected and time.monotonic() < deadline:
        time.sleep(0.1)
    return digest_store(store) == expected


def kill_many(
    scheduler: str, kills: int, folder: Path, source: Path, draw: random.Random, expected: dict[str, str]
) -> Tally:
    tally, number = Tally(), 0
    with open_cluster(folder / "cluster", scheduler) as cluster:
        address = scheduler if cluster is None else cluster.address
        words = ["convert", "--trials-per-shard", "1", "--workers", "2", "--memory", "1GiB", "--scheduler", address]
        words.append(str(source))
        # The time that a run takes from its folder on: the second, when all is warm.
        seconds = [time_run(words, folder / f"{scheduler}-{number}-whole.zarr", expected) for number in range(2)][1]
        while tally.kills < kills:
            victim = "client" if cluster is None else VICTIMS[0 if draw.random() < 0.5 else draw.randrange(1, 3)]
            store = folder / f"{scheduler}-{number}.zarr"
            kill_once([*words, str(store)], cluster, victim, draw.uniform(0, seconds), tally, expected)
            number += 1
    return tally


def time_run(words: list[str], store: Path, expected: dict[str, str]) -> float:
    """Seconds from a run's folder to its end, undisturbed. Fills *expected* where it is empty."""
    pid = start([*words, str(store)], store.with_suffix(".log"))
    wait_for_folder(store, pid)
    started = time.monotonic()
    _, status = os.waitpid(pid, 0)
    seconds = time.monotonic() - started
    if status:
        raise SystemExit(store.with_suffix(".log").read_text())
    found = digest_store(store)
    expected.update(found if not expected else {})
    if found != expected:
        raise SystemExit(f"{store}: an undisturbed run gave other bytes")
    return seconds


def tell(tallies: dict[str, Tally]) -> str:
    places = sorted({place for tally in tallies.values() for place in tally.places})
    rows = [f"| kills landed | {' | '.join(tallies)} |", f"|---{'|---' * len(tallies)}|"]
    rows += [f"| {place} | {' | '.join(str(tally.places[place]) for tally in tallies.values())} |" for place in places]
    rows.append(f"| **all** | {' | '.join(f'**{tally.kills}**' for tally in tallies.values())} |")
    most = (max(tally.again, default=0) for tally in tallies.values())
    rows.append(f"| sessions written again after one kill, at most | {' | '.join(map(str, most))} |")
    rows.append(f"| stores that differ | {' | '.join(str(len(tally.failures)) for tally in tallies.values())} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--schedulers", default="synchronous,threads,dask")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    # Of fork beside NumPy's own threads, which stand still.
    warnings.simplefilter("ignore", DeprecationWarning)
    draw, schedulers, expected = random.Random(options.seed), options.schedulers.split(","), {}
    with tempfile.TemporaryDirectory(prefix="kills-", dir=options.folder, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        source = make_source(folder / "source")
        tallies = {}
        for number, scheduler in enumerate(schedulers):
            kills = options.kills // len(schedulers) + (number < options.kills % len(schedulers))
            tallies[scheduler] = kill_many(scheduler, kills, folder, source, draw, expected)
            print(tell({scheduler: tallies[scheduler]}), file=sys.stderr, flush=True)
        print(tell(tallies))
    failures = [failure for tally in tallies.values() for failure in tally.failures]
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
