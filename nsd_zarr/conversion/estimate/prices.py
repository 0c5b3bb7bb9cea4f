"""What requests, and bytes that leave a bucket, cost. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from nsd_zarr.conversion.estimate.rates import DOLLARS_PER_GB_OUT, DOLLARS_PER_READ, DOLLARS_PER_WRITE, GB
from nsd_zarr.conversion.estimate.requests import Requests


@dataclass(frozen=True, slots=True)
class Prices:
    """A list of prices, in US dollars."""

    read: float = 0.0
    """One GET or HEAD."""
    write: float = 0.0
    """One PUT, POST or LIST."""
    gb_out: float = 0.0
    """A GB that leaves the bucket for another region, or for the internet."""

    def count_dollars(self, requests: Requests) -> float:
        """What *requests* cost."""
        return self.read * requests.reads + self.write * requests.writes

    def count_dollars_out(self, size: int) -> float:
        """What it costs at most that *size* bytes leave the bucket: nothing within its region."""
        return self.gb_out * size / GB


S3 = Prices(DOLLARS_PER_READ, DOLLARS_PER_WRITE, DOLLARS_PER_GB_OUT)
FREE = Prices()
PRICES = {"nobody": FREE, "s3": S3}
"""By who sends the bill (places/choose.find_biller); of others the prices are not known."""
