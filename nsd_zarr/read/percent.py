"""Stored counts as percent signal change."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from nsd_zarr.layout import COUNTS_PER_PERCENT
from nsd_zarr.store.reader import TrialReader


def scale_into(counts: np.ndarray, out: np.ndarray) -> None:
    """Write *counts* / 300 into *out*, float32 of the same shape: bit-equal to np.float32(counts) / np.float32(300).

    Cast first, then divide in place: np.divide with a cast inside goes through a small buffer and takes twice as long.
    """
    np.copyto(out, counts, casting="same_kind")
    np.divide(out, np.float32(COUNTS_PER_PERCENT), out=out)


class PercentReader:
    """Reads trials of one store as percent signal change. Thread-safe, fork-safe, picklable.

    Integer counts become float32 percent; float sources are percent already and stay what they are.
    """

    def __init__(self, reader: TrialReader) -> None:
        self.reader = reader
        self._scratch = threading.local()

    def __getstate__(self) -> TrialReader:
        return self.reader

    def __setstate__(self, reader: TrialReader) -> None:
        self.reader = reader
        self._scratch = threading.local()

    @property
    def dtype(self) -> np.dtype[Any]:
        """What is delivered: float32, or the stored dtype of a float source."""
        return self.reader.dtype if self.reader.dtype.kind == "f" else np.dtype(np.float32)

    def read_into(self, trial: int, out: np.ndarray) -> None:
        """Trial *trial* (0-based, in the store) into *out*, `dtype`, shape (z, y, x), C-contiguous.

        Raises IndexError, DamageFound as TrialReader.read_into. Beside *out* a thread keeps one trial of counts.
        """
        if self.reader.dtype.kind == "f":
            self.reader.read_into(trial, out)
            return
        counts = getattr(self._scratch, "counts", None)
        if counts is None:
            self._scratch.counts = counts = np.empty(self.reader.volume_shape, self.reader.dtype)
        self.reader.read_into(trial, counts)
        scale_into(counts, out)
