"""Many trials at once: threads that each take the next trial, and none left behind."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from nsd_zarr.resources import count_cores
from nsd_zarr.tasks import map_all

MAX_THREADS = 4
"""Each holds one compressed and one decoded trial, 7 MB at (150, 150, 100) int16: together well below 64 MB."""
MIN_TRIALS_FOR_THREADS = 8
"""Below this, starting threads costs about as much as they save."""

Read = Callable[[int, int], None]
"""Reads a trial into a row of the result: read(trial, row)."""


def read_rows(read: Read, wanted: Sequence[int], out: np.ndarray, requests: int = 0) -> None:
    """Have *read* fill each row of *out* with a trial of *wanted*, each different trial read once, in store order.

    Threads only where this is the main thread: elsewhere somebody else shares out the work, as Dask does; or where each
    read waits for an answer: then *requests* at once. Raises the first error that *read* raises, after all threads have
    stopped.
    """
    rows: dict[int, int] = {}
    for row, trial in enumerate(wanted):
        rows.setdefault(trial, row)
    todo = deque(sorted(rows.items()))
    threads = min(requests or min(MAX_THREADS, count_cores()), len(todo))
    is_shared_out = not requests and threading.current_thread() is not threading.main_thread()
    if threads <= 1 or is_shared_out or (not requests and len(todo) < MIN_TRIALS_FOR_THREADS):
        _work(read, todo)
    else:
        with ThreadPoolExecutor(threads, thread_name_prefix="nsd-zarr bulk") as executor:
            try:
                map_all(executor, lambda _: _work(read, todo), range(threads))
            finally:
                todo.clear()
    for row, trial in enumerate(wanted):
        if rows[trial] != row:
            out[row] = out[rows[trial]]


def _work(read: Read, todo: deque[tuple[int, int]]) -> None:
    while True:
        try:
            trial, row = todo.popleft()
        except IndexError:
            return
        try:
            read(trial, row)
        except BaseException:
            todo.clear()  # the others stop at their next trial
            raise
