"""Whether a shard holds, byte for byte and value for value, what was written into it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import xxhash

from nsd_zarr.buffers import BufferPool
from nsd_zarr.conversion.events import Listener, SessionDone, TrialsDone
from nsd_zarr.errors import DamageFound
from nsd_zarr.layout import Geometry, SessionNumber
from nsd_zarr.maintenance.damage import Damage, make_shard_damage, make_trial_damage
from nsd_zarr.places.place import OpenObject
from nsd_zarr.store.codec import ChunkError, decode_chunk
from nsd_zarr.store.digest import make_digest
from nsd_zarr.store.format import make_shard_key
from nsd_zarr.store.index import decode_shard_index, shard_index_bytes
from nsd_zarr.store.root import Store
from nsd_zarr.store.small import read_array
from nsd_zarr.tasks import map_all


class _SessionWatch:
    """Reports each session when all its shards were checked, from any thread."""

    def __init__(self, geometry: Geometry, listen: Listener) -> None:
        self._listen, self._lock = listen, threading.Lock()
        self._started: dict[SessionNumber, float] = {}
        self._left = Counter({session: len(geometry.session_shards(session)) for session in geometry.sessions})

    def begin_shard(self, session: SessionNumber) -> None:
        with self._lock:
            self._started.setdefault(session, time.perf_counter())

    def end_shard(self, session: SessionNumber) -> None:
        with self._lock:
            self._left[session] -= 1
            is_done = not self._left[session]
        if is_done:
            self._listen(SessionDone(session, 0, time.perf_counter() - self._started[session], "from the store"))


class _InMemory:
    """An object behind a URL, read whole by one request."""

    def __init__(self, file: OpenObject) -> None:
        self.size = file.size
        self._data = memoryview(file.read_range(0, file.size))

    def expect_end(self, end: bytes) -> None:
        """Nothing: it was read."""

    def read_into(self, out: memoryview, offset: int) -> int:
        """As of the object."""
        part = self._data[offset : offset + len(out)]
        out[: len(part)] = part
        return len(part)

    def read_range(self, offset: int, length: int) -> bytes:
        """As of the object."""
        return bytes(self._data[offset : offset + length])

    def read_once(self) -> AbstractContextManager[None]:
        """Nothing is kept of it."""
        return nullcontext()


def check_shards(store: Store, executor: Executor, listen: Listener) -> list[Damage]:
    """Everything that is wrong with the shards of a store, in their order."""
    try:
        digests = read_array(store, store.geometry.kind.digests).tolist()
    except DamageFound:
        digests = None
    buffers, watch, geometry = BufferPool(), _SessionWatch(store.geometry, listen), store.geometry

    def check(shard: int) -> list[Damage]:
        trials = geometry.shard_trials(shard)
        session = geometry.locate_trial(trials[0])[0]
        watch.begin_shard(session)
        left = list(trials)

        def count() -> None:
            left.pop()
            listen(TrialsDone(1))

        damages = check_shard(store, shard, digests, buffers, count)
        if left:  # Nobody can look at trials of a shard that is lost: they count as looked at.
            listen(TrialsDone(len(left)))
        watch.end_shard(session)
        return damages

    return [damage for found in map_all(executor, check, range(geometry.shards)) for damage in found]


def check_shard(
    store: Store, shard: int, digests: Sequence[str] | None, buffers: BufferPool, on_trial: Callable[[], None]
) -> list[Damage]:
    """Everything that is wrong with one shard. Reads the file once, front to back.

    Each chunk is decoded, its checksum included; each trial's values, and the file as a whole, are compared with the
    digests that were taken while converting. *digests*: of every trial of the store; None where they are lost.
    *on_trial* is called before each trial.
    """
    try:
        file: OpenObject = store.place.open(make_shard_key(store.geometry, shard))
        if store.place.requests_at_once:
            file = _InMemory(file)
    except OSError as error:
        return [make_shard_damage(store, shard, f"cannot be read: {error.strerror or error}")]
    except ValueError as error:
        return [make_shard_damage(store, shard, str(error))]
    try:
        with file.read_once():
            return _check_open_shard(store, shard, file, digests, buffers, on_trial)
    except (OSError, ValueError) as error:
        return [make_shard_damage(store, shard, str(error))]


def _check_open_shard(
    store: Store,
    shard: int,
    file: OpenObject,
    digests: Sequence[str] | None,
    buffers: BufferPool,
    on_trial: Callable[[], None],
) -> list[Damage]:
    geometry, damages, file_digest = store.geometry, [], xxhash.xxh3_128()
    size, slots = file.size, geometry.trials_per_shard
    index_bytes = shard_index_bytes(slots)
    index = file.read_range(max(0, size - index_bytes), index_bytes)
    places = decode_shard_index(index, len(geometry.shard_trials(shard)), size, geometry.trial_bytes, slots).tolist()
    with buffers.borrow((geometry.voxels,), geometry.dtype) as values:
        for trial, (offset, length) in zip(geometry.shard_trials(shard), places, strict=True):
            on_trial()
            with buffers.borrow((length,), np.uint8) as chunk:
                problem = _find_chunk_problem(file, offset, chunk, values)
                file_digest.update(chunk.data)
            if not problem and digests is not None and make_digest(values) != digests[trial]:
                problem = "its values are not those that were read from the source"
            if problem:
                damages.append(make_trial_damage(store, trial, problem, (offset, length)))
    file_digest.update(index)
    if damages or file_digest.hexdigest() == store.manifest[make_shard_key(geometry, shard)].digest:
        return damages
    # Made again by another library, or with chunks in another order; no bit that flipped by itself.
    return [make_shard_damage(store, shard, "its bytes are not those that were written, though every value is right")]


def _find_chunk_problem(file: OpenObject, offset: int, chunk: np.ndarray, values: np.ndarray) -> str:
    try:
        if file.read_into(chunk.data, offset) != chunk.size:
            return "lost: the file ends inside its chunk"
        decode_chunk(chunk, values)
    except OSError as error:
        # A disk that cannot read it back has lost it, as far as a proof goes.
        return f"cannot be read: {error.strerror or error}"
    except ChunkError as error:
        return f"lost or damaged: {error}"
    return ""
