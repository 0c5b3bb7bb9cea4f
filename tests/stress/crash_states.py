"""States that a power cut may leave in the middle of a command, made of its file operations; what becomes of each.

    python -m stress.crash_states [--states 3500] [--seed 0] [--scenario convert] [--keep FOLDER]

Run in tests/. Commands run under strace (crash/trace.py); crash/model.py says which states the operations may leave on
disk. In each state a reader opens the store: it must refuse, or each value must be right. The same command runs again:
it must end with exit code 0 and the same bytes as an undisturbed run. `verify` must find nothing, and no file that
is not of the store. While an experiment is attached or removed, or a store is extended, it must be whole in every
state (of an extension without an atomic exchange of folders: or its readers refused). Exit code 1: a state broke a
promise.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from stress.crash.model import MODES, Model, Tree, read_tree, write_tree
from stress.crash.trace import read_trace, trace_command

import nsd_zarr

CODE = "from nsd_zarr.places import direct; direct.PIECE_BYTES = 512; from nsd_zarr.cli import main; main()"
"""Small shards go past the page cache as well, in pieces and a rest."""
WITHOUT_EXCHANGE = f"from nsd_zarr.places import swap; swap.exchange_names = lambda one, other: False; {CODE}"
"""The command on a file system that cannot exchange two names."""
EXTENDING = ("extend", "two renames")
SCENARIOS = ("convert", "resumed", "fresh", "attach", "detach", "repair", "images", "extend", "two renames")
DAMAGED = (*("betas/c/1/0/0/0", "betas/c/4/0/0/0", "session/c/0", "session_mean/c/1/0/0/0", "nsd_id/c/0", "zarr.json"),)
"""Files of a store that the repair has to make again: a bit of each is changed, and one more is removed."""
REMOVED = "betas/c/2/0/0/0"
STATES_OF_ONE_KILL = 8
"""A resumed run is another one after each kill: a few states of each."""
STORE = "s.zarr"
FOUND = ("refused", "raised", "right")
"""What a reader may find; anything else breaks a promise."""


def call(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """What *function* returns in a process of its own, and what it printed: everything is imported already."""
    read, write = os.pipe()
    with tempfile.TemporaryFile("w+") as log:
        child = os.fork()
        if child == 0:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            try:
                answer = function(*arguments)
            except BaseException as error:
                answer = f"{type(error).__name__}: {error}"
            sys.stdout.flush()
            sys.stderr.flush()
            os.write(write, pickle.dumps(answer))
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            data = pipe.read()
        os.waitpid(child, 0)
        log.seek(0)
        return (pickle.loads(data) if data else "the process died"), log.read()[-2000:]


def run_cli(*words: str) -> tuple[Any, str]:
    """Exit code of a command line, and what it printed."""
    from nsd_zarr.cli.main import run

    return call(run, list(words))


def read_values(store: Path) -> dict[str, np.ndarray | str]:
    """Every value of a store by array and trial, through our readers; of what raises, the message."""
    from nsd_zarr.store.reader import TrialReader
    from nsd_zarr.store.root import open_store
    from nsd_zarr.store.small import read_array

    opened = open_store(store, kind=None)
    reader, geometry = TrialReader(opened), opened.geometry
    found: dict[str, np.ndarray | str] = {}
    for trial in range(geometry.trials):
        values = np.empty(geometry.volume_shape, geometry.dtype)
        try:
            reader.read_into(trial, values)
            found[f"trial {trial}"] = values
        except nsd_zarr.NsdZarrError as error:
            found[f"trial {trial}"] = str(error)
    for name in sorted(set(opened.members) - {geometry.kind.array}):
        try:
            found[name] = np.asarray(read_array(opened, name))
        except nsd_zarr.NsdZarrError as error:
            found[name] = str(error)
    return found


def look(store: Path, reference: dict[str, Any]) -> str:
    """What a reader finds at *store*: refused, right, raised (for some values), or WRONG with where."""
    try:
        found = read_values(store)
    except nsd_zarr.NsdZarrError:
        return "refused"
    for name, values in found.items():
        expected = reference.get(name)
        if not isinstance(values, str) and expected is not None and not _are_same(values, expected):
            return f"WRONG: {name}"
    return "raised" if any(isinstance(values, str) for values in found.values()) else "right"


def _are_same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.tobytes() == b.tobytes()


@dataclass(frozen=True)
class Scenario:
    """One command that was recorded, perhaps after another one that was killed."""

    name: str
    """One of SCENARIOS."""
    again: list[str]
    """The command that must finish it."""
    expected: str
    """Name of the undisturbed store that must come out."""
    values: tuple[str, ...]
    """Names of the undisturbed stores of which readers may show the values of one."""
    model: Model
    """Everything that happened."""
    first: int
    """Operation from which power may be cut."""


@dataclass
class Tally:
    """What became of the states."""

    counts: Counter[tuple[str, str, str, bool]] = field(default_factory=Counter)
    """States by scenario, kind of state, what a reader found, and whether a promise was broken."""
    problems: defaultdict[tuple[str, str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    """Broken promises of one kind, each with where it was."""

    @property
    def states(self) -> int:
        """States tried."""
        return sum(self.counts.values())

    @property
    def broken(self) -> int:
        """States in which a promise was broken."""
        return sum(count for key, count in self.counts.items() if key[3])

    def add(self, name: str, mode: str, found: str, broken: Sequence[str], where: str) -> None:
        """Count one state."""
        self.counts[name, mode, found.split(":")[0], bool(broken)] += 1
        for problem in broken:
            kind = re.sub(r"\d+", "N", re.sub(r"[0-9a-f]{32}", "*", problem))[:160]
            self.problems[name, mode, kind].append(f"{where}: {problem}")

    def format(self) -> str:
        """A table for people."""
        lines = [
            "| command | state | states | reader refused | raised | right | broken |",
            "|---|---|---|---|---|---|---|",
        ]
        for name in SCENARIOS:
            for mode in dict.fromkeys(MODES):
                rows = {key: count for key, count in self.counts.items() if key[:2] == (name, mode)}
                if rows:
                    words = [
                        sum(n for key, n in rows.items() if key[2] == word) for word in ("refused", "raised", "right")
                    ]
                    broken = sum(n for key, n in rows.items() if key[3])
                    lines.append(
                        f"| {name} | {mode} | {sum(rows.values())} | {' | '.join(map(str, words))} | {broken} |"
                    )
        lines.append(f"\n{self.states} states, {self.broken} broken")
        for (name, mode, kind), cases in sorted(self.problems.items(), key=lambda each: -len(each[1])):
            lines.append(f"\n{len(cases)} x {name} [{mode}]: {kind}\n    first: {cases[0][:500]}")
        return "\n".join(lines)


class Site:
    """A simulated root, and the folder in which stores are made: always the same path, so that no message differs."""

    def __init__(self, folder: Path) -> None:
        self.nsd, self.top, self.log = folder / "nsd", folder / "here", folder / "strace.log"
        self.store = self.top / STORE
        self._must("simulate", self.nsd, "--sessions", "2", "--shape", "6,4,5,6", "--images", "24", "--image-size", "8")
        self.files: dict[str, Tree] = {}
        self.values: dict[str, dict[str, Any]] = {}

    @property
    def commands(self) -> dict[str, list[str]]:
        """Command lines by what they make."""
        nsd, store = str(self.nsd), str(self.store)
        convert = ["convert", nsd, store, "--trials-per-shard", "2", "--quiet"]
        return {
            "convert": convert,
            "bare": [*convert, "--no-experiment"],
            "other": ["convert", nsd, store, "--trials-per-shard", "3", "--quiet"],
            "images": ["images", nsd, store, "--images-per-shard", "8", "--quiet"],
            "attach": ["attach", store, nsd, "--subject", "1", "--space", "func1pt8mm", "--quiet"],
            "detach": ["attach", store, "--no-experiment", "--quiet"],
            "repair": ["repair", store, "--source", nsd, "--quiet"],
            "second": [*convert, "--sessions", "2"],
            "extend": ["convert", nsd, store, "--quiet"],
        }

    def reset(self, tree: Tree | None = None) -> None:
        """An empty folder, or one with *tree* in it."""
        shutil.rmtree(self.top, ignore_errors=True)
        write_tree(tree or {}, self.top)

    def _must(self, *words: Any) -> None:
        code, text = run_cli(*map(str, words))
        if code != 0:
            raise RuntimeError(f"{words}: {code} {text}")

    def make_reference(self, name: str) -> None:
        """An undisturbed store: its files and its values; it stays in the folder."""
        self.reset()
        self._must(*self.commands[name])
        if name not in self.files:
            self.files[name] = _store_files(read_tree(self.top))
            self.values[name], _ = call(read_values, self.store)

    def record(self, command: str, model: Model, kill_at: int | None = None, extra: Sequence[str] = ()) -> None:
        """Run a command under strace, and add what it did to *model*."""
        code = WITHOUT_EXCHANGE if command == "two renames" else CODE
        words = self.commands["extend" if command in EXTENDING else command]
        done = trace_command([sys.executable, "-c", code, *words, *extra], self.log, kill_at)
        if kill_at is None and done.returncode != 0:
            raise RuntimeError(f"{command}: exit code {done.returncode}\n{done.stdout[-2000:]}")
        model.add(read_trace(self.log, str(self.top)))

    def make(self, name: str, seed: int) -> Scenario:
        """Record scenario *name*; *seed* says where a run that is resumed is killed."""
        chance, first = random.Random(f"{name} {seed}"), 0
        expected = {"images": "images", "detach": "bare"}.get(name, "convert")
        values = ["images" if name == "images" else "convert"]
        before = {"attach": "bare", "detach": "convert", "repair": "convert"}.get(name)
        if name in EXTENDING:
            values, before = [*values, "second"], "second"
        for each in {expected, *values}:
            self.make_reference(each)
        self.reset()
        if before is not None:
            self.make_reference(before)
        if name == "repair":
            self._damage()
        if name == "fresh":
            self.record("other", Model(str(self.top)), kill_at=chance.randint(14, 30))
        model = Model(str(self.top))
        command = name if name in self.commands or name in EXTENDING else "convert"
        if name == "resumed":
            # strace counts for each thread: so the number at which a kill lands is small.
            self.record(command, model, kill_at=chance.randint(1, 30))
            first = len(model.log)
        self.record(command, model, extra=["--fresh"] if name == "fresh" else [])
        again = self.commands["extend" if name in EXTENDING else command]
        return Scenario(name, again, expected, tuple(values), model, first)

    def _damage(self) -> None:
        for key in DAMAGED:
            data = bytearray((self.store / key).read_bytes())
            data[7] ^= 4
            (self.store / key).write_bytes(data)
        (self.store / REMOVED).unlink()

    def check(self, scenario: Scenario, tree: Tree) -> tuple[str, list[str]]:
        """What a reader finds in a state, and which promises are broken in it."""
        self.reset(tree)
        broken = []
        looks = [call(look, self.store, self.values[name])[0] for name in scenario.values]
        found = next((each for each in looks if each in FOUND), looks[0])
        if found not in FOUND:
            broken.append(f"reader: {found}")
        if scenario.name in ("attach", "detach") and found != "right":
            broken.append(f"a store is whole at any moment of attach: {found}")
        if scenario.name in EXTENDING and found != "right" and (scenario.name, found) != ("two renames", "refused"):
            broken.append(f"one of two stores is there at any moment of an extension: {found}")
        code, text = run_cli(*scenario.again)
        if code == 5 and scenario.name == "fresh":
            code, text = run_cli(*scenario.again, "--fresh")  # it had not begun yet
        if code != 0:
            broken.append(f"again: {code}: {text[-300:]}")
        elif (files := _store_files(read_tree(self.top))) != (expected := self.files[scenario.expected]):
            different = sorted(key for key in files.keys() | expected.keys() if files.get(key) != expected.get(key))
            broken.append(f"other bytes than an undisturbed run: {different[:3]}")
        code, text = run_cli("verify", str(self.store))
        if code != 0 or "not of this store" in text:
            broken.append(f"verify: {code}: {' '.join(text.split())[-300:]}")
        return found, broken


def _store_files(tree: Tree) -> Tree:
    return {path: data for path, data in tree.items() if path.startswith(STORE + "/") and data is not None}


def try_states(site: Site, name: str, states: int, seed: int, tally: Tally, keep: Path | None = None) -> None:
    """Try *states* different states of scenario *name*."""
    for trace in range(states):
        if states <= 0:
            return
        scenario = site.make(name, seed * 1000 + trace)
        chance, seen = random.Random(f"{seed} {name} {trace}"), set()
        quota = min(states, STATES_OF_ONE_KILL) if name in ("resumed", "fresh") else states
        for attempt in range(60 * quota + 60):
            if len(seen) == quota:
                break
            mode, point = MODES[attempt % len(MODES)], chance.randint(scenario.first, len(scenario.model.log))
            if attempt == 0:  # right behind exit code 0, with nothing on disk but what was flushed
                mode, point = "least", len(scenario.model.log)
            elif chance.random() < 0.15:
                point = len(scenario.model.log)
            tree = scenario.model.cut(point, mode, chance)
            key = hash(tuple(sorted((path, data) for path, data in tree.items() if not path.endswith("run/lock"))))
            if key in seen:
                continue
            seen.add(key)
            found, broken = site.check(scenario, tree)
            tally.add(name, mode, found, broken, f"trace {trace}, operation {point} of {len(scenario.model.log)}")
            if broken and keep is not None:
                shutil.rmtree(keep / f"{name}-{tally.states}", ignore_errors=True)
                write_tree(tree, keep / f"{name}-{tally.states}")
        states -= len(seen)
        if name not in ("resumed", "fresh"):
            return


def main() -> int:
    """Try states of every scenario; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=3500, help="in all, shared among the scenarios")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS)
    parser.add_argument("--keep", type=Path, help="folder for states that break a promise")
    options = parser.parse_args()
    names, tally, started = options.scenario or SCENARIOS, Tally(), time.perf_counter()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="crash-states-", dir=memory) as folder:
        site = Site(Path(folder))
        for number, name in enumerate(names):
            share = options.states // len(names) + (number < options.states % len(names))
            try_states(site, name, share, options.seed, tally, options.keep)
            print(
                f"{name}: {tally.states} states, {tally.broken} broken, {time.perf_counter() - started:.0f} s",
                flush=True,
            )
    print(tally.format())
    return int(tally.broken > 0)


if __name__ == "__main__":
    import dask.delayed  # noqa: F401 - once, so that a fork costs little
    import h5py  # noqa: F401
    import nibabel  # noqa: F401
    import pandas  # noqa: F401
    import scipy.io  # noqa: F401

    from nsd_zarr.maintenance import attach, repair, verify  # noqa: F401

    sys.exit(main())
