"""Statistics of sessions once more, from the trials of a finished store."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

import numpy as np

from nsd_zarr.config import Config
from nsd_zarr.conversion.events import Listener, RunStarted, SessionDone, TrialsDone
from nsd_zarr.conversion.memory import (
    EXPERIMENT_BYTES,
    Need,
    make_memory_plan,
)
from nsd_zarr.conversion.pipeline.session_statistics import (
    SessionStatistics,
    make_session_moments,
    make_session_statistics,
)
from nsd_zarr.layout import SessionNumber
from nsd_zarr.store.codec import BloscCodec
from nsd_zarr.store.format import RAIL_COUNT, SESSION_MEAN, SESSION_STD, encode_small, make_chunk_key
from nsd_zarr.store.reader import TrialReader
from nsd_zarr.store.root import Store
from nsd_zarr.store.volume import encode_volume
from nsd_zarr.tasks import map_all

STATISTICS = (SESSION_MEAN, SESSION_STD, RAIL_COUNT)
"""Arrays that are counted from trials."""


def make_statistics_files(
    store: Store, keys: set[str], codec: BloscCodec, config: Config, listen: Listener
) -> dict[str, bytes]:
    """The files *keys*, chunks of STATISTICS, by path inside the store: counted again. Raises DamageFound."""
    geometry, counts, made = store.geometry, [], {}
    zeros, rails = tuple(0 for _ in geometry.volume_shape), make_chunk_key(RAIL_COUNT, (0,))
    places = {key: place for place in range(len(geometry.sessions)) for key in _make_keys(place, zeros)}
    needed = sorted({place for key, place in places.items() if key in keys or rails in keys})
    sessions = [geometry.sessions[place] for place in needed]
    with ThreadPoolExecutor(config.effective_workers, "nsd-zarr count") as executor:
        found = compute_statistics(store, sessions, config, executor, listen)
        for place, statistics in zip(needed, found, strict=True):
            for key, values in zip(_make_keys(place, zeros), (statistics.mean, statistics.std), strict=True):
                made[key] = executor.submit(encode_volume, values, codec).result()
            counts.append(statistics.rail_count)
    if rails in keys:
        made[rails] = encode_small(np.array(counts, np.int32))
    return {key: made[key] for key in sorted(keys)}


def _make_keys(place: int, zeros: tuple[int, ...]) -> tuple[str, str]:
    return make_chunk_key(SESSION_MEAN, (place, *zeros)), make_chunk_key(SESSION_STD, (place, *zeros))


def compute_statistics(
    store: Store, sessions: Sequence[SessionNumber], config: Config, executor: Executor, listen: Listener
) -> Iterator[SessionStatistics]:
    """Statistics of each of *sessions*, from its trials as they are stored. Raises DamageFound."""
    geometry, reader = store.geometry, TrialReader(store)
    need = Need(geometry, by_offset=True, chunk_bytes=0, extra_bytes=EXPERIMENT_BYTES)
    step = make_memory_plan(need, 1, config.effective_workers, config.effective_memory).trials_per_pass
    block = np.empty((step, geometry.voxels), geometry.dtype)

    def read(trial: int, out: np.ndarray) -> None:
        reader.read_into(trial, out)
        listen(TrialsDone(1))

    trials_to_read = len(sessions) * geometry.trials_per_session
    listen(RunStarted(len(sessions), trials_to_read, geometry.trial_bytes, 0, step="reading back"))
    for session in sessions:
        started = time.perf_counter()
        moments, first = make_session_moments(geometry.voxels, geometry.dtype), geometry.first_trial(session)
        for start in range(0, geometry.trials_per_session, step):
            trials = range(first + start, first + min(start + step, geometry.trials_per_session))
            map_all(executor, read, trials, block[: len(trials)])
            moments.add_block(block[: len(trials)], executor)
        listen(SessionDone(session, 0, time.perf_counter() - started, "from the store"))
        yield make_session_statistics(moments, geometry.trials_per_session)
