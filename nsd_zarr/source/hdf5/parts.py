"""Files outside a session file that hold its values: allowed in its own folder, refused elsewhere."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import h5py

from nsd_zarr.errors import SourceError
from nsd_zarr.hdf5 import open_hdf5
from nsd_zarr.places.choose import is_remote

MAX_LINKS = 16
"""Links followed from the name of a dataset to the dataset; more are a circle."""
_PLAIN_HINT = "Copy it beside the session file and link it there, or write the session as one plain dataset."


PREFIXES = {
    "a link": "HDF5_EXT_PREFIX",
    "external storage": "HDF5_EXTFILE_PREFIX",
    "virtual parts": "HDF5_VDS_PREFIX",
}
"""Environment variables that make HDF5 look for parts in other folders. Source: HDF5 reference manual,
H5Pset_elink_prefix, H5Pset_efile_prefix, H5Pset_virtual_prefix."""


def _check_prefix(what: str, path: Path, session: int | None) -> None:
    """Refuse parts that HDF5 would look for in another folder than the one that is checked. Raises SourceError."""
    if os.environ.get(PREFIXES[what]):
        raise SourceError(
            f"the file has {what}, and {PREFIXES[what]} would have HDF5 read it from elsewhere",
            hint=f"Unset {PREFIXES[what]}, then run again.",
            path=path,
            session=session,
        )


def check_link(file: h5py.File, name: str, path: Path, session: int | None, hops: int = 0) -> None:
    """Refuse a dataset that is reached through a link to a file outside the session file's own folder.

    Every step of *name* is looked at before it is followed, so that nothing outside is opened. What is not there is
    left to the caller. Raises SourceError.
    """
    if hops > MAX_LINKS:
        raise SourceError(
            f"/{name.strip('/')} is a circle of links",
            hint="Name another dataset with --dataset.",
            path=path,
            session=session,
        )
    group: h5py.Group = file["/"]
    steps = [step for step in name.split("/") if step]
    for depth, step in enumerate(steps):
        link = group.get(step, getlink=True)
        rest = "/".join(steps[depth + 1 :])
        if isinstance(link, h5py.ExternalLink):
            _check_prefix("a link", path, session)
            part = _resolve(link.filename, path, session, f"/{'/'.join(steps[: depth + 1])} is a link to")
            with _open_part(part, path, session) as other:
                return check_link(other, f"{link.path}/{rest}", part, session, hops + 1)
        if isinstance(link, h5py.SoftLink):
            above = "" if link.path.startswith("/") else group.name
            return check_link(file, f"{above}/{link.path}/{rest}", path, session, hops + 1)
        # A dataset is not opened here: it must not be open yet when it is opened with the folder of its parts.
        if link is None or h5py.h5g.get_objinfo(group.id, step.encode()).type != h5py.h5g.GROUP:
            return None
        group = group[step]
    return None


def find_parts(data: h5py.Dataset, path: Path, session: int | None, hops: int = 0) -> tuple[Path, ...]:
    """The other files that hold values of *data*, each in the folder of *path*.

    HDF5 itself reads a missing or short part as fill values, without an error: so every part must be there, and
    be long enough. Raises SourceError.
    """
    parts: list[Path] = []
    # What was fetched of an object has no name, and a link out of it was refused.
    if not is_remote(path) and Path(data.file.filename).resolve() != path.resolve():
        parts.append(_resolve(data.file.filename, path, session, "the dataset lies in"))
    left = math.prod(data.shape) * data.dtype.itemsize
    if data.external:
        _check_prefix("external storage", path, session)
    for name, offset, size in data.external or ():
        part = _resolve(name, path, session, "external storage in")
        # Of the last part, whose size may be unlimited, only what the dataset needs.
        used = min(size, left)
        left -= used
        if part.stat().st_size < offset + used:
            raise SourceError(
                f"external storage {part.name} is cut short: {part.stat().st_size} bytes, expected {offset + used}",
                hint="Fetch it again.",
                path=path,
                session=session,
            )
        parts.append(part)
    if data.is_virtual:
        _check_prefix("virtual parts", path, session)
        parts += _virtual_parts(data, path, session, hops + 1)
    return tuple(dict.fromkeys(parts))


def _virtual_parts(data: h5py.Dataset, path: Path, session: int | None, hops: int) -> Iterator[Path]:
    for source in data.virtual_sources():
        inside = source.file_name == "."
        part = path if inside else _resolve(source.file_name, path, session, "a virtual part in")
        if not inside:
            yield part
        with nullcontext(data.file) if inside else _open_part(part, path, session) as file:
            check_link(file, source.dset_name, part, session)
            inner = file.get(source.dset_name)
            where = f"virtual part {part.name}:/{source.dset_name.strip('/')}"
            problem = ""
            if not isinstance(inner, h5py.Dataset):
                problem = f"{where} is missing"
            elif hops > MAX_LINKS:
                problem = f"{where} is a circle of virtual parts"
            elif inner.external:
                # HDF5 would look for it in the working directory, and read another file of that name.
                problem = f"{where} has external storage of its own"
            if problem:
                raise SourceError(problem, hint=_PLAIN_HINT, path=path, session=session)
            yield from find_parts(inner, part, session, hops)


def _open_part(part: Path, path: Path, session: int | None) -> h5py.File:
    try:
        return open_hdf5(part)
    except OSError as error:
        raise SourceError(
            f"{part.name}, which the session file needs, cannot be opened: {error}",
            hint="Fetch it again.",
            path=path,
            session=session,
        ) from error


def _resolve(name: str, path: Path, session: int | None, what: str) -> Path:
    """The part *name*, as HDF5 looks for it beside *path*. Refuses one that is elsewhere, or not there."""
    folder = path.resolve().parent
    part = Path(os.path.normpath(folder / name)).resolve()
    if part.parent != folder:
        raise SourceError(
            f"{what} {name}, outside the session file's own folder",
            hint=_PLAIN_HINT,
            path=path,
            session=session,
        )
    if not part.is_file():
        raise SourceError(f"{what} {part.name}, which is not there", hint="Fetch it too.", path=path, session=session)
    return part
