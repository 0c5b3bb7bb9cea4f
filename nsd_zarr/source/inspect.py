"""Which inspector a session file gets: the one place that knows all forms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nsd_zarr.errors import SourceError
from nsd_zarr.nsd import NIFTI_ENDINGS
from nsd_zarr.places.choose import is_remote
from nsd_zarr.source.find import SessionFile
from nsd_zarr.source.forms.content import MGH, NIFTI, find_content, read_file_head
from nsd_zarr.source.forms.mgh import inspect_mgh
from nsd_zarr.source.forms.nifti import inspect_nifti
from nsd_zarr.source.forms.surface import join_sides, split_file
from nsd_zarr.source.protocol import SourcePart
from nsd_zarr.source.session import inspect_session

Inspector = Callable[[SessionFile, str], SourcePart]
"""Inspects a file, in which the dataset may have the given name, without reading values. Raises SourceError."""
MGH_ENDINGS = (".mgh", ".mgz")
"""Ends of the names of files of FreeSurfer."""
Recognise = Callable[[Path, str], bool]
"""Whether a file is of a form, by its path and by what its first bytes say (see content)."""


def _is_nifti(path: Path, content: str) -> bool:
    return content == NIFTI or path.name.lower().endswith(NIFTI_ENDINGS)


def _is_mgh(path: Path, content: str) -> bool:
    return content == MGH or path.name.lower().endswith(MGH_ENDINGS)


FORMS: list[tuple[Recognise, Inspector]] = [
    (_is_nifti, inspect_nifti),
    (_is_mgh, inspect_mgh),
    (lambda path, content: True, inspect_session),
]
"""What recognises a form, and the inspector of such files; the first that does counts."""


def inspect_file(file: SessionFile, dataset: str) -> SourcePart:
    """Inspect one session of any form: metadata only, no values. Raises SourceError where it is unfit."""
    if is_remote(file.path):
        return _inspect_remote(file, dataset)
    if file.side:
        return join_sides(file, [inspect_file(side, dataset) for side in split_file(file)])
    content = find_content(read_file_head(file.path, file.session)[0])
    return next(inspector for is_form, inspector in FORMS if is_form(file.path, content))(file, dataset)


def _inspect_remote(file: SessionFile, dataset: str) -> SourcePart:
    """Inspect a session behind a URL: volumes in HDF5. Raises SourceError for other forms."""
    if file.side or _is_nifti(file.path, "") or _is_mgh(file.path, ""):
        raise SourceError(
            "a surface, NIfTI or MGH file behind a URL, expected volumes in HDF5",
            hint="Copy the files to a disk, and give their folder.",
            path=file.path,
            session=file.session,
        )
    return inspect_session(file, dataset)
