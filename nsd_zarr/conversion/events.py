"""What a run reports while it goes on: small typed events for a progress bar or a log.

Each step of a call begins with RunStarted, which announces what the events up to the next RunStarted add up to:
TrialsRead to `reads`, TrialsDone to `trials`, and one SessionDone for each of `sessions`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from nsd_zarr.layout import SessionNumber


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A step of the run begins, and it is known what there is to do.

    `convert` has one step; `verify` with sources and `repair` have several.

    >>> events = []
    >>> report = nsd_zarr.convert("nsd", "new.zarr", subject=1, on_event=events.append)
    >>> isinstance(events[0], nsd_zarr.RunStarted), events[0].sessions, events[0].trials
    (True, 3, 36)
    """

    sessions: int
    """Sessions of this step; each ends with SessionDone."""
    trials: int
    """Trials to write or to check; the sum of TrialsDone."""
    trial_bytes: int
    """Decoded bytes of a trial."""
    finished_sessions: int
    """Sessions that an earlier run finished."""
    reads: int = 0
    """Trials to read from the sources; the sum of TrialsRead. 0 where a step reads only the store."""
    step: str = "converting"
    """What is done with the sessions: "converting"; "verifying" the store ("verifying again": under its lock);
    "comparing" or "reading" the sources; "repairing"; "reading back" trials of the store, for statistics."""
    subject: int | None = None
    """Whose sessions, in a store of several subjects."""


@dataclass(frozen=True, slots=True)
class TrialsRead:
    """Some trials were read from a source. They come before they are done, a part of many trials at a time.

    >>> events = []
    >>> report = nsd_zarr.convert("nsd", "new.zarr", subject=1, on_event=events.append)
    >>> sum(event.trials for event in events if isinstance(event, nsd_zarr.TrialsRead))
    36
    """

    trials: int
    """How many: bytes that were read, counted in whole trials."""


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
    """One session is done: on disk and in the ledger, or read and compared.

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
    """Bytes of the shards that were written; 0 where it was only read."""
    seconds: float
    """Wall time of the session."""
    how: str
    """How it was read: "by offset", "as one stream ...", "through h5py" or nibabel, or "from the store"."""
    subject: int | None = None
    """Whose session, in a store of several subjects."""


@dataclass(frozen=True, slots=True)
class WaitingForWorkers:
    """A cluster has no worker at the moment. Comes every few seconds.

    >>> print(nsd_zarr.WaitingForWorkers(seconds=4.0, limit_seconds=600).limit_seconds)
    600
    """

    seconds: float
    """How long there has been none."""
    limit_seconds: float
    """How long that may last."""


Event = RunStarted | TrialsRead | TrialsDone | SessionDone | WaitingForWorkers
"""Anything that a run reports."""
Listener = Callable[[Event], None]
"""What is called with each event, from any thread."""


def ignore_event(event: Event) -> None:
    """A listener that does nothing."""


def name_subject(listen: Listener, subject: int) -> Listener:
    """*listen*, with the subject in the events that can name it."""

    def listen_to_subject(event: Event) -> None:
        listen(replace(event, subject=subject) if isinstance(event, (RunStarted, SessionDone)) else event)

    return listen_to_subject


class ReadCounter:
    """Counts values that were read, and reports them in whole trials, from any thread."""

    def __init__(self, trial_values: int, listen: Listener) -> None:
        self._trial_values, self._listen = trial_values, listen
        self._values = self._trials = 0
        self._lock = threading.Lock()

    def add(self, values: int) -> None:
        """Count *values* of any trials."""
        with self._lock:
            self._values += values
            trials = self._values // self._trial_values - self._trials
            self._trials += trials
        if trials:
            self._listen(TrialsRead(trials))
