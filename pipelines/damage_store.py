"""Damage small stores in thousands of ways, and count what readers, verify and repair make of it.

    python pipelines/damage_store.py [--flips 10000] [--others 1000] [--seed 0] [--json OUT.json]

Flips: one bit of one file. Others: truncations, deletions, swaps of two files of a kind, of equal size where there are
such (of root documents there is one: it is cut instead). Spread over every kind of file. After each, everything that
the store holds is read in every way (percent, stored counts, single trials, mean, coordinates, PyTorch): a value that
differs without an error is a silent change. Then verify must name the file, and repair must give its bytes back. Files
of the run beside the store are damaged too, of a finished and of an unfinished one: then convert, run again, must
refuse or end with the very same store. Exit code 1 where any of that fails. Flushing to disk is left out: it is most of
the time, and nothing here cuts the power.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

import nsd_zarr

SESSIONS, TRIALS, VOLUME = (1, 2, 4), 12, (3, 7, 5)
OPTIONS = {"sessions": "1-2,4", "trials_per_shard": 4, "workers": 1, "memory": "1GiB"}
KINDS = {
    "root document": 15,
    "array metadata": 10,
    "shard, chunks": 40,
    "shard, index": 15,
    "small arrays": 12,
    "run, finished": 4,
    "run, unfinished": 4,
}
"""Kinds of files, with their part of all damages in percent."""
WAYS = {"truncated": 40, "deleted": 20, "swapped": 40}
"""What is done beside flips, in percent."""


@dataclass
class Tally:
    """What became of the damages of one kind and way."""

    done: int = 0
    silent: int = 0
    """A reader returned another value without an error."""
    refused: int = 0
    """Some reader raised an error of ours."""
    named: int = 0
    """verify named the file, or refused the store."""
    restored: int = 0
    """repair (for a run: convert) gave every byte back."""
    declined: int = 0
    """For a run: convert refused, and told why."""
    failures: list[str] = field(default_factory=list)


@dataclass
class Sample:
    """A store to be damaged, and what it holds."""

    store: Path
    source: Path
    files: dict[Path, bytes]
    """Every file of store and run as it was."""
    values: np.ndarray
    """Stored counts."""
    digests: np.ndarray
    """Coordinate trial_digest."""

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
        return now == {path: data for path, data in self.files.items() if path.is_relative_to(self.store)}


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
    nsd_zarr.convert(folder / "source", folder / "subj01.zarr", **OPTIONS)
    store = folder / "subj01.zarr"
    digests = nsd_zarr.open_dataset(store).trial_digest.values
    return Sample(store, folder / "source", read_files(store), values, digests)


def make_unfinished(folder: Path, whole: Sample) -> Sample:
    """The same conversion, stopped in its last session."""
    store, seen = folder / "unfinished.zarr", Counter()

    def stop(event: object) -> None:
        seen["events"] += 1
        if seen["events"] > 2 * TRIALS + 6:
            raise KeyboardInterrupt

    try:
        nsd_zarr.convert(whole.source, store, on_event=stop, **OPTIONS)
    except KeyboardInterrupt:
        return Sample(store, whole.source, read_files(store), whole.values, whole.digests)
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
        return kind.startswith("shard") if parts[1] == "betas" else kind == "small arrays"

    return [path for path in sample.files if is_meant(path)]


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


def read_all_ways(sample: Sample) -> Iterator[tuple[str, bool]]:
    """Every way to the values: its name, and whether they are right; raises an error of ours, or its cause."""
    percent = np.float32(sample.values) / np.float32(300)
    trials = np.arange(len(sample.values))
    coordinates = {
        "session": np.repeat(SESSIONS, TRIALS),
        "trial_in_session": trials % TRIALS,
        "session_number": np.array(SESSIONS),
        "trial_digest": sample.digests,
    }
    ways: dict[str, Callable[[], bool]] = {
        "percent": lambda: np.array_equal(nsd_zarr.open_dataset(sample.store).betas.values, percent),
        "mean": lambda: np.array_equal(nsd_zarr.open_dataset(sample.store).betas.mean("trial").values, percent.mean(0)),
    }
    for trial in trials.tolist():
        ways[f"trial {trial}"] = lambda trial=trial: np.array_equal(
            nsd_zarr.open_dataset(sample.store, raw=True).betas[trial].values, sample.values[trial]
        )
    for name, right in coordinates.items():
        ways[name] = lambda name=name, right=right: np.array_equal(
            nsd_zarr.open_dataset(sample.store)[name].values, right
        )
    if importlib.util.find_spec("torch"):
        ways["torch"] = lambda: _read_by_torch(sample)
    for name, read in ways.items():
        try:
            yield name, read()
        except nsd_zarr.NsdZarrError:
            yield name, True
            yield "refused", True


def _read_by_torch(sample: Sample) -> bool:
    from nsd_zarr.torch import TrialDataset

    betas = TrialDataset(sample.store, raw=True)
    return all(np.array_equal(betas[trial]["betas"].numpy(), values) for trial, values in enumerate(sample.values))


def look_at_store(sample: Sample, damaged: list[Path], tally: Tally) -> None:
    """Read, verify and repair a damaged store."""
    outcomes = list(read_all_ways(sample))
    wrong = [name for name, right in outcomes if not right]
    tally.silent += bool(wrong)
    tally.refused += ("refused", True) in outcomes
    try:
        found = {damage.path for damage in nsd_zarr.verify(sample.store, workers=1).damages}
        is_named = {path.relative_to(sample.store).as_posix() for path in damaged} <= found
    except nsd_zarr.NsdZarrError:
        is_named = True
    tally.named += is_named
    told = "repaired, and other bytes came out"
    try:
        nsd_zarr.repair(sample.store, sample.source, workers=1, memory="1GiB")
    except nsd_zarr.NsdZarrError as error:
        told = str(error)
    is_restored = sample.is_whole()
    tally.restored += is_restored
    if wrong or not is_named or not is_restored:
        tally.failures.append(f"{damaged}: silent {wrong}, named {is_named}, restored {is_restored} ({told})")


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
    names = [
        "file",
        "damage",
        "done",
        "silent change",
        "a reader refused",
        "named",
        "bytes restored",
        "convert refused",
    ]
    rows = [f"| {' | '.join(names)} |"]
    rows.append("|---|---|---|---|---|---|---|---|")
    for (kind, way), tally in sorted(tallies.items()):
        named = "" if kind.startswith("run") else tally.named
        refused, declined = ("", tally.declined) if kind.startswith("run") else (tally.refused, "")
        rows.append(
            f"| {kind} | {way} | {tally.done} | {tally.silent} | {refused} | {named} | {tally.restored} | {declined} |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--others", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    random, tallies = np.random.default_rng(options.seed), {}
    flush, os.fsync = os.fsync, lambda descriptor: None
    folder = Path(tempfile.mkdtemp(prefix="damage-"))
    try:
        wholes = [make_sample(folder / name, random, compressible=name == "lz4") for name in ("lz4", "stored")]
        unfinished = make_unfinished(folder / "lz4", wholes[0])
        store = wholes[0].store
        whole = {
            path.relative_to(store).as_posix(): data
            for path, data in wholes[0].files.items()
            if path.is_relative_to(store)
        }
        for kind, way in plan(options.flips, options.others, random):
            sample = (
                unfinished
                if kind == "run, unfinished"
                else wholes[0]
                if kind.startswith("run")
                else pick(wholes, random)
            )
            tally = tallies.setdefault((kind, way), Tally())
            damaged = DAMAGES[way](kind, sample, random)
            tally.done += 1
            if kind.startswith("run"):
                look_at_run(sample, damaged, whole, tally)
            else:
                look_at_store(sample, damaged, tally)
            sample.restore()
    finally:
        os.fsync = flush
        shutil.rmtree(folder)
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
