"""Trials that were read together with those of another part, until that part takes them."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import numpy as np


class TrialCache:
    """Trials that came with the chunk of another part, until their own part takes them. Thread-safe."""

    def __init__(self) -> None:
        self.lock = Lock()
        self._trials: dict[int, np.ndarray] = {}

    def put(self, ids: Sequence[int], trials: np.ndarray) -> None:
        """Keep copies of *trials*."""
        self._trials |= {number: trial.copy() for number, trial in zip(ids, trials, strict=True)}

    def take(self, ids: Sequence[int], out: np.ndarray) -> bool:
        """Move the trials of *ids*, all of one chunk, to *out*; False when they are not here."""
        if ids[0] not in self._trials:
            return False
        for row, number in enumerate(ids):
            out[row] = self._trials.pop(number)
        return True
