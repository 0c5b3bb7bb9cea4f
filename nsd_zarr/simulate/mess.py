"""What real disks add to a root: dot files, half downloads, maps of the user's own, a trial table of fewer sessions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nsd_zarr.simulate.nifti import write_nifti
from nsd_zarr.simulate.recipe import Simulation

HALF_DOWNLOAD = ".6eF12aB3"
"""End that an interrupted download leaves behind the name of a file. Source: names that the AWS command line leaves."""


def add_mess(betas_folder: Path, trial_table: Path, rois: Path, simulation: Simulation) -> None:
    """Add to a root what does not belong to it, and cut its trial table; each session file stays as it is.

    *rois*: the folder of region volumes. The table loses its last session, where it has several.
    """
    shape, voxel_mm = simulation.volume_shape, simulation.voxel_mm
    for folder in (betas_folder, rois):
        (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (rois / "._nsdgeneral.nii.gz").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    half = betas_folder / f"betas_session{simulation.sessions + 1:02d}.hdf5{HALF_DOWNLOAD}"
    half.write_bytes(b"\x89HDF\r\n\x1a\n")
    own = np.linspace(-3.5, 7.25, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    own.flat[::7] = np.nan
    write_nifti(rois / "mymap.nii.gz", own, voxel_mm)
    other = (shape[0], shape[1], shape[2] + 1)
    write_nifti(rois / "othersubject.nii.gz", np.ones(other, np.int16), voxel_mm)
    lines = trial_table.read_text(encoding="ascii").splitlines(keepends=True)
    kept = max(1, simulation.sessions - 1) * simulation.trials_per_session
    trial_table.write_text("".join(lines[: 1 + kept]), encoding="ascii", newline="\n")
