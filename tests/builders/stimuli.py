"""Stimulus images, as files and as stores, and the trial tables that say which are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

import nsd_zarr
from nsd_zarr.simulate import make_trial_table
from nsd_zarr.simulate.trial_table import write_trial_table

IMAGE_SHAPE = (7, 5, 3)
IMAGE_LAYOUTS = {
    "contiguous": {},
    "one image a chunk": {"chunks": (1, *IMAGE_SHAPE)},
    "gzip": {"chunks": (1, 4, 5, 3), "compression": "gzip", "shuffle": True},
    "odd chunks": {"chunks": (6, 3, 4, 1), "compression": "gzip"},
    "large chunks": {"chunks": (29, *IMAGE_SHAPE)},
}


def make_image_values(count: int) -> np.ndarray:
    """Images, uint8 of shape (count, 7, 5, 3), that tell their id, row, column and channel; never zero."""
    ids = np.arange(count)[:, np.newaxis, np.newaxis, np.newaxis]
    row, column, channel = np.ogrid[:7, :5, :3]
    return ((ids * 89 + row * 31 + column * 5 + channel) % 251 + 1 + (ids // 251 + row) % 4).astype(np.uint8)


def create_stimuli(path: Path, count: int = 101, layout: str = "contiguous", name: str = "imgBrick") -> np.ndarray:
    """Create a stimulus file with ids 0 .. count - 1, in a layout of IMAGE_LAYOUTS; returns its values."""
    values = make_image_values(count)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=values, **IMAGE_LAYOUTS[layout])
    return values


@dataclass(frozen=True)
class MadeSynthetic:
    """The files of nsdsynthetic's images below an NSD root, as the dataset has them, and a design."""

    root: Path
    """The NSD root."""
    shared: Path
    """nsdsynthetic_stimuli.hdf5."""
    ordering: np.ndarray = field(repr=False)
    """masterordering: image of each of 744 trials, counted from 1."""
    values: dict[int, np.ndarray] = field(repr=False)
    """Images of each subject, (284, 7, 5, 3): 220 that are the same for all, then 64 in its own colors."""

    def find_shown(self, subject: int) -> np.ndarray:
        """The image of each trial: the oracle, (744, 7, 5, 3)."""
        return np.stack([self.values[subject][number - 1] for number in self.ordering])


def create_synthetic(root: Path, subjects: Sequence[int] = (1, 2), layout: str = "contiguous") -> MadeSynthetic:
    """Create the stimulus files of nsdsynthetic below *root*, and its design."""
    from scipy.io import savemat

    folder, values = root / "nsddata_stimuli/stimuli/nsdsynthetic", {}
    folder.mkdir(parents=True)
    every = make_image_values(220 + 64 * 9)
    files = {"nsdsynthetic_stimuli.hdf5": every[:220]}
    for subject in subjects:
        colors = every[220 + 64 * subject :][:64]
        files[f"nsdsynthetic_colorstimuli_subj{subject:02d}.hdf5"] = colors
        values[subject] = np.concatenate([every[:220], colors])
    for name, images in files.items():
        with h5py.File(folder / name, "w") as file:
            file.create_dataset("imgBrick", data=images, **IMAGE_LAYOUTS[layout])
    ordering = np.random.default_rng(0).permutation(np.repeat(np.arange(1, 285), 3))[:744]
    design = root / "nsddata/experiments/nsdsynthetic/nsdsynthetic_expdesign.mat"
    design.parent.mkdir(parents=True)
    savemat(design, {"masterordering": ordering[None].astype("f8"), "stimpattern": np.zeros((1, 8, 107))})
    return MadeSynthetic(root, folder / "nsdsynthetic_stimuli.hdf5", ordering, values)


def create_trial_table(path: Path, ids_73k: Sequence[int], subject: int = 1) -> None:
    """Create a trial table whose rows show these 73k ids, 1-based as there."""
    table = make_trial_table(1, len(ids_73k), 0, subject)
    table["73KID"] = np.asarray(ids_73k, np.float64)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_trial_table(path, table)


@dataclass(frozen=True)
class MadeImages:
    """Stimulus images of all 73k ids in a file, and as stores of all and of what the experiment shows."""

    hdf5: Path
    """The stimulus file."""
    every: Path
    """A store of all images."""
    seen: Path
    """A store of what the trials of `experiment` show."""
    values: np.ndarray = field(repr=False)
    """Images, (73000, 7, 5, 3): the oracle."""

    def locate(self, kind: str) -> Path:
        """The source of a kind: hdf5, every, seen."""
        return {"hdf5": self.hdf5, "every": self.every, "seen": self.seen}[kind]


def create_images(folder: Path, nsd_id: np.ndarray) -> MadeImages:
    """Create a stimulus file of all images, a store of it, and one of those with the 0-based ids *nsd_id*."""
    file, table = folder / "nsd_stimuli.hdf5", folder / "responses.tsv"
    values = create_stimuli(file, 73_000)
    create_trial_table(table, nsd_id + 1)
    nsd_zarr.convert_images(file, folder / "all.zarr", images_per_shard=9_973)
    nsd_zarr.convert_images(file, folder / "seen.zarr", trial_table=table, images_per_shard=5)
    return MadeImages(file, folder / "all.zarr", folder / "seen.zarr", values)
