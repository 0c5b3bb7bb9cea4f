"""One run a store: a lock beside it, with the name of who holds it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from nsd_zarr.conversion.ledger import make_run_folder
from nsd_zarr.conversion.remote.generations import RELEASED, ObjectLock, find_latest, read_beat, take_lock
from nsd_zarr.conversion.remote.generations import read_holder as read_object_holder
from nsd_zarr.errors import ConfigError, StoreError
from nsd_zarr.places.choose import choose_place, is_remote
from nsd_zarr.places.durable import explain_write_error, make_folder
from nsd_zarr.places.holder import (
    beating,
    is_alive_elsewhere,
    is_named,
    is_same_holder,
    make_holder,
    parse_holder,
    read_holder,
    write_holder,
)
from nsd_zarr.places.locks import OddLock, is_at, look_at_lock_file, open_folder, open_lock_file, try_lock

BEAT_SECONDS = 2.0
"""How often a live run renews its lock."""
PATIENCE_SECONDS = 3 * BEAT_SECONDS
"""How long another host's lock is watched before it is taken for dead. No clocks are compared."""
LOOK_SECONDS = 0.2
"""How long a lock is tried for: others who only look hold it for a moment, and a new holder is named a moment later."""
LOOK_AGAIN_SECONDS = 1.0
"""How often those who work for a run in other processes look whether it still holds its lock."""
_LOCK_NAME = "lock"
MAX_NAME_BYTES = 255 - len(".run")
"""File systems take names of 255 bytes, and the run lies beside its store."""


def _now() -> float:
    """Seconds of a clock that goes on while the machine is suspended, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Watch:
    """A stop signal that looks for itself, at most every LOOK_AGAIN_SECONDS: it may be asked before each trial."""

    def __init__(self) -> None:
        self._next_look = 0.0
        self._is_set = False

    def is_set(self) -> bool:
        """Whether what it waits for was seen. Once set, it stays set."""
        if not self._is_set and _now() >= self._next_look:
            self._next_look = _now() + LOOK_AGAIN_SECONDS
            with suppress(OSError):  # A file system that does not answer for a moment is no reason to stop.
                self._is_set = self._look()
        return self._is_set

    def _look(self) -> bool:
        """Whether it is so now. May raise OSError."""
        raise NotImplementedError


class HeldLock(Watch):
    """The lock of a store, while this process holds it. As a stop signal: set once it is lost."""

    def __init__(self, store: Path, descriptor: int, holder: dict[str, Any]) -> None:
        super().__init__()
        self._store, self._descriptor, self._holder = store, descriptor, holder
        self._folder: int | None = None
        self.cover_folder()

    def cover_folder(self) -> None:
        """Lock the store's folder itself, once it exists: bind mounts, which have other paths, share that lock.

        Raises StoreError.
        """
        if self._folder is None and self._store.is_dir():
            folder = open_folder(self._store)
            if not _try_lock(folder):
                os.close(folder)
                raise _explain_other_path(self._store)
            self._folder = folder

    def check(self) -> None:
        """Refuse to go on where the lock is no longer ours, or the store is another folder. Raises StoreError.

        For a run that was suspended: meanwhile its store may have been removed, moved, or taken over by another host.
        """
        try:
            is_lost = self._look()
        except OSError as error:
            raise explain_write_error(error, self._store) from error
        if is_lost:
            raise StoreError(
                "the lock of the store is no longer held by this run: the store or its run folder was moved or "
                "removed, or another run took it over",
                hint="Nothing was completed. See what is there now, then run the same command again.",
                path=self._store,
            )

    def check_sometimes(self) -> None:
        """As check, but looks no more often than a stop signal does. For before each of many small files."""
        if self.is_set():
            self.check()

    def _look(self) -> bool:
        if not is_at(make_run_folder(self._store) / _LOCK_NAME, self._descriptor, follow_symlinks=False):
            return True
        if self._folder is not None and not is_at(self._store, self._folder):
            return True
        return not is_named(self._descriptor, self._holder)

    def close(self) -> None:
        """Let go of the folder."""
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None


class HeldObjectLock(HeldLock):
    """The same of a store behind a URL."""

    def __init__(self, store: Path, lock: ObjectLock) -> None:
        Watch.__init__(self)
        self._store, self._lock = store, lock

    def cover_folder(self) -> None:
        """Nothing: a URL has no other paths."""

    def _look(self) -> bool:
        return self._lock.is_lost()

    def close(self) -> None:
        """Nothing is open."""


@contextmanager
def _hold_object_lock(store: Path) -> Iterator[HeldLock]:
    lock = take_lock(store, PATIENCE_SECONDS, BEAT_SECONDS / 4)
    if not isinstance(lock, ObjectLock):
        raise _explain_holder(lock, store)
    with lock.beating(BEAT_SECONDS):
        yield HeldObjectLock(store, lock)


@contextmanager
def hold_lock(store: Path) -> Iterator[HeldLock]:
    """Hold the lock of *store*. Raises StoreError that names host, pid and start time of the run that has it.

    On one host the kernel's lock decides, and ends with its process however that dies. A lock left by another host is
    watched for a while: a live run renews it, since not every shared file system carries locks between hosts.
    """
    if is_remote(store):
        with _hold_object_lock(store) as held:
            yield held
        return
    path = make_run_folder(store) / _LOCK_NAME
    make_folder(path.parent)
    descriptor = _open_lock(path)
    try:
        if not _try_lock(descriptor) or is_alive_elsewhere(descriptor, PATIENCE_SECONDS, BEAT_SECONDS / 4):
            raise _explain_holder(read_holder(descriptor), store)
        holder = make_holder()
        try:
            write_holder(descriptor, holder, 0)
        except OSError as error:
            raise explain_write_error(error, path) from error
        with beating(descriptor, holder, BEAT_SECONDS), closing(HeldLock(store, descriptor, holder)) as lock:
            yield lock
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    try:
        return open_lock_file(path)
    except OddLock as error:
        raise _explain_odd_lock(path) from error
    except OSError as error:
        raise explain_write_error(error, path) from error


def _explain_odd_lock(path: Path) -> StoreError:
    return StoreError(
        "the lock of the store is a link, or no regular file", hint="Remove it, then run again.", path=path
    )


def check_free(store: Path) -> None:
    """Refuse a store that a run on this host has in use, or whose name is too long. Writes nothing.

    Of a store behind a URL its name alone is looked at.

    Raises StoreError, ConfigError.
    """
    if len(os.fsencode(store.name)) > MAX_NAME_BYTES:
        raise ConfigError(
            f"a name of {len(os.fsencode(store.name))} bytes, expected at most {MAX_NAME_BYTES}: STORE.run has to fit "
            "beside the store",
            hint="Choose a shorter name for the store.",
            path=store.parent,
        )
    if is_remote(store):
        return  # To see whether a run lives takes a while: whoever writes looks.
    path = make_run_folder(store) / _LOCK_NAME
    try:
        holder = _look_at(look_at_lock_file, path)
    except OddLock as error:
        raise _explain_odd_lock(path) from error
    if holder is not None:
        raise _explain_holder(holder, store)
    if _look_at(open_folder, store) is not None:
        raise _explain_other_path(store)


def _look_at(open_lock: Callable[[Path], int], path: Path) -> dict[str, Any] | None:
    """What the lock at *path* says of who holds it; None where nobody does, or where it cannot be opened.

    Tried as shared, so that looks do not turn each other away. Raises OddLock.
    """
    try:
        descriptor = open_lock(path)
    except OSError:
        return None  # Whoever reads or writes there says what is wrong.
    try:
        return None if _try_lock(descriptor, shared=True) else read_holder(descriptor)
    finally:
        os.close(descriptor)


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
        path = make_run_folder(store) / _LOCK_NAME
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


def _try_lock(descriptor: int, *, shared: bool = False) -> bool:
    deadline = time.monotonic() + LOOK_SECONDS
    while True:
        try:
            if try_lock(descriptor, shared=shared):
                return True
        except OSError:
            return True  # A file system without locks: what the lock file says has to do.
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_SECONDS / 20)


def _explain_other_path(store: Path) -> StoreError:
    return StoreError(
        "the store is in use by a live run that reaches its folder by another path, such as a bind mount",
        hint="Wait for it, or stop it; then run again.",
        path=store,
    )


def _explain_holder(holder: dict[str, Any], store: Path) -> StoreError:
    who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}, started {holder.get('started', '?')}"
    return StoreError(
        f"the store is in use by a live run: {who}",
        hint="Wait for it, or stop it; then run again.",
        path=store,
        found=holder,
    )
