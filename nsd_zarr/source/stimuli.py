"""The files of stimulus images: which ones are meant, and what is in them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nsd_zarr.errors import ConfigError, SourceError
from nsd_zarr.image_sets import (
    ID_WORDS,
    NSD,
    NSDIMAGERY,
    NSDSYNTHETIC,
    SYNTHETIC_COLOR_IMAGES,
    SYNTHETIC_IMAGES,
    SYNTHETIC_STIMULI,
    is_synthetic,
    locate_colors,
)
from nsd_zarr.nsd import CHANNELS, IMAGES_DATASET, NsdPaths
from nsd_zarr.source.hdf5.dataset import explain_hdf5_errors, open_dataset
from nsd_zarr.source.hdf5.parts import find_parts
from nsd_zarr.source.identity import FileIdentity, read_identity


@dataclass(frozen=True, slots=True)
class StimulusInfo:
    """A stimulus file, inspected."""

    path: Path
    """The HDF5 file."""
    dataset: str
    """Name of the dataset in it."""
    identity: FileIdentity
    """What the file looked like."""
    parts: tuple[Path, ...]
    """Other files that hold its values (virtual or external storage)."""
    shape: tuple[int, ...]
    """(image, row, column, channel); an image's row is its 0-based id, less *first*."""
    chunks: tuple[int, ...] | None
    """HDF5 chunk shape; None when contiguous or virtual."""
    first: int = 0
    """0-based id of its first image."""
    experiment: str = NSD
    """Whose images they are: NSD or NSDSYNTHETIC."""

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return math.prod(self.shape[1:])

    @property
    def id_words(self) -> str:
        """What the number of an image is, for people."""
        return ID_WORDS[self.experiment]

    @property
    def last(self) -> int:
        """0-based id of its last image."""
        return self.first + self.shape[0] - 1

    @property
    def chunk_images(self) -> int:
        """Images that one HDF5 chunk has a part of: read together, or read again."""
        return 1 if self.chunks is None else min(self.chunks[0], self.shape[0])


def choose_experiment(source: Path, experiment: str | None) -> str:
    """Whose images *source* means: those of *experiment*, else as the names of its files say. Raises ConfigError."""
    if experiment == NSDIMAGERY:
        raise ConfigError(
            "images of nsdimagery cannot be converted: no file that is read here says which image a trial showed",
            hint="Its trials of imagery showed none; see docs/forms.md.",
            found=experiment,
        )
    if experiment not in (None, NSD, NSDSYNTHETIC):
        raise ConfigError(
            f"experiment {experiment!r}, expected {NSD} or {NSDSYNTHETIC}",
            hint=f"Say {NSDSYNTHETIC}.",
            found=experiment,
        )
    if experiment is not None:
        return experiment
    beside = (source / SYNTHETIC_STIMULI.name).is_file(), (source / NsdPaths(Path()).stimuli.name).is_file()
    return NSDSYNTHETIC if is_synthetic(source) or beside == (True, False) else NSD


def find_stimuli(source: Path, experiment: str = NSD) -> Path:
    """The stimulus file that *source* means: a file, a folder that holds it, or an NSD root. Raises SourceError.

    Of nsdsynthetic that of the images that all subjects saw.
    """
    own = SYNTHETIC_STIMULI if experiment == NSDSYNTHETIC else NsdPaths(Path()).stimuli
    places = [source] if not source.is_dir() else [source / own, source / own.name]
    for path in places:
        if path.is_file():
            return path
    raise SourceError(
        "no such file" if not source.is_dir() else f"no {own} in this folder, and no {own.name}",
        hint="Give the stimulus file, or an NSD root that holds it.",
        path=source,
    )


def find_trial_table(stimuli: Path, subject: int) -> Path:
    """The trial table of *subject* in the NSD root in which *stimuli* lies. Raises SourceError."""
    own = NsdPaths(Path(), subject)
    place = stimuli.absolute()
    root = place.parents[len(own.stimuli.parts) - 1] if place.match(str(own.stimuli)) else None
    if root is not None and (root / own.trial_table).is_file():
        return root / own.trial_table
    raise SourceError(
        f"no trial table of subject {subject} ({own.trial_table}) around it, which would say what images it saw",
        hint="Name it with --trial-table.",
        path=stimuli,
    )


def inspect_stimuli(path: Path, dataset: str = IMAGES_DATASET) -> StimulusInfo:
    """Inspect a stimulus file: metadata only, no values. Raises SourceError where it is unfit."""
    with open_dataset(path, dataset) as data, explain_hdf5_errors(path, None):
        shape = () if data.shape is None else tuple(data.shape)
        if len(shape) != 4 or shape[-1] != CHANNELS or data.dtype != np.uint8 or not math.prod(shape):
            raise SourceError(
                f"dataset {data.name}: {data.dtype.name} of shape {shape}, expected uint8 (image, row, column, 3)",
                hint="Give nsd_stimuli.hdf5, or name the dataset with --dataset.",
                path=path,
                expected="uint8 (image, row, column, 3)",
                found=(data.dtype.name, shape),
            )
        parts = find_parts(data, path, None)
        return StimulusInfo(path, dataset, read_identity(path, parts), parts, shape, data.chunks)


def inspect_synthetic(path: Path, subject: int | None, dataset: str = IMAGES_DATASET) -> tuple[StimulusInfo, ...]:
    """The files of nsdsynthetic: *path*, of the images that all subjects saw, and with *subject* that of its colors.

    Raises SourceError where one is missing, or has another count or shape of images.
    """
    shared = _check_count(inspect_stimuli(path, dataset), SYNTHETIC_IMAGES, path)
    if subject is None:
        return (shared,)
    colors = locate_colors(path, subject)
    if not colors.is_file():
        raise SourceError(
            f"no such file: images {SYNTHETIC_IMAGES} and up, in the colors of subject {subject}",
            hint=f"Fetch it, or leave out --subject: images 0 to {SYNTHETIC_IMAGES - 1} are the same for all.",
            path=colors,
        )
    own = _check_count(inspect_stimuli(colors, dataset), SYNTHETIC_COLOR_IMAGES, colors)
    if own.shape[1:] != shared.shape[1:]:
        raise SourceError(
            f"images of {own.shape[1:]}, expected {shared.shape[1:]} as in {path.name}",
            hint="Fetch both again.",
            path=colors,
            expected=shared.shape[1:],
            found=own.shape[1:],
        )
    return shared, replace(own, first=SYNTHETIC_IMAGES)


def find_files(source: Path, experiment: str, subject: int | None, dataset: str) -> tuple[StimulusInfo, ...]:
    """The files of *experiment*'s images that *source* means, inspected, by their ids. Raises SourceError.

    *subject*: of nsdsynthetic whose colors come behind the images that all subjects saw; None for none.
    """
    path = find_stimuli(source, experiment)
    if experiment == NSDSYNTHETIC:
        return inspect_synthetic(path, subject, dataset)
    return (inspect_stimuli(path, dataset),)


def _check_count(file: StimulusInfo, count: int, path: Path) -> StimulusInfo:
    if file.shape[0] != count:
        raise SourceError(
            f"it has {file.shape[0]} images, expected {count}",
            hint="Give nsdsynthetic_stimuli.hdf5; with --subject its colors are found beside it.",
            path=path,
            expected=count,
            found=file.shape[0],
        )
    return replace(file, experiment=NSDSYNTHETIC)
