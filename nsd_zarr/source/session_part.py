"""What every session that is one file has alike, whatever its form."""

from __future__ import annotations

import math

import numpy as np

from nsd_zarr.layout import SessionNumber


class SessionPart:
    """Of a record with session, shape (trial, ...) and dtype: what the source protocol asks about them."""

    __slots__ = ()

    session: SessionNumber
    shape: tuple[int, ...]
    dtype: str

    @property
    def error_session(self) -> SessionNumber:
        """The session that errors name."""
        return self.session

    @property
    def trials(self) -> int:
        """Trials in the session."""
        return self.shape[0]

    @property
    def voxels(self) -> int:
        """Values in one trial."""
        return math.prod(self.shape[1:])

    @property
    def trial_bytes(self) -> int:
        """Bytes of one trial."""
        return self.voxels * np.dtype(self.dtype).itemsize

    def describe_trial(self, trial: int) -> str:
        """A trial of the session, for people."""
        return f"trial {trial} of the session"
