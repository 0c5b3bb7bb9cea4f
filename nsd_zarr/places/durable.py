"""Files that survive a power cut: written whole under another name, flushed, renamed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from nsd_zarr.errors import DoesNotFit, NsdZarrError, StoreError
from nsd_zarr.places.direct import DirectFile
from nsd_zarr.places.files import leads_out
from nsd_zarr.places.page_cache import give_back

PARTIAL_SUFFIX = ".partial"
"""End of the name of a file that is being written. No reader looks at one."""
_DOES_NOT_FIT = {
    errno.ENOSPC: "the disk is full (or out of inodes)",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would exceed the file-size limit (see ulimit -f)",
}


def explain_write_error(error: OSError, path: Path) -> NsdZarrError:
    """The error of ours that says what went wrong while *path* was written, and what to do."""
    if error.errno in _DOES_NOT_FIT:
        return DoesNotFit(
            f"cannot write: {_DOES_NOT_FIT[error.errno]}",
            hint="Make room, then run the same command again: it goes on where it was.",
            path=path,
        )
    return StoreError(
        f"cannot write: {error.strerror or error}",
        hint="See to permissions and the disk, then run the same command again: it goes on where it was.",
        path=path,
    )


class DurableFile:
    """A new file that is at its path wholly and on disk, or not at all: written under another name, then committed.

    Two writers of one path cannot mix: each has a name of its own until the rename.
    """

    def __init__(self, path: Path, *, past_cache: bool = False) -> None:
        """*past_cache*: for a large file that is not read soon; see direct.py."""
        self.path = path
        self.partial = path.with_name(f"{path.name}.{uuid4().hex}{PARTIAL_SUFFIX}")
        # Closed by commit or discard, maybe in another thread.
        self._file = DirectFile(self.partial) if past_cache else open(self.partial, "xb")  # noqa: SIM115
        self.write = self._file.write

    def flush(self) -> None:
        """Hand the system what was written. Raises OSError."""
        self._file.flush()

    def commit(self, *, keep_cached: bool = True) -> None:
        """Flush to disk, then rename. Most of it is waiting for the disk: another thread may do it meanwhile.

        *keep_cached* False lets the page cache go once the file is on disk. A conversion writes more than the cache
        holds: its pages would push out the sources, taking fresh ones costs more than the copy itself (3 sessions in
        3.9 s rather than 6.6 s on a virtual machine), and whoever verifies next reads the disk, not the cache.
        Raises StoreError or DoesNotFit, and discards the file.
        """
        with self._discarding():
            self._flush(keep_cached)
            os.replace(self.partial, self.path)
            sync_folder(self.path.parent)

    def commit_new(self) -> bool:
        """As commit, but never in place of another file; whether it was committed. Discards the file otherwise.

        By a second name, which fails where the first is taken, as a rename does not. Raises StoreError or DoesNotFit.
        """
        with self._discarding():
            self._flush(keep_cached=True)
            try:
                os.link(self.partial, self.path)
            except FileExistsError:
                return False
            finally:
                self.discard()
            sync_folder(self.path.parent)
        return True

    def _flush(self, keep_cached: bool) -> None:
        with self._file as file:
            self.flush()
            os.fsync(file.fileno())
            if not keep_cached:
                give_back(file.fileno())

    @contextmanager
    def _discarding(self) -> Iterator[None]:
        """Discard the file when the block fails, and say what went wrong."""
        try:
            yield
        except BaseException as error:
            self.discard()
            if isinstance(error, OSError):
                raise explain_write_error(error, self.path) from error
            raise

    def discard(self) -> None:
        """Remove what was written."""
        with suppress(OSError):
            # The first error is the one to report; a leftover is removed by the next run.
            self._file.close()
        with suppress(OSError):
            self.partial.unlink(missing_ok=True)


@contextmanager
def write_partially(path: Path, *, past_cache: bool = False) -> Iterator[DurableFile]:
    """A file to write in the block and to commit after it; discarded when the block fails. See DurableFile.

    Raises StoreError or DoesNotFit.
    """
    file: DurableFile | None = None
    try:
        file = DurableFile(path, past_cache=past_cache)
        yield file
        file.flush()
    except BaseException as error:
        if file is not None:
            file.discard()
        if isinstance(error, OSError) and not isinstance(error, NsdZarrError):
            raise explain_write_error(error, path) from error
        raise


def write_durably(path: Path, data: bytes) -> None:
    """Write *data* as the whole of *path*, on disk when this returns. Raises StoreError or DoesNotFit."""
    with write_partially(path) as file:
        file.write(data)
    file.commit()


def create_durably(path: Path, data: bytes) -> bool:
    """As write_durably, but only where nothing is at *path*; of several who try at once, one alone succeeds.

    Returns whether it was this one. Raises StoreError or DoesNotFit.
    """
    with write_partially(path) as file:
        file.write(data)
    return file.commit_new()


def make_folder(path: Path) -> None:
    """Create folder *path* and what is missing above it, on disk when this returns. Raises StoreError or DoesNotFit."""
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            sync_folder(folder.parent)
    except OSError as error:
        raise explain_write_error(error, path) from error


def make_place(store: Path, key: str) -> Path:
    """Path of file *key* of a store, whose folder is there when this returns: to be written to.

    A link that is in the way in somebody's store is not followed out of it: nothing is written elsewhere. Raises
    StoreError or DoesNotFit.
    """
    path = store / key
    if path.parent != store and leads_out(store, os.path.dirname(key)):
        raise StoreError(
            f"cannot write {key}: a link in the store leads out of its folder",
            hint="Remove the link, then run the same command again.",
            path=path,
        )
    make_folder(path.parent)
    return path


def sync_folder(folder: Path) -> None:
    """Flush the names in *folder* to disk, where the file system lets a folder be flushed at all."""
    if hasattr(folder, "place"):
        return  # A URL: an object is durable once it is there.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and user-space file systems refuse it: there is nothing more that one could do.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def sync_folders(folder: Path) -> None:
    """Flush the names in *folder* and in every folder below it. Raises StoreError.

    A writer that was killed may have made folders whose names are not on disk yet; the next one finds them made.
    """
    if hasattr(folder, "place"):
        return
    try:
        for place, _, _ in os.walk(folder, topdown=False):
            sync_folder(Path(place))
    except OSError as error:
        raise explain_write_error(error, folder) from error


def replace_file(partial: Path, path: Path) -> None:
    """Give a file that another library wrote at *partial* the name *path*, in place of what was there."""
    os.replace(partial, path)


def find_partials(folder: Path) -> list[Path]:
    """What killed writers left below *folder*."""
    return list(folder.rglob(f"*{PARTIAL_SUFFIX}"))


def remove_partials(folder: Path) -> int:
    """Remove what killed writers left below *folder*; returns how many files. Only for who holds the store's lock."""
    leftovers = find_partials(folder)
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return len(leftovers)
