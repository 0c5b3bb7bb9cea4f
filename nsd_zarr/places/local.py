"""A folder as a place: durable writes, and reads that never leave the folder."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from nsd_zarr.places import open_files
from nsd_zarr.places.durable import (
    PARTIAL_SUFFIX,
    DurableFile,
    create_durably,
    explain_write_error,
    find_partials,
    make_place,
    remove_partials,
    sync_folder,
    write_durably,
    write_partially,
)
from nsd_zarr.places.files import open_file, read_file
from nsd_zarr.places.open_files import Descriptor
from nsd_zarr.places.page_cache import give_back, is_cached, read_in_order

_numbers = itertools.count()


class LocalObject:
    """A file that is read. Its descriptor may be closed meanwhile (open_files.py); then it is opened again."""

    __slots__ = ("_end", "_folder", "_identity", "_key", "_number", "size")

    def __init__(self, folder: Path, key: str) -> None:
        self._number = next(_numbers)
        self._folder, self._key, self._end = folder, key, b""
        descriptor = Descriptor(open_file(folder, key))
        self._identity = _identify(descriptor)
        self.size: int = self._identity[-1]
        open_files.keep(self._number, descriptor)

    def __del__(self) -> None:
        open_files.forget(self._number)

    def expect_end(self, end: bytes) -> None:
        """The last bytes of the file: it must end so when it is opened again."""
        self._end = end

    def _open_again(self) -> Descriptor:
        descriptor = Descriptor(open_file(self._folder, self._key))
        end = os.pread(descriptor.number, len(self._end), self.size - len(self._end))
        if _identify(descriptor) != self._identity or end != self._end:
            raise OSError("another file has taken its place since it was opened: open the store again")
        open_files.keep(self._number, descriptor)
        return descriptor

    def read_into(self, out: memoryview, offset: int) -> int:
        """Fill *out* with the bytes from *offset* on; returns how many, fewer only where the file ends.

        One preadv; another one only where the system gives less than it was asked for, as network file systems and
        signals may. Raises OSError.
        """
        descriptor = open_files.find(self._number) or self._open_again()
        count = os.preadv(descriptor.number, [out], offset)
        if count == len(out):
            return count
        while count < len(out) and (more := os.preadv(descriptor.number, [out[count:]], offset + count)):
            count += more
        return count

    def read_range(self, offset: int, length: int) -> bytes:
        """The *length* bytes from *offset* on; fewer where the file ends. Raises OSError."""
        data = bytearray(length)
        return bytes(data[: self.read_into(memoryview(data), offset)])

    @contextmanager
    def read_once(self) -> Iterator[None]:
        """Give the page cache back what this block reads; a file that was there before stays. Raises OSError."""
        descriptor = open_files.find(self._number) or self._open_again()
        was_cached = is_cached(descriptor.number)
        read_in_order(descriptor.number)
        try:
            yield
        finally:
            if not was_cached:
                give_back(descriptor.number)


def _identify(descriptor: Descriptor) -> tuple[int, int, int]:
    """Device, inode and size of an open file."""
    status = os.fstat(descriptor.number)
    return status.st_dev, status.st_ino, status.st_size


@dataclass(frozen=True, slots=True)
class LocalPlace:
    """The files below a folder, which need not exist before something is written."""

    folder: Path
    """The folder; it may be a link itself."""

    @property
    def location(self) -> str:
        """Path of the folder."""
        return str(self.folder)

    def locate(self, key: str) -> str:
        """Path of file *key*."""
        return str(self.folder / key)

    @property
    def requests_at_once(self) -> int:
        """0: cores decide."""
        return 0

    @property
    def commits_at_once(self) -> int:
        """1: a disk flushes one file after the other."""
        return 1

    @property
    def max_uncommitted(self) -> int:
        """As many as whoever writes keeps open."""
        return 2**10

    # -- reading -------------------------------------------------------------------------------------------------

    def read(self, key: str, max_bytes: int) -> bytes:
        """The whole of file *key*; see files.read_file. Raises ValueError, OSError."""
        return read_file(self.folder, key, max_bytes)

    def open(self, key: str, size: int | None = None) -> LocalObject:
        """Open file *key*; see files.open_file. Raises ValueError, OSError."""
        return LocalObject(self.folder, key)

    def drop_copy(self, key: str) -> bool:
        """False: files are read where they are."""
        return False

    def measure(self, key: str) -> int:
        """Bytes of file *key*. Raises OSError."""
        status = os.stat(self.folder / key)
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(f"{self.folder / key} is no regular file")
        return status.st_size

    def measure_all(self, keys: Collection[str]) -> dict[str, int]:
        """Bytes of those of the files *keys* that are there."""
        found = {}
        for key in keys:
            with suppress(OSError):
                found[key] = os.stat(self.folder / key).st_size
        return found

    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """Keys of the files below the folder, or below *prefix* in it. Links to folders are not entered."""
        for folder, _, names in os.walk(self.folder / prefix):
            for name in names:
                if not name.endswith(PARTIAL_SUFFIX):
                    yield (Path(folder) / name).relative_to(self.folder).as_posix()

    # -- writing -------------------------------------------------------------------------------------------------

    def write(self, key: str, data: bytes) -> None:
        """Make *data* the whole of file *key*, on disk when this returns. Raises StoreError or DoesNotFit."""
        write_durably(make_place(self.folder, key), data)

    def create(self, key: str, data: bytes) -> bool:
        """As write, but only where there is no file *key* yet; whether it was written."""
        return create_durably(make_place(self.folder, key), data)

    def begin(self, key: str) -> AbstractContextManager[DurableFile]:
        """A file to be written part by part in the block, and committed after it. Raises StoreError or DoesNotFit."""
        return write_partially(make_place(self.folder, key), past_cache=True)

    def remove(self, *keys: str) -> None:
        """Remove files, those of them that are there; on disk when this returns. Raises StoreError or DoesNotFit."""
        try:
            for folder in {path.parent for path in map(self.folder.joinpath, keys) if _unlink(path)}:
                sync_folder(folder)
        except OSError as error:
            raise explain_write_error(error, self.folder) from error

    def remove_below(self, prefix: str) -> None:
        """Remove folder *prefix* with all that is in it, as far as possible. A link is left alone."""
        if not (self.folder / prefix).is_symlink():
            shutil.rmtree(self.folder / prefix, ignore_errors=True)

    def count_partials(self) -> int:
        """How many files killed writers left half written."""
        return len(find_partials(self.folder))

    def remove_partials(self) -> int:
        """Remove what killed writers left; returns how many. Only for who holds the store's lock."""
        return remove_partials(self.folder)


def _unlink(path: Path) -> bool:
    """Whether *path* was there; it is not any more."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
