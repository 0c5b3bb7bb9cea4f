"""How fast each form of a session is converted, beside what unpacking and compressing take at least.

    python benchmarks/forms.py [DIR] [--shape 750,83,104,81] [--rounds 3] [--forms hdf5,nifti]

Simulates one session in every form below DIR (once), and converts it, and then it and four copies, in rounds that
alternate, page cache warm. Prints medians of values a second, of what four sessions take more than none: start, plan
and experiment are left out; of `.nii.gz` beside the lesser of two floors: unpacking alone, which one thread does,
and all its processor work (unpacking, Blosc, sums and digests, each measured alone) shared by the cores.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import h5py
import numpy as np

import nsd_zarr
from nsd_zarr.config import DEFAULT_CLEVELS
from nsd_zarr.forms import FORM_NAMES, HDF5, NIFTI
from nsd_zarr.resources import count_cores
from nsd_zarr.science.moments import Moments
from nsd_zarr.simulate import SimulatedRoot, Simulation, simulate_root
from nsd_zarr.source.forms.gzip_stream import GzipStream
from nsd_zarr.store.codec import BloscCodec
from nsd_zarr.store.digest import make_digest

MORE = 4
"""Sessions whose time is taken: that of two differed by a third between rounds."""
SHARD = 75
"""Trials that are added up at a time."""
NIFTI_HEAD = 352
"""Bytes before the first trial."""


def measure_processor(action: Callable[[], object]) -> float:
    """Processor seconds of *action*, which runs off the main thread as in a conversion."""
    with ThreadPoolExecutor(1) as executor:
        started = time.process_time()
        executor.submit(action).result()
        return time.process_time() - started


def unpack(path: Path, length: int) -> None:
    with open(path, "rb", buffering=0) as file:
        stream = GzipStream(file.fileno())
        stream.skip(length)
        stream.finish()


def compress(trials: np.ndarray) -> None:
    codec = BloscCodec("lz4", DEFAULT_CLEVELS["lz4"], trials.itemsize)
    for trial in trials:
        codec.encode(trial)
        make_digest(trial)


def add_up(trials: np.ndarray) -> None:
    moments = Moments((trials[0].size,), trials.dtype, note_limits=True)
    with ThreadPoolExecutor(1) as executor:
        for first in range(0, len(trials), SHARD):
            moments.add_block(trials[first : first + SHARD].reshape(-1, trials[0].size), executor)


def measure_floors(root: SimulatedRoot) -> dict[str, float]:
    """Seconds to unpack alone; processor seconds of everything, on all cores."""
    (packed,) = (path for path in root.forms[NIFTI.name][0] if path.suffix == ".gz")
    with h5py.File(root.session_files[0], "r") as file:
        trials = file["betas"][:]
    alone = measure_processor(lambda: unpack(packed, NIFTI_HEAD + trials.nbytes))
    work = alone + measure_processor(lambda: compress(trials)) + measure_processor(lambda: add_up(trials))
    return {"unpacking alone": alone, "all work, on every core": work / count_cores()}


def measure_forms(root: SimulatedRoot, store: Path) -> dict[str, tuple[float, int]]:
    """Wall seconds of MORE more sessions, and bytes of their values, of each form."""
    found = {}
    for name in root.forms:
        folder, taken = root.forms[name][0][0].parent, []
        for path in (path for paths in root.forms[name] for path in paths):
            path.read_bytes()  # Cached, as all are.
            for number in range(2, MORE + 2):
                copy = path.with_name(path.name.replace("session01", f"session{number:02d}"))
                if not copy.exists():
                    shutil.copyfile(path, copy)
        for sessions in ("1", f"1-{MORE + 1}"):
            started = time.perf_counter()
            report = nsd_zarr.convert(folder, store, form=name, sessions=sessions)
            taken.append((time.perf_counter() - started, report.bytes_in))
            for each in (store, store.with_name(store.name + ".run")):
                shutil.rmtree(each)
        found[name] = taken[1][0] - taken[0][0], taken[1][1] - taken[0][1]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, nargs="?", default=Path("nsd-bench"))
    parser.add_argument("--shape", default="750,83,104,81")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--forms", default=",".join(FORM_NAMES), help="hdf5 and nifti at least")
    options = parser.parse_args()
    shape = tuple(map(int, options.shape.split(",")))
    root = simulate_root(options.directory, Simulation(sessions=1, shape=shape, forms=tuple(options.forms.split(","))))
    floors: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, seconds in measure_floors(root).items():
            floors.setdefault(name, []).append(seconds)
        for name, (seconds, size) in measure_forms(root, options.directory / "form.zarr").items():
            rates.setdefault(name, []).append(size / seconds / 1e6)
    size = 2 * math.prod(shape) / 1e6
    ceilings = {name: size / median(each) for name, each in floors.items()}
    for name, rate in ceilings.items():
        print(f"  {NIFTI.name}: {name:30} {rate:8.0f} MB/s")
    for name, each in rates.items():
        of = median(each) / (min(ceilings.values()) if name == NIFTI.name else median(rates[HDF5.name]))
        print(f"  {name:39} {median(each):8.0f} MB/s  {100 * of:.0f} % of {'that' if name == NIFTI.name else 'hdf5'}")
    print(json.dumps({name: [round(value, 2) for value in each] for name, each in (floors | rates).items()}))


if __name__ == "__main__":
    main()
