"""What the hardware and the codec take, with nothing around them: the ceiling that a reader can reach."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
from numcodecs import blosc

from nsd_zarr.bench.contenders import BATCH, Contender, Deliver
from nsd_zarr.read.percent import scale_by_numpy, scale_into
from nsd_zarr.science import kernels
from nsd_zarr.store.digest import CRC_BYTES, make_crc
from nsd_zarr.store.format import make_shard_key
from nsd_zarr.store.index import decode_shard_index, shard_index_bytes
from nsd_zarr.store.root import Store

STAGES = ("pread", "pread + crc", "pread + crc + decode", "pread + crc + decode + cast")
BY_NUMPY = f"{STAGES[-1]} by NumPy"
"""The last one without kernels: no ceiling where there are some."""


def is_ceiling(name: str) -> bool:
    """Whether a row of this name is the most that a reader of the same values on as many threads can reach."""
    return name.startswith(f"floor: {STAGES[0]}") and not name.endswith(BY_NUMPY)


def list_floors(store: Store, threads: int) -> list[Contender]:
    """A memcpy; the stages of reading a trial, each on top of the former; then the last two on *threads* threads.

    The last one casts and scales in the best known way: by compiled kernels where they were loaded, and then once more
    by NumPy.
    """
    forms = dict(zip((*STAGES, BY_NUMPY), ("bytes", "bytes", "int16", "float32", "float32"), strict=True))
    alone = [(stage, 1) for stage in (*STAGES, *([BY_NUMPY] if kernels.get() else []))]
    shared = [(stage, threads) for stage in STAGES[2:]] if threads > 1 else []
    return [
        Contender("floor: memcpy of a decoded trial", "bytes", 1, partial(_memcpy, store)),
        *_list_stages(store, forms, alone + shared),
    ]


def _list_stages(store: Store, forms: dict[str, str], chosen: list[tuple[str, int]]) -> list[Contender]:
    return [
        Contender(f"floor: {stage}", forms[stage], count, partial(_floor, store, stage, count))
        for stage, count in chosen
    ]


@contextmanager
def _memcpy(store: Store) -> Iterator[Deliver]:
    """A batch's worth of decoded trials, one after the other, into another touched batch."""
    shape, dtype = (BATCH, *store.geometry.volume_shape), store.geometry.dtype
    source, batch = np.ones(shape, dtype), np.ones(shape, dtype)

    def deliver(trials: Sequence[int]) -> None:
        for position, trial in enumerate(trials):
            np.copyto(batch[position % BATCH], source[trial % BATCH])

    yield deliver


@contextmanager
def _floor(store: Store, stage: str, threads: int) -> Iterator[Deliver]:
    """Bare calls, indexes known, files open, each thread its own share of the trials.

    Values land in a touched, reused batch, as whoever trains needs them: one trial's buffer alone would stay in the
    processor's cache, and flatter the floor.
    """
    places, descriptors = _locate(store)
    largest = max(length for _, _, length in places)
    shape, dtype = store.geometry.volume_shape, store.geometry.dtype
    depth = len(STAGES) - 1 if stage == BY_NUMPY else STAGES.index(stage)

    def work(trials: Sequence[int], memory: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        chunk, counts, batch = memory
        for position, trial in enumerate(trials):
            row = batch[position % BATCH]
            descriptor, offset, length = places[trial]
            os.preadv(descriptor, [chunk[:length].data], offset)
            if depth >= 1 and make_crc(chunk[: length - CRC_BYTES]) != chunk[length - CRC_BYTES : length].tobytes():
                raise ValueError(f"trial {trial} is damaged")
            if depth >= 2:
                blosc.decompress(chunk[: length - CRC_BYTES], counts if depth == 3 else row)
            if depth == 3:
                (scale_by_numpy if stage == BY_NUMPY else scale_into)(counts, row)

    form = np.dtype(np.float32 if depth == 3 else dtype)
    memories = [
        (np.ones(largest, np.uint8), np.ones(shape, dtype), np.ones((BATCH, *shape), form)) for _ in range(threads)
    ]
    with ThreadPoolExecutor(threads) as executor:
        yield lambda trials: [*executor.map(work, [trials[part::threads] for part in range(threads)], memories)].clear()
    for descriptor in descriptors:
        os.close(descriptor)


def _locate(store: Store) -> tuple[list[tuple[int, int, int]], list[int]]:
    """(descriptor, offset, length) of every trial, and the descriptors."""
    geometry, places, descriptors = store.geometry, [], []
    for shard in range(geometry.shards):
        descriptor = os.open(store.path / make_shard_key(geometry, shard), os.O_RDONLY | os.O_CLOEXEC)
        descriptors.append(descriptor)
        size, length = os.fstat(descriptor).st_size, shard_index_bytes(geometry.trials_per_shard)
        entries = decode_shard_index(os.pread(descriptor, length, size - length), geometry.trials_per_shard, size)
        places += [(descriptor, offset, count) for offset, count in entries.tolist()]
    return places, descriptors
