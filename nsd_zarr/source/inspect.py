"""Which inspector a session file gets: the one place that knows all forms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nsd_zarr.nsd import NIFTI_ENDINGS
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
    if file.side:
        return join_sides(file, [inspect_file(side, dataset) for side in split_file(file)])
    content = find_content(read_file_head(file.path, file.session)[0])
    return next(inspector for is_form, inspector in FORMS if is_form(file.path, content))(file, dataset)
