"""Random trials from one store by every reader at hand, beside the floors of the hardware; a table, JSON and a picture.

    python pipelines/benchmark_read.py [DIR] [--shape 750,83,104,81] [--rounds 5] [--out DIR/read]

Simulates one session below DIR (once), converts it, and measures with nsd_zarr.bench: the bare floors, our engine,
loader and xarray, zarr-python, xr.open_zarr, TensorStore and zarrs where installed, h5py on the session file and on a
trial-chunked gzip file, an uncompressed float32 memory map, and stock DataLoaders with two workers where PyTorch is.
The reference size is --shape 750,150,150,100. Writes OUT.json and, where matplotlib is installed, OUT.png.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr

import nsd_zarr
from nsd_zarr.bench.contenders import BATCH, Contender, Deliver
from nsd_zarr.bench.run import BenchReport, bench, make_table
from nsd_zarr.simulate import Simulation, simulate_root

MAPPED_TRIALS = 256
"""Trials of the memory map and of the gzip file: as many as fit the page cache beside the rest."""


def make_memory_map(store: Path, path: Path) -> None:
    betas = nsd_zarr.open_dataset(store).betas
    count = min(MAPPED_TRIALS, betas.shape[0])
    mapped = np.lib.format.open_memmap(path, "w+", np.float32, (count, *betas.shape[1:]))
    for trial in range(count):
        mapped[trial] = betas[trial].values
    mapped.flush()


def make_gzip(store: Path, path: Path) -> None:
    betas = nsd_zarr.open_dataset(store, mask_and_scale=False).betas
    shape = (min(MAPPED_TRIALS, betas.shape[0]), *betas.shape[1:])
    with h5py.File(path, "w") as file:
        data = file.create_dataset("betas", shape, np.int16, chunks=(1, *shape[1:]), compression="gzip", shuffle=True)
        for trial in range(shape[0]):
            data[trial] = betas[trial].values


@contextmanager
def open_memory_map(path: Path) -> Iterator[Deliver]:
    mapped = np.load(path, mmap_mode="r")
    slot = np.ones((BATCH, *mapped.shape[1:]), np.float32)

    def deliver(trials: Sequence[int]) -> None:
        for position, trial in enumerate(trials):
            slot[position % BATCH] = mapped[trial % len(mapped)]

    yield deliver


@contextmanager
def open_gzip(path: Path) -> Iterator[Deliver]:
    with h5py.File(path, "r") as file:
        data = file["betas"]

        def deliver(trials: Sequence[int]) -> None:
            for trial in trials:
                data[trial % len(data)]

        yield deliver


class ZarrTrials:
    """What one writes without this package: a dataset over zarr-python, opened where it is used."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.array: Any = None

    def __getitem__(self, trial: int) -> np.ndarray:
        if self.array is None:
            self.array = zarr.open_array(self.store / "betas", mode="r")
        return np.float32(self.array[trial]) / np.float32(300)


class Batches:
    """A batch sampler whose trials can be exchanged between two iterations."""

    trials: Sequence[int] = ()

    def __iter__(self) -> Iterator[Sequence[int]]:
        return (self.trials[start : start + BATCH] for start in range(0, len(self.trials), BATCH))

    def __len__(self) -> int:
        return -(-len(self.trials) // BATCH)


@contextmanager
def open_data_loader(make: Callable[[], Any], workers: int) -> Iterator[Deliver]:
    from torch.utils.data import DataLoader

    batches = Batches()
    loader = DataLoader(make(), batch_sampler=batches, num_workers=workers, persistent_workers=True)

    def deliver(trials: Sequence[int]) -> None:
        batches.trials = trials
        for _ in loader:
            pass

    yield deliver


def list_more(store: Path, directory: Path, workers: int) -> list[Contender]:
    mapped, gzipped = directory / "read.npy", directory / "read.hdf5"
    make_memory_map(store, mapped)
    make_gzip(store, gzipped)
    more = [
        Contender("float32 memory map, uncompressed", "float32", 1, partial(open_memory_map, mapped)),
        Contender("h5py, trial-chunked gzip", "int16", 1, partial(open_gzip, gzipped)),
    ]
    if importlib.util.find_spec("torch"):
        from nsd_zarr.torch import TrialDataset

        ours, other = partial(TrialDataset, store), partial(ZarrTrials, store)
        more.append(
            Contender("DataLoader over TrialDataset", "float32", workers, partial(open_data_loader, ours, workers))
        )
        more.append(
            Contender("DataLoader over zarr-python", "float32", workers, partial(open_data_loader, other, workers))
        )
    return more


def draw(report: BenchReport, path: Path) -> None:
    """Trials a second of each reader as bars, the floor of its dtype drawn in."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in report.rows if not row.name.startswith("floor")]
    rows.sort(key=lambda row: row.trials_per_second)
    floors = {(row.delivers, row.threads): row.trials_per_second for row in report.rows if row.name.startswith("floor")}
    figure, axes = plt.subplots(figsize=(9, 0.36 * len(rows) + 1.6), layout="constrained")
    colours = ["#1f6f8b" if row.name.startswith(("nsd_zarr", "ds.betas")) else "#b8b8b8" for row in rows]
    axes.barh(range(len(rows)), [row.trials_per_second for row in rows], color=colours)
    for position, row in enumerate(rows):
        floor = floors.get((row.delivers, row.threads))
        if floor:
            axes.plot([floor, floor], [position - 0.42, position + 0.42], color="#c0392b", linewidth=2)
        axes.text(row.trials_per_second, position, f" {row.trials_per_second:,.4g}", va="center", fontsize=8)
    labels = [f"{row.name}, {row.delivers}, {row.threads} thread{'s' * (row.threads > 1)}" for row in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.set_xlabel("random trials a second (red: pread + crc + decode, for float32 + cast, same threads)")
    axes.set_title(
        f"{report.trial_bytes / 1e6:.2f} MB a trial, {report.stored_bytes_per_trial / 1e6:.2f} MB on disk, cache warm",
        fontsize=10,
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, nargs="?", default=Path("nsd-bench"))
    parser.add_argument("--shape", default="750,83,104,81")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=960)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    trials, z, y, x = map(int, options.shape.split(","))
    directory = options.directory / options.shape.replace(",", "x")
    root = simulate_root(directory, Simulation(sessions=1, shape=(trials, z, y, x)))
    store = directory / "read.zarr"
    nsd_zarr.convert(root.betas_folder, store)
    report = bench(
        store,
        root.betas_folder,
        rounds=options.rounds,
        trials=options.trials,
        threads=options.threads,
        more=list_more(store, directory, 2),
        on_step=lambda step: print(f"\r{step:78}", end="", flush=True),
    )
    print("\r" + make_table(report))
    out = options.out or directory / "read"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(report.as_dict(), indent=1) + "\n")
    if importlib.util.find_spec("matplotlib"):
        draw(report, out.with_suffix(".png"))


if __name__ == "__main__":
    main()
