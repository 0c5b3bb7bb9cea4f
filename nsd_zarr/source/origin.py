"""Whose betas these are, and how they were prepared: by the names of the folders that the session files lie in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nsd_zarr.layout import SessionNumber

_UNFINISHED = re.compile(
    r"\.?(?:[lr]h\.)?betas_session(?P<session>\d+)\.(?:hdf5|nii\.gz|mgh)"
    r"(?:\.[A-Za-z0-9]{8}|\.[A-Za-z0-9]{6}|\.(?:part|partial|filepart|crdownload|download|tmp|temp|aria2))",
    re.IGNORECASE,
)
"""Names under which tools write a session file until it is whole: aws adds 8 letters, rsync a dot in front and 6
behind, others a word."""
_SUMS = (".sha256", ".sha512")
"""Ends of names of checksums, as long as those letters."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What the names of the folders say of some betas; None where they say nothing."""

    subject: int | None = None
    """Subject, from 1."""
    space: str | None = None
    """Folder of the space, such as func1pt8mm."""
    betas: str | None = None
    """Folder of the preparation, such as betas_fithrf_GLMdenoise_RR."""

    def make_attributes(self) -> dict[str, Any]:
        """As root attributes of a store: what is known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def find_origin(session_file: Path) -> Origin:
    """What the folders of a session file say: subjAA/SPACE/BETAS, as in the dataset, wherever these lie."""
    for folder in (session_file.absolute().parent, session_file.resolve().parent):
        match = re.fullmatch(r"subj(\d\d)", folder.parent.parent.name)
        if match and "betas_" in folder.name:
            return Origin(int(match[1]), folder.parent.name, folder.name)
    return Origin()


def find_unfinished(folder: Path, sessions: Iterable[SessionNumber]) -> list[str]:
    """What lies beside the session files under the name of an unfinished download, in words, of none of *sessions*."""
    there = set(sessions)
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    matches = [match for name in names if not name.endswith(_SUMS) and (match := _UNFINISHED.fullmatch(name))]
    return [
        f"{match[0]} looks like an unfinished download of session {int(match['session'])}, which is not here"
        for match in matches
        if int(match["session"]) not in there
    ]
