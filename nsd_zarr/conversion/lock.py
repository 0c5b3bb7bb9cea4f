"""One run a store: a lock beside it, with the name of who holds it."""

from __future__ import annotations

import errno
import itertools
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from nsd_zarr.conversion.ledger import make_run_folder
from nsd_zarr.errors import ConfigError, StoreError
from nsd_zarr.places.durable import explain_write_error, make_folder
from nsd_zarr.places.locks import try_lock

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
_OPENING = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""A link is not followed, a pipe is not waited for."""


class HeldLock:
    """The lock of a store, while this process holds it."""

    def __init__(self, store: Path, descriptor: int, holder: dict[str, Any]) -> None:
        self._store, self._descriptor, self._holder = store, descriptor, holder
        self._folder: int | None = None
        self.cover_folder()

    def cover_folder(self) -> None:
        """Lock the store's folder itself, once it exists: bind mounts, which have other paths, share that lock.

        Raises StoreError.
        """
        if self._folder is None and self._store.is_dir():
            folder = os.open(self._store, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if not _try_lock(folder):
                os.close(folder)
                raise _explain_other_path(self._store)
            self._folder = folder

    def check(self) -> None:
        """Refuse to go on where the lock is no longer ours, or the store is another folder. Raises StoreError.

        For a run that was suspended: meanwhile its store may have been removed, moved, or taken over by another host.
        """
        if not self._is_held():
            raise StoreError(
                "the lock of the store is no longer held by this run: the store or its run folder was moved or "
                "removed, or another run took it over",
                hint="Nothing was completed. See what is there now, then run the same command again.",
                path=self._store,
            )

    def _is_held(self) -> bool:
        path = make_run_folder(self._store) / _LOCK_NAME
        try:
            if not os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(self._descriptor)):
                return False
            if self._folder is not None and not os.path.samestat(os.stat(self._store), os.fstat(self._folder)):
                return False
        except (FileNotFoundError, NotADirectoryError):
            return False
        return _is_named(self._descriptor, self._holder)

    def close(self) -> None:
        """Let go of the folder."""
        if self._folder is not None:
            os.close(self._folder)


@contextmanager
def hold_lock(store: Path) -> Iterator[HeldLock]:
    """Hold the lock of *store*. Raises StoreError that names host, pid and start time of the run that has it.

    On one host the kernel's lock decides, and ends with its process however that dies. A lock left by another host is
    watched for a while: a live run renews it, since not every shared file system carries locks between hosts.
    """
    folder = make_run_folder(store)
    make_folder(folder)
    descriptor = _open_lock(folder / _LOCK_NAME)
    try:
        if not _try_lock(descriptor) or _is_alive_elsewhere(descriptor):
            raise _explain_holder(_read_holder(descriptor), store)
        holder = _make_holder()
        try:
            _write_holder(descriptor, holder, 0)
        except OSError as error:
            raise explain_write_error(error, folder / _LOCK_NAME) from error
        with _beating(descriptor, holder), closing(HeldLock(store, descriptor, holder)) as lock:
            yield lock
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    """Open the lock file, made where there is none; never through a link, which may lead to any file of the user's."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _OPENING, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise _explain_odd_lock(path) from error
        raise explain_write_error(error, path) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _explain_odd_lock(path)
    return descriptor


def _explain_odd_lock(path: Path) -> StoreError:
    return StoreError(
        "the lock of the store is a link, or no regular file", hint="Remove it, then run again.", path=path
    )


def check_free(store: Path) -> None:
    """Refuse a store that a run on this host has in use, or whose name is too long. Writes nothing.

    Raises StoreError, ConfigError.
    """
    if len(os.fsencode(store.name)) > MAX_NAME_BYTES:
        raise ConfigError(
            f"a name of {len(os.fsencode(store.name))} bytes, expected at most {MAX_NAME_BYTES}: STORE.run has to fit "
            "beside the store",
            hint="Choose a shorter name for the store.",
            path=store.parent,
        )
    try:
        descriptor = os.open(make_run_folder(store) / _LOCK_NAME, os.O_RDONLY | _OPENING)
    except OSError:
        return
    try:
        # Shared, so that looks do not turn each other away.
        if not _try_lock(descriptor, shared=True):
            raise _explain_holder(_read_holder(descriptor), store)
    finally:
        os.close(descriptor)


class RunEnded:
    """Whether the run that holds the lock of a store has let go of it: a stop signal that reaches other hosts.

    For those who work for a run in other processes. Looks at the lock file, and no more often than every LOOK_AGAIN
    seconds, so that it may be asked before each trial. A run that was killed ends when the next one takes the lock.
    """

    def __init__(self, path: Path, holder: dict[str, Any]) -> None:
        self.path = path
        self.holder = holder
        self._next_look = 0.0
        self._ended = False

    @classmethod
    def of_present_run(cls, store: Path) -> RunEnded:
        """Of the run that holds the lock of *store* now."""
        path = make_run_folder(store) / _LOCK_NAME
        return cls(path, _parse_holder(path.read_bytes()))

    def is_set(self) -> bool:
        """Whether it has."""
        if not self._ended and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_AGAIN_SECONDS
            self._ended = self._look()
        return self._ended

    def _look(self) -> bool:
        try:
            now = _parse_holder(self.path.read_bytes())
        except FileNotFoundError:
            return True
        except OSError:
            return False  # A file system that stutters is no order to stop.
        return not _is_same(now, self.holder)


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


def _make_holder() -> dict[str, Any]:
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": started}


def _write_holder(descriptor: int, holder: dict[str, Any], beat: int) -> None:
    # One write, always of one length for one holder, so that a reader never sees half of it.
    data = json.dumps(holder | {"beat": f"{beat:012d}"}).encode()
    os.pwrite(descriptor, data, 0)
    os.truncate(descriptor, len(data))


def _read_holder(descriptor: int) -> dict[str, Any]:
    return _parse_holder(os.pread(descriptor, 4096, 0))


def _parse_holder(data: bytes) -> dict[str, Any]:
    try:
        holder = json.loads(data)
        return dict(holder) if isinstance(holder, dict) else {}
    except ValueError:
        return {}


def _is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one | {"beat": ""} == other | {"beat": ""}


def _is_named(descriptor: int, holder: dict[str, Any]) -> bool:
    """Whether the lock file names *holder*. An empty one does not: another host took it, and has given it back."""
    return _is_same(_read_holder(descriptor), holder)


def _is_alive_elsewhere(descriptor: int) -> bool:
    holder = _read_holder(descriptor)
    if not holder or holder.get("host") == socket.gethostname():
        return False
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if _read_holder(descriptor) != holder:
            return True
        time.sleep(BEAT_SECONDS / 4)
    return False


@contextmanager
def _beating(descriptor: int, holder: dict[str, Any]) -> Iterator[None]:
    """Renew the lock until the block ends, then take our name out of it."""
    stop = threading.Event()

    def beat() -> None:
        for count in itertools.count(1):
            if stop.wait(BEAT_SECONDS):
                return
            with suppress(OSError):  # The next beat may succeed; a full disk is reported by the conversion itself.
                if _is_named(descriptor, holder):  # Not where another host took it over while we were suspended.
                    _write_holder(descriptor, holder, count)

    thread = threading.Thread(target=beat, name="nsd-zarr lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        if _is_named(descriptor, holder):
            os.truncate(descriptor, 0)


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
