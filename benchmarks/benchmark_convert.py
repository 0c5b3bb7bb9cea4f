"""How long a conversion takes, beside h5py that only reads the files and Dask that converts them; and one trial.

    python benchmarks/benchmark_convert.py [DIR] [--sessions 3] [--shape 750,83,104,81] [--rounds 3]

Simulates sessions below DIR (once), then, in rounds that alternate: h5py reads every file whole into one prepared and
touched array; `nsd-zarr convert` runs as a process of its own, start-up included; once, Dask converts in the usual way
(from_array by z slabs, rechunk, store). At the end one random trial from the source, from the store through
xarray, and from the store through zarr-python. Prints medians, and what they rest on as JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import dask.array as da
import h5py
import numpy as np
import zarr

import nsd_zarr
from nsd_zarr.simulate import SimulatedRoot, Simulation, simulate_root

SLAB_BYTES = 128 * 2**20


def read_by_h5py(files: tuple[Path, ...], block: np.ndarray) -> None:
    for path in files:
        with h5py.File(path, "r") as file:
            file["betas"].read_direct(block)


def convert_by_command(source: Path, store: Path) -> None:
    command = [sys.executable, "-c", "from nsd_zarr.cli import main; main()", "convert", "--quiet", source, store]
    subprocess.run(command, check=True)


def convert_by_dask(files: tuple[Path, ...], store: Path, trials_per_shard: int) -> None:
    opened = [h5py.File(path, "r") for path in files]
    shape = opened[0]["betas"].shape
    planes = max(1, SLAB_BYTES // (2 * shape[0] * shape[2] * shape[3]))
    parts = [da.from_array(file["betas"], chunks=(shape[0], planes, *shape[2:])) for file in opened]
    whole = da.concatenate(parts).rechunk((trials_per_shard, *shape[1:]))
    target = zarr.create_array(
        store,
        shape=whole.shape,
        dtype=whole.dtype,
        chunks=(1, *shape[1:]),
        shards=(trials_per_shard, *shape[1:]),
        compressors=[zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"), zarr.codecs.Crc32cCodec()],
    )
    da.store(whole, target, lock=False)
    for file in opened:
        file.close()


def remove(store: Path) -> None:
    for folder in (store, store.with_name(store.name + ".run")):
        shutil.rmtree(folder, ignore_errors=True)


def measure(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def measure_conversions(root: SimulatedRoot, directory: Path, rounds: int) -> dict[str, list[float]]:
    with h5py.File(root.session_files[0], "r") as file:
        block = np.empty(file["betas"].shape, file["betas"].dtype)
    block.fill(1)
    seconds: dict[str, list[float]] = {"h5py reads": [], "nsd-zarr converts": [], "dask converts": []}
    store = directory / "bench.zarr"
    for _ in range(rounds):
        seconds["h5py reads"].append(measure(lambda: read_by_h5py(root.session_files, block)))
        remove(store)
        seconds["nsd-zarr converts"].append(measure(lambda: convert_by_command(root.betas_folder, store)))
    per_shard = zarr.open_group(store, mode="r")["betas"].shards[0]
    other = directory / "dask.zarr"
    remove(other)
    seconds["dask converts"].append(measure(lambda: convert_by_dask(root.session_files, other, per_shard)))
    remove(other)
    return seconds


def measure_trials(root: SimulatedRoot, store: Path, count: int = 100) -> dict[str, list[float]]:
    dataset, array = nsd_zarr.open_dataset(store), zarr.open_group(store, mode="r")["betas"]
    trials = np.random.default_rng(0).integers(0, dataset.sizes["trial"], count).tolist()
    with h5py.File(root.session_files[0], "r") as file:
        seconds = {"h5py, one trial": [measure(lambda: file["betas"][trials[0] % file["betas"].shape[0]])]}
    for trial in trials:  # Warm the page cache: a conversion leaves it alone.
        dataset.betas[trial].load()
    seconds["ds.betas[i].values, one trial"] = [measure(lambda i=i: dataset.betas[i].values) for i in trials]
    seconds["zarr-python array[i], one trial"] = [measure(lambda i=i: array[i]) for i in trials]
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, nargs="?", default=Path("nsd-bench"))
    parser.add_argument("--sessions", type=int, default=3)
    parser.add_argument("--shape", default="750,83,104,81")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    trials, z, y, x = map(int, options.shape.split(","))
    root = simulate_root(options.directory, Simulation(sessions=options.sessions, shape=(trials, z, y, x)))
    conversions = measure_conversions(root, options.directory, options.rounds)
    reads = measure_trials(root, options.directory / "bench.zarr")
    ours, one = median(conversions["nsd-zarr converts"]), median(reads["ds.betas[i].values, one trial"])
    print(f"{options.sessions} sessions of ({options.shape}) int16, medians")
    for name, values in conversions.items():
        print(f"  {name:32} {median(values):9.2f} s   {median(values) / ours:10.2f} x ours")
    for name, values in reads.items():
        print(f"  {name:32} {1000 * median(values):9.2f} ms  {median(values) / one:10.2f} x ours")
    print(json.dumps({name: [round(value, 5) for value in values] for name, values in (conversions | reads).items()}))


if __name__ == "__main__":
    main()
