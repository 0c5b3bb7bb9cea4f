"""How many requests a loader keeps in flight for a store behind a URL, and how many batches ahead that takes."""

from __future__ import annotations

from threading import BoundedSemaphore
from typing import Any

from nsd_zarr.errors import ConfigError
from nsd_zarr.loading.order import check_whole
from nsd_zarr.read.lazy import count_requests, list_counts
from nsd_zarr.store.reader import TrialReader

MAX_REQUESTS = 64
"""Requests in flight that may be asked for: more gave nothing, at 30 and at 100 ms."""
PREFETCH = 2
"""Batches decoded ahead, of a store on a disk."""


def choose_requests(reader: Any, asked: int | None) -> int:
    """Requests in flight for trials that *reader* reads from behind a URL; 0 for others. Raises ConfigError."""
    if asked is not None and check_whole("requests", asked, 1) > MAX_REQUESTS:
        raise ConfigError(f"requests = {asked}, expected at most {MAX_REQUESTS}", hint=f"Say requests={MAX_REQUESTS}.")
    default = count_requests(reader)
    return default and (asked or default)


def choose_prefetch(asked: int | None, requests: int, rows: int) -> int:
    """Batches of *rows* rows decoded ahead: as many as keep all requests in use while the oldest one is completed."""
    return max(PREFETCH, -(-2 * requests // rows)) if asked is None else check_whole("prefetch", asked, 0)


def count_threads(reader: Any, threads: int, requests: int) -> int:
    """Threads that read so that *threads* decode at once and *requests* are in flight."""
    decoding = BoundedSemaphore(threads)
    for counts in list_counts(reader):
        if requests and isinstance(counts, TrialReader):
            counts.limit_decoding(decoding)
    return max(threads, requests)
