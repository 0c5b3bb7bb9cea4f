"""What a loop over TrialLoader takes: medians of alternating rounds, each in a process of its own; and its memory.

    python benchmarks/loader.py STORE [--former FOLDER] [--rounds 5] [--epochs 2]

Ways: `reuse=True`; the default; the default with a clone of each batch, which is what the consumer would do for batches
of its own; and, with --former, the loader of the package in that folder. Times are of a trial, relative to reuse=True
too, because machines are noisy. Memory is the largest anonymous memory (RssAnon) beyond that before the loop.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

WAYS = {"reuse=True": {"reuse": True}, "default": {}, "default + clone": {}, "former": {}}
BATCH, THREADS, PREFETCH = 32, 2, 2


def find_anonymous_bytes() -> int:
    (line,) = (each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("RssAnon"))
    return 1024 * int(line.split()[1])


def load_numba() -> None:
    """Before memory is looked at: importing numba takes 43 MB, once a process. A former package may have no kernels."""
    try:
        from nsd_zarr.science import kernels
    except ImportError:
        return
    kernels.load()


def loop(store: str, way: str, epochs: int) -> dict[str, float]:
    """One pass to warm up, then *epochs*: seconds a trial, and bytes."""
    from nsd_zarr.torch import TrialDataset, TrialLoader

    load_numba()
    dataset = TrialDataset(store)
    before = largest = find_anonymous_bytes()
    loader = TrialLoader(dataset, BATCH, shuffle=True, seed=0, threads=THREADS, prefetch=PREFETCH, **WAYS[way])
    for number in range(1 + epochs):
        if number == 1:
            started, cpu = time.perf_counter(), time.process_time()
        for batch in loader:
            if way == "default + clone":
                batch = {name: value.clone() for name, value in batch.items()}
            largest = max(largest, find_anonymous_bytes())
    trials = epochs * len(dataset)
    batch_bytes = batch["betas"].numel() * batch["betas"].element_size()
    return {
        "wall": (time.perf_counter() - started) / trials,
        "cpu": (time.process_time() - cpu) / trials,
        "memory": largest - before,
        "beyond_ring": largest - before - (PREFETCH + 1) * batch_bytes,
    }


def run(store: str, way: str, epochs: int, former: str | None) -> dict[str, float]:
    environment = dict(os.environ)
    if way == "former":
        environment["PYTHONPATH"] = str(former)
    words = [sys.executable, __file__, store, "--way", way, "--epochs", str(epochs)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--former")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(loop(options.store, options.way, options.epochs)))
        return
    ways = [way for way in WAYS if way != "former" or options.former]
    rounds = [
        {way: run(options.store, way, options.epochs, options.former) for way in ways} for _ in range(options.rounds)
    ]
    for way in ways:
        middle = {name: statistics.median(each[way][name] for each in rounds) for name in rounds[0][way]}
        wall, cpu = (
            statistics.median(each[way][name] / each["reuse=True"][name] for each in rounds) for name in ("wall", "cpu")
        )
        print(
            f"{way:16} {1000 * middle['wall']:6.2f} ms wall ({wall:.2f}), {1000 * middle['cpu']:6.2f} ms processor "
            f"({cpu:.2f}), {middle['memory'] / 1e6:,.0f} MB, {middle['beyond_ring'] / 1e6:+,.0f} MB beside the ring"
        )


if __name__ == "__main__":
    main()
