"""Damage small stores in thousands of ways, and count what readers, verify and repair make of it.

    python tests/stress/damage_store.py [--flips 10000] [--others 1000] [--seed 0] [--processes 1] [--json OUT.json]

Three stores: one compressed, one of incompressible values, and one that holds an experiment (trial table, masks, ROIs,
noise ceiling, statistics) of a simulated root. Flips: one bit of one file. Others: truncations, deletions, swaps of two
files of a kind, of equal size where there are such (of root documents there is one: it is cut instead). Spread over
every kind of file. After each, every reader that looks at the damaged file reads all that it can, and after one in ten
(and each of the root document) every reader there is: a value that differs from the undamaged store's without an error
is a silent change. Then verify must name the file, and repair must give its bytes back. Files of the run beside the
store are damaged too, of a finished and of an unfinished one: then convert, run again, must refuse or end with the very
same store. Exit code 1 where any of that fails. Flushing to disk is left out: it is most of the time, and nothing here
cuts the power.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

import nsd_zarr
from nsd_zarr.simulate import Simulation, simulate_root

SESSIONS, TRIALS, VOLUME, EXPERIMENT_VOLUME = (1, 2, 4), 12, (3, 7, 5), (7, 5, 6)
OPTIONS = {"sessions": "1-2,4", "trials_per_shard": 4, "workers": 1, "memory": "1GiB"}
KINDS = {
    "root document": 12,
    "array metadata": 9,
    "shard, chunks": 32,
    "shard, index": 12,
    "small arrays": 7,
    "volumes": 7,
    "statistics": 7,
    "trial table": 6,
    "run, finished": 4,
    "run, unfinished": 4,
}
"""Kinds of files, with their part of all damages in percent."""
WAYS = {"truncated": 40, "deleted": 20, "swapped": 40}
"""What is done beside flips, in percent."""
COORDINATES = ("session", "trial_in_session", "session_number", "trial_digest")
"""Small arrays of every store."""
STATISTICS = ("session_mean", "session_std", "rail_count")
ROIS = ("nsdgeneral", "prf-visualrois", "streams", "floc-faces")
"""A few of the sets of regions, so that few files are written."""
ALONG_VOXELS = ("brainmask", "ncsnr", "valid", "affine")
"""Volumes that are no ROI, and where they lie."""
WHOLE_SHARE = 0.1
"""Damages after which every reader is tried, also those that do not look at the damaged file."""


@dataclass
class Tally:
    """What became of the damages of one kind and way."""

    done: int = 0
    whole: int = 0
    """Every reader was tried, not only those that look at the damaged file."""
    silent: int = 0
    """A reader returned another value without an error."""
    refused: int = 0
    """Some reader raised an error of ours."""
    named: int = 0
    """verify named the file, or refused the store."""
    restored: int = 0
    """repair (for a run: convert) gave every byte back."""
    declined: int = 0
    """For a run: convert refused, and says why."""
    failures: list[str] = field(default_factory=list)


@dataclass
class Sample:
    """A store to be damaged, and what it holds."""

    store: Path
    source: Path
    files: dict[Path, bytes]
    """Every file of store and run as it was."""
    ways: tuple[Way, ...] = ()
    """All readers, and what they return of the undamaged store."""

    def restore(self) -> None:
        """Put every byte back, and remove what was added."""
        for path in [*self.store.rglob("*"), *run_of(self.store).rglob("*")]:
            if path.is_file() and path not in self.files:
                path.unlink()
        for path, data in self.files.items():
            if not path.exists() or path.read_bytes() != data:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)

    def is_whole(self) -> bool:
        """Whether the store (not its run) has the very bytes that it had."""
        now = {path: path.read_bytes() for path in self.store.rglob("*") if path.is_file()}
        return {path.relative_to(self.store).as_posix(): data for path, data in now.items()} == self.list_store()

    def list_store(self) -> dict[str, bytes]:
        """Every file of the store as it was, by its path inside."""
        known = ((path, data) for path, data in self.files.items() if path.is_relative_to(self.store))
        return {path.relative_to(self.store).as_posix(): data for path, data in known}


def run_of(store: Path) -> Path:
    return store.with_name(store.name + ".run")


def read_files(store: Path) -> dict[Path, bytes]:
    files = (path for folder in (store, run_of(store)) for path in folder.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files}


# -- stores ------------------------------------------------------------------------------------------------------


def make_values(random: np.random.Generator, compressible: bool) -> np.ndarray:
    shape = (len(SESSIONS) * TRIALS, *VOLUME)
    # Incompressible trials are stored as they are: every shard has the same size then.
    return (
        random.integers(-200, 200, shape, "int16") if compressible else random.integers(-(2**15), 2**15, shape, "int16")
    )


def make_sample(folder: Path, random: np.random.Generator, *, compressible: bool) -> Sample:
    values = make_values(random, compressible)
    (folder / "source").mkdir(parents=True)
    for session, betas in zip(SESSIONS, np.split(values, len(SESSIONS)), strict=True):
        with h5py.File(folder / f"source/betas_session{session:02d}.hdf5", "w", libver="earliest") as file:
            file.create_dataset("betas", data=betas, chunks=(TRIALS, 1, 1, 1))
    return convert_sample(folder / "source", folder / "subj01.zarr", values)


def make_experiment(folder: Path, random: np.random.Generator) -> Sample:
    """A store with all that a simulated root has: its files are of more kinds."""
    seed = int(random.integers(2**31))
    root = simulate_root(
        folder / "nsd", Simulation(SESSIONS[-1], (TRIALS, *EXPERIMENT_VOLUME), seed=seed, rois=ROIS, hemispheres=False)
    )
    # 73,000 rows that are compared with the trial table, and not stored: most of the time of a repair.
    root.stim_info.unlink()
    values = []
    for session in SESSIONS:
        with h5py.File(root.session_files[session - 1]) as file:
            values.append(file["betas"][:])
    return convert_sample(folder / "nsd", folder / "subj01.zarr", np.concatenate(values))


def convert_sample(source: Path, store: Path, values: np.ndarray) -> Sample:
    nsd_zarr.convert(source, store, **OPTIONS)
    if not np.array_equal(nsd_zarr.open_dataset(store, raw=True).betas.values, values):
        raise SystemExit(f"{store} does not hold its sources")
    return Sample(store, source, read_files(store), tuple(find_ways(store)))


def make_unfinished(folder: Path, whole: Sample) -> Sample:
    """The same conversion, stopped in its last session. Nothing reads it."""
    store, seen = folder / "unfinished.zarr", Counter()

    def stop(event: object) -> None:
        seen["events"] += 1
        if seen["events"] > 2 * TRIALS + 6:
            raise KeyboardInterrupt

    try:
        nsd_zarr.convert(whole.source, store, on_event=stop, **OPTIONS)
    except KeyboardInterrupt:
        return Sample(store, whole.source, read_files(store))
    raise SystemExit("the conversion ended before it was stopped")


# -- damages -----------------------------------------------------------------------------------------------------


def find_targets(kind: str, sample: Sample) -> list[Path]:
    """Files of a kind."""

    def is_meant(path: Path) -> bool:
        parts = path.relative_to(sample.store.parent).parts
        if parts[0].endswith(".run"):
            return kind.startswith("run") and parts[-1] != "lock"
        if parts[1:] == ("zarr.json",):
            return kind == "root document"
        if parts[-1] == "zarr.json":
            return kind == "array metadata"
        return kind == find_kind(parts[1]) or (kind.startswith("shard") and parts[1] == "betas")

    return [path for path in sample.files if is_meant(path)]


def find_kind(array: str) -> str:
    """Of the chunks of an array other than betas."""
    if array in STATISTICS:
        return "statistics"
    if array in ALONG_VOXELS or array.startswith("roi_"):
        return "volumes"
    return "small arrays" if array in COORDINATES else "betas" if array == "betas" else "trial table"


def flip_bit(kind: str, sample: Sample, random: np.random.Generator) -> list[Path]:
    path = pick(find_targets(kind, sample), random)
    data = bytearray(sample.files[path])
    index = len(data) - 16 * OPTIONS["trials_per_shard"] - 4
    first, stop = {"shard, chunks": (0, index), "shard, index": (index, len(data))}.get(kind, (0, len(data)))
    data[int(random.integers(first, stop))] ^= 1 << int(random.integers(8))
    path.write_bytes(data)
    return [path]


def truncate(kind: str, sample: Sample, random: np.random.Generator) -> list[Path]:
    path = pick(find_targets(kind, sample), random)
    os.truncate(path, int(random.integers(len(sample.files[path]))))
    return [path]


def delete(kind: str, sample: Sample, random: np.random.Generator) -> list[Path]:
    path = pick(find_targets(kind, sample), random)
    path.unlink()
    return [path]


def swap(kind: str, sample: Sample, random: np.random.Generator) -> list[Path]:
    files = find_targets(kind, sample)
    pairs = [(a, b) for a in files for b in files if a < b and sample.files[a] != sample.files[b]]
    alike = [(a, b) for a, b in pairs if len(sample.files[a]) == len(sample.files[b])]
    first, second = pick(alike if alike and random.random() < 0.7 else pairs, random)
    first.write_bytes(sample.files[second])
    second.write_bytes(sample.files[first])
    return [first, second]


def pick(choices: list, random: np.random.Generator):
    return choices[int(random.integers(len(choices)))]


DAMAGES: dict[str, Callable[[str, Sample, np.random.Generator], list[Path]]] = {
    "flipped": flip_bit,
    "truncated": truncate,
    "deleted": delete,
    "swapped": swap,
}

# -- what becomes of them ----------------------------------------------------------------------------------------


Value = tuple[str, tuple[int, ...], bytes]
"""Dtype, shape and bytes: NaN equals itself."""


@dataclass(frozen=True)
class Way:
    """A reader: what it looks at beside the root document, and what it returns."""

    name: str
    arrays: frozenset[str]
    """Whose chunks it reads."""
    open: Callable[[Path], Mapping[str, Callable[[], object]]]
    """Opens a store, and gives all that can be asked for, by name."""
    right: Mapping[str, Value]
    """What it returned of the undamaged store."""


def find_ways(store: Path) -> list[Way]:
    """All readers that a store has, each tried on it."""
    ways = {
        "percent": ({"betas"}, lambda store: open_parts(store, whole=lambda ds: ds.betas)),
        "mean": ({"betas"}, lambda store: open_parts(store, mean=lambda ds: ds.betas.mean("trial"))),
        "single trials": ({"betas"}, lambda store: split_trials(nsd_zarr.open_dataset(store, raw=True).betas)),
        "arrays": (set(nsd_zarr.open_dataset(store).variables) - {"betas"}, open_arrays),
    }
    columns = {"nsd_id", "image_10k", "repeat", "shared1000"}
    torch = importlib.util.find_spec("torch") is not None
    if torch:
        ways["torch"] = ({"betas", *columns}, lambda store: open_torch(store, raw=True))
    if (store / "session_mean").exists():
        scores = {"betas", "session_mean", "session_std"}
        ways["zscore"] = (scores, lambda store: split_trials(nsd_zarr.open_dataset(store).nsd.zscore("session").betas))
    if (store / "roi_nsdgeneral").exists():
        regions = [("nsdgeneral", "nsdgeneral"), ("streams", "streams"), ("V1v", "prf-visualrois"), ("brainmask", "")]
        for label, roi in regions:
            arrays = {"betas", "affine", "ncsnr", "valid", "session_mean", "session_std"} | {f"roi_{roi}", "brainmask"}
            ways[f"roi {label}"] = (arrays, lambda store, label=label: open_region(store, label))
        ways["test trials"] = ({"betas", "shared1000"}, lambda store: open_parts(store, test=read_test_trials))
    if torch and (store / "roi_nsdgeneral").exists():
        arrays = {*scores, *columns, "roi_nsdgeneral"}
        ways["torch, z-scored ROI"] = (
            arrays,
            lambda store: open_torch(store, roi="nsdgeneral", zscore="session"),
        )
    found = [Way(name, frozenset(arrays), open_, {}) for name, (arrays, open_) in ways.items()]
    return [Way(way.name, way.arrays, way.open, read_way(way, store)) for way in found]


def open_parts(store: Path, **parts: Callable[[object], object]) -> dict[str, Callable[[], object]]:
    dataset = nsd_zarr.open_dataset(store)
    return {name: lambda part=part: part(dataset) for name, part in parts.items()}


def open_arrays(store: Path) -> dict[str, Callable[[], object]]:
    dataset = nsd_zarr.open_dataset(store)
    return {str(name): lambda name=name: dataset[name] for name in dataset.variables if name != "betas"}


def open_region(store: Path, label: str) -> dict[str, Callable[[], object]]:
    region = nsd_zarr.open_dataset(store).nsd.roi(label)
    parts = {str(name): lambda name=name: region[name] for name in region.variables if name != "betas"}
    return parts | split_trials(region.betas)


def read_test_trials(dataset: object) -> object:
    return dataset.nsd.split("shared1000").test.betas


def split_trials(betas: object) -> dict[str, Callable[[], object]]:
    return {f"trial {trial}": lambda trial=trial: betas[trial] for trial in range(betas.sizes["trial"])}


def open_torch(store: Path, **options: object) -> dict[str, Callable[[], object]]:
    from nsd_zarr.torch import TrialDataset

    trials = TrialDataset(store, **options)

    def read(trial: int) -> np.ndarray:
        sample = trials[trial]
        others = [value for name, value in sorted(sample.items()) if name != "betas"]
        return np.concatenate([np.asarray(others, "float64"), sample["betas"].numpy().ravel().astype("float64")])

    return {f"trial {trial}": lambda trial=trial: read(trial) for trial in range(len(trials))}


def read_way(way: Way, store: Path) -> dict[str, Value | None]:
    """All that a reader returns of a store, None where it refuses with an error of ours."""
    try:
        parts = way.open(store)
    except nsd_zarr.NsdZarrError:
        return {"opening": None}
    found: dict[str, Value | None] = {}
    for name, read in parts.items():
        try:
            values = np.asarray(read())
            found[name] = (values.dtype.str, values.shape, values.tobytes())
        except nsd_zarr.NsdZarrError:
            found[name] = None
    return found


def find_ways_to(sample: Sample, damaged: list[Path], *, whole: bool) -> list[Way]:
    """The readers of damaged files; all of them where *whole*, or where everybody looks."""
    keys = [path.relative_to(sample.store).parts for path in damaged]
    arrays = {key[0] for key in keys if key[-1] != "zarr.json"}
    return [way for way in sample.ways if whole or ("zarr.json",) in keys or way.arrays & arrays]


def look_at_store(sample: Sample, damaged: list[Path], tally: Tally, *, whole: bool) -> None:
    """Read, verify and repair a damaged store."""
    ways = find_ways_to(sample, damaged, whole=whole)
    outcomes = {
        (way.name, name): (value, way.right.get(name))
        for way in ways
        for name, value in read_way(way, sample.store).items()
    }
    wrong = [name for name, (found, right) in outcomes.items() if found is not None and found != right]
    tally.whole += len(ways) == len(sample.ways)
    tally.silent += bool(wrong)
    tally.refused += any(found is None for found, _ in outcomes.values())
    try:
        found = {damage.path for damage in nsd_zarr.verify(sample.store, workers=1).damages}
        is_named = {path.relative_to(sample.store).as_posix() for path in damaged} <= found
    except nsd_zarr.NsdZarrError:
        is_named = True
    tally.named += is_named
    outcome = "repaired, and other bytes came out"
    try:
        nsd_zarr.repair(sample.store, sample.source, workers=1, memory="1GiB")
    except nsd_zarr.NsdZarrError as error:
        outcome = str(error)
    is_restored = sample.is_whole()
    tally.restored += is_restored
    if wrong or not is_named or not is_restored:
        tally.failures.append(f"{damaged}: silent {wrong}, named {is_named}, restored {is_restored} ({outcome})")


def look_at_run(sample: Sample, damaged: list[Path], whole: dict[str, bytes], tally: Tally) -> None:
    """Convert again beside a damaged run."""
    try:
        nsd_zarr.convert(sample.source, sample.store, **OPTIONS)
    except nsd_zarr.NsdZarrError:
        tally.declined += 1
        return
    found = {
        path.relative_to(sample.store).as_posix(): path.read_bytes()
        for path in sample.store.rglob("*")
        if path.is_file()
    }
    tally.restored += found == whole
    if found != whole:
        tally.silent += 1
        tally.failures.append(f"{damaged}: convert ended with other bytes")


def share(total: int, parts: dict[str, int]) -> dict[str, int]:
    """*total* in whole numbers, as *parts* in percent have it."""
    counts = {name: total * part // 100 for name, part in parts.items()}
    first = max(counts, key=lambda name: counts[name])
    return counts | {first: counts[first] + total - sum(counts.values())}


def plan(flips: int, others: int, random: np.random.Generator) -> list[tuple[str, str]]:
    """Kind and way of every damage, shuffled."""
    jobs = [(kind, "flipped") for kind, count in share(flips, KINDS).items() for _ in range(count)]
    for kind, count in share(others, KINDS).items():
        ways = {"truncated": 70, "deleted": 30} if kind == "root document" else WAYS
        jobs += [(kind, way) for way, number in share(count, ways).items() for _ in range(number)]
    random.shuffle(jobs)
    return jobs


def make_table(tallies: dict[tuple[str, str], Tally]) -> str:
    names = ["file", "damage", "done", "all readers tried", "silent change", "a reader refused", "named"]
    rows = [f"| {' | '.join([*names, 'bytes restored', 'convert refused'])} |", f"|{'---|' * (len(names) + 2)}"]
    for (kind, way), tally in sorted(tallies.items()):
        store = (tally.whole, tally.silent, tally.refused, tally.named, tally.restored, "")
        run = ("", tally.silent, "", "", tally.restored, tally.declined)
        cells = (kind, way, tally.done, *(run if kind.startswith("run") else store))
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows)


def add_up(parts: list[dict[tuple[str, str], Tally]]) -> dict[tuple[str, str], Tally]:
    total: dict[tuple[str, str], Tally] = {}
    for key, tally in ((key, tally) for part in parts for key, tally in part.items()):
        known = vars(total.setdefault(key, Tally()))
        known |= {name: known[name] + value for name, value in vars(tally).items()}
    return total


# -- the whole ---------------------------------------------------------------------------------------------------


def damage_all(jobs: list[tuple[str, str]], seed: tuple[int, int]) -> dict[tuple[str, str], Tally]:
    """Do *jobs*, on stores made of *seed*."""
    random, tallies = np.random.default_rng(seed), {}
    flush, os.fsync = os.fsync, lambda descriptor: None
    folder = Path(tempfile.mkdtemp(prefix="damage-"))
    try:
        wholes = [make_sample(folder / name, random, compressible=name == "lz4") for name in ("lz4", "stored")]
        wholes.append(make_experiment(folder / "experiment", random))
        runs = [(whole, make_unfinished(whole.store.parent, whole)) for whole in (wholes[0], wholes[2])]
        for kind, way in jobs:
            tally = tallies.setdefault((kind, way), Tally())
            tally.done += 1
            if kind.startswith("run"):
                whole, unfinished = pick(runs, random)
                sample = unfinished if kind == "run, unfinished" else whole
                look_at_run(sample, DAMAGES[way](kind, sample, random), whole.list_store(), tally)
            else:
                sample = pick([each for each in wholes if find_targets(kind, each)], random)
                damaged = DAMAGES[way](kind, sample, random)
                look_at_store(sample, damaged, tally, whole=random.random() < WHOLE_SHARE)
            sample.restore()
    finally:
        os.fsync = flush
        shutil.rmtree(folder)
    return tallies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--others", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    jobs = plan(options.flips, options.others, np.random.default_rng(options.seed))
    parts = [(jobs[part :: options.processes], (options.seed, part)) for part in range(options.processes)]
    if options.processes == 1:
        tallies = damage_all(*parts[0])
    else:
        with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
            tallies = add_up(pool.starmap(damage_all, parts, chunksize=1))
    print(make_table(tallies))
    failures = [failure for tally in tallies.values() for failure in tally.failures]
    print(f"{sum(tally.done for tally in tallies.values())} damages, seed {options.seed}: {len(failures)} failures")
    if options.json:
        rows = [{"kind": kind, "way": way} | vars(tally) for (kind, way), tally in sorted(tallies.items())]
        options.json.write_text(json.dumps(rows, indent=1))
    if failures:
        sys.exit("\n".join(failures[:40]))


if __name__ == "__main__":
    main()
