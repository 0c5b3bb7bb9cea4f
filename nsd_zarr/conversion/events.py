"""What a run tells while it goes: small typed events for a progress bar or a log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nsd_zarr.layout import SessionNumber


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run knows what there is to do."""

    sessions: int
    """Sessions to convert, or to read again."""
    trials: int
    """Trials in them."""
    trial_bytes: int
    """Decoded bytes of a trial."""
    finished_sessions: int
    """Sessions that an earlier run finished."""


@dataclass(frozen=True, slots=True)
class TrialsDone:
    """Some trials were compressed and written, or checked."""

    trials: int
    """How many."""


@dataclass(frozen=True, slots=True)
class SessionDone:
    """One session is on disk and in the ledger."""

    session: SessionNumber
    """Session number."""
    stored_bytes: int
    """Bytes of its shards."""
    seconds: float
    """Wall time of the session."""
    how: str
    """How it was read: "by offset" or "through h5py"."""


Event = RunStarted | TrialsDone | SessionDone
Listener = Callable[[Event], None]


def ignore_event(event: Event) -> None:
    """A listener that does nothing."""
