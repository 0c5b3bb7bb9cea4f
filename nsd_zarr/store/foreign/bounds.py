"""Bounds of a store of another layout, looked at before zarr-python reads: it takes whatever a file says as memory."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

from nsd_zarr.places.choose import is_remote
from nsd_zarr.store.check import MAX_ROOT_BYTES
from nsd_zarr.store.format import METADATA_NAME

DOCUMENTS = (METADATA_NAME, ".zgroup", ".zarray", ".zattrs", ".zmetadata")
"""Metadata of Zarr 3 and 2."""
MAX_INFLATED_BYTES = 2**28
"""Bytes to which a compressed member of a zip file may expand; a shard of the reference shape has 0.1 GB."""


def find_oversize(path: Path) -> str:
    """Why the metadata of the store at *path* may not be read, a folder or a zip file; empty where nothing is odd."""
    if is_remote(path):
        return ""
    try:
        if path.is_dir():
            return next(_find_in_folder(path), "")
        return next(_find_in_zip(path), "") if path.suffix == ".zip" and path.is_file() else ""
    except zipfile.BadZipFile as error:
        return f"it is no zip file: {error}"


def _find_in_folder(path: Path) -> Iterator[str]:
    """Documents that are no plain files, which zarr-python would wait for, or huge."""
    for folder in (path, *(each for each in path.iterdir() if each.is_dir())):
        for name in DOCUMENTS:
            try:
                found = (folder / name).stat()
            except OSError:
                continue
            if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_ROOT_BYTES:
                where = (folder / name).relative_to(path).as_posix()
                yield f"its metadata are no file of at most {MAX_ROOT_BYTES} bytes: {where}"


def _find_in_zip(path: Path) -> Iterator[str]:
    """Members that expand to more than a document, or a chunk, may have. zipfile reads no more than it lists here."""
    with zipfile.ZipFile(path) as file:
        for member in file.infolist():
            is_document = member.filename.rpartition("/")[2] in DOCUMENTS
            limit = MAX_ROOT_BYTES if is_document else MAX_INFLATED_BYTES
            if member.file_size > limit and (is_document or member.compress_type != zipfile.ZIP_STORED):
                yield f"{member.filename[:80]} expands to {member.file_size} bytes, expected at most {limit}"


def read_remote(url: str, key: str, max_bytes: int) -> bytes | None:
    """A file of the store behind *url*; None when it is not there. Raises ValueError when it is larger, OSError."""
    import fsspec

    files, root = fsspec.core.url_to_fs(url)
    try:
        data = bytes(files.cat_file(f"{root}/{key}", start=0, end=max_bytes + 1))
    except FileNotFoundError:
        return None
    if len(data) > max_bytes:
        raise ValueError(f"{key} has more than {max_bytes} bytes")
    return data
