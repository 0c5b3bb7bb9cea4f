"""What is left to do of a conversion, in the numbers that decide what it takes."""

from __future__ import annotations

from dataclasses import dataclass

from nsd_zarr.conversion.estimate.prices import FREE, Prices
from nsd_zarr.conversion.estimate.requests import Requests


@dataclass(frozen=True, slots=True)
class End:
    """Where the source lies, or the store."""

    is_remote: bool = False
    """Whether it is behind a URL."""
    prices: Prices | None = FREE
    """What its server takes; None: not known."""

    def count_dollars(self, requests: Requests) -> float | None:
        """What *requests* to it cost; None: not known."""
        return None if self.prices is None else self.prices.count_dollars(requests)

    def count_dollars_out(self, size: int) -> float | None:
        """What it costs at most that *size* bytes leave it; None: not known."""
        return None if self.prices is None else self.prices.count_dollars_out(size)


LOCAL = End()
"""On a disk."""


@dataclass(frozen=True, slots=True)
class Work:
    """Sessions to convert."""

    file_bytes: tuple[int, ...]
    """Of each session file that is to be converted."""
    processor_seconds: float
    """Of all cores together, beside what a run takes to begin."""
    store_bytes: int
    """To be written, as far as that is known."""
    store_files: int
    """To be written."""
    source: End = LOCAL
    """Where the session files lie."""
    store: End = LOCAL
    """Where the store shall lie."""
    passes: int = 1
    """Times that each session file is read."""
    is_fetched_to_disk: bool = False
    """Whether session files behind a URL are fetched into a folder, rather than into memory."""
    inspected: int = 0
    """Session files that are looked at: those that are done, too."""
    inputs: int = 0
    """Files of the experiment."""

    @property
    def fetched_bytes(self) -> int:
        """Bytes that come from a URL."""
        return sum(self.file_bytes) if self.source.is_remote else 0

    @property
    def sent_bytes(self) -> int:
        """Bytes that go to a URL."""
        return self.store_bytes if self.store.is_remote else 0

    @property
    def disk_bytes(self) -> int:
        """Bytes that the disk reads and writes."""
        read = sum(self.file_bytes) * self.passes
        if self.source.is_remote:
            read = self.fetched_bytes + read if self.is_fetched_to_disk else 0
        return read + self.store_bytes - self.sent_bytes
