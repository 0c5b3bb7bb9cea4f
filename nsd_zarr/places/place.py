"""What a store asks of where its bytes live: names, whole objects, ranges, listing. No renames, no folders, no flush.

A place holds objects by key: path steps joined by "/", as in Zarr ("betas/c/3/0/0/0"). An object is there whole or not
at all, and durable once it is there. How a place does that is its own affair: a folder writes under another name,
flushes and renames; an object store ends an upload.

Errors are the same for all places. Who reads gets OSError (FileNotFoundError where there is no such object) or
ValueError (it may not be read: too large, no regular file, outside); the caller knows what the object is for, and says
so. Who writes gets StoreError or DoesNotFit, which say what to do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from typing import Protocol


class OpenObject(Protocol):
    """An object that is open for reading. Usable by several threads at once; closed when the last one drops it."""

    @property
    def size(self) -> int:
        """Bytes of the object when it was opened."""

    def read_into(self, out: memoryview, offset: int) -> int:
        """Fill *out* with the bytes from *offset* on; returns how many, fewer only where the object ends.

        Raises OSError.
        """

    def expect_end(self, end: bytes) -> None:
        """Its last bytes: reading raises OSError where it is opened again behind the scenes, and ends otherwise."""

    def read_range(self, offset: int, length: int) -> bytes:
        """The *length* bytes from *offset* on; fewer where the object ends. Raises OSError."""

    def read_once(self) -> AbstractContextManager[None]:
        """For a block that reads it whole, once: afterwards no cache holds it that did not before."""


class NewObject(Protocol):
    """An object that is being written. Nobody sees it before it is committed; another thread may do that."""

    def write(self, data: bytes, /) -> int:
        """Write *data* behind what was written so far."""

    def commit(self, *, keep_cached: bool = True) -> None:
        """Put it under its key, whole and durable, in place of what was there.

        *keep_cached*: whether it is soon read again on this machine. Raises StoreError or DoesNotFit, and discards it.
        """

    def discard(self) -> None:
        """Remove what was written."""


class Place(Protocol):
    """Objects by key. Small and picklable; holds no handle, so that it goes to other processes and through fork."""

    @property
    def location(self) -> str:
        """What a person calls it: a path or a URL. For messages."""

    def locate(self, key: str) -> str:
        """What a person calls object *key*. For messages."""

    @property
    def requests_at_once(self) -> int:
        """Reads that are worth making side by side, because each waits for an answer; 0: as many as there are cores."""

    @property
    def commits_at_once(self) -> int:
        """New objects that are worth committing side by side."""

    @property
    def max_uncommitted(self) -> int:
        """New objects that may be written and not committed yet, beside those that are being written."""

    # -- reading -------------------------------------------------------------------------------------------------

    def read(self, key: str, max_bytes: int) -> bytes:
        """The whole of *key*. Raises ValueError when it is larger than *max_bytes*, before it reads; OSError."""

    def open(self, key: str, size: int | None = None) -> OpenObject:
        """Open *key* to read ranges of it; *size*: its bytes, where the caller knows them. Raises OSError, ValueError.

        An object store makes no request then: the first range shows whether the object has that size.
        """

    def drop_copy(self, key: str) -> bool:
        """Forget the copy of *key* that is kept nearer than the object itself; whether there was one."""

    def measure(self, key: str) -> int:
        """Bytes of *key*. Raises OSError (FileNotFoundError where there is none)."""

    def measure_all(self, keys: Collection[str]) -> dict[str, int]:
        """Bytes of those of *keys* that are there. Raises OSError where that cannot be found out."""

    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """Keys of all objects, or of those below *prefix*; in any order. Raises OSError."""

    # -- writing -------------------------------------------------------------------------------------------------

    def write(self, key: str, data: bytes) -> None:
        """Make *data* the whole of *key*, durable when this returns. Raises StoreError or DoesNotFit."""

    def create(self, key: str, data: bytes) -> bool:
        """As write, but only where there is no *key* yet; of several who try at once, one alone succeeds.

        Returns whether it was this one.
        """

    def begin(self, key: str) -> AbstractContextManager[NewObject]:
        """An object to be written part by part in the block, and committed after it; discarded when the block fails.

        Raises StoreError or DoesNotFit.
        """

    def remove(self, *keys: str) -> None:
        """Remove objects, those of them that are there; durable when this returns. Raises StoreError."""

    def remove_below(self, prefix: str) -> None:
        """Remove all objects below *prefix*, as far as possible. Raises nothing: what is left can be found again."""

    def count_partials(self) -> int:
        """How many objects killed writers left half written. Nobody reads these."""

    def remove_partials(self) -> int:
        """Remove what killed writers left; returns how many. Only for who holds the store's lock."""
