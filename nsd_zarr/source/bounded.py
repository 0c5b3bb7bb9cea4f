"""Files beside the betas, as they are read: regular ones, whole, and no larger than they may be.

A pipe would wait for ever, and a file of a few megabytes can stand for many gigabytes.
"""

from __future__ import annotations

import errno
import gzip
import io
import os
import stat
import zlib
from functools import partial
from pathlib import Path

from nsd_zarr.errors import SourceError
from nsd_zarr.places.choose import choose_place, is_remote
from nsd_zarr.retry import read_again

MAX_VOLUME_BYTES = 256 * 2**20
"""Of a NIfTI file, compressed or not: four times what the largest volume of the dataset takes as float64."""
MAX_TABLE_BYTES = 64 * 2**20
"""Of a trial table, a table of images or a design: four times the largest one of the dataset."""
MAX_LABELS_BYTES = 2**18
"""Of a file of label names: 30 times what the 180 labels of HCP_MMP1 take."""
GZIP_MAGIC = b"\x1f\x8b"
"""First two bytes of a gzip file."""


def open_regular(path: Path) -> int:
    """Open a regular file for reading; returns its descriptor. Raises OSError, and for anything else SourceError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        raise SourceError("a pipe or a device, expected a file", hint="Check the path.", path=path)
    return descriptor


def read_whole(path: Path, max_bytes: int) -> bytes:
    """All bytes of a file beside the betas. Raises SourceError, also for more than *max_bytes*."""
    try:
        if is_remote(path):
            return _read_object(path, max_bytes)
        with open(open_regular(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= max_bytes:
                return file.read(max_bytes)
    except SourceError:
        raise
    except OSError as error:
        raise SourceError(
            f"cannot read the file: {error.strerror or error}",
            hint="Check that it is there and that you may read it.",
            path=path,
        ) from error
    raise SourceError(
        f"the file has {size} bytes, expected at most {max_bytes}",
        hint="Give the dataset's own file, or leave it out.",
        path=path,
        expected=max_bytes,
        found=size,
    )


def _read_object(path: Path, max_bytes: int) -> bytes:
    try:
        return read_again(partial(choose_place(path.parent).read, path.name, max_bytes), str(path))
    except ValueError as error:
        raise SourceError(str(error), hint="Give the dataset's own file, or leave it out.", path=path) from error


def decompress(data: bytes, max_bytes: int) -> bytes:
    """*data*, unpacked where it is gzip. Raises ValueError for more than *max_bytes*, OSError, EOFError for damage."""
    if data[:2] != GZIP_MAGIC:
        return data
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        # One byte more, so that the end and with it the checksum is reached.
        plain = file.read(max_bytes + 1)
    if len(plain) > max_bytes:
        raise ValueError(f"it holds more than the {max_bytes} bytes that its header says")
    return plain


def read_head(data: bytes, count: int) -> bytes:
    """The first *count* bytes of *data*, from gzip where it is that. Raises zlib.error for damage."""
    if data[:2] != GZIP_MAGIC:
        return data[:count]
    return zlib.decompressobj(wbits=31).decompress(data, count)


def check_zlib(data: bytes, max_bytes: int) -> None:
    """Refuse a zlib stream that holds more than *max_bytes*. Raises ValueError, and zlib.error for damage."""
    if len(zlib.decompressobj().decompress(data, max_bytes + 1)) > max_bytes:
        raise ValueError(f"it holds more than {max_bytes} bytes")
