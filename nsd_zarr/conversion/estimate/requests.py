"""Requests to objects behind URLs that a conversion makes. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nsd_zarr.conversion.estimate.rates import (
    LISTS_OF_SOURCE,
    PLANS,
    READS_OF_INPUT,
    READS_OF_RUN,
    READS_OF_SESSION,
    READS_TO_COMPARE,
    READS_TO_INSPECT,
    WRITES_OF_RUN,
    WRITES_OF_SESSION,
    WRITES_PER_SECOND,
)


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests to one server, by what they cost."""

    reads: int = 0
    """GET and HEAD."""
    writes: int = 0
    """PUT, POST and LIST."""

    def __str__(self) -> str:
        return f"{self.reads:,} GET and HEAD, {self.writes:,} PUT, POST and LIST"

    def __add__(self, other: Requests) -> Requests:
        return Requests(self.reads + other.reads, self.writes + other.writes)


def count_source_requests(sizes: Iterable[int], inspected: int, inputs: int = 0) -> Requests:
    """Of a source behind a URL: *sizes* of the session files that are converted, *inspected* session files in all.

    *inputs*: files of the experiment.
    """
    # Here: nothing of URLs is imported where all paths are local.
    from nsd_zarr.places.objects.fetch import count_ranges

    ranges = [count_ranges(size) for size in sizes]
    looks = PLANS * READS_TO_INSPECT * inspected + READS_TO_COMPARE * len(ranges) + READS_OF_INPUT * inputs
    return Requests(sum(ranges) + looks, PLANS * LISTS_OF_SOURCE)


def count_store_requests(files: int, sessions: int, seconds: float) -> Requests:
    """Of a store behind a URL: *files* of it to be written, by one request each, *sessions* to be converted.

    *seconds*: how long the run takes, in which its lock is renewed.
    """
    writes = files + WRITES_OF_RUN + WRITES_OF_SESSION * sessions + round(WRITES_PER_SECOND * seconds)
    return Requests(READS_OF_RUN + READS_OF_SESSION * sessions, writes)
