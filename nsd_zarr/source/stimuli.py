"""Stimulus images: which file is meant, what is in it, and which of its images one unit of work converts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nsd_zarr.errors import SourceError
from nsd_zarr.layout import SessionNumber
from nsd_zarr.nsd import CHANNELS, IMAGES_DATASET, NsdPaths
from nsd_zarr.source.identity import FileIdentity, read_identity
from nsd_zarr.source.parts import find_parts
from nsd_zarr.source.session import explain_hdf5_errors, open_dataset


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


@dataclass(frozen=True, slots=True)
class ImageBlock:
    """Images that one unit of work converts: what a session is of betas. Picklable: tasks open the file again."""

    session: SessionNumber
    """Number of the block, from 1."""
    file: StimulusInfo
    """Where they are."""
    ids: Sequence[int]
    """0-based 73k ids, ascending."""
    others: frozenset[int] = frozenset()
    """Ids of other blocks of the same run that lie in a chunk together with some of these."""

    @property
    def error_session(self) -> None:
        """The session that errors name: none. The number of a block says nothing to anyone."""
        return None

    @property
    def path(self) -> Path:
        """The stimulus file."""
        return self.file.path

    @property
    def parts(self) -> tuple[Path, ...]:
        """Other files that hold its values."""
        return self.file.parts

    @property
    def identity(self) -> FileIdentity:
        """What the file looked like."""
        return self.file.identity

    @property
    def trials(self) -> int:
        """Images in the block."""
        return len(self.ids)

    @property
    def voxels(self) -> int:
        """Values in one image."""
        return self.file.image_bytes

    @property
    def trial_bytes(self) -> int:
        """Bytes of one image."""
        return self.file.image_bytes

    @property
    def dtype(self) -> str:
        """As NumPy names it."""
        return "uint8"

    @property
    def chunk_bytes(self) -> int:
        """Bytes of what the HDF5 chunks of one image hold together."""
        return self.file.chunk_images * self.file.image_bytes

    @property
    def offset_refusal(self) -> str:
        """Why it is not read by byte offset."""
        return "stimulus images"

    @property
    def how(self) -> str:
        """How its values are read, for people."""
        return "through h5py"

    def describe_trial(self, position: int) -> str:
        """An image of the block, for people."""
        return f"image {self.ids[position]} (0-based 73k id)"


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


def make_blocks(file: StimulusInfo, ids: Sequence[int], images_per_block: int) -> tuple[ImageBlock, ...]:
    """*ids*, 0-based and ascending, as consecutive blocks. Raises SourceError for an image that the file has not."""
    if ids[-1] >= file.shape[0]:
        raise SourceError(
            f"it has {file.shape[0]} images, and image {ids[-1]} (0-based 73k id) is wanted",
            hint="Give the whole stimulus file, and the trial table that belongs to it.",
            path=file.path,
            expected=ids[-1] + 1,
            found=file.shape[0],
        )
    starts = range(0, len(ids), images_per_block)
    return tuple(
        ImageBlock(SessionNumber(number), file, ids[start : start + images_per_block])
        for number, start in enumerate(starts, 1)
    )


def share_chunks(blocks: Sequence[ImageBlock]) -> list[ImageBlock]:
    """The same blocks, each with the images that it reads for others of them."""
    if not blocks or blocks[0].file.chunk_images == 1:
        return list(blocks)
    chunk = blocks[0].file.chunk_images
    members: dict[int, list[int]] = {}
    for block in blocks:
        # Only the first and the last chunk of a block can hold images of another.
        edges = {block.ids[0] // chunk, block.ids[-1] // chunk}
        for number in block.ids:
            if number // chunk in edges:
                members.setdefault(number // chunk, []).append(number)
    shared = [{*members[block.ids[0] // chunk], *members[block.ids[-1] // chunk]} for block in blocks]
    return [replace(block, others=frozenset(near - set(block.ids))) for block, near in zip(blocks, shared, strict=True)]
