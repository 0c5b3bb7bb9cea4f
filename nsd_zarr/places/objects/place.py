"""A prefix of a bucket as a place: whole objects, ranges bound to one version of an object, listing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nsd_zarr.errors import NsdZarrError, StoreError
from nsd_zarr.places.objects.access import Access
from nsd_zarr.places.objects.client import connect, find_root
from nsd_zarr.places.objects.explain import ObjectReplaced, explain_object_error
from nsd_zarr.retry import read_again


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

    __slots__ = ("_key", "_place", "size", "version")

    def __init__(self, place: ObjectPlace, key: str, size: int | None, version: Version | None = None) -> None:
        self._place, self._key, self.version = place, key, version
        if size is None and version is None:
            self.version = place.look(key)
        self.size = self.version.size if self.version is not None else int(size or 0)

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

    def stream(self, offset: int = 0, length: int | None = None) -> Iterator[Any]:
        """The *length* bytes from *offset* on, or all, part by part, by one request. Raises OSError, ValueError."""
        length = self.size if length is None else length
        return self._request(offset, length) if length else iter(())

    def _request(self, offset: int, length: int) -> Iterator[Any]:
        import obstore

        condition = {} if self.version is None else self.version.condition
        options: Any = {"range": (offset, offset + length), **condition}
        with explaining():
            result = obstore.get(self._place.client, self._place.find(self._key), options=options)
            self._check(make_version(result.meta))
            yield from result.stream(min_chunk_size=STREAM_BYTES)

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


def _explain_parts(parts: Any) -> Iterator[Any]:
    with explaining():
        yield from parts


@dataclass(frozen=True, slots=True)
class ObjectPlace:
    """Objects below a URL. Small and picklable; its client belongs to the process."""

    url: str
    """URL of the prefix, without a slash at its end."""
    access: Access = field(default=Access(), repr=False)
    """How it is reached."""

    @property
    def client(self) -> Any:
        """Obstore's client of the bucket. Raises ConfigError, OSError."""
        return connect(find_root(self.url)[0], self.access)

    def make_client(self) -> Any:
        """Obstore's client of what is below the URL, for other libraries."""
        return connect(self.url, self.access)

    @property
    def location(self) -> str:
        """The URL."""
        return self.url

    def locate(self, key: str) -> str:
        """URL of object *key*."""
        return f"{self.url}/{key}"

    def find(self, key: str) -> str:
        """Path of object *key* in the bucket."""
        prefix = find_root(self.url)[1]
        return "/".join(part for part in (prefix, key) if part)

    @property
    def requests_at_once(self) -> int:
        """32: at 30 ms a request, 64 read 1.7 times as fast, and 16 half as fast."""
        return 32

    # -- reading -------------------------------------------------------------------------------------------------

    def read(self, key: str, max_bytes: int) -> bytes:
        """The whole of object *key*, by one request. Raises ValueError (too large, its body is not read), OSError."""
        with explaining():
            result = self.client.get(self.find(key))
            if result.meta["size"] > max_bytes:
                raise ValueError(f"it has {result.meta['size']} bytes, expected at most {max_bytes}")
            return bytes(result.bytes())

    def open(self, key: str, size: int | None = None) -> ObjectFile:
        """Object *key*, to be read by ranges. *size*: its bytes, where known; no request is made then."""
        return ObjectFile(self, key, size)

    def begin_reading(self, key: str, length: int) -> tuple[Version, Iterator[Any]]:
        """The present version of *key*, and its first *length* bytes part by part, by one request. Raises OSError."""
        import obstore

        with explaining():
            try:
                result = obstore.get(self.client, self.find(key), options={"range": (0, length)})
            except Exception as error:
                if "416" not in str(error):
                    raise
                return self.look(key), iter(())  # An empty object has no range.
        return make_version(result.meta), _explain_parts(result.stream(min_chunk_size=STREAM_BYTES))

    def drop_copy(self, key: str) -> bool:
        """False: no copy is kept here."""
        return False

    def look(self, key: str) -> Version:
        """The present version of object *key*. Raises OSError."""
        with explaining():
            return make_version(self.client.head(self.find(key)))

    def measure(self, key: str) -> int:
        """Bytes of object *key*. Raises OSError."""
        return self.look(key).size

    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """Keys of all objects below *prefix*. Raises OSError."""
        start = len(find_root(self.url)[1])
        paths = read_again(partial(self._list, prefix), self.locate(prefix))
        yield from (path[start:].lstrip("/") for path in paths)

    def _list(self, prefix: str) -> list[str]:
        with explaining():
            batches = self.client.list(prefix=f"{self.find(prefix)}/".lstrip("/") or None)
            return [str(meta["path"]) for batch in batches for meta in batch]

    def holds_any(self) -> bool:
        """Whether there is an object below the URL: one request. Raises OSError."""
        return read_again(self._look_below, self.url)

    def _look_below(self) -> bool:
        with explaining():
            batches = self.client.list(prefix=f"{self.find('')}/".lstrip("/") or None)
            return any(len(batch) for batch in batches)

    def list_folder(self) -> tuple[list[str], list[str]]:
        """Names of folders, and of objects, right below the URL. Raises OSError."""
        found = read_again(self._list_folder, self.url)
        folders = [str(prefix).rstrip("/").rsplit("/", 1)[-1] for prefix in found["common_prefixes"]]
        return folders, [str(meta["path"]).rsplit("/", 1)[-1] for meta in found["objects"]]

    def _list_folder(self) -> Any:
        with explaining():
            return self.client.list_with_delimiter(prefix=f"{self.find('')}/".lstrip("/") or None)

    # -- writing -------------------------------------------------------------------------------------------------

    def write(self, key: str, data: bytes | bytearray) -> None:
        """Make *data* the whole of object *key*, by one request. Raises StoreError."""
        with self._explaining_writes(key):
            self._put(key, data)

    def create(self, key: str, data: bytes) -> bool:
        """As write, but only where there is no object *key* yet; whether it was written.

        An answer that was lost looks as if somebody else had been first: so what is there is read, and *data* must tell
        who wrote it. Raises StoreError.
        """
        with self._explaining_writes(key):
            try:
                self._put(key, data, mode="create")
            except OSError:
                return self._is_mine(key, data)
            return True

    def _is_mine(self, key: str, data: bytes) -> bool:
        """Whether object *key* holds *data*. Raises OSError, FileNotFoundError where there is no such object."""
        try:
            return self.read(key, max(len(data), 1)) == data
        except ValueError:
            return False

    def _put(self, key: str, data: Any, mode: Any = "overwrite") -> None:
        with explaining():
            # Never in parts: a single request is whole or not there, and only such can be refused where one is there.
            self.client.put(self.find(key), data, mode=mode, use_multipart=False)

    @contextmanager
    def begin(self, key: str) -> Iterator[ObjectWriter]:
        """An object written part by part in memory, and sent when it is committed; dropped when the block fails."""
        writer = ObjectWriter(self, key)
        try:
            yield writer
        except BaseException:
            writer.discard()
            raise

    def remove(self, *keys: str) -> None:
        """Remove objects, those of them that are there. Raises StoreError."""
        with self._explaining_writes(""):
            for key in keys:
                with suppress(FileNotFoundError), explaining():
                    self.client.delete(self.find(key))

    def remove_below(self, prefix: str) -> None:
        """Remove all objects below *prefix*, as far as possible."""
        with suppress(OSError, StoreError):
            for key in list(self.list_keys(prefix)):
                self.remove(key)

    def count_partials(self) -> int:
        """0: an object is there whole or not at all."""
        return 0

    def remove_partials(self) -> int:
        """0: as count_partials."""
        return 0

    @contextmanager
    def _explaining_writes(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, NsdZarrError):
                raise
            raise StoreError(
                f"cannot write: {error.strerror or error}",
                hint="Then run the same command again: it goes on where it was.",
                path=self.locate(key),
            ) from error


class ObjectWriter:
    """An object that is being written, in memory. Sent as one request when it is committed."""

    def __init__(self, place: ObjectPlace, key: str) -> None:
        self._place, self._key, self._data = place, key, bytearray()

    def write(self, data: bytes, /) -> int:
        """Add *data*."""
        self._data += data
        return len(data)

    def commit(self, *, keep_cached: bool = True) -> None:
        """Send it. Raises StoreError."""
        try:
            self._place.write(self._key, self._data)
        finally:
            self.discard()

    def discard(self) -> None:
        """Let its memory go."""
        self._data = bytearray()
