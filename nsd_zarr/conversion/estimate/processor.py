"""Processor seconds of a conversion. Pure arithmetic."""

from __future__ import annotations

from nsd_zarr.conversion.estimate.rates import (
    CONVERT_SECONDS_PER_GB,
    ENCODE_SECONDS_PER_GB,
    FETCH_SECONDS_PER_GB,
    GB,
    LIBRARY_SECONDS_PER_GB,
    SEND_SECONDS_PER_GB,
    UNPACK_SECONDS_PER_GB,
)
from nsd_zarr.source.protocol import SourcePart


def count_processor_seconds(value_bytes: int, codec: str, clevel: int, fetched: int = 0, sent: int = 0) -> float:
    """Processor seconds, of all cores together, to convert *value_bytes* bytes of values that are read by offset.

    *fetched*, *sent*: bytes from and to URLs.
    """
    values = value_bytes * (CONVERT_SECONDS_PER_GB + (ENCODE_SECONDS_PER_GB[codec] if clevel else 0.0))
    return (values + fetched * FETCH_SECONDS_PER_GB + sent * SEND_SECONDS_PER_GB) / GB


def find_reading_cost(part: SourcePart) -> float:
    """Processor seconds a GB of values that reading *part* costs more than reading by offset."""
    if part.by_offset:
        return 0.0
    return UNPACK_SECONDS_PER_GB if part.in_order else LIBRARY_SECONDS_PER_GB
