"""One run a store: a lock beside it, with the name of who holds it."""

from __future__ import annotations

import itertools
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


@contextmanager
def hold_lock(store: Path) -> Iterator[None]:
    """Hold the lock of *store*. Raises StoreError that names host, pid and start time of the run that has it.

    On one host the kernel's lock decides, and ends with its process however that dies. A lock left by another host is
    watched for a while: a live run renews it, since not every shared file system carries locks between hosts.
    """
    folder = make_run_folder(store)
    make_folder(folder)
    try:
        descriptor = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise explain_write_error(error, folder / _LOCK_NAME) from error
    try:
        if not _try_lock(descriptor) or _is_alive_elsewhere(descriptor):
            raise _explain_holder(_read_holder(descriptor), store)
        holder = _make_holder()
        try:
            _write_holder(descriptor, holder, 0)
        except OSError as error:
            raise explain_write_error(error, folder / _LOCK_NAME) from error
        with _beating(descriptor, holder):
            yield
    finally:
        os.close(descriptor)


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
        descriptor = os.open(make_run_folder(store) / _LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
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
        return now | {"beat": ""} != self.holder | {"beat": ""}


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
                _write_holder(descriptor, holder, count)

    thread = threading.Thread(target=beat, name="nsd-zarr lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        os.truncate(descriptor, 0)


def _explain_holder(holder: dict[str, Any], store: Path) -> StoreError:
    who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}, started {holder.get('started', '?')}"
    return StoreError(
        f"the store is in use by a live run: {who}",
        hint="Wait for it, or stop it; then run again.",
        path=store,
        found=holder,
    )
