"""What the units of a run share in a process: who hears of them, what stops them, where their blocks come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from nsd_zarr.buffers import BufferPool
from nsd_zarr.conversion.events import Listener, TrialsDone, ignore_event
from nsd_zarr.conversion.ledger import make_run_folder
from nsd_zarr.conversion.lock import LOCK_NAME, Watch
from nsd_zarr.conversion.pipeline.opening import Opener
from nsd_zarr.conversion.remote.generations import RELEASED, find_latest, read_beat
from nsd_zarr.conversion.remote.generations import read_holder as read_object_holder
from nsd_zarr.places.choose import choose_place, is_remote
from nsd_zarr.places.holder import is_same_holder, parse_holder
from nsd_zarr.places.read_ahead import ReadAhead
from nsd_zarr.source.trial_cache import TrialCache


class StopSignal(Protocol):
    """What stops a unit: a threading.Event, or something that asks further."""

    def is_set(self) -> bool:
        """Whether to stop. Asked before each trial."""


class Stopped(Exception):
    """The run was stopped."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a unit shares with others in its process. The default is right for a process of its own."""

    listen: Listener = ignore_event
    """Called with each event, from any thread."""
    stop: StopSignal = field(default_factory=Event)
    """Set to stop between two trials. Shards that are written whole are put in their place nevertheless."""
    is_lost: StopSignal = field(default_factory=Event)
    """Set once the store is no longer this run's: nothing more may be written into it."""
    blocks: BufferPool = field(default_factory=BufferPool)
    """Where blocks of trials come from."""
    read_ahead: ReadAhead = field(default_factory=lambda: ReadAhead(()))
    """What reads the next file while this one is converted."""
    opener: Opener = field(default_factory=Opener)
    """What opens the sources, the next one while this one is converted."""
    trial_cache: TrialCache = field(default_factory=TrialCache)
    """Where trials lie that were read together with those of another part."""

    def check_stop(self) -> None:
        """Raise Stopped when the run is to stop."""
        if self.stop.is_set():
            raise Stopped
        self.check_lost()

    def check_lost(self) -> None:
        """Raise Stopped when nothing more may be written. Called before each file gets its name."""
        if self.is_lost.is_set():
            raise Stopped

    def count_trial(self) -> None:
        """Called before each trial is compressed."""
        self.check_stop()
        self.listen(TrialsDone(1))


class RunEnded(Watch):
    """Whether the run that holds the lock of a store has let go of it: a stop signal that reaches other hosts.

    For those who work for a run in other processes. A run that was killed ends when the next one takes the lock.
    """

    def __init__(self, path: Path, holder: dict[str, Any]) -> None:
        super().__init__()
        self.path = path
        self.holder = holder

    @classmethod
    def of_present_run(cls, store: Path) -> RunEnded:
        """Of the run that holds the lock of *store* now."""
        path = make_run_folder(store) / LOCK_NAME
        if is_remote(store):
            place = choose_place(make_run_folder(store))
            return ObjectRunEnded(path.parent, read_object_holder(place, find_latest(place)))
        return cls(path, parse_holder(path.read_bytes()))

    def _look(self) -> bool:
        try:
            return not is_same_holder(parse_holder(self.path.read_bytes()), self.holder)
        except FileNotFoundError:
            return True


class ObjectRunEnded(RunEnded):
    """The same of a store behind a URL. *path*: the run folder."""

    def _look(self) -> bool:
        place = choose_place(self.path)
        latest = find_latest(place)
        return read_object_holder(place, latest) != self.holder or read_beat(place, latest) == RELEASED
