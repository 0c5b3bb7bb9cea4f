"""What a root document may say. A right checksum proves integrity, not that what it says is possible.

Everything that readers compute with is held against what this package writes, so that absurd shapes, unknown codecs
and names outside the store's folder are refused before memory is taken or a file is opened.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np

from nsd_zarr.image_sets import NSD
from nsd_zarr.layout import DTYPE_BYTES, IMAGES, MAX_TRIALS, TRIALS, Geometry, SessionNumber, make_image_geometry
from nsd_zarr.store.codec import IMAGE_SHUFFLE, MAX_FRAME_BYTES, SHUFFLES, BloscCodec, overhead_bytes
from nsd_zarr.store.format import (
    BETAS,
    FORMATS,
    ID_ARRAYS,
    METADATA_NAME,
    TEXT_LENGTH,
    Json,
    make_betas_metadata,
    make_images_metadata,
    make_small_metadata,
)
from nsd_zarr.store.index import shard_index_bytes
from nsd_zarr.store.meta import ArrayMeta

MAX_ROOT_BYTES = 16 * 2**20
"""A larger root document is refused unread: parsed JSON takes up to 25 times its bytes. 30,000 trials in shards of one
trial, the most files that anybody has a use for, make 3 MB."""
MAX_SESSION = 9999
"""The largest session number that --sessions takes."""
CODECS = ("blosclz", "lz4", "lz4hc", "zlib", "zstd")
"""Compressors inside Blosc that a store may name."""
_KEY = re.compile(r"zarr\.json|c(?:/(?:0|[1-9][0-9]{0,8}))*")
_DIGEST = re.compile(r"[0-9a-f]{32}")


def make_geometry(attributes: Json, members: dict[str, Json]) -> Geometry:
    """How sessions, trials and shards lie, from settings and the metadata of `betas` or `images`, which must agree.

    Raises ValueError, KeyError or TypeError where they cannot be what this package wrote.
    """
    if attributes.get("format") == FORMATS[IMAGES]:
        return _make_image_geometry(attributes["settings"], members[IMAGES.array])
    settings, betas = attributes["settings"], members[BETAS]
    sessions = settings["sessions"]
    _require(_are_counts(sessions, MAX_SESSION) and sessions == sorted(set(sessions)), "its sessions are not ascending")
    shape = betas["shape"]
    _require(_are_counts(shape, 2**31) and len(shape) in (2, 4), f"betas have shape {_show(shape)}")
    _require(betas["data_type"] in DTYPE_BYTES, f"betas have data type {_show(betas['data_type'])}")
    trials, left = divmod(shape[0], len(sessions))
    _require(not left and trials > 0 and shape[0] <= MAX_TRIALS, f"{shape[0]} trials are not {len(sessions)} sessions'")
    _require(_are_counts([settings["trials_per_shard"]], trials), "its trials per shard are none")
    geometry = Geometry(
        sessions=tuple(SessionNumber(number) for number in sessions),
        trials_per_session=trials,
        trials_per_shard=settings["trials_per_shard"],
        volume_shape=tuple(shape[1:]),
        dtype=betas["data_type"],
        vertices=_read_vertices(settings, shape),
    )
    _require(geometry.trial_bytes <= MAX_FRAME_BYTES, f"one trial of shape {_show(shape[1:])} fits no Blosc frame")
    _check_betas(betas, geometry, settings)
    return geometry


def _read_vertices(settings: Json, shape: list[int]) -> tuple[int, int] | None:
    """Vertices of both hemispheres, where the settings of a surface say them. Raises ValueError."""
    vertices = settings.get("vertices")
    if vertices is None:
        return None
    are_counts = isinstance(vertices, list) and len(vertices) == 2 and all(type(n) is int and n >= 0 for n in vertices)
    _require(are_counts and shape[1:] == [sum(vertices)], f"its hemispheres have {_show(vertices)} vertices")
    return vertices[0], vertices[1]


def _make_image_geometry(settings: Json, images: Json) -> Geometry:
    shape, per_shard = images["shape"], settings["images_per_shard"]
    _require(_are_counts(shape, 2**31) and len(shape) == 4, f"images have shape {_show(shape)}")
    _require(shape[0] <= MAX_TRIALS and _are_counts([per_shard], shape[0]), "its images per shard are none")
    experiment = settings.get("experiment", NSD)
    _require(experiment in (*ID_ARRAYS,), f"its images are of {_show(experiment)}")
    _require(type(settings.get("subject", 1)) is int, "its subject is no number")
    geometry = make_image_geometry(tuple(shape), per_shard)
    _require(geometry.trial_bytes <= MAX_FRAME_BYTES, f"one image of shape {_show(shape[1:])} fits no Blosc frame")
    expected = make_images_metadata(geometry, _make_codec(settings, 1, IMAGE_SHUFFLE))
    _require(_is_alike(images, expected), "the metadata of images are not those that its settings make")
    return geometry


def _make_codec(settings: Json, typesize: int, shuffle: str = "shuffle") -> BloscCodec:
    _require(settings["codec"] in CODECS, f"its codec is {_show(settings['codec'])}")
    _require(settings["clevel"] in range(10), f"its compression level is {_show(settings['clevel'])}")
    return BloscCodec(settings["codec"], settings["clevel"], typesize, shuffle)


def _check_betas(betas: Json, geometry: Geometry, settings: Json) -> None:
    codec = _make_codec(settings, DTYPE_BYTES[geometry.dtype])
    expected = make_betas_metadata(geometry, codec)
    _require(_is_alike(betas, expected), "the metadata of betas are not those that its settings make")
    scales = (betas["attributes"].get("scale_factor"), expected["attributes"].get("scale_factor"))
    _require(scales[0] == scales[1], f"the scale factor of betas is {_show(scales[0])}")
    _require(isinstance(betas["attributes"].get("coordinates", ""), str), "the coordinates of betas are no text")


def check_members(members: dict[str, Json], geometry: Geometry) -> None:
    """Refuse arrays with impossible names, or with other metadata than this package writes. Raises ValueError, ..."""
    array = geometry.kind.array
    sizes = dict(zip(members[array]["dimension_names"], geometry.shape, strict=True))
    sizes["session_number"] = len(geometry.sessions)
    for name, metadata in members.items():
        _require(is_array_name(name), f"{_show(name)} is no name of an array")
        if name != array:
            _check_small(name, metadata, sizes)


def _check_small(name: str, metadata: Json, sizes: dict[str, int]) -> None:
    shape, dims, kind = metadata["shape"], metadata["dimension_names"], metadata["data_type"]
    _require(_are_counts(shape, 2**31) and len(shape) <= 4, f"{name} has shape {_show(shape)}")
    _require(kind in ("bool", "string", *DTYPE_BYTES), f"{name} has data type {_show(kind)}")
    _require(isinstance(dims, list) and all(isinstance(dim, str) for dim in dims), f"{name} has no dimensions")
    _require(len(set(dims)) == len(dims) == len(shape), f"{name} has dimensions {_show(dims)} for {len(shape)} axes")
    for dim, length in zip(dims, shape, strict=True):
        _require(
            sizes.setdefault(dim, length) == length, f"{name} has {length} along {_show(dim)}, others {sizes[dim]}"
        )
    # Of the right shape and dtype, and without memory of its own.
    model = np.broadcast_to(np.zeros((), "U1" if kind == "string" else kind), shape)
    expected = make_small_metadata(model, tuple(dims), {})
    if metadata["codecs"] != expected["codecs"]:
        expected["codecs"].insert(1, _blosc_of(metadata["codecs"]))
    expected["chunk_grid"]["configuration"]["chunk_shape"][:1] = _rows_of(metadata)
    _require(_is_alike(metadata, expected), f"the metadata of {name} are not of a kind that this package writes")


def _blosc_of(codecs: list[Json]) -> Json:
    """The Blosc codec in the middle of three, when it is one that can be decoded."""
    blosc = codecs[1]["configuration"]
    _require(blosc["cname"] in CODECS and blosc["shuffle"] in SHUFFLES, "a codec is unknown")
    return {"name": "blosc", "configuration": blosc}


def _rows_of(metadata: Json) -> list[int]:
    """Rows in a chunk: all, or some along the first axis."""
    rows: list[int] = metadata["chunk_grid"]["configuration"]["chunk_shape"][:1]
    _require(_are_counts(rows, 2**31) and rows <= metadata["shape"][:1], f"chunks of {_show(rows)} rows")
    return rows


def find_max_bytes(metadata: ArrayMeta) -> int:
    """The largest file that one chunk of an array beside betas can be: bounded before it is read."""
    # UTF-8 takes up to four bytes a character, beside its length.
    itemsize = 4 + 4 * TEXT_LENGTH if metadata.is_text else np.dtype(metadata.dtype).itemsize
    return int(math.prod(metadata.chunk_shape) * itemsize + overhead_bytes())


def check_manifest(manifest: dict[str, list[Any]], members: dict[str, ArrayMeta], geometry: Geometry) -> None:
    """Refuse a manifest that names what is no file of an array of the store, or one larger than it can be.

    Raises ValueError or TypeError.
    """
    array = geometry.kind.array
    most = {name: find_max_bytes(metadata) for name, metadata in members.items() if name != array}
    most[array] = (geometry.trial_bytes + overhead_bytes()) * geometry.trials_per_shard
    most[array] += shard_index_bytes(geometry.trials_per_shard)
    for key, record in manifest.items():
        name, _, rest = key.partition("/")
        _require(name in most and _KEY.fullmatch(rest) is not None, f"its manifest names {_show(key)}")
        size, *digests = record
        limit = MAX_ROOT_BYTES if rest == METADATA_NAME else most[name]
        _require(type(size) is int and 0 <= size <= limit, f"its manifest gives {_show(size)} bytes for {key}")
        _require(
            len(digests) in (1, 2) and all(_DIGEST.fullmatch(digest) for digest in digests),
            f"its manifest gives no digest for {key}",
        )


def check_attributes(attributes: Json) -> None:
    """Refuse sources and libraries of another form than ours. Raises ValueError, KeyError or TypeError."""
    _require(isinstance(attributes["status"], str), "its status is no text")
    _require(isinstance(attributes["settings"]["dataset"], str), "its dataset is no name")
    _require(type(attributes.get("format_minor", 0)) is int, "its minor version is no number")
    for name in ("notes", "experiment_notes"):
        _require(_are_texts(attributes.get(name, [])), f"its {name} are no texts")
    libraries, sources = attributes["libraries"], attributes.get("sources", [])
    _require(isinstance(libraries, dict) and all(isinstance(text, str) for text in libraries.values()), "its libraries")
    kind = IMAGES if attributes.get("format") == FORMATS[IMAGES] else TRIALS
    kinds = {kind.part: int, "name": str, "size": int, "digest": str}
    for source in sources:
        _require(all(type(source[name]) is kind for name, kind in kinds.items()), f"a source is {_show(source)}")
        _require(_is_affine(source.get("affine")), f"an affine is {_show(source.get('affine'))}")


def _is_affine(rows: Any) -> bool:
    """Whether *rows* are four of four numbers; None, for no affine, passes."""
    return rows is None or (
        isinstance(rows, list)
        and [isinstance(row, list) and [type(value) for value in row] for row in rows] == [[float] * 4] * 4
    )


def is_array_name(name: str) -> bool:
    """Whether an array can have this name: one plain step of a path on any system, not up, absolute or hidden."""
    return name.isprintable() and not name.startswith(".") and not set(name) & set("/\\") and 0 < len(name) < 200


def _is_alike(found: Json, expected: Json) -> bool:
    """Equal but for attributes, which must be an object. As text: true is not 1 there, nor 1.0."""
    texts = [json.dumps(document | {"attributes": None}, sort_keys=True) for document in (found, expected)]
    return isinstance(found["attributes"], dict) and texts[0] == texts[1]


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(text, str) for text in values)


def _are_counts(values: Any, most: int) -> bool:
    """Whether *values* is a list of whole numbers, 1 to *most* each; True and 1.0 are none."""
    return isinstance(values, list) and bool(values) and all(type(n) is int and 1 <= n <= most for n in values)


def _show(value: Any) -> str:
    """*value* as it was found, kept short."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(problem)
