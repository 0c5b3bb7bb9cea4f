"""Stimulus images: pictures that show an image's latent features, its number and its orientation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nsd_zarr.nsd import CHANNELS, IMAGES_DATASET
from nsd_zarr.places.durable import replace_file
from nsd_zarr.simulate.images import make_image_features

FEATURE_ROWS, FEATURE_COLUMNS = 2, 4
"""Patches of an image, one for each latent feature, in C order; our choice."""
GREY, CONTRAST = 128, 36
"""Brightness of a feature at zero, and its change for one sd of the feature: 3.5 sd fit into uint8; our choice."""

BLOCK_BYTES = 4 * 2**20
"""Of images that are made at a time; our choice."""


def make_images(first: int, stop: int, size: int, seed: int = 0) -> NDArray[np.uint8]:
    """Images of 0-based 73k ids *first* .. *stop* - 1; uint8 of shape (image, size, size, 3), RGB.

    Red holds the features as patches, green their negative, blue the number of the image and the place in it.
    """
    numbers = np.arange(first, stop)
    return draw_images(make_image_features(numbers, seed), numbers, size)


def draw_images(features: NDArray[np.float32], numbers: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    """Images of latent *features*, shape (image, 8), and *numbers*; uint8 of shape (image, size, size, 3)."""
    features = features.reshape(-1, FEATURE_ROWS, FEATURE_COLUMNS)
    row, column = (np.arange(size) * count // size for count in (FEATURE_ROWS, FEATURE_COLUMNS))
    patches = np.rint(CONTRAST * features[:, row[:, np.newaxis], column])
    images = np.empty((len(numbers), size, size, 3), np.uint8)
    images[..., 0] = np.clip(GREY + patches, 0, 255)
    images[..., 1] = np.clip(GREY - patches, 0, 255)
    y, x = np.ogrid[:size, :size]
    images[..., 2] = (11 * numbers[:, np.newaxis, np.newaxis] + 3 * y + x) % 256
    return images


def create_stimulus_file(path: Path, images: int, size: int, seed: int = 0) -> None:
    """Create nsd_stimuli.hdf5: the row of an image is its 0-based 73k id. As create_image_file."""
    create_image_file(path, images, size, lambda first, stop: make_images(first, stop, size, seed))


def create_image_file(path: Path, images: int, size: int, make: Callable[[int, int], NDArray[np.uint8]]) -> None:
    """Create a stimulus file: imgBrick, uint8 of shape (images, size, size, 3), whose rows *make* makes, [first, stop).

    Replaces an existing file once the new one is whole. Peak memory: BLOCK_BYTES of images, and seven times that while
    they are made.
    """
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with h5py.File(partial, "w", libver="earliest") as file:
        data = file.create_dataset(
            IMAGES_DATASET, (images, size, size, CHANNELS), "u1", fill_time="never", track_times=False
        )
        block = max(1, BLOCK_BYTES // (3 * size**2))
        for first in range(0, images, block):
            stop = min(first + block, images)
            data[first:stop] = make(first, stop)
    replace_file(partial, path)
