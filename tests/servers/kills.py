"""Kill conversions to an object store at random moments, several at once, behind a proxy that breaks requests.

    PYTHONPATH=tests python -m servers.kills [--kills 50] [--contenders 2] [--seed 0]

Each round starts contenders, processes that convert the same sessions to the same URL, and sends SIGKILL to one of them
at a moment drawn at random; the others go on, or are refused because somebody lives. Then the same command runs
until it ends. Each contender reaches the server through a proxy of its own, so that it is seen who wrote into the
store: one after the other, never in turns. At the end every object must have the bytes of the local store. Prints a
tally; exit code 1 where a store differs, or two wrote at once.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from builders.sessions import create_source

import nsd_zarr
from servers.proxy import Asked, Proxy, run_proxy
from servers.seaweed import OWNER, Server, run_seaweed

CHILD = """
import sys
from nsd_zarr.conversion import lock
lock.BEAT_SECONDS, lock.PATIENCE_SECONDS, lock.LOOK_AGAIN_SECONDS = 0.2, 0.8, 0.05
from nsd_zarr.cli import main
main()
"""
OPTIONS = ("--trials-per-shard", "1", "--workers", "1", "--quiet")
FAULTS = ("500", "503", "lost", "cut")


@dataclass
class Tally:
    """What became of the rounds."""

    kills: int = 0
    too_late: int = 0
    refused: int = 0
    faults: int = 0
    generations: int = 0
    failures: list[str] = field(default_factory=list)


def start(source: Path, url: str, endpoint: str) -> subprocess.Popen[str]:
    """A contender."""
    environ = os.environ | {
        "AWS_ACCESS_KEY_ID": OWNER[0],
        "AWS_SECRET_ACCESS_KEY": OWNER[1],
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
    }
    command = [sys.executable, "-c", CHILD, "convert", str(source), url, *OPTIONS]
    return subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


class Watch:
    """Notes which contender writes into the store when: each reaches the server through a proxy of its own."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.writers, self.faults = rng, [], 0

    def make_fault(self, who: int, share: float) -> object:
        def fault(asked: Asked, before: int) -> str:
            if asked.method == "PUT" and ".zarr/" in asked.path:
                self.writers.append(who)
            if self.rng.random() < share:
                self.faults += 1
                return self.rng.choice(FAULTS)
            return ""

        return fault

    def find_turns(self) -> list[int]:
        """Who wrote, one after the other."""
        turns: list[int] = []
        for who in list(self.writers):
            if not turns or turns[-1] != who:
                turns.append(who)
        return turns


def run_round(
    number: int,
    source: Path,
    expected: dict[str, bytes],
    server: Server,
    rng: random.Random,
    contenders: int,
    tally: Tally,
) -> None:
    """One store: contenders, a kill, and the same command until it ends."""
    url, watch = f"s3://bkt/kills/{os.getpid()}-{number}.zarr", Watch(rng)
    alive: dict[int, tuple[subprocess.Popen[str], Proxy, object]] = {}
    for who in range(contenders):
        context = run_proxy(server.endpoint)
        proxy = context.__enter__()
        proxy.fault = watch.make_fault(who, 0.03)  # type: ignore[assignment]
        alive[who] = (start(source, url, proxy.endpoint), proxy, context)
    time.sleep(rng.uniform(1.0, 6.0))
    writing = watch.writers[-1:] or [0]
    victim = alive[writing[0]][0]
    victim.send_signal(signal.SIGKILL)
    tally.kills += 1
    tally.too_late += victim.wait() != -signal.SIGKILL
    for process, _, _ in alive.values():
        _, text = process.communicate(timeout=120)
        tally.refused += "in use by a live run" in (text or "")
        if process.returncode not in (0, 4, -signal.SIGKILL):
            tally.failures.append(f"round {number}: exit {process.returncode}: {text}")
    while True:
        process = start(source, url, server.endpoint)
        _, text = process.communicate(timeout=120)
        if process.returncode == 0 or "in use" not in text:
            break
    if process.returncode:
        tally.failures.append(f"round {number}: the last run ended with {process.returncode}: {text}")
    found = server.read_all(url)
    if found != expected:
        names = sorted(key for key in {*found, *expected} if found.get(key) != expected.get(key))
        tally.failures.append(f"round {number}: {len(names)} objects differ: {names[:5]}")
    turns = watch.find_turns()
    if len(turns) != len(set(turns)):
        tally.failures.append(f"round {number}: {turns} wrote in turns")
    tally.faults += watch.faults
    tally.generations += len(turns)
    for _, _, context in alive.values():
        context.__exit__(None, None, None)  # type: ignore[attr-defined]


def run_rounds(folder: Path, kills: int, contenders: int, seed: int) -> Tally:
    """As many rounds as kills are asked for."""
    tally, rng = Tally(), random.Random(seed)
    source = create_source(folder / "source", (1, 2, 3), trials=8, shape=(5, 7, 11))
    nsd_zarr.convert(source, folder / "here.zarr", trials_per_shard=1, workers=1)
    here = folder / "here.zarr"
    expected = {path.relative_to(here).as_posix(): path.read_bytes() for path in here.rglob("*") if path.is_file()}
    with run_seaweed(folder / "seaweed") as server:
        for number in range(kills):
            run_round(number, source, expected, server, rng, contenders, tally)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--contenders", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = run_rounds(Path(folder), words.kills, words.contenders, words.seed)
    print(tally)
    print(Counter(failure.split(": ", 1)[1][:60] for failure in tally.failures))
    return bool(tally.failures)


if __name__ == "__main__":
    sys.exit(main())
