"""Progress on a terminal as a bar with rate and time left; elsewhere as plain lines; or not at all."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from nsd_zarr.cli.terminal import note
from nsd_zarr.conversion.events import (
    Event,
    Listener,
    RunStarted,
    SessionDone,
    TrialsDone,
    TrialsRead,
    WaitingForWorkers,
    ignore_event,
)
from nsd_zarr.layout import TRIALS, Kind, format_bytes, format_count
from nsd_zarr.libraries import has_library
from nsd_zarr.progress import BarListener, format_waiting, open_rich_bar

_LOG = logging.getLogger(__name__)


@contextmanager
def show_progress(quiet: bool, kind: Kind = TRIALS) -> Iterator[Listener]:
    """A listener that shows events on stderr, in the words of what is converted."""
    if quiet:
        yield _log(ignore_event)
    elif sys.stderr.isatty() and has_library("rich"):
        with open_rich_bar() as bar:
            yield _log(BarListener(bar, kind))
    else:
        yield _log(_Lines(kind).listen)


def _log(listener: Listener) -> Listener:
    """*listener*, with a line in the log for the run and for each session."""

    def listen(event: Event) -> None:
        if not isinstance(event, (TrialsRead, TrialsDone)):
            _LOG.info("%s", event)
        listener(event)

    return listen


def _note(text: str) -> None:
    """A line with the time before it: what is no terminal is a log."""
    note(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")


class _Lines:
    """One line a step, and one for each session that is read from its source or written."""

    def __init__(self, kind: Kind) -> None:
        self._kind, self._sessions, self._done = kind, 0, 0
        self._waits = False

    def listen(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._sessions, self._done = event.sessions, 0
            before = f", {event.finished_sessions} finished before" if event.finished_sessions else ""
            _note(
                f"{_name(event.subject)}{event.step} {format_count(event.sessions, self._kind.part)}, "
                f"{event.trials} {self._kind.item}s{before}"
            )
        elif isinstance(event, WaitingForWorkers):
            if not self._waits:
                _note(format_waiting(event))
            self._waits = True
        elif isinstance(event, SessionDone) and event.how != "from the store":
            self._done += 1
            self._waits = False
            written = f"{format_bytes(event.stored_bytes)} in " if event.stored_bytes else "compared in "
            _note(
                f"{_name(event.subject)}{self._kind.part} {event.session:02d} done ({self._done} of {self._sessions}): "
                f"{written}{event.seconds:.1f} s, read {event.how}"
            )


def _name(subject: int | None) -> str:
    """What precedes a line, where there are several subjects."""
    return "" if subject is None else f"subject {subject}: "
