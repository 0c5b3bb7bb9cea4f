"""Compressed chunks of other writers: found to be too large before they are decoded, and read as they are otherwise."""

from __future__ import annotations

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import nsd_zarr
from nsd_zarr.errors import DamageFound, StoreError
from nsd_zarr.store.foreign import bounded
from nsd_zarr.store.foreign.inflation import is_oversize

CODECS = {
    "gzip": numcodecs.GZip(9),
    "zlib": numcodecs.Zlib(9),
    "bz2": numcodecs.BZ2(9),
    "lzma": numcodecs.LZMA(),
    "zstd": numcodecs.Zstd(3),
    "blosc": numcodecs.Blosc("lz4"),
    "lz4": numcodecs.LZ4(),
}


@pytest.mark.parametrize("codec", CODECS)
@given(data=st.binary(min_size=1, max_size=300), times=st.integers(1, 3000))
@settings(max_examples=20, deadline=None)
def test_size_is_what_the_decoder_makes(codec, data, times):
    chunk = bytes(CODECS[codec].encode(data * times))
    size = len(CODECS[codec].decode(chunk))
    assert not is_oversize(codec, chunk, size)
    assert is_oversize(codec, chunk, size // 2000) or size < 2000


@pytest.mark.parametrize("codec", ["gzip", "bz2", "lzma", "zstd"])
def test_sizes_of_streams_that_follow_each_other_are_added(codec):
    one = bytes(CODECS[codec].encode(bytes(3_000_000)))
    assert not is_oversize(codec, one, 3_000_000)
    assert is_oversize(codec, one + one, 3_000_000)


@pytest.mark.parametrize("codec", ["gzip", "zlib", "bz2", "zstd"])
@given(data=st.binary(max_size=60))
@settings(max_examples=50, deadline=None)
def test_what_is_no_chunk_does_not_grow(codec, data):
    assert not is_oversize(codec, data, 10**6)


def test_zstd_frame_that_hides_its_size_is_bounded_by_its_blocks():
    chunk = bytearray(CODECS["zstd"].encode(np.arange(50_000, dtype="i8").tobytes()))
    assert chunk[4] & 0x20  # A single segment, whose size takes four bytes.
    assert chunk[4] >> 6 == 2
    hidden = bytes(chunk[:4]) + bytes([chunk[4] & 0x1F, 0x70]) + bytes(chunk[9:])  # 16 MiB window instead of a size
    assert is_oversize("zstd", hidden, 300_000)
    assert not is_oversize("zstd", hidden, 2**20)


LAYOUTS = {
    "Zarr 3, gzip": {"compressors": zarr.codecs.GzipCodec(), "chunks": (1, 3, 4, 5)},
    "Zarr 3, in a shard": {"compressors": zarr.codecs.GzipCodec(), "chunks": (1, 3, 4, 5), "shards": (4, 3, 4, 5)},
    "Zarr 2, gzip": {"compressors": numcodecs.GZip(), "chunks": (1, 3, 4, 5), "zarr_format": 2},
    "Zarr 2, lz4": {"compressors": numcodecs.LZ4(), "chunks": (4, 3, 4, 5), "zarr_format": 2},
}


def make_foreign(folder, **options):
    values = np.arange(8 * 3 * 4 * 5, dtype="i2").reshape(8, 3, 4, 5)
    version = options.get("zarr_format", 3)
    names = {"dimension_names": ["trial", "z", "y", "x"]} if version == 3 else {}
    group = zarr.create_group(folder, zarr_format=version)
    options = {name: value for name, value in options.items() if name != "zarr_format"}
    array = group.create_array("betas", shape=values.shape, dtype="i2", **options, **names)
    array.attrs.update({"scale_factor": 1 / 300, "_ARRAY_DIMENSIONS": ["trial", "z", "y", "x"]})
    array[...] = values
    return values


@pytest.mark.parametrize("layout", LAYOUTS)
def test_chunks_within_bounds_are_read_and_others_refused(tmp_path, monkeypatch, layout):
    values = make_foreign(tmp_path / "s.zarr", **LAYOUTS[layout])
    ds = nsd_zarr.open_dataset(tmp_path / "s.zarr", raw=True)
    assert np.array_equal(ds.betas.values, values)
    monkeypatch.setattr(bounded, "_find_max_bytes", lambda array: 10)
    with pytest.raises(DamageFound, match="grows beyond 10 bytes"):
        nsd_zarr.open_dataset(tmp_path / "s.zarr", raw=True).betas[5].load()


def test_bomb_in_a_chunk_is_refused_without_being_decoded(tmp_path, monkeypatch):
    make_foreign(tmp_path / "s.zarr", **LAYOUTS["Zarr 3, gzip"])
    chunk = tmp_path / "s.zarr/betas/c/0/0/0/0"
    chunk.write_bytes(numcodecs.GZip(9).encode(bytes(2**29)))
    decoded = []
    monkeypatch.setattr(numcodecs.GZip, "decode", lambda self, *words: decoded.append(words))
    with pytest.raises(DamageFound, match="trial 0 cannot be read: a chunk of codec gzip grows beyond"):
        nsd_zarr.open_dataset(tmp_path / "s.zarr").betas[0].load()
    assert decoded == []


def test_array_that_is_compressed_twice_is_refused(tmp_path):
    twice = [zarr.codecs.GzipCodec(), zarr.codecs.ZstdCodec()]
    make_foreign(tmp_path / "s.zarr", compressors=twice, chunks=(1, 3, 4, 5))
    with pytest.raises(StoreError, match="betas is compressed more than once"):
        nsd_zarr.open_dataset(tmp_path / "s.zarr")
