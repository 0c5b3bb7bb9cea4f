"""The files of the Algonauts 2023 challenge, of a store of fsaverage surfaces.

Source: gifale95/algonauts_2023, code/01_challenge_data_preparation/challenge_data_preparation.py: names, arrangement,
which images are trained and tested on, rows in the order of 73k ids, vertices without data left out. Images are not
written: their names are, in images.csv of each split.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from nsd_zarr.errors import ConfigError
from nsd_zarr.exports.choice import Choice, Part, get_subject
from nsd_zarr.exports.request import Request
from nsd_zarr.nsd import HEMISPHERES, SHOWINGS
from nsd_zarr.places.durable import make_folder, write_durably
from nsd_zarr.read.accessor import NsdAccessor
from nsd_zarr.read.derive import get_column
from nsd_zarr.read.region import read_atlas
from nsd_zarr.read.roi import BRAINMASK
from nsd_zarr.read.tools.samples import split_samples
from nsd_zarr.read.volume import HEMISPHERE, IN_HEMISPHERE, VOXEL, read_sides

TEST_SESSIONS = 3
"""The last so many sessions are tested on."""
ALL_SESSIONS = 40
"""Subjects with so many may be tested on shared images that fall wholly into the last ones."""
FOLDERS = {"train": ("training_split/training_fmri", "training"), "test": ("test_split/test_fmri", "test")}
"""Folder and word in the names of the files of each side."""


def choose_algonauts(dataset: xr.Dataset, samples: xr.Dataset, request: Request) -> Choice:
    """The files of the challenge; *dataset* the whole store, *samples* its region. Raises ConfigError for volumes."""
    if not {HEMISPHERE, IN_HEMISPHERE} <= set(samples.coords):
        raise ConfigError(
            "the layout algonauts is of surfaces with both hemispheres, and this store has none",
            hint="Convert the fsaverage betas, or take the plain layout.",
        )
    home, sides = f"subj{get_subject(dataset):02d}", {}
    for side, trials in _split(samples, request).items():
        averaged = NsdAccessor(trials).average_repeats()
        sides[side] = averaged.isel(image=np.argsort(averaged["nsd_id"].values))
    parts = []
    for side, images in sides.items():
        folder, word = FOLDERS[side]
        hemispheres = read_sides(images[HEMISPHERE].variable)
        for name in HEMISPHERES:
            mine = images.isel({VOXEL: np.flatnonzero(hemispheres == name)})
            if mine.sizes[VOXEL]:
                parts.append(Part(f"{home}/{folder}/{name}_{word}_fmri.npy", mine, request))
    return Choice(parts, sides, dataset)


def _split(samples: xr.Dataset, request: Request) -> dict[str, xr.Dataset]:
    """Trials to train and to test on: by a split that is named, else as the challenge did it."""
    if request.split is not None:
        sides = split_samples(samples, request.split)
        return sides if set(sides) == set(FOLDERS) else {request.split: sides[""]}
    session, image = get_column(samples, "session"), get_column(samples, "nsd_id")
    numbers = np.unique(session)
    if len(numbers) <= TEST_SESSIONS:
        raise ConfigError(
            f"the challenge tests on the last {TEST_SESSIONS} sessions, and there are {len(numbers)}",
            hint="Take more sessions, or name a split: --split shared1000.",
        )
    late = session >= numbers[-TEST_SESSIONS]
    tested = late & ~np.isin(image, image[~late])
    is_free = ~get_column(samples, "shared1000").astype(bool)
    if len(numbers) == ALL_SESSIONS:
        ids, shown = np.unique(image[tested], return_counts=True)
        is_free |= np.isin(image, ids[shown == SHOWINGS])
    chosen = {"train": ~late, "test": tested & is_free}
    return {side: samples.isel(trial=np.flatnonzero(mine)) for side, mine in chosen.items() if mine.any()}


# -- beside the samples ------------------------------------------------------------------------------------------


def write_algonauts_tables(folder: Path, choice: Choice) -> list[str]:
    """Region masks, names of their labels, noise ceiling and names of images; returns the names of the files."""
    dataset = choice.whole
    home = folder / f"subj{get_subject(dataset):02d}"
    files = {f"roi_masks/{name}": data for name, data in _make_masks(dataset, choice)}
    for side, images in choice.sides.items():
        files[f"{FOLDERS[side][0].partition('/')[0]}/images.csv"] = _list_images(side, images)
    if "ncsnr" in dataset and "test" in choice.sides:
        files |= dict(_make_ceilings(choice.sides["test"]))
    for name, data in files.items():
        make_folder((home / name).parent)
        write_durably(home / name, data)
    return [f"{home.name}/{name}" for name in files]


def _make_masks(dataset: xr.Dataset, choice: Choice) -> Iterator[tuple[str, bytes]]:
    """Labels of every vertex of each hemisphere, 0 outside of the region, and of those of the region."""
    region = next(iter(choice.sides.values()))
    sides, numbers = read_sides(dataset[HEMISPHERE].variable), dataset[IN_HEMISPHERE].values
    chosen, places = read_sides(region[HEMISPHERE].variable), region[IN_HEMISPHERE].values
    kept = {name: np.zeros(int(numbers[sides == name].max(initial=-1)) + 1, np.int64) for name in HEMISPHERES}
    for name, mask in kept.items():
        mask[places[chosen == name]] = 1
        yield f"{name}.all-vertices_fsaverage_space.npy", _encode(mask)
    atlas = read_atlas(dataset)
    for roi in sorted(set(atlas.labels) - {BRAINMASK, *(choice.parts[0].request.roi or ())}):
        codes = dataset[f"roi_{roi}"].values
        yield f"mapping_{roi}.npy", _encode({0: "Unknown"} | {n: label for label, n in atlas.labels[roi].items()})
        for name, mask in kept.items():
            labels = np.zeros_like(mask)
            labels[numbers[sides == name]] = np.maximum(codes[sides == name], 0)
            labels[mask == 0] = 0
            yield f"{name}.{roi}_fsaverage_space.npy", _encode(labels)
            yield f"{name}.{roi}_challenge_space.npy", _encode(labels[mask > 0])


def _make_ceilings(images: xr.Dataset) -> Iterator[tuple[str, bytes]]:
    """Noise ceiling of means over the showings of the test images, as a fraction. In percent: noise_ceiling."""
    inverse = np.mean(1 / images["repeats"].values)
    power, sides = np.square(images["ncsnr"].values.astype(np.float64)), read_sides(images[HEMISPHERE].variable)
    for name in HEMISPHERES:
        mine = power[sides == name]
        yield f"test_split/noise_ceiling/{name}_noise_ceiling.npy", _encode(mine / (mine + inverse))


def _list_images(side: str, images: xr.Dataset) -> bytes:
    """The name that the challenge gives the image of each row."""
    rows = enumerate(images["nsd_id"].values.tolist(), 1)
    return ("image\n" + "".join(f"{side}-{row:04d}_nsd-{number:05d}.png\n" for row, number in rows)).encode()


def _encode(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values, allow_pickle=True)  # the challenge's own mappings are pickled dicts of numbers and names
    return file.getvalue()
