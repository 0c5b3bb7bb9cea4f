"""One chunk: back as it was, or an error; never other values."""

from __future__ import annotations

import struct
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsd_zarr.store.codec import BloscCodec, ChunkError, decode_chunk
from nsd_zarr.store.digest import make_crc

VALUES = (np.arange(5 * 7 * 11, dtype="int16") - 190).reshape(5, 7, 11)


def _encode(values=VALUES, cname="lz4", clevel=5, **options):
    return np.frombuffer(b"".join(BloscCodec(cname, clevel, values.itemsize, **options).encode(values)), np.uint8)


@pytest.mark.parametrize("cname", ["lz4", "zstd", "lz4hc", "blosclz", "zlib"])
@pytest.mark.parametrize("clevel", [0, 1, 5, 9])
@pytest.mark.parametrize("shuffle", ["noshuffle", "shuffle", "bitshuffle"])
@pytest.mark.parametrize("dtype", ["int8", "int16", "float32", "float64"])
def test_chunk_of_each_codec_comes_back(cname, clevel, shuffle, dtype):
    values = VALUES.astype(dtype)
    out = np.empty_like(values)
    decode_chunk(_encode(values, cname, clevel, shuffle=shuffle), out)
    assert out.tobytes() == values.tobytes()


@given(st.binary(min_size=2, max_size=4000), st.sampled_from(["lz4", "zstd"]), st.sampled_from([1, 5]))
def test_chunk_of_any_bytes_comes_back(data, cname, clevel):
    values = np.frombuffer(data[: len(data) // 2 * 2], "int16")
    out = np.empty_like(values)
    decode_chunk(_encode(values, cname, clevel), out)
    assert out.tobytes() == values.tobytes()


@pytest.mark.parametrize("cname", ["lz4", "zstd"])
def test_chunk_with_any_bit_flipped_raises(cname):
    chunk, out = _encode(cname=cname), np.empty_like(VALUES)
    for position in range(chunk.size):
        for bit in range(8):
            flipped = chunk.copy()
            flipped[position] ^= 1 << bit
            with pytest.raises(ChunkError, match="crc32c does not match"):
                decode_chunk(flipped, out)


@pytest.mark.parametrize("length", [0, 1, 4, 15, 19, 20, 100])
def test_chunk_that_is_cut_short_raises(length):
    with pytest.raises(ChunkError):
        decode_chunk(_encode()[:length], np.empty_like(VALUES))


@pytest.mark.parametrize("place", [3, 4, 12], ids=["typesize", "decoded bytes", "stored bytes"])
@pytest.mark.parametrize("change", [1, -1, 100])
def test_header_that_lies_with_a_right_checksum_raises(place, change):
    frame = bytearray(_encode()[:-4].tobytes())
    if place == 3:
        frame[3] = (frame[3] + change) % 256
    else:
        struct.pack_into("<I", frame, place, struct.unpack_from("<I", frame, place)[0] + change)
    chunk = np.frombuffer(bytes(frame) + make_crc(bytes(frame)), np.uint8)
    with pytest.raises(ChunkError, match="Blosc header"):
        decode_chunk(chunk, np.empty_like(VALUES))


def test_body_that_is_damaged_with_a_right_checksum_raises():
    frame = _encode(cname="zstd")[:-4].tobytes()
    frame = frame[:20] + bytes(len(frame) - 20)
    chunk = np.frombuffer(frame + make_crc(frame), np.uint8)
    with pytest.raises(ChunkError, match="cannot decompress"):
        decode_chunk(chunk, np.empty_like(VALUES))


@pytest.mark.parametrize("out", [np.empty((5, 7, 13), "int16"), np.empty((5, 7, 11), "int32")], ids=["size", "dtype"])
def test_chunk_of_another_size_than_asked_for_raises_and_writes_nothing(out):
    out[:] = 7
    with pytest.raises(ChunkError, match="expected"):
        decode_chunk(_encode(), out)
    assert (out == 7).all()


def test_encoding_off_the_main_thread_is_deterministic():
    # Large enough that Blosc would split it among the threads of its pool.
    values = np.random.default_rng(5).integers(-300, 300, (40, 101, 103), "int16")
    codec, seen = BloscCodec("lz4", 5, 2), set()

    def encode():
        for _ in range(8):
            seen.add(codec.encode(values))

    threads = [threading.Thread(target=encode) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 1
