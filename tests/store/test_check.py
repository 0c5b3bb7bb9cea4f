"""What a root document may say: all that this package writes, and nothing else (tests/hostile has the rest)."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nsd_zarr.layout import Geometry
from nsd_zarr.store.check import check_manifest, check_members, find_max_bytes, make_geometry
from nsd_zarr.store.codec import BloscCodec
from nsd_zarr.store.format import encode_json, encode_small, make_betas_metadata, make_small_metadata
from nsd_zarr.store.meta import parse_array

GEOMETRY = Geometry((1, 2, 4), 6, 3, (5, 7, 11), "int16")


def _make(geometry=GEOMETRY, cname="lz4", **members):
    """Attributes and members as they come back from their file."""
    betas = make_betas_metadata(geometry, BloscCodec(cname, 5, np.dtype(geometry.dtype).itemsize))
    settings = {"sessions": list(geometry.sessions), "trials_per_shard": geometry.trials_per_shard}
    attributes = {"settings": settings | {"codec": cname, "clevel": 5}}
    return json.loads(encode_json([attributes, {"betas": betas} | members]))


@pytest.mark.parametrize("cname", ["lz4", "zstd", "blosclz", "lz4hc", "zlib"])
@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "float32", "float64"])
@pytest.mark.parametrize("volume", [(5, 7, 11), (23,)], ids=str)
def test_geometry_comes_back_for_all_that_can_be_stored(volume, dtype, cname):
    geometry = Geometry((1, 2, 4), 6, 3, volume, dtype)
    attributes, members = _make(geometry, cname)
    assert make_geometry(attributes, members) == geometry
    check_members(members, geometry)


@pytest.mark.parametrize(
    ("values", "dims"),
    [
        (np.zeros(18, "int16"), ("trial",)),
        (np.zeros(18, "bool"), ("trial",)),
        (np.zeros(18, "float64"), ("trial",)),
        (np.zeros((3, 5, 7, 11), "float32"), ("session_number", "z", "y", "x")),
        (np.zeros((4, 4)), ("ras", "ijk1")),
        (np.array(["a"] * 18), ("trial",)),
    ],
    ids=str,
)
def test_small_arrays_of_all_kinds_pass_and_their_files_are_within_the_bound(values, dims):
    small = make_small_metadata(values, dims, {"long_name": "something"})
    _, members = _make(small=small)
    check_members(members, GEOMETRY)
    assert len(encode_small(values)) <= find_max_bytes(parse_array(members["small"]))
    manifest = {"small/c/0": [len(encode_small(values)), "0" * 32], "betas/c/0/0/0/0": [9, "0" * 32, "1" * 32]}
    check_manifest(manifest, {name: parse_array(each) for name, each in members.items()}, GEOMETRY)


def test_compressed_volumes_of_one_session_a_chunk_pass():
    small = make_small_metadata(np.zeros((3, 5, 7, 11), "float32"), ("session_number", "z", "y", "x"), {})
    small["chunk_grid"]["configuration"]["chunk_shape"][0] = 1
    blosc = {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": 4, "blocksize": 0}
    small["codecs"].insert(1, {"name": "blosc", "configuration": blosc})
    _, members = _make(small=small)
    check_members(members, GEOMETRY)
    assert find_max_bytes(parse_array(members["small"])) == 4 * 385 + 16 + 4


def test_array_along_trial_of_another_length_is_refused():
    _, members = _make(small=make_small_metadata(np.zeros(17, "int16"), ("trial",), {}))
    with pytest.raises(ValueError, match="small has 17 along 'trial', others 18"):
        check_members(members, GEOMETRY)
