"""What a lock file says: which process holds it, on which host, since when, and a count that goes up while it lives."""

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

from nsd_zarr.errors import StoreError

MAX_LOCK_BYTES = 4096
"""More of a lock file is not read."""


def make_holder() -> dict[str, Any]:
    """Name the present process, as one that holds a lock from now on."""
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": started}


def write_holder(descriptor: int, holder: dict[str, Any], beat: int) -> None:
    """Make *holder*, with its count *beat*, what an open lock file says. Raises OSError."""
    # One write, always of one length for one holder, so that a reader never sees half of it.
    data = json.dumps(holder | {"beat": f"{beat:012d}"}).encode()
    os.pwrite(descriptor, data, 0)
    os.truncate(descriptor, len(data))


def read_holder(descriptor: int) -> dict[str, Any]:
    """What an open lock file or folder says; empty where it says nothing. Raises OSError."""
    try:
        return parse_holder(os.pread(descriptor, MAX_LOCK_BYTES, 0))
    except IsADirectoryError:
        return {}


def parse_holder(data: bytes) -> dict[str, Any]:
    """What *data*, the bytes of a lock file, say; empty where they say nothing."""
    try:
        holder = json.loads(data[:MAX_LOCK_BYTES])
        return dict(holder) if isinstance(holder, dict) else {}
    except (ValueError, RecursionError):
        return {}


def is_same_holder(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two lock files name one holder, whatever they count."""
    return one | {"beat": ""} == other | {"beat": ""}


def is_named(descriptor: int, holder: dict[str, Any]) -> bool:
    """Whether an open lock file names *holder*. An empty one does not: another host took it, and has given it back."""
    return is_same_holder(read_holder(descriptor), holder)


def is_alive_elsewhere(descriptor: int, patience_seconds: float, look_seconds: float) -> bool:
    """Whether an open lock file is of a process of another host that goes on counting, watched for a while."""
    holder = read_holder(descriptor)
    if not holder or holder.get("host") == socket.gethostname():
        return False
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline:
        if read_holder(descriptor) != holder:
            return True
        time.sleep(look_seconds)
    return False


@contextmanager
def beating(descriptor: int, holder: dict[str, Any], seconds: float) -> Iterator[None]:
    """Renew the lock until the block ends, then take our name out of it."""
    stop = threading.Event()

    def beat() -> None:
        for count in itertools.count(1):
            if stop.wait(seconds):
                return
            with suppress(OSError):  # The next beat may succeed; a full disk is reported by the conversion itself.
                if is_named(descriptor, holder):  # Not where another host took it over while we were suspended.
                    write_holder(descriptor, holder, count)

    thread = threading.Thread(target=beat, name="nsd-zarr lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        if is_named(descriptor, holder):
            os.truncate(descriptor, 0)


def explain_odd_lock(path: Path) -> StoreError:
    """The error for a lock that no lock file is."""
    return StoreError(
        "the lock of the store is a link, or no regular file", hint="Remove it, then run again.", path=path
    )


def explain_other_path(store: Path) -> StoreError:
    """The error for a store whose folder is locked, and whose lock is not."""
    return StoreError(
        "the store is in use by a live run that reaches its folder by another path, such as a bind mount",
        hint="Wait for it, or stop it; then run again.",
        path=store,
    )


def explain_holder(holder: dict[str, Any], store: Path) -> StoreError:
    """The error for a lock that *holder* has: host, process, start time, and of a conversion in parts which."""
    part = f"part {holder['part']}, " if "part" in holder else ""
    who = f"{part}process {holder.get('pid', '?')} on {holder.get('host', '?')}, started {holder.get('started', '?')}"
    return StoreError(
        f"the store is in use by a live run: {who}",
        hint="Wait for it, or stop it; then run again.",
        path=store,
        found=holder,
    )
