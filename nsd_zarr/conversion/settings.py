"""The settings that affect values or bytes of a store: bound to every record, and written into it."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any

import h5py
from numcodecs import blosc

from nsd_zarr.image_sets import NSD
from nsd_zarr.layout import IMAGES, TRIALS, Geometry, Kind, SessionNumber, make_image_geometry
from nsd_zarr.store.codec import IMAGE_SHUFFLE, BloscCodec
from nsd_zarr.store.digest import make_digest
from nsd_zarr.store.format import (
    FORMAT_VERSION,
    ID_ARRAYS,
    Json,
    encode_json,
    make_betas_metadata,
    make_images_metadata,
)


@cache  # it parses the metadata of the distribution each time, and a conversion asks eleven times
def version(library: str) -> str:
    """Version of an installed library."""
    return importlib.metadata.version(library)


@dataclass(frozen=True, slots=True)
class _Settings:
    """What settings of every kind of store can do."""

    def make_attributes(self) -> dict[str, Any]:
        """As root attribute `settings`: plain JSON, without what does not apply."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {name: value for name, value in values.items() if value is not None}

    def make_fingerprint(self) -> str:
        """One digest over the settings and the versions that decide bytes."""
        return make_digest(encode_json(self.make_attributes() | make_byte_versions()))

    def list_differences(self, settings: Mapping[str, Any]) -> list[str]:
        """What a store's `settings` have otherwise, as "codec zstd, now lz4"."""
        mine = self.make_attributes()
        gone = [field.name for field in fields(self) if field.name in settings and field.name not in mine]
        return [
            f"{name} {settings.get(name)}, now {mine.get(name)}"
            for name in (*mine, *gone)
            if settings.get(name) != mine.get(name)
        ]


@dataclass(frozen=True, slots=True)
class Settings(_Settings):
    """What has to be the same for two conversions to give the same bytes."""

    dataset: str
    """Name of the dataset in each session file."""
    sessions: tuple[SessionNumber, ...]
    """Sessions in the store, ascending."""
    trials_per_shard: int
    """Trials in a shard."""
    codec: str
    """Compressor inside Blosc."""
    clevel: int
    """Compression level."""
    shape: tuple[int, ...]
    """Shape of one session, (trial, z, y, x) or (trial, vertex)."""
    dtype: str
    """Stored dtype."""
    vertices: tuple[int, int] | None = None
    """Of a surface, vertices of the left and of the right hemisphere; None where the sources do not say."""

    @property
    def geometry(self) -> Geometry:
        """How sessions, trials and shards lie."""
        shape = self.shape
        return Geometry(self.sessions, shape[0], self.trials_per_shard, shape[1:], self.dtype, vertices=self.vertices)

    @property
    def blosc(self) -> BloscCodec:
        """How a chunk is compressed."""
        return BloscCodec(self.codec, self.clevel, self.geometry.trial_bytes // self.geometry.voxels)

    def make_metadata(self) -> Json:
        """zarr.json of the array in shards, without an experiment's coordinates."""
        return make_betas_metadata(self.geometry, self.blosc)


@dataclass(frozen=True, slots=True)
class ImageSettings(_Settings):
    """What has to be the same for two stores of images to have the same bytes."""

    dataset: str
    """Name of the dataset in the stimulus file."""
    selection: str
    """all, or the digest of the 73k ids of a part: int32, little-endian, ascending."""
    images_per_shard: int
    """Images in a shard, which is a block."""
    codec: str
    """Compressor inside Blosc."""
    clevel: int
    """Compression level."""
    shape: tuple[int, ...]
    """(image, row, column, channel) of the store."""
    experiment: str | None = None
    """nsdsynthetic, whose images have ids of their own; None for the core experiment."""
    subject: int | None = None
    """Of nsdsynthetic, whose colors are in the store; None for none."""

    @property
    def geometry(self) -> Geometry:
        """How blocks, images and shards lie."""
        return make_image_geometry(self.shape, self.images_per_shard)

    @property
    def id_array(self) -> str:
        """Name of the array of the images' ids."""
        return ID_ARRAYS[self.experiment or NSD]

    @property
    def sessions(self) -> tuple[SessionNumber, ...]:
        """Numbers of the blocks, from 1."""
        return self.geometry.sessions

    @property
    def blosc(self) -> BloscCodec:
        """How a chunk is compressed: bits apart, because neighbours in a photograph differ in the lower ones alone.

        Measured on three photographs cut to 425 x 425 x 3, one thread of a busy machine: lz4 level 5 gives ratio 1.27
        so, encodes 0.7 GB/s and decodes 1.5 GB/s; without shuffle 1.11; bytes of a pixel apart 1.09. zstd level 3 gives
        1.42. Random textures with the spectrum of photographs, and their noise, do not shrink: 1.00 to 1.07.
        """
        return BloscCodec(self.codec, self.clevel, 1, IMAGE_SHUFFLE)

    def make_metadata(self) -> Json:
        """zarr.json of the array in shards."""
        return make_images_metadata(self.geometry, self.blosc)


AnySettings = Settings | ImageSettings


def read_settings(settings: Mapping[str, Any], kind: Kind = TRIALS) -> AnySettings:
    """The settings of a store of *kind*, from its root attribute `settings`."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }
    return ImageSettings(**values) if kind == IMAGES else Settings(**values)


def make_byte_versions() -> dict[str, str]:
    """Versions that decide the bytes of a store. What a run began with one of them ends with the same one."""
    return {
        "format_version": str(FORMAT_VERSION),
        "numcodecs": version("numcodecs"),
        "c-blosc": str(blosc.VERSION_STRING),
    }


def find_release(version: str) -> str:
    """A version without what marks work on the way to the next: "0.2.0" of "0.2.0.post1.dev3+g1a2b3c4", "1.0rc1" stays.

    What is stored, so that a clone with its tags, one without them and an archive give the same bytes.
    """
    found = re.match(r"\d+(\.\d+)*((a|b|rc)\d+)?", version)
    return found[0] if found else version


def make_library_versions() -> dict[str, str]:
    """Versions of what reads values and makes bytes, for the root attributes."""
    return {
        "nsd_zarr": find_release(version("nsd-zarr")),
        **make_byte_versions(),
        "numpy": version("numpy"),
        "h5py": version("h5py"),
        "hdf5": str(h5py.version.hdf5_version),
    }
