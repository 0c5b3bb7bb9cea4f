"""Files of betas that are no session files: what they are, and what to give instead."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from nsd_zarr.errors import SourceError
from nsd_zarr.nsd import NIFTI_ENDINGS

_OTHER_EXPERIMENT = re.compile(r"(?:[lr]h\.)?betas_(nsdsynthetic|nsdimagery)\.", re.IGNORECASE)
"""Names of the betas of the other experiments. Source: data manual, "Functional data (nsdsynthetic)"."""
_KINDS = {
    "nsdsynthetic": (
        "the betas of the experiment nsdsynthetic, 744 trials of 284 other images without a session number",
        "Only sessions of the core experiment are converted: give a folder of betas_session*.hdf5.",
    ),
    "nsdimagery": (
        "the betas of the experiment nsdimagery, 720 trials of seen and imagined images without a session number",
        "Only sessions of the core experiment are converted: give a folder of betas_session*.hdf5.",
    ),
    "nifti": (
        "a NIfTI volume, which is not converted; the dataset has volume betas as HDF5 files too, with the same values",
        "Give betas_session*.hdf5 of func1pt8mm or func1mm. Betas in MNI space exist as NIfTI alone.",
    ),
    "mgh": (
        "an MGH file of FreeSurfer, which is not converted: betas on fsaverage, float32 in percent signal change",
        "Give {lh,rh}.betas_session*.hdf5 of nativesurface.",
    ),
}
"""What each kind is, and what to do. Source: data manual, "Functional data (NSD)"."""


def find_kind(path: Path) -> str:
    """Which of the known other kinds of file *path* is by its name; empty when it is none."""
    name = path.name.lower()
    match = _OTHER_EXPERIMENT.match(name)
    if match:
        return match[1]
    if name.endswith(NIFTI_ENDINGS):
        return "nifti"
    return "mgh" if name.endswith((".mgh", ".mgz")) else ""


def check_kind(path: Path, before: str = "") -> None:
    """Refuse a file that is known to be no session file, by its name. Raises SourceError."""
    kind = find_kind(path)
    if kind:
        what, hint = _KINDS[kind]
        raise SourceError(f"{before}this is {what}", hint=hint, path=path, expected="betas_session*.hdf5", found=kind)


def check_folder(names: Iterable[Path]) -> None:
    """Refuse a folder, without session files, in which there are betas of another kind. Raises SourceError."""
    for path in sorted(names):
        if path.name.lower().startswith(("betas_", "lh.betas_", "rh.betas_")):
            check_kind(path, "no session file in this folder or below it; ")
