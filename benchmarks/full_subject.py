"""A whole subject, cold: how long a conversion takes beside what the disk and the processor need for it at least.

    python benchmarks/full_subject.py [DIR] [--sessions 40] [--shape 750,83,104,81] [--rounds 1] [--versus CHECKOUT]

Simulates three sessions below DIR (once) and copies them until there are --sessions: with blocks of their own, read and
written, so that the disk has as much to read as for a real subject. Each round, in this order:

disk        the sources are read and a file as large as the store is written, both streams at once, nothing else;
            through the page cache and past it
processor   what a conversion of the first three sessions takes, already cached, in processor seconds a session
convert     `nsd-zarr convert` of all sessions, a process of its own, with the experiment; memory of the process tree
verify      `nsd-zarr verify` of the store, and the store's files merely read

Before each of them every page of the sources (of the store) is evicted, and counted: a run that is not cold says so.
--versus takes another version of the package from a checkout and converts the same with it, alternating. Prints medians
and ratios, and what they rest on as JSON. Needs twice the sources' size on the disk of DIR.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from nsd_zarr.places.page_cache import measure_cached
from nsd_zarr.resources import count_cores
from nsd_zarr.simulate import Simulation, simulate_root
from nsd_zarr.simulate.root import SimulatedRoot, locate_root, write_design, write_volumes
from nsd_zarr.simulate.trial_table import make_trial_table, write_trial_table

MADE = 3
"""Sessions that are simulated; the others are copies."""
BLOCK = 8 * 2**20
COMMAND = "from nsd_zarr.cli import main; main()"


# -- sources -----------------------------------------------------------------------------------------------------


def make_subject(directory: Path, sessions: int, shape: tuple[int, ...]) -> SimulatedRoot:
    """A root of *sessions* sessions, all but three of them copies. Made once: a root of this size is left as it is."""
    whole = Simulation(sessions=sessions, shape=shape)
    root = locate_root(directory, whole)
    files = root.session_files
    if not files[-1].exists():
        simulate_root(directory, Simulation(sessions=min(MADE, sessions), shape=shape))
        write_design(root, whole)
        write_volumes(root, whole)
        table = make_trial_table(sessions, shape[0], whole.seed, whole.subject)
        write_trial_table(root.trial_table, table)
        for number, path in enumerate(files[MADE:]):
            copy(files[number % MADE], path)
    return root


def copy(source: Path, target: Path) -> None:
    """By reading and writing: a reflink, or the kernel's own copy, may share blocks."""
    with open(source, "rb") as read, open(target, "wb") as write:
        shutil.copyfileobj(read, write, BLOCK)
        write.flush()
        os.fsync(write.fileno())


# -- the page cache ----------------------------------------------------------------------------------------------


def evict(files: Sequence[Path]) -> float:
    """Take *files* out of the page cache; the share of their pages that stayed."""
    os.sync()
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    return sum(count_cached(path) for path in files) / max(1, sum(path.stat().st_size for path in files))


def count_cached(path: Path) -> float:
    """Bytes of a file that the page cache holds."""
    with open(path, "rb") as file:
        size = path.stat().st_size
        return size * measure_cached(file.fileno(), size)


# -- floors ------------------------------------------------------------------------------------------------------


def measure(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def read_files(files: Sequence[Path], flags: int) -> None:
    """Read *files* front to back, in large blocks."""
    block = mmap.mmap(-1, BLOCK)  # aligned, as reading past the cache wants it
    for path in files:
        descriptor = os.open(path, os.O_RDONLY | flags)
        while os.readv(descriptor, [block]):
            pass
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def write_file(path: Path, size: int, flags: int) -> None:
    """Write *size* bytes (whole blocks of them), and wait for the disk."""
    block = mmap.mmap(-1, BLOCK)
    block.write(os.urandom(BLOCK))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | flags)
    for _ in range(-(-size // BLOCK)):
        os.writev(descriptor, [block])
    os.fsync(descriptor)
    os.close(descriptor)


def measure_disk(files: Sequence[Path], scratch: Path, size: int) -> dict[str, float]:
    """Seconds to read *files* and write *size* bytes at once, through the page cache and past it."""
    found = {}
    for name, flags in (("buffered", 0), ("direct", os.O_DIRECT)):
        evict(files)
        writer = threading.Thread(target=write_file, args=(scratch, size, flags))
        started = time.perf_counter()
        writer.start()
        read_files(files, flags)
        writer.join()
        found[name] = time.perf_counter() - started
        scratch.unlink()
    return found


# -- conversions -------------------------------------------------------------------------------------------------


def run(*words: object, package: Path | None = None) -> dict[str, float]:
    """Run nsd-zarr; wall and processor seconds, and the most memory of its process tree in bytes."""
    # Started in its own folder, which Python looks at before what is installed.
    folder = package or Path.cwd()
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", COMMAND, *map(str, words)], cwd=folder)
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(read_memory, list_tree(process.pid))))
        time.sleep(0.2)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(f"nsd-zarr {words[0]} ended with {process.returncode}")
    return {
        "seconds": seconds,
        "user": after.ru_utime - before.ru_utime,
        "system": after.ru_stime - before.ru_stime,
        "memory": peak,
    }


def list_tree(process: int) -> list[int]:
    """A process and those that it started."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [process, *(each for child in children for each in list_tree(int(child)))]


def read_memory(process: int) -> int:
    """Anonymous and shared memory of a process; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


def remove(store: Path) -> None:
    for folder in (store, store.with_name(store.name + ".run")):
        shutil.rmtree(folder, ignore_errors=True)


def list_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def measure_processor(root: SimulatedRoot, store: Path) -> float:
    """Processor seconds a session: of cached sessions, less what a conversion of one takes to begin and to end."""
    few = root.session_files[:MADE]
    read_files(few, 0)
    warm = [path.read_bytes() and None for path in few]
    assert len(warm) == len(few)
    seconds = []
    for files in (few, few[:1]):
        remove(store)
        found = run("convert", "--quiet", *files, store)
        seconds.append(found["user"] + found["system"])
    remove(store)
    return (seconds[0] - seconds[1]) / max(1, len(few) - 1)


def convert(root: SimulatedRoot, store: Path, options: Sequence[str], package: Path | None = None) -> dict[str, float]:
    """Convert all sessions, cold; the store is left."""
    remove(store)
    cached = evict(root.session_files)
    words = ("--subject", 1, "--sessions", f"1-{len(root.session_files)}", *options)
    return run("convert", "--quiet", root.root, store, *words, package=package) | {"cached": cached}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, nargs="?", default=Path("nsd-subject"))
    parser.add_argument("--sessions", type=int, default=40)
    parser.add_argument("--shape", default="750,83,104,81")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--memory", help="of the conversion, as its own option")
    parser.add_argument("--versus", type=Path, help="a checkout of another version")
    options = parser.parse_args()
    trials, z, y, x = map(int, options.shape.split(","))
    directory = options.directory.absolute()
    root = make_subject(directory, options.sessions, (trials, z, y, x))
    store = directory / "subject.zarr"
    more = ["--memory", options.memory] if options.memory else []
    rounds = [measure_round(root, store, more, options.versus) for _ in range(options.rounds)]
    print_rounds(rounds, options.sessions)


def measure_round(root: SimulatedRoot, store: Path, options: Sequence[str], versus: Path | None) -> dict[str, float]:
    found: dict[str, float] = {"processor a session": measure_processor(root, store)}
    if versus is not None:
        other = convert(root, store, options, versus)
        found |= {f"other convert {name}": value for name, value in other.items()}
    found |= {f"convert {name}": value for name, value in convert(root, store, options).items()}
    shards = list_files(store)
    size = sum(path.stat().st_size for path in shards)
    for name, flags in (("buffered", 0), ("direct", os.O_DIRECT)):  # On both sides of verify: who comes first waits.
        evict(shards)
        found[f"store read {name}"] = measure(lambda flags=flags: read_files(shards, flags))
        if name == "buffered":
            found["verify cached"] = evict(shards)
            found |= {f"verify {key}": value for key, value in run("verify", "--quiet", store).items()}
    remove(store)
    disk = measure_disk(root.session_files, store.with_name("scratch"), size)
    return found | {f"disk {name}": value for name, value in disk.items()}


def print_rounds(rounds: Sequence[dict[str, float]], sessions: int) -> None:
    found = {name: median(each[name] for each in rounds) for name in rounds[0]}
    disk = min(found["disk buffered"], found["disk direct"])
    processor = found["processor a session"] * sessions / count_cores()
    read = min(found["store read buffered"], found["store read direct"])
    convert, verify = found["convert seconds"], found["verify seconds"]
    rows = [
        ("disk floor", disk, "s", ""),
        ("processor floor", processor, "s", ""),
        ("convert", convert, "s", f"{convert / max(disk, processor):.2f} x the larger floor"),
        ("memory", found["convert memory"] / 2**30, "GiB", ""),
        ("store's files, read", read, "s", ""),
        ("verify", verify, "s", f"{100 * read / verify:.0f} % of reading"),
        ("cached before", 100 * max(found["convert cached"], found["verify cached"]), "%", "of the pages"),
    ]
    if "other convert seconds" in found:
        other = found["other convert seconds"]
        rows.insert(3, ("the other version", other, "s", f"{other / convert:.2f} x ours"))
    print(f"{sessions} sessions, {count_cores()} cores, medians of {len(rounds)}")
    for name, value, unit, remark in rows:
        print(f"  {name:22} {value:8.2f} {unit:4} {remark}")
    print(json.dumps([{name: round(value, 4) for name, value in each.items()} for each in rounds]))


if __name__ == "__main__":
    main()
