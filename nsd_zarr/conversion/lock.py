"""One run a store: a lock beside it, with the name of who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from nsd_zarr.conversion.ledger import make_run_folder
from nsd_zarr.errors import StoreError
from nsd_zarr.store.durable import explain_write_error, make_folder

BEAT_SECONDS = 2.0
"""How often a live run renews its lock."""
PATIENCE_SECONDS = 3 * BEAT_SECONDS
"""How long another host's lock is watched before it is taken for dead. No clocks are compared."""
_LOCK_NAME = "lock"


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
        with _beating(descriptor):
            yield
    finally:
        os.close(descriptor)


def check_free(store: Path) -> None:
    """Refuse a store that a run on this host has in use. Writes nothing. Raises StoreError."""
    try:
        descriptor = os.open(make_run_folder(store) / _LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        # Shared, so that a look from one side does not turn away a run from another.
        if not _try_lock(descriptor, fcntl.LOCK_SH):
            raise _explain_holder(_read_holder(descriptor), store)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # A file system without locks: what the lock file says has to do.
    return True


def _read_holder(descriptor: int) -> dict[str, Any]:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
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
def _beating(descriptor: int) -> Iterator[None]:
    """Write who we are into the lock, and renew it until the block ends."""
    stop = threading.Event()
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "started": started}

    def beat() -> None:
        count = 0
        while True:
            # One write of constant length, so that a reader never sees half of it.
            os.pwrite(descriptor, json.dumps(holder | {"beat": f"{count:012d}"}).encode(), 0)
            count += 1
            if stop.wait(BEAT_SECONDS):
                return

    os.truncate(descriptor, 0)
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
