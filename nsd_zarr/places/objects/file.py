"""One object behind a URL, read by ranges that are bound to one version of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from nsd_zarr.places.objects.explain import ObjectReplaced, explain_object_error
from nsd_zarr.retry import read_again

Result = TypeVar("Result")


@contextmanager
def explaining() -> Iterator[None]:
    """Raise what obstore raises as OSErrors that say what to do."""
    try:
        yield
    except Exception as error:
        is_bare = isinstance(error, (FileNotFoundError, NotImplementedError)) and not getattr(error, "errno", None)
        if is_bare or type(error).__module__.startswith("obstore"):
            raise explain_object_error(error) from None  # Its text holds pages of what was sent.
        raise


def persist(request: Callable[[], Result], where: str) -> Result:
    """As read_again; whoever gets the error does not try again. Raises OSError, ValueError."""
    try:
        return read_again(request, where)
    except OSError as error:
        if type(error) is OSError:
            raise OSError(error.strerror or str(error)) from None
        raise


@dataclass(frozen=True, slots=True)
class Version:
    """Which version of an object was read."""

    size: int
    """Bytes."""
    tag: str
    """ETag; where a server has none, the time of its last change."""

    @property
    def condition(self) -> dict[str, str]:
        """What makes a request fail where the object is another; weak tags compare as unequal always."""
        return {"if_match": self.tag} if self.tag.startswith('"') else {}


def make_version(meta: Any) -> Version:
    """The version that a response's metadata tell of."""
    return Version(int(meta["size"]), str(meta["e_tag"] or meta["last_modified"]))


class ObjectFile:
    """An object that is read by ranges, all of one version: the one of the first response, or *version*.

    Holds no connection. Usable by several threads at once.
    """

    __slots__ = ("_binds", "_connect", "_path", "size", "version")

    def __init__(self, connect: Callable[[], Any], path: str, known: Version | int) -> None:
        """*connect*: gives the client; *path*: in the bucket. *known*: the version, or the size that it must have."""
        self._connect, self._path, self._binds = connect, path, True
        self.version = known if isinstance(known, Version) else None
        self.size = known.size if isinstance(known, Version) else known

    def expect_end(self, end: bytes) -> None:
        """Nothing: ranges are bound to one version already."""

    def read_into(self, out: memoryview, offset: int) -> int:
        """Fill *out* with the bytes from *offset* on; returns how many, fewer only where the object ends.

        One request. Raises OSError (ObjectReplaced where another object has taken its place), ValueError where it is
        of another size.
        """
        length, done = min(len(out), self.size - offset), 0
        if length <= 0:
            return 0
        for part in self._request(offset, length):
            view = memoryview(part)
            if done + len(view) > length:
                raise OSError("the server sent more than it was asked for")
            out[done : done + len(view)] = view
            done += len(view)
        if done != length:
            raise ObjectReplaced(f"{done} bytes came of {length} that were asked for")
        return done

    def read_range(self, offset: int, length: int) -> bytes:
        """The *length* bytes from *offset* on; fewer where the object ends. One request. Raises OSError."""
        data = bytearray(length)
        return bytes(data[: self.read_into(memoryview(data), offset)])

    def read_once(self) -> AbstractContextManager[None]:
        """Nothing is kept of it."""
        return nullcontext()

    def stream(self, offset: int = 0, length: int | None = None) -> Iterator[Any]:
        """The *length* bytes from *offset* on, or all, part by part, by one request. Raises OSError, ValueError."""
        length = self.size if length is None else length
        return self._request(offset, length) if length else iter(())

    def _request(self, offset: int, length: int) -> Iterator[Any]:
        with explaining():
            result = self._get(offset, length)
            self._check(make_version(result.meta))
            yield from result.stream(min_chunk_size=STREAM_BYTES)

    def _get(self, offset: int, length: int) -> Any:
        import obstore

        condition = self.version.condition if self.version is not None and self._binds else {}
        options: Any = {"range": (offset, offset + length), **condition}
        try:
            with explaining():
                return obstore.get(self._connect(), self._path, options=options)
        except ObjectReplaced:
            # Some servers refuse every condition, because they compare tags with their quotes.
            if not condition or make_version(self._connect().head(self._path)) != self.version:
                raise
        self._binds = False
        return self._get(offset, length)

    def _check(self, found: Version) -> None:
        """Compared by ourselves too: some servers ignore the condition."""
        if found.size != self.size:
            raise ValueError(f"the object has {found.size} bytes, expected {self.size}")
        if self.version is None:
            self.version = found
        elif found.tag != self.version.tag:
            raise ObjectReplaced("another object has taken its place since it was opened: open the store again")


STREAM_BYTES = 2**18
"""Bytes that are handed over at a time: 230 trials of 0.7 MB/s by one thread, 177 where a response is taken whole."""


def explain_parts(parts: Any) -> Iterator[Any]:
    """Give *parts* of a response on. Raises as explaining."""
    with explaining():
        yield from parts
