"""Readers of one store: ours, and whichever others are installed. Each delivers batches of random trials."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nsd_zarr.loading.loader import BatchLoader, BatchMemory, make_slots
from nsd_zarr.loading.order import TrialOrder
from nsd_zarr.read.dataset import open_dataset
from nsd_zarr.read.percent import PercentReader, RoundedReader, scale_into
from nsd_zarr.store.format import make_shard_key
from nsd_zarr.store.reader import TrialReader
from nsd_zarr.store.root import Store

BATCH = 32
"""Trials of a batch."""
FORMS = ("int16", "float32", "bfloat16")
"""What ours is measured with: counts, percent, and percent rounded."""

Deliver = Callable[[Sequence[int]], None]
"""Reads these trials into arrays, however the reader does it best."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to read trials."""

    name: str
    """As in the table."""
    delivers: str
    """int16 counts, or percent as float32 or bfloat16."""
    threads: int
    """Threads or workers that it is given; its own pools not counted."""
    open: Callable[[], Any]
    """A context manager of a Deliver."""
    files: tuple[Path, ...] = ()
    """What it reads, to be dropped from the page cache for a cold round; empty: not measured cold."""
    stored_bytes: float = 0.0
    """Bytes on disk of a trial in the form that it reads; 0: as the store has it."""
    most_trials: int = 1_000_000
    """Measured on no more than these trials, because it is slow or has no more of them."""


def list_contenders(store: Store, source: Path | None, dataset: str, threads: int) -> list[Contender]:
    """Every contender for one store that is installed, ours first."""
    files = tuple(store.path / make_shard_key(store.geometry, shard) for shard in range(store.geometry.shards))
    put = partial(Contender, files=files)
    found = [
        *(put("nsd_zarr engine", form, 1, partial(_engine, store, form)) for form in FORMS),
        *(put("nsd_zarr loader", form, threads, partial(_loader, store, form, threads)) for form in FORMS),
        put("ds.betas[i].values", "float32", 1, lambda: _xarray(store)),
        put("zarr-python", "int16", 1, lambda: _zarr(store, False)),
        put("zarr-python", "float32", 1, lambda: _zarr(store, True)),
        put("xr.open_zarr", "float64", 1, lambda: _open_zarr(store)),
    ]
    if find_fused_pipeline():
        found.append(put("zarr-python, fused", "int16", threads, lambda: _pipeline(store, find_fused_pipeline())))
    if importlib.util.find_spec("tensorstore"):
        found += [
            put("TensorStore", "int16", threads, lambda: _tensorstore(store, False, threads)),
            put("TensorStore", "float32", threads, lambda: _tensorstore(store, True, threads)),
        ]
    if importlib.util.find_spec("zarrs"):
        found.append(put("zarrs pipeline", "int16", threads, lambda: _pipeline(store, "zarrs.ZarrsCodecPipeline")))
    if source is not None:
        bytes_of_trial = float(store.geometry.trial_bytes)
        opened = partial(_h5py, source, dataset)
        found.append(Contender("h5py, session file", "int16", 1, opened, (source,), bytes_of_trial))
    return found


def find_fused_pipeline() -> str:
    """Name of zarr-python's fused codec pipeline; empty in versions without it (before 3.2)."""
    import zarr.core.codec_pipeline

    has_it = hasattr(zarr.core.codec_pipeline, "FusedCodecPipeline")
    return "zarr.core.codec_pipeline.FusedCodecPipeline" if has_it else ""


def _scale(counts: np.ndarray, out: np.ndarray) -> None:
    if out.dtype == counts.dtype:
        np.copyto(out, counts)
    else:
        scale_into(counts, out)


def _make_reader(store: Store, form: str) -> Any:
    """Ours, that delivers *form*, one of FORMS."""
    reader = TrialReader(store)
    if form == "int16":
        return reader
    return PercentReader(reader) if form == "float32" else RoundedReader(PercentReader(reader), form)


def _make_slot(store: Store, form: str) -> np.ndarray:
    """A batch of *form*, one of FORMS: touched memory, so that nobody is charged for fresh pages."""
    return np.ones((BATCH, *store.geometry.volume_shape), _make_reader(store, form).dtype)


@contextmanager
def _engine(store: Store, form: str) -> Iterator[Deliver]:
    reader = _make_reader(store, form)
    slot = _make_slot(store, form)

    def deliver(trials: Sequence[int]) -> None:
        for position, trial in enumerate(trials):
            reader.read_into(trial, slot[position % BATCH])

    # Off the main thread, as in a loader: there Blosc's own pool stays out of it.
    with ThreadPoolExecutor(1) as executor:
        yield lambda trials: executor.submit(deliver, trials).result()


@contextmanager
def _loader(store: Store, form: str, threads: int) -> Iterator[Deliver]:
    reader = _make_reader(store, form)
    slots = make_slots(lambda: BatchMemory(_make_slot(store, form)), prefetch=2, reuse=True)
    slots.spare += [slots.make() for _ in range(3)]

    def deliver(trials: Sequence[int]) -> None:
        order = TrialOrder(len(trials), BATCH, shuffle=False, seed=0)
        for _ in BatchLoader(reader, np.asarray(trials), order, threads).iterate(slots, 0, 0):
            pass

    yield deliver


@contextmanager
def _xarray(store: Store) -> Iterator[Deliver]:
    betas = open_dataset(store.path).betas

    def deliver(trials: Sequence[int]) -> None:
        for trial in trials:
            betas[trial].values  # noqa: B018 - reading is what is measured

    yield deliver


@contextmanager
def _zarr(store: Store, percent: bool) -> Iterator[Deliver]:
    import zarr

    array = zarr.open_array(store.path / "betas", mode="r")
    slot = _make_slot(store, "float32" if percent else "int16")

    def deliver(trials: Sequence[int]) -> None:
        for position, trial in enumerate(trials):
            _scale(np.asarray(array[trial]), slot[position % BATCH])

    yield deliver


@contextmanager
def _pipeline(store: Store, pipeline: str) -> Iterator[Deliver]:
    import zarr

    if pipeline.startswith("zarrs"):
        import zarrs  # noqa: F401 - registers its pipeline
    with zarr.config.set({"codec_pipeline.path": pipeline}), _zarr(store, False) as deliver:
        yield deliver


@contextmanager
def _open_zarr(store: Store) -> Iterator[Deliver]:
    import xarray as xr

    betas = xr.open_zarr(store.path, chunks=None).betas

    def deliver(trials: Sequence[int]) -> None:
        for trial in trials:
            betas[trial].values  # noqa: B018 - reading is what is measured

    yield deliver


@contextmanager
def _tensorstore(store: Store, percent: bool, threads: int) -> Iterator[Deliver]:
    import tensorstore

    context = tensorstore.Context(
        {"data_copy_concurrency": {"limit": threads}, "file_io_concurrency": {"limit": threads}}
    )
    kvstore = {"driver": "file", "path": str(store.path / "betas")}
    array = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, context=context, read=True).result()
    slot = _make_slot(store, "float32" if percent else "int16")

    def deliver(trials: Sequence[int]) -> None:
        for start in range(0, len(trials), BATCH):
            # A batch's reads are in flight together: what TensorStore does best.
            reads = [array[trial].read() for trial in trials[start : start + BATCH]]
            for row, read in zip(slot, reads, strict=False):
                _scale(read.result(), row)

    yield deliver


@contextmanager
def _h5py(source: Path, dataset: str) -> Iterator[Deliver]:
    import h5py

    with h5py.File(source, "r", locking=False) as file:
        data = file[dataset]

        def deliver(trials: Sequence[int]) -> None:
            for trial in trials:
                data[trial % data.shape[0]]

        yield deliver
