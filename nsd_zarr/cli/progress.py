"""Progress on a terminal as a bar with rate and time left; elsewhere as plain lines; or not at all."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from nsd_zarr.cli.terminal import note
from nsd_zarr.conversion.events import (
    Event,
    Listener,
    RunStarted,
    SessionDone,
    TrialsDone,
    WaitingForWorkers,
    ignore_event,
)
from nsd_zarr.layout import TRIALS, Kind, format_bytes, format_count

_LOG = logging.getLogger(__name__)


@contextmanager
def show_progress(verb: str, quiet: bool, kind: Kind = TRIALS) -> Iterator[Listener]:
    """A listener that shows events on stderr, in the words of what is converted."""
    if quiet:
        yield _log(verb, ignore_event)
    elif sys.stderr.isatty():
        with _show_bar(verb, kind) as listener:
            yield _log(verb, listener)
    else:
        yield _log(verb, _Lines(verb, kind).listen)


def _log(verb: str, listener: Listener) -> Listener:
    """*listener*, with a line in the log for the run and for each session."""

    def listen(event: Event) -> None:
        if not isinstance(event, TrialsDone):
            _LOG.info("%s: %s", verb, event)
        listener(event)

    return listen


class _Lines:
    """One line a session."""

    def __init__(self, verb: str, kind: Kind) -> None:
        self._verb, self._kind, self._sessions, self._done = verb, kind, 0, 0
        self._waits = False

    def listen(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._sessions = event.sessions
            before = f", {event.finished_sessions} finished before" if event.finished_sessions else ""
            note(
                f"{self._verb} {format_count(event.sessions, self._kind.part)}, "
                f"{event.trials} {self._kind.item}s{before}"
            )
        elif isinstance(event, WaitingForWorkers):
            if not self._waits:
                note(_format_waiting(event))
            self._waits = True
        elif isinstance(event, SessionDone):
            self._done += 1
            self._waits = False
            stored = f"{format_bytes(event.stored_bytes)} in " if event.stored_bytes else "unchanged, "
            note(
                f"{self._kind.part} {event.session:02d} done ({self._done} of {self._sessions}): "
                f"{stored}{event.seconds:.1f} s, read {event.how}"
            )


@contextmanager
def _show_bar(verb: str, kind: Kind) -> Iterator[Listener]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(verb, total=None)
        state = {"trial_bytes": 1, "sessions": 0, "done": 0}
        lock = threading.Lock()

        def listen(event: Event) -> None:
            with lock:
                if isinstance(event, RunStarted):
                    state.update(trial_bytes=event.trial_bytes, sessions=event.sessions)
                    bar.update(task, total=event.trials * event.trial_bytes)
                elif isinstance(event, TrialsDone):
                    bar.advance(task, event.trials * state["trial_bytes"])
                elif isinstance(event, WaitingForWorkers):
                    bar.update(task, description=_format_waiting(event))
                elif isinstance(event, SessionDone):
                    state["done"] += 1
                    bar.update(task, description=f"{verb} ({kind.part} {state['done']} of {state['sessions']} done)")

        yield listen


def _format_waiting(event: WaitingForWorkers) -> str:
    return f"waiting for a worker of the Dask cluster, up to {event.limit_seconds / 60:.0f} minutes"
