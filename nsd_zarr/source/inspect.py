"""Which inspector a file of betas gets: the one place that knows all forms of session files."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch

from nsd_zarr.source.find import SessionFile
from nsd_zarr.source.protocol import SourcePart
from nsd_zarr.source.session import inspect_session

Inspector = Callable[[SessionFile, str], SourcePart]
"""Inspects a file, in which the dataset may have the given name, without reading values. Raises SourceError."""

FORMS: list[tuple[str, Inspector]] = [("*", inspect_session)]
"""Pattern of the file name, in lower case, and the inspector of such files; the first that fits counts."""


def inspect_file(file: SessionFile, dataset: str) -> SourcePart:
    """Inspect one session file of any form: metadata only, no values. Raises SourceError where it is unfit."""
    name = file.path.name.lower()
    inspect = next(inspector for pattern, inspector in FORMS if fnmatch(name, pattern))
    return inspect(file, dataset)
