"""The arrays beside `betas`: what they are, and how each gets into a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nsd_zarr.layout import SessionNumber, make_dims
from nsd_zarr.nsd import HEMISPHERES as HEMISPHERE_NAMES
from nsd_zarr.store.codec import BloscCodec
from nsd_zarr.store.format import (
    HEMISPHERE,
    METADATA_NAME,
    RAIL_COUNT,
    SESSION_MEAN,
    SESSION_STD,
    VERTEX_IN_HEMISPHERE,
    Json,
    encode_json,
    encode_small,
    make_chunk_key,
    make_small_metadata,
    make_volume_metadata,
)
from nsd_zarr.store.record import FileRecord, make_file_record
from nsd_zarr.store.volume import encode_volume


@dataclass(frozen=True, slots=True)
class SmallArray:
    """An array in one plain chunk."""

    name: str
    """Name in the store."""
    values: np.ndarray
    """All its values."""
    dims: tuple[str, ...]
    """Dimension names."""
    attributes: dict[str, Any]
    """CF attributes."""


@dataclass(frozen=True, slots=True)
class VolumeArray:
    """An array of compressed volumes: one, or one a session."""

    name: str
    """Name in the store."""
    shape: tuple[int, ...]
    """(z, y, x), or (session_number, z, y, x); surfaces have vertex in place of z, y, x."""
    dtype: str
    """As NumPy names it."""
    dims: tuple[str, ...]
    """Dimension names."""
    attributes: dict[str, Any]
    """CF attributes."""
    volumes: Iterable[np.ndarray]
    """What is to be written, chunk by chunk; empty when it is on disk already."""


NewArray = SmallArray | VolumeArray


Put = Callable[[str, bytes], object]
"""Takes a whole file of the store: its path inside it, its bytes."""


@dataclass(slots=True)
class Contents:
    """What the root document will say is in the store."""

    put: Put
    """Takes each file as it is entered, but for those that are on disk already."""
    members: dict[str, Json] = field(default_factory=dict)
    """zarr.json of every array by name."""
    manifest: dict[str, list[Any]] = field(default_factory=dict)
    """Size and digest of every other file; of shards also that of their end."""

    def add_files(self, files: Iterable[FileRecord]) -> None:
        """Enter files that are on disk, shards among them."""
        self.manifest |= {file.key: file.list_values() for file in files}

    def add_metadata(self, name: str, metadata: Json) -> None:
        """Enter the zarr.json of an array."""
        self.members[name] = metadata
        self._add(f"{name}/{METADATA_NAME}", encode_json(metadata))

    def add_arrays(self, arrays: Iterable[NewArray], codec: BloscCodec) -> None:
        """Enter *arrays*. Holds one volume at a time."""
        # Off the main thread, where Blosc gives the same bytes each time.
        with ThreadPoolExecutor(1, "nsd-zarr write") as executor:
            for array in arrays:
                executor.submit(self._add_array, array, codec).result()

    def _add_array(self, array: NewArray, codec: BloscCodec) -> None:
        if isinstance(array, SmallArray):
            self.add_metadata(array.name, make_small_metadata(array.values, array.dims, array.attributes))
            self._add(make_chunk_key(array.name, tuple(0 for _ in array.values.shape)), encode_small(array.values))
            return
        self.add_metadata(
            array.name, make_volume_metadata(array.shape, array.dtype, array.dims, codec, array.attributes)
        )
        for position, values in enumerate(array.volumes):
            self._add(
                make_chunk_key(array.name, (position, *(0 for _ in array.shape[1:]))), encode_volume(values, codec)
            )

    def _add(self, key: str, data: bytes) -> None:
        self.put(key, data)
        self.add_files([make_file_record(key, data)])


def make_vertex_arrays(vertices: tuple[int, int]) -> list[NewArray]:
    """Which hemisphere each vertex of a surface is of, and which of its vertices it is. *vertices*: left, right."""
    shape, dims = (sum(vertices),), ("vertex",)
    sides = np.repeat(np.arange(2, dtype=np.int8), vertices)
    places = np.concatenate([np.arange(count, dtype=np.int32) for count in vertices])
    flags = {"flag_values": [0, 1], "flag_meanings": " ".join(HEMISPHERE_NAMES)}
    about = {"long_name": "vertex in its hemisphere, counted from 0: row of the files of that hemisphere"}
    return [
        VolumeArray(HEMISPHERE, shape, "int8", dims, {"long_name": "hemisphere"} | flags, (sides,)),
        VolumeArray(VERTEX_IN_HEMISPHERE, shape, "int32", dims, about, (places,)),
    ]


def make_statistics_arrays(
    sessions: tuple[SessionNumber, ...], volume_shape: tuple[int, ...], rail_counts: Iterable[int | None]
) -> list[NewArray]:
    """session_mean, session_std, whose chunks are on disk, and rail_count where the stored dtype is int16."""
    shape, dims = (len(sessions), *volume_shape), ("session_number", *make_dims(1 + len(volume_shape))[1:])
    mean = {"long_name": "mean over the trials of a session", "units": "percent"}
    std = {"long_name": "standard deviation over the trials of a session", "units": "percent", "ddof": 0}
    counts = [count for count in rail_counts if count is not None]
    arrays: list[NewArray] = [
        VolumeArray(SESSION_MEAN, shape, "float32", dims, mean, ()),
        VolumeArray(SESSION_STD, shape, "float32", dims, std, ()),
    ]
    if len(counts) == len(sessions):
        about = {"long_name": "voxels that reach an int16 rail (-32768 or 32767) in any trial of a session"}
        arrays.append(SmallArray(RAIL_COUNT, np.array(counts, np.int32), ("session_number",), about))
    return arrays
