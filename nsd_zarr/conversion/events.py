"""What a run reports while it goes: small typed events for a progress bar or a log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nsd_zarr.layout import SessionNumber


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run knows what there is to do.

    >>> events = []
    >>> report = nsd_zarr.convert("nsd", "new.zarr", subject=1, on_event=events.append)
    >>> isinstance(events[0], nsd_zarr.RunStarted), events[0].sessions, events[0].trials
    (True, 3, 36)
    """

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
    """Some trials were compressed and written, or checked.

    >>> events = []
    >>> report = nsd_zarr.verify("subj01.zarr", on_event=events.append)
    >>> sum(event.trials for event in events if isinstance(event, nsd_zarr.TrialsDone))
    36
    """

    trials: int
    """How many."""


@dataclass(frozen=True, slots=True)
class SessionDone:
    """One session is on disk and in the ledger.

    >>> def show(event: nsd_zarr.Event) -> None:
    ...     if isinstance(event, nsd_zarr.SessionDone):
    ...         print(event.session, event.how)
    >>> report = nsd_zarr.convert("nsd", "new.zarr", subject=1, workers=1, on_event=show)
    1 by offset
    2 by offset
    3 by offset
    """

    session: SessionNumber
    """Session number."""
    stored_bytes: int
    """Bytes of its shards."""
    seconds: float
    """Wall time of the session."""
    how: str
    """How it was read: "by offset" or "through h5py"."""


@dataclass(frozen=True, slots=True)
class WaitingForWorkers:
    """A cluster has no worker at the moment. Comes every few seconds."""

    seconds: float
    """How long there has been none."""
    limit_seconds: float
    """How long that may last."""


Event = RunStarted | TrialsDone | SessionDone | WaitingForWorkers
"""Anything that a run reports."""
Listener = Callable[[Event], None]
"""What is called with each event, from any thread."""


def ignore_event(event: Event) -> None:
    """A listener that does nothing."""
