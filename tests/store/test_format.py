"""The bytes of a store, held against zarr-python's own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import BloscCodec as ZarrBlosc
from zarr.codecs import Crc32cCodec

from nsd_zarr.layout import Geometry
from nsd_zarr.store.codec import BloscCodec
from nsd_zarr.store.digest import make_crc
from nsd_zarr.store.format import (
    decode_root_metadata,
    decode_small,
    encode_json,
    encode_small,
    make_betas_metadata,
    make_chunk_key,
    make_root_metadata,
    make_shard_key,
    make_small_metadata,
)
from nsd_zarr.store.index import ABSENT, decode_shard_index, encode_shard_index, shard_index_bytes
from nsd_zarr.store.meta import parse_array

# -- metadata ----------------------------------------------------------------------------------------------------


def _normalise(document):
    """A zarr.json without what the specification lets a writer leave out."""
    if isinstance(document, dict):
        kept = {
            key: _normalise(value) for key, value in document.items() if key not in ("attributes", "must_understand")
        }
        return {key: value for key, value in kept.items() if not (key == "configuration" and value == {})}
    return [_normalise(value) for value in document] if isinstance(document, list) else document


def _same_as_zarr(ours, path):
    theirs = json.loads((path / "zarr.json").read_bytes())
    assert theirs.pop("storage_transformers", []) == []
    return _normalise(json.loads(encode_json(ours))) == _normalise(theirs)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint32", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("volume", [(5, 7, 11), (131,)], ids=["volumes", "surfaces"])
def test_betas_metadata_are_those_that_zarr_writes(dtype, volume, tmp_path):
    geometry = Geometry((1, 3), 6, 2, volume, dtype)
    size = np.dtype(dtype).itemsize
    zarr.create_array(
        tmp_path / "betas",
        shape=(12, *volume),
        shards=(2, *volume),
        chunks=(1, *volume),
        dtype=dtype,
        compressors=[ZarrBlosc(typesize=size, cname="zstd", clevel=3, shuffle="shuffle"), Crc32cCodec()],
        fill_value=0,
        dimension_names=("trial", "z", "y", "x") if len(volume) == 3 else ("trial", "vertex"),
    )
    assert _same_as_zarr(make_betas_metadata(geometry, BloscCodec("zstd", 3, size)), tmp_path / "betas")


SMALL = {
    "int16": np.array([1, 1, 3, 5], "int16"),
    "float32": np.array([[1.5, np.nan, -0.0], [np.inf, 2, 3]], "float32"),
    "bool": np.array([True, False, True]),
    "uint8": np.array([7, 255], "uint8"),
    "int64": np.array([2**40, -1]),
    "text": np.array(["5e77", "", "äöü", "a longer one"]),
}


@pytest.mark.parametrize("name", SMALL)
def test_small_array_is_the_one_that_zarr_writes(name, tmp_path):
    values = SMALL[name]
    dims = ("trial", "z")[: values.ndim]
    theirs = values.astype(np.dtypes.StringDType()) if name == "text" else values
    zarr.create_array(
        tmp_path / "small", data=theirs, chunks=values.shape, compressors=[Crc32cCodec()], dimension_names=dims
    )
    assert _same_as_zarr(make_small_metadata(values, dims, {}), tmp_path / "small")
    chunk = tmp_path / make_chunk_key("small", tuple(0 for _ in values.shape))
    assert encode_small(values) == chunk.read_bytes()


@pytest.mark.parametrize("name", SMALL)
def test_small_array_written_by_us_is_read_by_zarr_and_by_us(name, tmp_path):
    values = SMALL[name]
    metadata = make_small_metadata(values, ("trial", "z")[: values.ndim], {"long_name": "something"})
    chunk = tmp_path / make_chunk_key("small", tuple(0 for _ in values.shape))
    chunk.parent.mkdir(parents=True)
    chunk.write_bytes(encode_small(values))
    (tmp_path / "small" / "zarr.json").write_bytes(encode_json(metadata))
    array = zarr.open_array(tmp_path / "small", mode="r")
    read = array[...]
    assert read.tolist() == values.tolist() if name == "text" else read.tobytes() == values.tobytes()
    assert array.attrs["long_name"] == "something"
    ours = decode_small(chunk.read_bytes(), parse_array(json.loads(encode_json(metadata))))
    assert ours.dtype.kind == values.dtype.kind
    assert ours.tobytes() == values.tobytes()


@pytest.mark.parametrize("name", SMALL)
def test_small_array_with_any_bit_flipped_raises(name):
    data, metadata = encode_small(SMALL[name]), make_small_metadata(SMALL[name], ("trial", "z"), {})
    for position in range(len(data)):
        flipped = data[:position] + bytes([data[position] ^ 1 << position % 8]) + data[position + 1 :]
        with pytest.raises(ValueError, match="crc32c does not match"):
            decode_small(flipped, parse_array(metadata))


def test_small_array_of_another_length_raises():
    metadata = make_small_metadata(np.zeros(3, "int16"), ("trial",), {})
    with pytest.raises(ValueError, match="it holds 8 bytes, expected 6"):
        decode_small(encode_small(np.zeros(4, "int16")), parse_array(metadata))


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9), min_size=1))
def test_texts_come_back(texts):
    values = np.array(texts, np.str_)
    assert (
        decode_small(encode_small(values), parse_array(make_small_metadata(values, ("trial",), {}))).tolist() == texts
    )


def test_keys_are_zarrs_default():
    assert make_shard_key(Geometry((1, 2), 6, 2, (5, 7, 11), "int16"), 4) == "betas/c/4/0/0/0"
    assert make_shard_key(Geometry((1, 2), 6, 2, (131,), "int16"), 0) == "betas/c/0/0"


# -- the shard index ---------------------------------------------------------------------------------------------

lengths = st.lists(st.integers(0, 2**31), min_size=1, max_size=60)


@given(lengths)
def test_shard_index_comes_back_as_chunks_one_behind_the_other(lengths):
    data, size = encode_shard_index(lengths), sum(lengths) + shard_index_bytes(len(lengths))
    assert len(data) == shard_index_bytes(len(lengths))
    entries = decode_shard_index(data, len(lengths), size)
    assert entries[:, 1].tolist() == lengths
    assert entries[:, 0].tolist() == [sum(lengths[:number]) for number in range(len(lengths))]
    assert entries.dtype == np.int64


@given(lengths, st.integers(0), st.integers(0, 7))
def test_shard_index_with_a_bit_flipped_raises(lengths, position, bit):
    data = bytearray(encode_shard_index(lengths))
    data[position % len(data)] ^= 1 << bit
    with pytest.raises(ValueError, match="crc32c"):
        decode_shard_index(bytes(data), len(lengths), sum(lengths) + len(data))


@given(st.lists(st.integers(1, 2**31), min_size=1, max_size=60), st.integers(1, 10))
def test_shard_index_of_a_file_that_is_too_short_raises(lengths, missing):
    data, missing = encode_shard_index(lengths), min(missing, sum(lengths))
    with pytest.raises(ValueError, match="points outside the file"):
        decode_shard_index(data, len(lengths), sum(lengths) + len(data) - missing)


def _make_index(entries):
    body = np.array(entries, "<u8").tobytes()
    return body + make_crc(body)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ((ABSENT, ABSENT), "chunk 1 was never written"),
        ((ABSENT, 5), "chunk 1 was never written"),
        ((101, 0), "points outside"),
        ((0, 101), "points outside"),
        ((100, 1), "points outside"),
        ((2**64 - 2, 3), "points outside"),
        ((2**63, 2**63), "points outside"),
    ],
    ids=str,
)
def test_hostile_entry_of_a_shard_index_raises(entry, message):
    data = _make_index([(0, 100), entry])
    with pytest.raises(ValueError, match=message):
        decode_shard_index(data, 2, 100 + len(data))


def test_shard_index_of_a_shard_that_is_not_full_says_which_chunks_are_absent():
    data = encode_shard_index([5, 7], slots=4)
    assert np.frombuffer(data[:-4], "<u8").reshape(4, 2).tolist() == [[0, 5], [5, 7], [ABSENT] * 2, [ABSENT] * 2]
    assert decode_shard_index(data, 2, 12 + len(data), slots=4).tolist() == [[0, 5], [5, 7]]
    with pytest.raises(ValueError, match="chunk 2 was never written"):
        decode_shard_index(data, 3, 12 + len(data), slots=4)
    with pytest.raises(ValueError, match="beyond the array"):
        decode_shard_index(data, 1, 12 + len(data), slots=4)


def test_shard_index_of_another_number_of_trials_raises():
    with pytest.raises(ValueError, match="crc32c"):
        decode_shard_index(encode_shard_index([5, 5, 5]), 2, 100)


# -- the root document -------------------------------------------------------------------------------------------


def test_root_document_is_sealed_against_every_bit():
    data = make_root_metadata(
        {"format": "nsd_zarr", "title": "ü", "settings": {"clevel": 5}}, {"betas": {"shape": [1]}}
    )
    assert decode_root_metadata(data)["settings"] == {"clevel": 5}
    for position in range(len(data)):
        flipped = data[:position] + bytes([data[position] ^ 1 << position % 8]) + data[position + 1 :]
        with pytest.raises(ValueError, match=r"."):
            decode_root_metadata(flipped)


def test_root_document_is_the_same_for_the_same_content():
    attributes = {"a": 1, "checksum": "old"}
    assert make_root_metadata(attributes, {}) == make_root_metadata(dict(attributes), {})
    assert decode_root_metadata(make_root_metadata(attributes, {}))["checksum"] != "old"


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"attributes": 3}', b"\xff", b"[" * 100_000], ids=repr)
def test_root_document_that_is_none_raises(data):
    with pytest.raises(ValueError, match=r"no zarr.json|no object"):
        decode_root_metadata(data)
