"""Random trials over many shards and over few: the same trials, stored twice, read in rounds that alternate.

    python benchmarks/shards.py [DIR] [--shape 800,52,41,40] [--shards 10,400] [--rounds 9]

Simulates one session of the shape (trials, z, y, x) below DIR (once), converts it with each number of shards, and reads
random trials by one thread, page cache warm. Prints medians of wall and processor time a trial.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np

import nsd_zarr
from nsd_zarr.simulate import Simulation, simulate_root
from nsd_zarr.store.reader import TrialReader
from nsd_zarr.store.root import open_store


def read(reader: TrialReader, trials: list[int], out: np.ndarray) -> tuple[float, float]:
    """Wall and processor microseconds a trial."""
    started, used = time.perf_counter(), time.thread_time()
    for trial in trials:
        reader.read_into(trial, out)
    return tuple(1e6 * seconds / len(trials) for seconds in (time.perf_counter() - started, time.thread_time() - used))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, nargs="?", default=Path("nsd-bench"))
    parser.add_argument("--shape", default="800,52,41,40")
    parser.add_argument("--shards", default="10,400")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    shape, counts = (tuple(map(int, words.split(","))) for words in (options.shape, options.shards))
    root = simulate_root(options.directory, Simulation(sessions=1, shape=shape))
    readers = {}
    for count in counts:
        store = options.directory / f"{count}_shards.zarr"
        nsd_zarr.convert(root.betas_folder, store, trials_per_shard=shape[0] // count)
        readers[count] = TrialReader(open_store(store))
    trials = np.random.default_rng(0).integers(0, shape[0], 2 * shape[0]).tolist()
    out, times = np.empty(shape[1:], np.int16), {count: [] for count in counts}
    with ThreadPoolExecutor(1) as executor:  # Off the main thread, where Blosc's own pool would help.
        for number in range(options.rounds + 1):
            for count, reader in readers.items():
                found = executor.submit(read, reader, trials, out).result()
                times[count] += [found] if number else []  # The first round opens every shard.
    first = [median(each) for each in zip(*times[counts[0]], strict=True)]
    for count in counts:
        wall, used = (median(each) for each in zip(*times[count], strict=True))
        print(f"{count:5} shards  {wall:7.1f} us a trial ({wall / first[0]:.3f})  {used:7.1f} us of processor time")


if __name__ == "__main__":
    main()
