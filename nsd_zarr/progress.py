"""A bar that listens to the events of a run: drawn by tqdm where it is installed, else by rich."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from nsd_zarr.conversion.events import Event, Listener, RunStarted, SessionDone, WaitingForWorkers
from nsd_zarr.layout import TRIALS, Kind, format_bytes
from nsd_zarr.libraries import check_library

if TYPE_CHECKING:
    from rich.progress import Progress


class Bar(Protocol):
    """What a library draws. Its time left comes from the rate since the step began, so that it does not swing."""

    def begin(self, text: str, total_bytes: int) -> None:
        """A step begins."""

    def show(self, text: str, done_bytes: int) -> None:
        """*done_bytes* of the step are done."""


class BarListener:
    """Draws events on *bar*. A trial counts half when it is read, and half when it is written or checked."""

    def __init__(self, bar: Bar, kind: Kind) -> None:
        self._bar, self._kind, self._lock = bar, kind, threading.Lock()
        self._step = RunStarted(0, 0, 0, 0)
        self._trials = self._sessions = 0

    def __call__(self, event: Event) -> None:
        """Draw one event, from any thread."""
        with self._lock:
            if isinstance(event, RunStarted):
                self._step, self._trials, self._sessions = event, 0, 0
                self._bar.begin(self._describe(), event.trials * event.trial_bytes)
                return
            if isinstance(event, WaitingForWorkers):
                self._bar.show(format_waiting(event), self._count_bytes())
                return
            if isinstance(event, SessionDone):
                self._sessions += 1
            else:
                self._trials += event.trials
            self._bar.show(self._describe(), self._count_bytes())

    def _describe(self) -> str:
        done = f" ({self._kind.part} {self._sessions} of {self._step.sessions} done)" if self._sessions else ""
        subject = "" if self._step.subject is None else f"subject {self._step.subject}: "
        return subject + self._step.step + done

    def _count_bytes(self) -> int:
        step = self._step
        return step.trials * step.trial_bytes * self._trials // max(1, step.trials + step.reads)


def format_waiting(event: WaitingForWorkers) -> str:
    """What is said while there is no worker."""
    return f"waiting for a worker of the Dask cluster, up to {event.limit_seconds / 60:.0f} minutes"


@contextmanager
def draw_progress(progress: bool, listen: Listener, kind: Kind = TRIALS) -> Iterator[Listener]:
    """*listen*, and where *progress* is True a listener that also draws a bar, in a notebook or on standard error."""
    if not progress:
        yield listen
        return
    with _open_bar() as bar:
        draw = BarListener(bar, kind)

        def listen_and_draw(event: Event) -> None:
            draw(event)
            listen(event)

        yield listen_and_draw


@contextmanager
def _open_bar() -> Iterator[Bar]:
    try:
        with warnings.catch_warnings():
            # In a notebook without ipywidgets it advises to install them, and draws a bar of text: so do we, silently.
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm
    except ImportError:
        with open_rich_bar() as bar:
            yield bar
        return
    tqdm_bar = _TqdmBar(tqdm)
    try:
        yield tqdm_bar
    finally:
        tqdm_bar.close()


class _TqdmBar:
    """One bar of tqdm a step."""

    def __init__(self, tqdm: Any) -> None:
        self._tqdm, self._bar = tqdm, None

    def begin(self, text: str, total_bytes: int) -> None:
        self.close()
        # smoothing=0: the mean rate since the step began.
        self._bar = self._tqdm(total=total_bytes, desc=text, unit="B", unit_scale=True, smoothing=0)

    def show(self, text: str, done_bytes: int) -> None:
        if self._bar is not None:
            if text != self._bar.desc:
                self._bar.set_description_str(text, refresh=False)
            self._bar.update(done_bytes - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


@contextmanager
def open_rich_bar() -> Iterator[Bar]:
    """Bars of rich on standard error, one line a step."""
    check_library("rich", "a progress bar")
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[left]}"),
    )
    progress = Progress(*columns, console=Console(stderr=True))
    try:
        yield _RichBar(progress)
    finally:
        progress.stop()


class _RichBar:
    """One line of rich a step."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: Any = None
        self._total_bytes = 0

    def begin(self, text: str, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._progress.start()  # not before: an error that comes first stands alone
        self._task = self._progress.add_task(text, total=total_bytes, rate="", left="")

    def show(self, text: str, done_bytes: int) -> None:
        task = next(task for task in self._progress.tasks if task.id == self._task)
        rate, left = format_rate(done_bytes, self._total_bytes, task.elapsed or 0)
        self._progress.update(self._task, description=text, completed=done_bytes, rate=rate, left=left)


def format_rate(done_bytes: int, total_bytes: int, seconds: float) -> tuple[str, str]:
    """Rate and time left by the mean since the step began: ("1.05 GB/s", "0:01:40 left"); empty while unknown."""
    if not done_bytes or seconds <= 0:
        return "", ""
    left = round((total_bytes - done_bytes) * seconds / done_bytes)
    minutes, rest = divmod(left, 60)
    return f"{format_bytes(done_bytes / seconds)}/s", f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} left"
