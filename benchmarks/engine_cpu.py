"""CPU a trial of the decode engine in two checkouts of this package: alternating, so that both see the same machine.

    python benchmarks/engine_cpu.py BEFORE AFTER --store volumes.zarr [--store ...] [--shape ...] [--rounds 40]
        [--trials 50]

BEFORE, AFTER: folders with a checkout each. Without --store, stores of one session of 40 trials at 83x104x81 and
150x150x100 are simulated and converted below --scratch. One process a checkout, pinned to one core; each round times
both, one after the other, the first one in turn. Two ways of reading: `TrialReader.read_into` into an array that is
used again, and `ds.betas[i].values`. Prints medians of process time and the median of the ratios of the rounds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SHAPES = ("83,104,81", "150,150,100")
WAYS = ("engine", "xarray")
CHILD = """
import json, os, sys, time
import numpy as np
import nsd_zarr
from nsd_zarr.store.reader import TrialReader
from nsd_zarr.store.root import open_store
from pathlib import Path

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
places = {}

def make(store):
    reader, dataset = TrialReader(open_store(Path(store))), nsd_zarr.open_dataset(store)
    out = np.empty(reader.volume_shape, reader.dtype)
    ways = {"engine": lambda trial: reader.read_into(trial, out), "xarray": lambda trial: dataset.betas[trial].values}
    return reader.store.geometry.trials, ways

for line in sys.stdin:
    store, way, trials, seed = json.loads(line)
    if store not in places:
        places[store] = make(store)
    count, ways = places[store]
    chosen = np.random.default_rng(seed).integers(0, count, trials).tolist()
    read = ways[way]
    started = time.process_time()
    for trial in chosen:
        read(trial)
    print(json.dumps((time.process_time() - started) / trials), flush=True)
"""


class Checkout:
    """A process that reads with the code of one checkout."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(folder)},
            cwd=folder,
        )

    def __enter__(self) -> Checkout:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.communicate()

    def measure(self, store: Path, way: str, trials: int, seed: int) -> float:
        """CPU seconds a trial."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(store), way, trials, seed]) + "\n")
        self.process.stdin.flush()
        return float(json.loads(self.process.stdout.readline()))


def main() -> None:
    """Measure, and print a line for each store and way of reading."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--store", type=Path, action="append", default=[])
    parser.add_argument("--shape", action="append", default=[], help="(default: those above)")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--scratch", type=Path, default=None)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=words.scratch) as scratch:
        stores = [path.absolute() for path in words.store]
        stores = stores or make_stores(Path(scratch), words.before, words.shape or SHAPES)
        with Checkout(words.before.absolute()) as before, Checkout(words.after.absolute()) as after:
            for store, way in itertools.product(stores, WAYS):
                found = compare((before, after), store, way, words.rounds, words.trials)
                print(f"{store.name:22} {way:7} {found}", flush=True)


def make_stores(scratch: Path, checkout: Path, shapes: Sequence[str]) -> list[Path]:
    """A store of each of *shapes*, made by *checkout*."""
    stores = []
    for shape in shapes:
        source, store = scratch / f"nsd-{shape}", scratch / f"{shape.replace(',', 'x')}.zarr"
        for call in (["simulate", source, "--sessions", "1", "--shape", f"40,{shape}"], ["convert", source, store]):
            command = [sys.executable, "-c", "from nsd_zarr.cli import main; main()", *map(str, call), "--quiet"]
            subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(checkout.absolute())})
        stores.append(store)
    return stores


def compare(checkouts: tuple[Checkout, Checkout], store: Path, way: str, rounds: int, trials: int) -> str:
    """Medians of both checkouts, and of their ratio. The first round warms up and does not count."""
    taken: list[tuple[float, float]] = []
    for number in range(rounds + 1):
        order = (0, 1) if number % 2 else (1, 0)
        found = {place: checkouts[place].measure(store, way, trials, number) for place in order}
        taken.append((found[0], found[1]))
    before, after = (statistics.median(pair[place] for pair in taken[1:]) * 1e6 for place in (0, 1))
    ratio = statistics.median(pair[1] / pair[0] for pair in taken[1:])
    return f"before {before:8.1f} us   after {after:8.1f} us   ratio {ratio:.4f}"


if __name__ == "__main__":
    main()
