"""Random trials by every reader at hand, beside the floors of the hardware, at one or more geometries.

    python benchmarks/benchmark_read.py [DIR] [--shape 750,83,104,81 --shape 240,150,150,100] [--rounds 3]

Simulates one session of each shape (trials, z, y, x) below DIR (once), converts it, and measures with nsd_zarr.bench,
page cache warm and cold: the bare floors, our engine, loader and xarray, zarr-python, xr.open_zarr, TensorStore, zarrs
where installed, h5py on the session file and on a trial-chunked gzip file, an uncompressed float32 memory map, and
stock DataLoaders with two and four workers over them where PyTorch is. The reference size is 750,150,150,100; fewer
trials of it do. Writes OUT.json (a list of reports) and, where matplotlib is installed, OUT.png.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from functools import partial
from pathlib import Path

import nsd_zarr
from nsd_zarr.bench.copies import GzipTrials, MappedTrials, list_copies, make_gzip, make_memory_map
from nsd_zarr.bench.picture import draw_reports
from nsd_zarr.bench.run import BenchReport, bench, make_table
from nsd_zarr.bench.workers import list_data_loaders
from nsd_zarr.simulate import Simulation, simulate_root
from nsd_zarr.store.root import open_store


def measure(directory: Path, shape: str, options: argparse.Namespace) -> BenchReport:
    count, z, y, x = map(int, shape.split(","))
    directory = directory / shape.replace(",", "x")
    root = simulate_root(directory, Simulation(sessions=1, shape=(count, z, y, x)))
    store, mapped, gzipped = directory / "read.zarr", directory / "read.npy", directory / "read.hdf5"
    nsd_zarr.convert(root.betas_folder, store)
    make_memory_map(store, mapped)
    make_gzip(store, gzipped)
    more = list_copies(mapped, gzipped, count)
    if options.workers:
        sizes = [copy.stored_bytes for copy in more]
        datasets = {"memory map": partial(MappedTrials, mapped), "h5py, gzip": partial(GzipTrials, gzipped)}
        others = {name: (make, size) for (name, make), size in zip(datasets.items(), sizes, strict=True)}
        more += list_data_loaders(open_store(store), others)
    return bench(
        store,
        root.betas_folder,
        rounds=options.rounds,
        trials=options.trials,
        threads=options.threads,
        cold=True,
        more=more,
        on_step=lambda step: print(f"\r{step:78}", end="", flush=True),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, nargs="?", default=Path("nsd-bench"))
    parser.add_argument("--shape", action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=480)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-workers", dest="workers", action="store_false", help="leave out DataLoaders")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    reports = []
    for shape in options.shape or ["750,83,104,81", "240,150,150,100"]:
        reports.append(measure(options.directory, shape, options))
        print("\r" + make_table(reports[-1]))
    out = options.out or options.directory / "read"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps([report.as_dict() for report in reports], indent=1) + "\n")
    if importlib.util.find_spec("matplotlib"):
        draw_reports(reports, out.with_suffix(".png"))


if __name__ == "__main__":
    main()
