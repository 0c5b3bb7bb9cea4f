"""One run a store in an object store: numbered generations, each made by whoever is first.

`<store>.run/lock/00000001` is created only where it is not there yet, with the name and a token of who holds the lock;
`00000001.beat` is written again and again while its run lives, and says "released" at its end. Who finds a generation
whose beat does not change for PATIENCE_SECONDS creates the next one. Who finds a later one than its own has lost. No
clocks are compared, and nothing is asked of the server but that a creation fails where the object is there, which is
tried first: some servers write in both cases.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from nsd_zarr.conversion.ledger import make_run_folder
from nsd_zarr.errors import NsdZarrError, StoreError
from nsd_zarr.places.choose import choose_place
from nsd_zarr.places.holder import MAX_LOCK_BYTES, make_holder, parse_holder
from nsd_zarr.places.place import Place

LOCK = "lock"
"""Folder of the generations, in the run folder."""
RELEASED = b"released"
"""What the beat of a generation says whose run has ended."""
_DIGITS = 8


class ObjectLock:
    """A generation that this process made. As long as there is no later one, the store is its own."""

    def __init__(self, place: Place, number: int, token: str) -> None:
        self.place, self.number, self.token = place, number, token

    def is_lost(self) -> bool:
        """Whether another process made a later generation, or removed this one. Raises OSError."""
        return find_latest(self.place) != self.number

    def beat(self, count: int) -> None:
        """Say that the run lives. Raises StoreError."""
        self.place.write(f"{_name(self.number)}.beat", f"{self.token} {count}".encode())

    @contextmanager
    def beating(self, seconds: float) -> Iterator[None]:
        """Renew the lock until the block ends, then release it."""
        stop = threading.Event()

        def beat() -> None:
            for count in itertools.count(1):
                if stop.wait(seconds):
                    return
                with suppress(OSError):  # The next beat may succeed.
                    self.beat(count)

        thread = threading.Thread(target=beat, name="nsd-zarr lock", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self._release()

    def _release(self) -> None:
        """Say that the run has ended, unless somebody else holds the lock by now."""
        with suppress(OSError):
            self.place.write(f"{_name(self.number)}.beat", RELEASED)


def take_lock(store: Path, patience_seconds: float, look_seconds: float) -> ObjectLock | dict[str, Any]:
    """The lock of *store*; or who holds it. Raises StoreError where the server cannot tell who was first."""
    place = choose_place(make_run_folder(store))
    _probe(place, store)
    latest = find_latest(place)
    if latest and _is_alive(place, latest, patience_seconds, look_seconds):
        return read_holder(place, latest)
    number, token = latest + 1, uuid4().hex
    if not place.create(_name(number), json.dumps(make_holder() | {"token": token}).encode()):
        return read_holder(place, number)
    lock = ObjectLock(place, number, token)
    lock.beat(0)
    _remove_former(place, number)
    return lock


def find_latest(place: Place) -> int:
    """Number of the latest generation; 0 where there is none. Raises OSError."""
    names = (key.rpartition("/")[2] for key in place.list_keys(LOCK))
    return max((int(name) for name in names if len(name) == _DIGITS and name.isdigit()), default=0)


def read_holder(place: Place, number: int) -> dict[str, Any]:
    """Who made a generation; empty where that is not known."""
    with suppress(OSError, ValueError):
        return parse_holder(place.read(_name(number), MAX_LOCK_BYTES))
    return {}


def read_beat(place: Place, number: int) -> bytes:
    """What the beat of a generation says; empty before the first. Raises OSError."""
    try:
        return place.read(f"{_name(number)}.beat", MAX_LOCK_BYTES)
    except FileNotFoundError:
        return b""


def _probe(place: Place, store: Path) -> None:
    """Refuse a server on which of two who create one object both succeed. Raises StoreError."""
    key = f"{LOCK}/probe-{uuid4().hex}"
    try:
        first, second = place.create(key, b"first"), place.create(key, b"second")
    except NsdZarrError:
        raise
    finally:
        with suppress(OSError):
            place.remove(key)
    if not first or second:
        raise StoreError(
            "this server cannot tell which of two writers was first: of two that created one object, "
            f"{'both' if second else 'none'} succeeded, expected one. Two runs could write one store",
            hint="Convert to a disk and copy the store, or use a server that honours If-None-Match (S3, Ceph, MinIO, "
            "SeaweedFS, GCS, Azure).",
            path=store,
        )


def _is_alive(place: Place, number: int, patience_seconds: float, look_seconds: float) -> bool:
    """Whether the beat of a generation changes, or another one comes, within a while."""
    first = read_beat(place, number)
    deadline = time.monotonic() + patience_seconds
    while first != RELEASED and time.monotonic() < deadline:
        time.sleep(look_seconds)
        now = read_beat(place, number)
        if now == RELEASED:
            return False
        if now != first or find_latest(place) != number:
            return True
    return False


def _remove_former(place: Place, number: int) -> None:
    """Remove the generations before *number*: whoever made one finds it gone, and has lost."""
    with suppress(OSError):
        names = [key for key in place.list_keys(LOCK) if key.rpartition("/")[2][:_DIGITS].isdigit()]
        place.remove(*(key for key in names if int(key.rpartition("/")[2][:_DIGITS]) < number))


def _name(number: int) -> str:
    return f"{LOCK}/{number:0{_DIGITS}d}"
