"""Conversions that are watched, or stopped at a moment."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import pytest

from nsd_zarr.conversion.events import RunStarted, SessionDone, TrialsDone, TrialsRead
from nsd_zarr.places import swap


class Recorder:
    """A listener that keeps all events, from any thread, and may act at one trial."""

    def __init__(self, at_trial: int | None = None, act: Callable[[], None] = lambda: None) -> None:
        self.events: list[object] = []
        self._at, self._act = at_trial, act
        self._lock = threading.Lock()

    def __call__(self, event: object) -> None:
        with self._lock:
            self.events.append(event)
            count = self.trials
        if isinstance(event, TrialsDone) and count == self._at:
            self._act()

    @property
    def trials(self) -> int:
        return sum(event.trials for event in self.events if isinstance(event, TrialsDone))

    @property
    def sessions(self) -> list[int]:
        """Sessions that were done, whether converted or compared, ascending."""
        return sorted(event.session for event in self.events if isinstance(event, SessionDone))

    def add_up(self) -> list[Step]:
        """What each step announced, and what its events add up to."""
        steps: list[Step] = []
        for event in self.events:
            if isinstance(event, RunStarted):
                steps.append(Step(event.step, (event.sessions, event.trials, event.reads)))
                continue
            is_part = [isinstance(event, kind) for kind in (SessionDone, TrialsDone, TrialsRead)]
            size = getattr(event, "trials", 1)
            found = zip(steps[-1].done, is_part, strict=True)
            steps[-1] = replace(steps[-1], done=tuple(count + size * part for count, part in found))
        return steps


@dataclass(frozen=True)
class Step:
    """Sessions, trials and trials read: as announced, and as they were reported one by one."""

    name: str
    announced: tuple[int, ...]
    done: tuple[int, ...] = (0, 0, 0)


def read_recorded_sessions(store: Path) -> list[int]:
    """Sessions with a record in the run of a store."""
    records = store.with_name(store.name + ".run").glob("session-*.json")
    return sorted(json.loads(path.read_bytes())["session"] for path in records)


@contextmanager
def count_renames(act: Callable[[int], None] = lambda number: None) -> Iterator[list[os.PathLike]]:
    """Targets of all renames in this block; *act* is called right before each with its number, counted from 1."""
    rename, targets = os.replace, []

    def note(old, new):
        targets.append(new)
        act(len(targets))
        rename(old, new)

    with mock.patch.object(os, "replace", note):
        yield targets


@contextmanager
def watch_changes(act: Callable[[int], None] = lambda number: None) -> Iterator[list[str]]:
    """Kinds of all changes of names in this block: replace, rename, link, exchange; *act* is called before each.

    With its number, counted from 1.
    """
    kinds: list[str] = []

    def watch(kind, call):
        def change(*words, **options):
            kinds.append(kind)
            act(len(kinds))
            return call(*words, **options)

        return change

    with ExitStack() as stack:
        for kind in ("replace", "rename", "link"):
            stack.enter_context(mock.patch.object(os, kind, watch(kind, getattr(os, kind))))
        stack.enter_context(mock.patch.object(swap, "exchange_names", watch("exchange", swap.exchange_names)))
        yield kinds


@contextmanager
def stop_at_change(number: int) -> Iterator[list[str]]:
    """A block that is stopped by KeyboardInterrupt before its change of names *number*, if it comes so far."""

    def stop(count: int) -> None:
        if count == number:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt), watch_changes(stop) as kinds:
        yield kinds


@contextmanager
def stop_at_rename(number: int) -> Iterator[None]:
    """A block that is stopped by KeyboardInterrupt right before its rename *number*, counted from 1."""

    def stop(count: int) -> None:
        if count == number:
            raise KeyboardInterrupt

    with count_renames(stop), pytest.raises(KeyboardInterrupt):
        yield
