"""One run a store: a lock beside it, with the name of who holds it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from nsd_zarr.conversion.ledger import find_run_files, make_run_folder
from nsd_zarr.conversion.remote.generations import ObjectLock, take_lock
from nsd_zarr.errors import ConfigError, StoreError
from nsd_zarr.layout import Part
from nsd_zarr.places.choose import is_remote
from nsd_zarr.places.durable import explain_write_error, make_folder
from nsd_zarr.places.holder import (
    beating,
    explain_holder,
    explain_odd_lock,
    explain_other_path,
    is_alive_elsewhere,
    is_named,
    make_holder,
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
LOCK_NAME = "lock"
"""Name of the lock in the run folder."""
_PART_LOCKS = "part-*.lock"
"""Locks of parts of a conversion that work at the same time: each has its own, and none goes with the lock itself."""
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

    def __init__(self, store: Path, descriptor: int, holder: dict[str, Any], name: str, shared: bool) -> None:
        super().__init__()
        self._store, self._descriptor, self._holder = store, descriptor, holder
        self._name, self._shared = name, shared
        self._folder: int | None = None
        self.cover_folder()

    def cover_folder(self) -> None:
        """Lock the store's folder itself, once it exists: bind mounts, which have other paths, share that lock.

        Raises StoreError.
        """
        if self._folder is None and self._store.is_dir():
            folder = open_folder(self._store)
            if not _try_lock(folder, shared=self._shared):
                os.close(folder)
                raise explain_other_path(self._store)
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
        if not is_at(make_run_folder(self._store) / self._name, self._descriptor, follow_symlinks=False):
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
        raise explain_holder(lock, store)
    with lock.beating(BEAT_SECONDS):
        yield HeldObjectLock(store, lock)


def name_part_lock(part: Part) -> str:
    """Name of the lock of one part, in the run folder."""
    return f"part-{part.number}-of-{part.count}.lock"


@contextmanager
def hold_lock(store: Path) -> Iterator[HeldLock]:
    """Hold the lock of *store*. Raises StoreError that names host, pid and start time of the run that has it.

    Not while a part of a conversion lives: its lock comes first, then the look at the others', on both sides.
    """

    def check() -> None:
        for path in find_run_files(make_run_folder(store), _PART_LOCKS):
            _check_over(path, store)
            path.unlink(missing_ok=True)  # A part that was only suspended stops, once it goes on.

    with _hold_object_lock(store) if is_remote(store) else _hold(store, LOCK_NAME, {}, check) as lock:
        yield lock


@contextmanager
def hold_part_lock(store: Path, part: Part, name: str = "") -> Iterator[HeldLock]:
    """Hold the lock of one part, or another lock *name* of parts, beside those of others. Raises StoreError."""
    check = partial(_check_over, make_run_folder(store) / LOCK_NAME, store)
    with _hold(store, name or name_part_lock(part), {"part": str(part)}, check, shared=True) as lock:
        yield lock


def _check_over(path: Path, store: Path) -> None:
    """Refuse to go on where the run that holds the lock at *path* lives; a dead one's name goes. Raises StoreError."""
    try:
        descriptor = look_at_lock_file(path)
    except OddLock as error:
        raise explain_odd_lock(path) from error
    except OSError:
        return
    try:
        holder = read_holder(descriptor)
        if not _try_lock(descriptor, shared=True) or _is_alive_elsewhere(descriptor):
            raise explain_holder(read_holder(descriptor), store)
        if holder and is_named(descriptor, holder):
            os.truncate(path, 0)
    finally:
        os.close(descriptor)


def _is_alive_elsewhere(descriptor: int) -> bool:
    return is_alive_elsewhere(descriptor, PATIENCE_SECONDS, BEAT_SECONDS / 4)


@contextmanager
def _hold(
    store: Path, name: str, what: dict[str, Any], check: Callable[[], None], *, shared: bool = False
) -> Iterator[HeldLock]:
    """Hold the lock *name* of *store*, saying *what* for. Raises StoreError where another process has it.

    *check*: looks at locks that do not go with it, once it is held. *shared*: whether the store's folder is.
    On one host the kernel's lock decides, and ends with its process however that dies. A lock left by another host is
    watched for a while: a live run renews it, since not every shared file system carries locks between hosts.
    """
    descriptor = _open_lock(path := make_run_folder(store) / name)
    try:
        if not _try_lock(descriptor) or _is_alive_elsewhere(descriptor):
            raise explain_holder(read_holder(descriptor), store)
        holder = make_holder() | what
        try:
            write_holder(descriptor, holder, 0)
        except OSError as error:
            raise explain_write_error(error, path) from error
        with beating(descriptor, holder, BEAT_SECONDS):
            check()
            with closing(HeldLock(store, descriptor, holder, name, shared)) as lock:
                yield lock
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    make_folder(path.parent)
    try:
        return open_lock_file(path)
    except OddLock as error:
        raise explain_odd_lock(path) from error
    except OSError as error:
        raise explain_write_error(error, path) from error


def check_free(store: Path, part: Part | None = None) -> None:
    """Refuse a store that a run on this host has in use, or whose name is too long. Writes nothing.

    Of a store behind a URL its name alone is looked at. *part*: for a part of a conversion, which works beside others.
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
    folder = make_run_folder(store)
    others = find_run_files(folder, _PART_LOCKS) if part is None else [folder / name_part_lock(part)]
    for path in (folder / LOCK_NAME, *others):
        try:
            holder = _look_at(look_at_lock_file, path)
        except OddLock as error:
            raise explain_odd_lock(path) from error
        if holder is not None:
            raise explain_holder(holder, store)
    if _look_at(open_folder, store) is not None:
        raise explain_other_path(store)


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
