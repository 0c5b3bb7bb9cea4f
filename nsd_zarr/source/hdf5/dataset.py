"""One dataset of an HDF5 file, open for reading."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import h5py

from nsd_zarr.errors import NsdZarrError, SourceError
from nsd_zarr.hdf5 import open_hdf5
from nsd_zarr.places.choose import is_remote, open_object
from nsd_zarr.source.bounded import open_regular
from nsd_zarr.source.hdf5.parts import check_link

if TYPE_CHECKING:
    from nsd_zarr.places.objects.fetch import FetchedObject


@contextmanager
def open_dataset(
    path: Path, name: str, session: int | None = None, fetched: BinaryFile | None = None
) -> Iterator[h5py.Dataset]:
    """The dataset *name* of a session file, open for reading. Raises SourceError that says what the file is instead.

    *fetched*: what was fetched of an object behind a URL.
    """
    if fetched is None:
        _check_readable(path, session)
    try:
        file = open_hdf5(path) if fetched is None else h5py.File(fetched, "r")
    except OSError as error:
        raise _explain_open_error(error, path, session) from error
    with file:
        with explain_hdf5_errors(path, session):
            check_link(file, name, path, session)
            data = _get_dataset(file, name, path, session)
        yield data


BinaryFile: TypeAlias = "FetchedObject"
"""What was fetched of an object: a file as Python has it, with a descriptor."""


@contextmanager
def open_source(path: Path, session: int | None, *, whole: bool) -> Iterator[tuple[BinaryFile | None, int]]:
    """A source to be read by its descriptor; of an object behind a URL also the file that was fetched of it.

    *whole*: all of it is fetched now; else what is read through the file. Raises SourceError.
    """
    if is_remote(path):
        with _open_fetched(path, session, whole) as fetched:
            yield fetched, fetched.fileno()
        return
    try:
        # Without waiting for a pipe, which is refused where it is looked at.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise _explain_unreadable(error, path, session) from error
    try:
        yield None, descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _open_fetched(path: Path, session: int | None, whole: bool) -> Iterator[FetchedObject]:
    with ExitStack() as stack:
        try:
            fetched = stack.enter_context(open_object(path, whole=whole))
        except (OSError, ValueError) as error:
            if isinstance(error, NsdZarrError):
                raise
            raise _explain_unreadable(error, path, session) from error
        yield fetched


def _explain_unreadable(error: OSError | ValueError, path: Path, session: int | None) -> SourceError:
    return SourceError(
        f"cannot read the file: {getattr(error, 'strerror', None) or error}",
        hint="Check that it is there and that you may read it.",
        path=path,
        session=session,
    )


@contextmanager
def explain_hdf5_errors(path: Path, session: int | None) -> Iterator[None]:
    """Raise as SourceError what the library raises where metadata are damaged, or of a kind that it cannot express."""
    try:
        yield
    except NsdZarrError:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
        raise SourceError(
            f"HDF5 cannot read how the dataset is stored: {error}",
            hint="Fetch it again, or leave it out with --sessions.",
            path=path,
            session=session,
        ) from error


def _check_readable(path: Path, session: int | None) -> None:
    try:
        with open(open_regular(path), "rb") as file:
            file.read(1)
    except SourceError as error:
        error.session = session
        raise
    except OSError as error:
        raise _explain_unreadable(error, path, session) from error


def _explain_open_error(error: OSError, path: Path, session: int | None) -> SourceError:
    text = str(error)
    if "truncated file" in text:
        problem, hint = f"the file is cut short ({text.split('(')[-1].rstrip(')')})", "Fetch it again."
    elif "signature not found" in text:
        problem, hint = "not an HDF5 file", "Fetch it again, or leave it out with --sessions."
    else:
        problem, hint = f"HDF5 cannot open the file: {text}", "Fetch it again, or leave it out with --sessions."
    return SourceError(problem, hint=hint, path=path, session=session)


def _get_dataset(file: h5py.File, name: str, path: Path, session: int | None) -> h5py.Dataset:
    if _is_dataset(file, name):
        plain = h5py.h5d.open(file.id, name.encode())
        properties = plain.get_create_plist()
        if properties.get_layout() != h5py.h5d.VIRTUAL and not properties.get_external_count():
            # Without prefixes: HDF5 refuses two that differ on a dataset that is open elsewhere in the process.
            return h5py.Dataset(plain)
        plain.close()
        # HDF5 looks for external files in the working directory unless it is given the folder.
        access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
        access.set_efile_prefix(os.fsencode(path.resolve().parent))
        access.set_virtual_prefix(os.fsencode(path.resolve().parent))
        return h5py.Dataset(h5py.h5d.open(file.id, name.encode(), access))
    there = ", ".join(_describe(file, key) for key in file) or "nothing"
    raise SourceError(
        f"no dataset /{name.strip('/')}: found {there}",
        hint="Name the dataset with --dataset.",
        path=path,
        session=session,
        expected=name,
        found=list(file),
    )


def _describe(file: h5py.File, key: str) -> str:
    # Links are not followed: they may lead outside.
    if not isinstance(file.get(key, getlink=True), h5py.HardLink):
        return f"/{key} (a link)"
    return f"/{key}" if _is_dataset(file, key) else f"/{key} (not a dataset)"


def _is_dataset(file: h5py.File, name: str) -> bool:
    # Asked of the old group interface: h5py's own getclass has HDF5 add up the chunk index, 0.05 to 1.1 s a file.
    try:
        return bool(h5py.h5g.get_objinfo(file.id, name.encode()).type == h5py.h5g.DATASET)
    except (KeyError, ValueError, RuntimeError):
        return False
