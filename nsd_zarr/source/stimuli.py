"""The file of stimulus images: which one is meant, and what is in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nsd_zarr.errors import SourceError
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
    """(image, row, column, channel); an image's row is its 0-based 73k id."""
    chunks: tuple[int, ...] | None
    """HDF5 chunk shape; None when contiguous or virtual."""

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return math.prod(self.shape[1:])

    @property
    def chunk_images(self) -> int:
        """Images that one HDF5 chunk has a part of: read together, or read again."""
        return 1 if self.chunks is None else min(self.chunks[0], self.shape[0])


def find_stimuli(source: Path) -> Path:
    """The stimulus file that *source* means: a file, a folder that holds it, or an NSD root. Raises SourceError."""
    own = NsdPaths(Path()).stimuli
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
