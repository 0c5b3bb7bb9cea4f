"""The forms in which betas are delivered: what their session files are called and where these lie. Pure.

Source of names and places: data manual, "Functional data (NSD)"; of the surfaces' files analysis_transformfsaverage.m.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from nsd_zarr.nsd import HEMISPHERES, NsdPaths


@dataclass(frozen=True, slots=True)
class Form:
    """One form of session files."""

    name: str
    """As --form takes it."""
    endings: tuple[str, ...]
    """Ends of the names of its files, in lower case; files that are written get the first."""
    has_hemispheres: bool = False
    """Whether a session is two files, one a hemisphere."""
    space: str | None = None
    """The one folder of a space that holds it in the dataset; None: the spaces of volumes."""

    def locate(self, paths: NsdPaths, session: int) -> tuple[Path, ...]:
        """The files of a session at the dataset's own places around *paths*, left hemisphere first."""
        folder = self.locate_folder(paths)
        sides = [f"{side}." for side in HEMISPHERES] if self.has_hemispheres else [""]
        return tuple(folder / f"{side}betas_session{session:02d}{self.endings[0]}" for side in sides)

    def locate_folder(self, paths: NsdPaths) -> Path:
        """The folder of its session files."""
        space = self.space or paths.space
        return paths.betas_folder.parent.with_name(space) / paths.betas


HDF5 = Form("hdf5", (".hdf5",))
NIFTI = Form("nifti", (".nii.gz", ".nii"))
NATIVESURFACE = Form("nativesurface", (".hdf5",), True, "nativesurface")
FSAVERAGE = Form("fsaverage", (".mgh",), True, "fsaverage")
FORMS = (HDF5, NIFTI, NATIVESURFACE, FSAVERAGE)
"""Every form; where a session is there in several of one space, the first that is there is read."""
FORM_NAMES = tuple(form.name for form in FORMS)
_ENDINGS = "|".join(sorted({re.escape(end) for form in FORMS for end in form.endings}, key=len, reverse=True))
SESSION_FILE = re.compile(
    rf"(?:(?P<side>[lr]h)\.)?betas_(?:session(?P<session>\d+)|nsdsynthetic|nsdimagery)(?P<ending>{_ENDINGS})",
    re.IGNORECASE,
)
"""Names of session files of any form. Those of nsdsynthetic and nsdimagery, of one session, have no number."""


def get_form(name: str) -> Form:
    """The form of a name of FORM_NAMES."""
    return FORMS[FORM_NAMES.index(name)]


def find_form(path: Path) -> Form | None:
    """The form of a session file by its name; None where it is called otherwise."""
    match = SESSION_FILE.fullmatch(path.name)
    if match is None:
        return None
    has_side, ending = match["side"] is not None, match["ending"].lower()
    return next((form for form in FORMS if form.has_hemispheres == has_side and ending in form.endings), None)
