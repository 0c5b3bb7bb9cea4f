"""Comparing a store with its sources value for value, by readers that share no code with those that made it.

Session files are read through h5py or nibabel, never by offset; the store through zarr-python, which is imported for
this alone. Slow, and independent: a mistake in our own reading of either would show here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any

import numpy as np

from nsd_zarr.conversion.events import Listener, ReadCounter, SessionDone, TrialsDone
from nsd_zarr.maintenance.damage import Damage, make_trial_damage
from nsd_zarr.source.protocol import SourcePart
from nsd_zarr.store.foreign.group import open_group
from nsd_zarr.store.root import Store

SLICE_BYTES = 32 * 2**20
"""Decoded bytes that zarr-python is asked for at a time: it holds them about three times."""


def compare_source(
    store: Store, info: SourcePart, trials_at_once: int, executor: Executor, listen: Listener
) -> Iterator[Damage]:
    """Trials of one session whose stored values are not those of its file; *trials_at_once* are held."""
    block = np.empty((trials_at_once, info.voxels), info.dtype)
    started, counter = time.perf_counter(), ReadCounter(info.voxels, listen)
    slice_trials = max(1, SLICE_BYTES // info.trial_bytes)
    with info.open(trust_offsets=False) as session:
        how = session.how
        for start in range(0, info.trials, trials_at_once):
            trials = range(start, min(start + trials_at_once, info.trials))
            session.read_into(trials, block[: len(trials)], executor, on_read=counter.add)
            for first in range(0, len(trials), slice_trials):
                expected = block[first : min(first + slice_trials, len(trials))]
                yield from _compare(store, store.geometry.first_trial(info.session) + start + first, expected, info)
                listen(TrialsDone(len(expected)))
    listen(SessionDone(info.session, 0, time.perf_counter() - started, how))


def _compare(store: Store, first: int, expected: np.ndarray, info: SourcePart) -> Iterator[Damage]:
    try:
        found = read_by_zarr(store, first, len(expected))
    except Exception as error:  # Whatever zarr-python raises, it cannot read them.
        if len(expected) > 1:
            for place in range(len(expected)):
                yield from _compare(store, first + place, expected[place : place + 1], info)
            return
        yield make_trial_damage(store, first, f"zarr-python cannot read it: {error}")
        return
    for place, values in enumerate(found):
        # As bytes, so that NaN equals itself and -0.0 does not equal 0.0.
        if values.tobytes() != expected[place].tobytes():
            yield make_trial_damage(store, first + place, f"its values differ from {info.path.name}")


def read_by_zarr(store: Store, first: int, count: int) -> np.ndarray:
    """Stored values of *count* trials from trial *first* of the store, through zarr-python."""
    array: Any = open_group(str(store.path), store.path)[store.geometry.kind.array]
    return np.asarray(array[first : first + count])
