"""Sets of images that experiments showed: whose they are, how many, which files hold them. Pure; touches nothing."""

from __future__ import annotations

from pathlib import Path

from nsd_zarr.nsd import find_subject_name

NSD, NSDSYNTHETIC, NSDIMAGERY = "nsd", "nsdsynthetic", "nsdimagery"
"""Experiments that showed images, as folders of stimuli and designs name them. Source: data manual, "Experiments"."""
ID_WORDS = {NSD: "0-based 73k id", NSDSYNTHETIC: "0-based id of nsdsynthetic"}
"""What the number of an image is here, for people, by experiment."""
SYNTHETIC_IMAGES, SYNTHETIC_COLOR_IMAGES = 220, 64
"""Images of nsdsynthetic that all subjects saw, and images in colors of each subject's own. Behind each other they are
what masterordering counts from 1. Source: data manual, "Experiments"; code of the authors of nsdsynthetic
(gifale95/NSD-synthetic), which appends the latter to the former."""
SYNTHETIC_STIMULI = Path("nsddata_stimuli/stimuli/nsdsynthetic/nsdsynthetic_stimuli.hdf5")
"""The images of nsdsynthetic that all subjects saw, below the NSD root. Source: as above."""


def locate_colors(stimuli: Path, subject: int) -> Path:
    """The images of nsdsynthetic in the subject's own colors, beside the file of the others."""
    return stimuli.with_name(f"nsdsynthetic_colorstimuli_{find_subject_name(subject)}.hdf5")


def is_synthetic(path: Path) -> bool:
    """Whether a stimulus file is one of nsdsynthetic, by its name."""
    return path.name.startswith(f"{NSDSYNTHETIC}_")
