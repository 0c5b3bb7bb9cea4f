"""What a conversion takes: time as an order of magnitude, bytes, requests and their cost. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from nsd_zarr.conversion.estimate.rates import (
    DISK_BYTES_PER_SECOND,
    NETWORK_BYTES_PER_SECOND,
    PRICES_AS_OF,
    START_SECONDS,
)
from nsd_zarr.conversion.estimate.requests import Requests, count_source_requests, count_store_requests
from nsd_zarr.conversion.estimate.work import Work
from nsd_zarr.layout import format_bytes, format_count, format_seconds


@dataclass(frozen=True, slots=True)
class Machine:
    """What does the work."""

    cores: int | None
    """Cores that are kept busy; None: not known, those of a cluster."""
    disk_bytes_per_second: float = DISK_BYTES_PER_SECOND
    """What its disk reads and writes together."""
    network_bytes_per_second: float = NETWORK_BYTES_PER_SECOND
    """What it fetches, and what it sends, at the same time."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a conversion takes: times as an order of magnitude, bytes and requests nearer.

    >>> estimate = nsd_zarr.plan("nsd", "new.zarr", subject=1).estimate
    >>> estimate.sessions, estimate.fetched_bytes, estimate.seconds < 60
    (3, 0, True)
    """

    sessions: int
    """Sessions to convert."""
    cores: int | None
    """Cores that are kept busy; None: not known, those of a cluster."""
    seconds: float | None
    """To begin, and what then takes longest: processor, disk or network. None: cores are not known."""
    processor_seconds: float
    """Of all cores together, to begin among them."""
    disk_seconds: float
    """Of the disk, at the rate that is assumed."""
    disk_bytes: int
    """That it reads and writes."""
    network_seconds: float
    """To and from servers of objects, at the rate that is assumed."""
    fetched_bytes: int
    """That come from a URL."""
    sent_bytes: int
    """That go to a URL."""
    requests: Requests
    """To objects behind URLs."""
    request_dollars: float | None
    """What these cost, US dollars; None where prices are not known."""
    egress_dollars: float | None
    """What fetched bytes cost on top where they leave the region of their bucket; None where prices are not known."""

    def format_lines(self, what: str = "") -> Iterator[str]:
        """For people; nothing where there is nothing to convert. *what*: what is estimated, where that is not all."""
        if self.sessions:
            yield f"time        {what}{self._format_time()}"
        if self.sessions and self.requests != Requests():
            moved = ((self.fetched_bytes, "fetched"), (self.sent_bytes, "sent"))
            sizes = ", ".join(f"{format_bytes(size)} {word}" for size, word in moved if size)
            yield f"requests    {what}{self.requests}; {sizes}"
            yield f"cost        {what}{format_cost(self.request_dollars, self.egress_dollars)}"

    def _format_time(self) -> str:
        processor = format_seconds(self.processor_seconds)
        if self.cores is None or self.seconds is None:
            return f"about {processor} of processor, of all workers together"
        words = [f"processor {processor}"]
        for name, seconds, count in (
            ("disk", self.disk_seconds, self.disk_bytes),
            ("network", self.network_seconds, max(self.fetched_bytes, self.sent_bytes)),
        ):
            words += [f"{name} {format_seconds(seconds)} at {format_bytes(count / seconds)}/s"] if count else []
        return f"about {format_seconds(self.seconds)} on {format_count(self.cores, 'core')}: {', '.join(words)}"

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON, for --json."""
        return asdict(self)


def format_cost(requests: float | None, egress: float | None) -> str:
    """US dollars of requests, and of bytes that leave their region, for people."""
    if requests is None:
        return "by the prices of whoever runs the server"
    if not requests:
        return "nothing: requests without an account"
    words = "less than 0.01" if requests < 0.01 else f"about {requests:.2f}"
    more = f"; {egress:.2f} more where the bytes leave its region" if egress else ""
    return f"{words} USD by S3's list price of {PRICES_AS_OF}, for the owner of the bucket{more}"


def make_estimate(work: Work, machine: Machine) -> Estimate:
    """What *work* takes on *machine*."""
    disk = work.disk_bytes / machine.disk_bytes_per_second
    network = max(work.fetched_bytes, work.sent_bytes) / machine.network_bytes_per_second
    busy = None if machine.cores is None else max(work.processor_seconds / machine.cores, disk, network)
    source, store = _count_requests(work, busy or 0.0)
    return Estimate(
        sessions=len(work.file_bytes),
        cores=machine.cores,
        seconds=None if busy is None else START_SECONDS + busy,
        processor_seconds=START_SECONDS + work.processor_seconds,
        disk_seconds=disk,
        disk_bytes=work.disk_bytes,
        network_seconds=network,
        fetched_bytes=work.fetched_bytes,
        sent_bytes=work.sent_bytes,
        requests=source + store,
        request_dollars=_add([work.source.count_dollars(source), work.store.count_dollars(store)]),
        egress_dollars=work.source.count_dollars_out(work.fetched_bytes),
    )


def _count_requests(work: Work, seconds: float) -> tuple[Requests, Requests]:
    """To the server of the source, and to that of the store, whose lock is held for *seconds*."""
    source = store = Requests()
    if work.source.is_remote:
        source = count_source_requests(work.file_bytes, work.inspected, work.inputs)
    if work.store.is_remote:
        store = count_store_requests(work.store_files, len(work.file_bytes), seconds)
    return source, store


def join_estimates(estimates: Iterable[Estimate]) -> Estimate:
    """What several conversions take, one after the other. At least one."""
    each = list(estimates)
    cores = [one.cores for one in each]
    return Estimate(
        sessions=sum(one.sessions for one in each),
        cores=None if None in cores else max(count for count in cores if count is not None),
        seconds=_add(one.seconds for one in each),
        processor_seconds=sum(one.processor_seconds for one in each),
        disk_seconds=sum(one.disk_seconds for one in each),
        disk_bytes=sum(one.disk_bytes for one in each),
        network_seconds=sum(one.network_seconds for one in each),
        fetched_bytes=sum(one.fetched_bytes for one in each),
        sent_bytes=sum(one.sent_bytes for one in each),
        requests=sum((one.requests for one in each), Requests()),
        request_dollars=_add(one.request_dollars for one in each),
        egress_dollars=_add(one.egress_dollars for one in each),
    )


def _add(values: Iterable[float | None]) -> float | None:
    """Their sum; None where one is not known."""
    found = list(values)
    return None if None in found else sum(value for value in found if value is not None)
