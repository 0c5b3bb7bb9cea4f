"""What a session file is by its first bytes, whatever it is called."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from nsd_zarr.errors import SourceError
from nsd_zarr.layout import SessionNumber
from nsd_zarr.source.bounded import GZIP_MAGIC, open_regular, read_head

HEAD_BYTES = 352
"""Of a file, unpacked, that are looked at: the header of NIfTI-1 and what says whether extensions follow."""
PACKED_BYTES = 4096
"""Read of a packed file for its head: five times what gzip makes of so many bytes at worst."""
NIFTI_MAGIC = b"n+1\0"
"""At byte 344 of a NIfTI file that holds its values. Source: the NIfTI-1 standard."""
MGH_MAGIC = b"\0\0\0\1"
"""First bytes of an MGH file: its version. Source: FreeSurfer, "MghFormat"."""
NIFTI, MGH, OTHER = "NIfTI", "MGH", ""
"""Kinds of content; OTHER may be HDF5, whose mark may stand anywhere."""


def read_file_head(path: Path, session: SessionNumber | None) -> tuple[bytes, bool]:
    """The first HEAD_BYTES of a file, or as many as there are, unpacked; and whether it is packed. Raises SourceError.

    Of a gzip file that is damaged at once, none.
    """
    try:
        with open(open_regular(path), "rb") as file:
            data = file.read(PACKED_BYTES)
    except SourceError as error:
        error.session = session
        raise
    except OSError as error:
        raise SourceError(
            f"cannot read the file: {error.strerror or os.strerror(error.errno or 0)}",
            hint="Check that it is there and that you may read it.",
            path=path,
            session=session,
        ) from error
    is_packed = data[:2] == GZIP_MAGIC
    try:
        return read_head(data, HEAD_BYTES), is_packed
    except zlib.error:
        return b"", is_packed


def find_content(head: bytes) -> str:
    """NIFTI, MGH or OTHER, by the first bytes of a file."""
    if head[344:348] == NIFTI_MAGIC and (348).to_bytes(4, "little") in (head[:4], head[:4][::-1]):
        return NIFTI
    return MGH if head[:4] == MGH_MAGIC else OTHER
