"""Loops over values, written to be compiled by nsd_zarr.science.kernels: as Python they would take seconds.

Arrays are one-dimensional and C-contiguous, counts int16, of one length. Single operations in float32, in the order in
which NumPy does them, so that values are bit-equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nsd_zarr.layout import COUNTS_PER_PERCENT

SCALE = np.float32(COUNTS_PER_PERCENT)


def to_float32(counts: Any, out: Any) -> None:
    """Percent: counts / 300."""
    for place in range(counts.size):
        out[place] = np.float32(counts[place]) / SCALE


def to_bfloat16(counts: Any, out: Any) -> None:
    """The bits of percent as bfloat16, uint16: rounded from float32 to nearest, ties to even."""
    for place in range(counts.size):
        bits = np.float32(np.float32(counts[place]) / SCALE).view(np.uint32)
        even = (bits >> np.uint32(16)) & np.uint32(1)
        out[place] = (bits + even + np.uint32(0x7FFF)) >> np.uint32(16)


def look_up(counts: Any, values: Any, out: Any) -> None:
    """For each count its value in a table of all 65,536 codes, by the code's bits."""
    for place in range(counts.size):
        out[place] = values[np.uint16(counts[place])]


def to_score(counts: Any, mean: Any, factor: Any, out: Any) -> None:
    """Z-scores: percent less mean, times factor."""
    for place in range(counts.size):
        out[place] = (np.float32(counts[place]) / SCALE - mean[place]) * factor[place]
