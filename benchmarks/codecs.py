"""Compressing trials by each codec at its default level: ratio, and processor seconds a GB of values, one thread.

    python benchmarks/codecs.py [--shape 24,83,104,81] [--rounds 3]

Of simulated betas, as a conversion compresses them: byte shuffle, one frame a trial. Prints medians of rounds in turns.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import h5py
import numpy as np

from nsd_zarr.config import DEFAULT_CLEVELS
from nsd_zarr.simulate import Simulation, simulate_root
from nsd_zarr.store.codec import BloscCodec


def make_trials(shape: tuple[int, ...]) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        root = simulate_root(Path(folder), Simulation(sessions=1, shape=shape))
        with h5py.File(root.session_files[0], "r") as file:
            return file["betas"][:]


def encode(trials: np.ndarray, codec: BloscCodec) -> tuple[float, int]:
    """Processor seconds, and bytes that came out."""
    started = time.thread_time()
    size = sum(len(codec.encode(trial)[0]) for trial in trials)
    return time.thread_time() - started, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="24,83,104,81")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    trials = make_trials(tuple(map(int, options.shape.split(","))))
    codecs = {name: BloscCodec(name, level, trials.itemsize) for name, level in DEFAULT_CLEVELS.items()}
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in codecs}
    with ThreadPoolExecutor(1) as executor:  # As in a conversion: numcodecs compresses by itself off the main thread.
        for _ in range(options.rounds):
            for name, codec in codecs.items():
                found[name].append(executor.submit(encode, trials, codec).result())
    for name, rounds in found.items():
        seconds, size = median(used for used, _ in rounds), rounds[0][1]
        gb = trials.nbytes / 1e9
        print(
            f"{name:8} level {codecs[name].clevel}  {trials.nbytes / size:5.2f} times smaller  {seconds / gb:6.2f} s/GB"
        )


if __name__ == "__main__":
    main()
