"""Compressing trials by each codec at its default level: ratio, and processor seconds a GB of values, one thread.

    python benchmarks/codecs.py [--shape 24,83,104,81] [--rounds 3] [--blocks]

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
from numcodecs import blosc

from nsd_zarr.config import DEFAULT_CLEVELS
from nsd_zarr.simulate import Simulation, simulate_root
from nsd_zarr.store.codec import BloscCodec

LEVELS, BLOCK_BYTES = (1, 3, 5), (0, 2**15, 2**16, 2**17, 2**18)


def make_trials(shape: tuple[int, ...]) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        root = simulate_root(Path(folder), Simulation(sessions=1, shape=shape))
        with h5py.File(root.session_files[0], "r") as file:
            return file["betas"][:]


def measure(trials: np.ndarray, codec: BloscCodec) -> tuple[float, float, int]:
    """Processor seconds to compress and to decompress, and bytes that came out."""
    out = np.empty_like(trials[0])
    started = time.thread_time()
    frames = [codec.encode(trial)[0] for trial in trials]
    between = time.thread_time()
    for frame in frames:
        blosc.decompress(frame, out)
    return between - started, time.thread_time() - between, sum(map(len, frames))


def list_codecs(itemsize: int, blocks: bool) -> list[BloscCodec]:
    """Each codec at its default level; with *blocks* lz4 at three levels and with several sizes of Blosc's blocks."""
    if not blocks:
        return [BloscCodec(name, level, itemsize) for name, level in DEFAULT_CLEVELS.items()]
    return [BloscCodec("lz4", level, itemsize, blocksize=size) for level in LEVELS for size in BLOCK_BYTES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="24,83,104,81")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--blocks", action="store_true", help="lz4 by level and size of blocks")
    options = parser.parse_args()
    trials = make_trials(tuple(map(int, options.shape.split(","))))
    codecs = list_codecs(trials.itemsize, options.blocks)
    found: dict[BloscCodec, list[tuple[float, float, int]]] = {codec: [] for codec in codecs}
    with ThreadPoolExecutor(1) as executor:  # As in a conversion: numcodecs compresses by itself off the main thread.
        for _ in range(options.rounds):
            for codec in codecs:
                found[codec].append(executor.submit(measure, trials, codec).result())
    gb = trials.nbytes / 1e9
    for codec, rounds in found.items():
        encode, decode, size = (median(values) for values in zip(*rounds, strict=True))
        block = f"blocks {codec.blocksize // 1024:4} kB" if codec.blocksize else ""
        print(
            f"{codec.cname:8} level {codec.clevel} {block:15} {trials.nbytes / size:5.2f} times smaller  "
            f"{encode / gb:6.2f} s/GB  decoded {decode / gb:6.3f} s/GB"
        )


if __name__ == "__main__":
    main()
