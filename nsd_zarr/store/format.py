"""The bytes of a store: metadata documents, shard index, small arrays, encoded and decoded in one place.

zarr.json documents follow the Zarr v3 core specification, shards its `sharding_indexed` codec. They are
written here rather than by zarr-python so that a conversion starts without importing it and the bytes depend
on nothing but the settings; tests hold them against zarr-python's own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from nsd_zarr.image_sets import NSD, NSDSYNTHETIC
from nsd_zarr.layout import COUNTS_PER_PERCENT, IMAGES, TRIALS, Geometry, make_dims
from nsd_zarr.store.codec import BloscCodec, decode_chunk
from nsd_zarr.store.digest import CRC_BYTES, make_crc, make_digest
from nsd_zarr.store.meta import ArrayMeta

FORMAT = "nsd_zarr"
"""Root attribute `format`: what marks our stores."""
FORMATS = {TRIALS: FORMAT, IMAGES: "nsd_zarr images"}
"""Root attribute `format` of each kind of store: readers of betas pass by a store of images."""
FORMAT_VERSION = 1
"""Root attribute `format_version`. A reader refuses another one."""
FORMAT_MINOR = 3
"""Root attribute `format_minor`: what has been added since; absent: 0. Readers take any, and look for arrays by name.

1: `shared515`, and `hemispheres_NAME`. 2: of surfaces `hemisphere` and `vertex_in_hemisphere`. A store says the least
number that knows all of its arrays (find_minor).
"""
CONVENTIONS = "CF-1.11"
METADATA_NAME = "zarr.json"
BETAS = "betas"
SESSION_MEAN, SESSION_STD, RAIL_COUNT = "session_mean", "session_std", "rail_count"
"""Arrays of statistics, computed while converting."""
COORDINATES = ("session", "trial_in_session", "trial_digest")
"""Coordinates along trial of every store."""
ROI, HEMISPHERES = "roi_", "hemispheres_"
"""How names of arrays of regions begin: labels of the whole brain, (z, y, x); labels of the left and of the right
hemisphere, (side, z, y, x), where they have files of their own. A voxel may have a label in both."""
HEMISPHERE, VERTEX_IN_HEMISPHERE = "hemisphere", "vertex_in_hemisphere"
"""Arrays along vertex of a surface: code of its hemisphere, and which vertex of it it is."""
SHARED515 = "shared515"
"""Column of the trial table: whether the image is one of the 515 that all eight subjects saw three times."""
ABOUT_SHARED515 = "whether the image is one of the 515 that all eight subjects saw three times"
"""Its `long_name`."""
IMAGE_DIMS = ("image", "row", "column", "channel")
"""Dimension names of `images`."""
NSD_ID = "nsd_id"
"""Array of 0-based 73k ids: of each trial's image, or of each image."""
STIMULUS_ID = "stimulus_id"
"""Array of 0-based ids among the images of an experiment that has images of its own."""
ID_ARRAYS = {NSD: NSD_ID, NSDSYNTHETIC: STIMULUS_ID}
"""Which array says the image of each trial, or the number of each image of a store of images, by experiment."""

TEXT_LENGTH = 32
"""Characters that a text in a store has at most: the only ones are digests."""

Json = dict[str, Any]


def encode_json(document: Json) -> bytes:
    """A document as the bytes of a file: the same document, the same bytes."""
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def find_minor(names: Iterable[str]) -> int:
    """The least `format_minor` that knows arrays of all these *names*."""
    known = list(names)
    if STIMULUS_ID in known and IMAGES.array in known:
        return 3
    if HEMISPHERE in known:
        return 2
    return int(any(name == SHARED515 or name.startswith(HEMISPHERES) for name in known))


# -- array metadata ----------------------------------------------------------------------------------------------


def _bytes_codec(dtype: str) -> Json:
    if np.dtype(dtype).itemsize == 1:
        return {"name": "bytes"}
    return {"name": "bytes", "configuration": {"endian": "little"}}


def _array_metadata(shape: tuple[int, ...], dtype: str, dims: tuple[str, ...], chunk: tuple[int, ...]) -> Json:
    fill: Any = {"f": 0.0, "b": False, "T": ""}.get("T" if dtype == "string" else np.dtype(dtype).kind, 0)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": [],
        "attributes": {},
        "dimension_names": list(dims),
    }


def make_betas_metadata(geometry: Geometry, codec: BloscCodec, coordinates: tuple[str, ...] = ()) -> Json:
    """zarr.json of `betas`: a chunk is one trial, a shard whole trials of one session; bytes, blosc, crc32c.

    *coordinates*: names of those along trial beside the ones that every store has.

    Integer betas carry CF `scale_factor` 1/300; no `_FillValue`, because zero is a legal beta.
    """
    document = _sharded_metadata(geometry, codec, make_dims(len(geometry.shape)))
    attributes: Json = {"long_name": "single-trial response amplitude", "units": "percent"}
    if np.dtype(geometry.dtype).kind in "iu":
        attributes["scale_factor"] = 1 / COUNTS_PER_PERCENT
    document["attributes"] = attributes | {"coordinates": " ".join(COORDINATES + coordinates)}
    return document


def make_images_metadata(geometry: Geometry, codec: BloscCodec) -> Json:
    """zarr.json of `images`: a chunk is one image, a shard whole images; bytes, blosc, crc32c.

    The last shard may reach beyond the array, as Zarr allows: its index says that those chunks are absent.
    """
    document = _sharded_metadata(geometry, codec, IMAGE_DIMS)
    document["attributes"] = {"long_name": "stimulus image, RGB", "coordinates": "nsd_id image_digest"}
    return document


def _sharded_metadata(geometry: Geometry, codec: BloscCodec, dims: tuple[str, ...]) -> Json:
    shard = (geometry.trials_per_shard, *geometry.volume_shape)
    document = _array_metadata(geometry.shape, geometry.dtype, dims, shard)
    sharding = {
        "chunk_shape": [1, *geometry.volume_shape],
        "codecs": _compressing_codecs(geometry.dtype, codec),
        "index_codecs": [_bytes_codec("uint64"), {"name": "crc32c"}],
        "index_location": "end",
    }
    document["codecs"] = [{"name": "sharding_indexed", "configuration": sharding}]
    return document


def _compressing_codecs(dtype: str, codec: BloscCodec) -> list[Json]:
    blosc: Json = {"cname": codec.cname, "clevel": codec.clevel, "shuffle": codec.shuffle}
    blosc |= {"typesize": np.dtype(dtype).itemsize, "blocksize": codec.blocksize}
    return [_bytes_codec(dtype), {"name": "blosc", "configuration": blosc}, {"name": "crc32c"}]


def make_volume_metadata(
    shape: tuple[int, ...], dtype: str, dims: tuple[str, ...], codec: BloscCodec, attributes: Json
) -> Json:
    """zarr.json of an array of volumes: bytes, blosc, crc32c, and no shards.

    One chunk is one session's volume where the first dimension is `session_number`, else the whole array. Every array
    with the voxels' dimensions is of this kind, and no other: a region volume shrinks to a hundredth.
    """
    chunk = (1, *shape[1:]) if dims[0] == "session_number" else shape
    document = _array_metadata(shape, dtype, dims, chunk)
    document["codecs"] = _compressing_codecs(dtype, codec)
    document["attributes"] = attributes
    return document


def make_small_metadata(values: np.ndarray, dims: tuple[str, ...], attributes: Json) -> Json:
    """zarr.json of a small array in one chunk: bytes (text: vlen-utf8), crc32c."""
    text = values.dtype.kind == "U"
    dtype = "string" if text else str(values.dtype)
    document = _array_metadata(values.shape, dtype, dims, values.shape)
    document["codecs"] = [{"name": "vlen-utf8"} if text else _bytes_codec(dtype), {"name": "crc32c"}]
    document["attributes"] = attributes
    return document


def make_chunk_key(name: str, chunk: tuple[int, ...]) -> str:
    """Path inside the store of chunk *chunk* of array *name* ("betas/c/3/0/0/0"): Zarr v3, default key encoding."""
    return "/".join([name, "c", *map(str, chunk)])


def make_shard_key(geometry: Geometry, shard: int) -> str:
    """Path inside the store of shard *shard* of `betas`, or of `images`."""
    return make_chunk_key(geometry.kind.array, (shard, *(0 for _ in geometry.volume_shape)))


# -- small arrays ------------------------------------------------------------------------------------------------


def encode_small(values: np.ndarray) -> bytes:
    """The one chunk of a small array: its values little-endian in C order, text as vlen-utf8; crc32c behind them."""
    if values.dtype.kind == "U":
        texts = [str(text).encode() for text in values.ravel()]
        parts = [len(texts).to_bytes(4, "little")]
        for text in texts:
            parts += [len(text).to_bytes(4, "little"), text]
        body = b"".join(parts)
    else:
        body = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
    return body + make_crc(body)


def decode_small(data: bytes, metadata: ArrayMeta) -> np.ndarray:
    """Values of a small array's one chunk; text as fixed-width unicode. Raises ValueError when it is damaged."""
    if metadata.is_compressed:
        volume = np.empty(metadata.chunk_shape, np.dtype(metadata.dtype).newbyteorder("<"))
        decode_chunk(np.frombuffer(data, np.uint8), volume)
        return volume.astype(volume.dtype.newbyteorder("="), copy=False)
    return decode_plain(data, metadata.chunk_shape, metadata.dtype)


def decode_plain(data: bytes, shape: tuple[int, ...], data_type: str) -> np.ndarray:
    """Values of an uncompressed chunk. Raises ValueError when it is damaged."""
    body, crc = data[:-CRC_BYTES], data[-CRC_BYTES:]
    if make_crc(body) != crc:
        raise ValueError("its crc32c does not match")
    if data_type == "string":
        return np.array(_decode_texts(body, math.prod(shape)), dtype=np.str_).reshape(shape)
    dtype = np.dtype(data_type).newbyteorder("<")
    if len(body) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"it holds {len(body)} bytes, expected {math.prod(shape) * dtype.itemsize}")
    return np.frombuffer(body, dtype).astype(dtype.newbyteorder("=")).reshape(shape)


def _decode_texts(body: bytes, count: int) -> list[str]:
    found = int.from_bytes(body[:4], "little")
    if found != count:
        raise ValueError(f"it holds {found} texts, expected {count}")
    texts, position = [], 4
    for _ in range(count):
        length = int.from_bytes(body[position : position + 4], "little")
        texts.append(body[position + 4 : position + 4 + length].decode())
        position += 4 + length
        if position > len(body) or len(texts[-1]) > TEXT_LENGTH:
            # Each is stored as wide as the widest: one of a megabyte among many would fill the memory.
            raise ValueError("its texts are longer than they may be")
    if position != len(body):
        raise ValueError("its text lengths do not add up")
    return texts


# -- the root document -------------------------------------------------------------------------------------------

_CHECKSUM_KEY = '"checksum": "'
_ZERO_CHECKSUM = "0" * 32


def make_root_metadata(attributes: Json, members: dict[str, Json]) -> bytes:
    """Bytes of the root's zarr.json: *attributes*, and the metadata of all *members* inline.

    Inline, so that readers find the arrays without listing folders, and xarray without a warning. Its attribute
    `checksum` is an xxh3-128 of the document itself, taken with that checksum's own digits as zeros.
    """
    document = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": attributes | {"checksum": _ZERO_CHECKSUM},
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": members},
    }
    blank = encode_json(document)
    return blank.replace((_CHECKSUM_KEY + _ZERO_CHECKSUM).encode(), (_CHECKSUM_KEY + make_digest(blank)).encode(), 1)


def decode_root_metadata(data: bytes) -> Json:
    """The root's attributes, checked against the document's own checksum. Raises ValueError when they do not agree."""
    attributes = read_root_attributes(data)
    seal = str(attributes.get("checksum"))
    blank = data.replace((_CHECKSUM_KEY + seal).encode(), (_CHECKSUM_KEY + _ZERO_CHECKSUM).encode(), 1)
    if make_digest(blank) != seal:
        raise ValueError("its checksum does not match")
    return attributes


def read_root_attributes(data: bytes) -> Json:
    """The root's attributes, unchecked. Raises ValueError when the document is no JSON object with attributes."""
    try:
        attributes = json.loads(data)["attributes"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"it is no zarr.json of a group ({error})") from error
    if not isinstance(attributes, dict):
        raise ValueError("its attributes are no object")
    return attributes


def read_members(data: bytes) -> dict[str, Json]:
    """zarr.json of every array by name, from the root document. Raises ValueError."""
    members = json.loads(data)["consolidated_metadata"]["metadata"]
    if not isinstance(members, dict) or not all(isinstance(member, dict) for member in members.values()):
        raise ValueError("its consolidated metadata are no objects")
    return members
