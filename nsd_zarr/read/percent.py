"""Stored counts as percent signal change."""

from __future__ import annotations

import time
from typing import Any, Protocol

import numpy as np

from nsd_zarr.buffers import BufferPool
from nsd_zarr.layout import COUNTS_PER_PERCENT
from nsd_zarr.science import kernels
from nsd_zarr.store.foreign.reader import AnyReader
from nsd_zarr.store.reader import StageSeconds


def scale_into(counts: np.ndarray, out: np.ndarray) -> None:
    """Write *counts* / 300 into *out*, float32 of the same shape: bit-equal to np.float32(counts) / np.float32(300).

    In one pass where compiled kernels were loaded.
    """
    if not (out.dtype == np.float32 and kernels.convert(counts, out, "float32")):
        scale_by_numpy(counts, out)


def scale_by_numpy(counts: np.ndarray, out: np.ndarray) -> None:
    """The same by NumPy: cast, then divided in place. np.divide with a cast inside goes through a small buffer."""
    np.copyto(out, counts, casting="same_kind")
    np.divide(out, np.float32(COUNTS_PER_PERCENT), out=out)


class PercentReader:
    """Reads trials of one store as percent signal change. Thread-safe, fork-safe, picklable.

    Integer counts become float32 percent; float sources are percent already and stay what they are.
    """

    def __init__(self, reader: AnyReader) -> None:
        self.reader = reader
        self._buffers = BufferPool()

    def __getstate__(self) -> AnyReader:
        return self.reader

    def __setstate__(self, reader: AnyReader) -> None:
        self.reader = reader
        self._buffers = BufferPool()

    @property
    def dtype(self) -> np.dtype[Any]:
        """What is delivered: float32, or the stored dtype of a float source."""
        return self.reader.dtype if self.reader.dtype.kind == "f" else np.dtype(np.float32)

    def read_into(self, trial: int, out: np.ndarray, stages: StageSeconds | None = None) -> None:
        """Trial *trial* (0-based, in the store) into *out*, `dtype`, shape (z, y, x), C-contiguous.

        Raises IndexError, DamageFound as TrialReader.read_into. Beside *out* it takes one trial of counts.
        """
        if self.reader.dtype.kind == "f":
            self.reader.read_into(trial, out, stages)
            return
        with self._buffers.borrow(self.reader.volume_shape, self.reader.dtype) as counts:
            self.reader.read_into(trial, counts, stages)
            started = time.perf_counter()
            scale_into(counts, out)
            if stages is not None:
                stages.cast += time.perf_counter() - started


class ReadsFloats(Protocol):
    """What reads one trial of floats: PercentReader, or a view of trials."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of what is read."""

    def read_into(self, trial: int, out: np.ndarray, stages: StageSeconds | None = None) -> None:
        """Read one trial."""


class RoundedReader:
    """Reads trials as percent in another float dtype, rounded to nearest even. Thread-safe, picklable.

    Counts are rounded once, from their float32 percent; float sources from what they are, to bfloat16 by way of
    float32. NumPy has no bfloat16: its bits are delivered as uint16.
    """

    def __init__(self, percent: ReadsFloats, form: str) -> None:
        if form not in ("float32", "float16", "bfloat16"):
            raise ValueError(f"form {form!r}, expected float32, float16 or bfloat16")
        self.percent = percent
        self.form = form
        self._buffers = BufferPool()

    def __getstate__(self) -> tuple[ReadsFloats, str]:
        return self.percent, self.form

    def __setstate__(self, state: tuple[ReadsFloats, str]) -> None:
        self.percent, self.form = state
        self._buffers = BufferPool()

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32, float16, or uint16 that holds bfloat16 bits."""
        return np.dtype(np.uint16 if self.form == "bfloat16" else self.form)

    def read_into(self, trial: int, out: np.ndarray, stages: StageSeconds | None = None) -> None:
        """Trial *trial* (0-based, in the store) into *out*, `dtype`, as what is rounded. Errors as PercentReader."""
        if isinstance(self.percent, PercentReader) and self._convert_counts(self.percent.reader, trial, out, stages):
            return
        with self._buffers.borrow(out.shape, self.percent.dtype) as values, np.errstate(over="ignore"):
            self.percent.read_into(trial, values, stages)
            started = time.perf_counter()
            if self.form == "bfloat16":
                round_to_bfloat16(values.astype(np.float32, copy=False), out)
            else:
                np.copyto(out, values, casting="same_kind")
            if stages is not None:
                stages.cast += time.perf_counter() - started

    def _convert_counts(self, reader: AnyReader, trial: int, out: np.ndarray, stages: StageSeconds | None) -> bool:
        """Straight from counts, in one pass; False where no kernel does it: nothing was read then."""
        if kernels.get() is None or reader.dtype != np.int16 or not out.flags.c_contiguous:
            return False
        with self._buffers.borrow(out.shape, reader.dtype) as counts:
            reader.read_into(trial, counts, stages)
            started = time.perf_counter()
            if not kernels.convert(counts, out, self.form):
                raise AssertionError(f"no kernel for {self.form}")
            if stages is not None:
                stages.cast += time.perf_counter() - started
        return True


def round_to_bfloat16(values: np.ndarray, out: np.ndarray) -> None:
    """Write the bits of *values*, float32, rounded to bfloat16 (nearest, ties to even), into *out*, uint16.

    A bfloat16 is the upper half of a float32. Half a unit of its last place, less one bit where that place is even,
    carries into it where rounding goes up. NaN stays NaN.
    """
    bits = values.view(np.uint32)
    rounded = bits >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += bits
    rounded += np.uint32(0x7FFF)
    rounded >>= np.uint32(16)
    np.copyto(out, rounded, casting="unsafe")
    if np.isnan(values).any():
        out[np.isnan(values)] = 0x7FC0
