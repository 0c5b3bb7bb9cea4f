"""How the samples of one file are written: one protocol for all forms."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Writer(Protocol):
    """Writes the samples of one file in their order. What was kept is there in the next run."""

    def start(self, done: int) -> int:
        """Begin, or go on behind the first *done* samples, which an earlier run kept; returns how many count."""

    def write(self, first: int, values: np.ndarray) -> None:
        """Write samples from number *first* on."""

    def keep(self) -> bool:
        """Have on disk what was written; False in a form that can only be kept whole."""

    def finish(self) -> None:
        """Everything was written: give the file its name. Nothing to do where it has it."""

    def close(self) -> None:
        """Let go of the file, finished or not."""
