"""A prefix of a bucket as a place: whole objects, ranges bound to one version of an object, listing."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nsd_zarr.errors import NsdZarrError, StoreError
from nsd_zarr.places.objects.access import Access
from nsd_zarr.places.objects.client import connect, find_root
from nsd_zarr.places.objects.file import (
    STREAM_BYTES,
    ObjectFile,
    Version,
    explain_parts,
    explaining,
    make_version,
    persist,
)


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

    @property
    def commits_at_once(self) -> int:
        """3: one request sends 130 MB a second, and a shard waits in memory."""
        return 3

    @property
    def max_uncommitted(self) -> int:
        """3: each is a shard in memory."""
        return 3

    # -- reading -------------------------------------------------------------------------------------------------

    def read(self, key: str, max_bytes: int) -> bytes:
        """The whole of object *key*, by one request. Raises ValueError (too large, its body is not read), OSError."""
        return persist(partial(self._read, key, max_bytes), self.locate(key))

    def _read(self, key: str, max_bytes: int) -> bytes:
        with explaining():
            result = self.client.get(self.find(key))
            if result.meta["size"] > max_bytes:
                raise ValueError(f"it has {result.meta['size']} bytes, expected at most {max_bytes}")
            return bytes(result.bytes())

    def open(self, key: str, size: int | None = None) -> ObjectFile:
        """Object *key*, to be read by ranges. *size*: its bytes, where known; no request is made then."""
        return ObjectFile(lambda: self.client, self.find(key), self.look(key) if size is None else size)

    def open_version(self, key: str, version: Version) -> ObjectFile:
        """Object *key*, as long as it is of that version."""
        return ObjectFile(lambda: self.client, self.find(key), version)

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
        return make_version(result.meta), explain_parts(result.stream(min_chunk_size=STREAM_BYTES))

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

    def measure_all(self, keys: Collection[str]) -> dict[str, int]:
        """Bytes of those of *keys* that are there: a request for a thousand. Raises OSError."""
        wanted = set(keys)
        return {key: size for key, size in self._list("").items() if key in wanted} if wanted else {}

    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """Keys of all objects below *prefix*. Raises OSError."""
        yield from self._list(prefix)

    def _list(self, prefix: str) -> dict[str, int]:
        """Keys and sizes of all objects below *prefix*."""
        start = len(find_root(self.url)[1])

        def read() -> dict[str, int]:
            with explaining():
                batches = self.client.list(prefix=f"{self.find(prefix)}/".lstrip("/") or None)
                found = [meta for batch in batches for meta in batch]
            return {str(meta["path"])[start:].lstrip("/"): int(meta["size"]) for meta in found}

        return persist(read, self.locate(prefix))

    def holds_any(self) -> bool:
        """Whether there is an object below the URL: one request. Raises OSError."""
        return persist(self._look_below, self.url)

    def _look_below(self) -> bool:
        with explaining():
            batches = self.client.list(prefix=f"{self.find('')}/".lstrip("/") or None)
            return any(len(batch) for batch in batches)

    def list_folder(self) -> tuple[list[str], list[str]]:
        """Names of folders, and of objects, right below the URL. Raises OSError."""
        found = persist(self._list_folder, self.url)
        folders = [str(prefix).rstrip("/").rsplit("/", 1)[-1] for prefix in found["common_prefixes"]]
        return folders, [str(meta["path"]).rsplit("/", 1)[-1] for meta in found["objects"]]

    def _list_folder(self) -> Any:
        with explaining():
            return self.client.list_with_delimiter(prefix=f"{self.find('')}/".lstrip("/") or None)

    # -- writing -------------------------------------------------------------------------------------------------

    def write(self, key: str, data: bytes | bytearray) -> None:
        """Make *data* the whole of object *key*, by one request. Raises StoreError."""
        with self._explaining_writes(key):
            persist(partial(self._put, key, data), self.locate(key))

    def create(self, key: str, data: bytes) -> bool:
        """As write, but only where there is no object *key* yet; whether it was written.

        An answer that was lost looks as if somebody else had been first: so what is there is read, and *data* must tell
        who wrote it. Raises StoreError.
        """
        with self._explaining_writes(key):
            return persist(partial(self._create, key, data), self.locate(key))

    def _create(self, key: str, data: bytes) -> bool:
        try:
            self._put(key, data, mode="create")
        except OSError as error:
            try:
                return self.read(key, max(len(data), 1)) == data
            except ValueError:  # Larger: another's.
                return False
            except FileNotFoundError:
                raise error from None
        return True

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
            try:
                persist(partial(self._delete, [self.find(key) for key in keys]), self.url)
            except FileNotFoundError:  # Of some servers, where one of them is not there.
                for key in keys:
                    with suppress(FileNotFoundError):
                        persist(partial(self._delete, [self.find(key)]), self.locate(key))

    def _delete(self, paths: list[str]) -> None:
        if paths:
            with explaining():
                self.client.delete(paths)

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
