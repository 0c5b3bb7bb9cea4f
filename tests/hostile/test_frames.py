"""Shards and Blosc frames of a stranger, every checksum right: refused, or decoded within their memory."""

from __future__ import annotations

import struct
import subprocess
import sys

import numpy as np
import pytest

from nsd_zarr.errors import DamageFound
from nsd_zarr.store.codec import BloscCodec, ChunkError, decode_chunk, decode_unchecked

SHARD = "betas/c/3/0/0/0"
VALUES = (np.arange(4 * 11 * 101, dtype="int16") % 977).reshape(4, 11, 101)


def _frame(cname="lz4", clevel=5, values=VALUES, shuffle="shuffle"):
    frame, _ = BloscCodec(cname, clevel, values.itemsize, shuffle).encode(values)
    return bytearray(frame)


def _decode(frame, seal, values=VALUES):
    """Decoded, with and without a look at the checksum, which is right."""
    chunk, both = np.frombuffer(seal(bytes(frame)), np.uint8), []
    for decode in (decode_chunk, decode_unchecked):
        out = np.full_like(values, -31_000)
        try:
            decode(chunk, out)
        except ChunkError as error:
            both.append(error)
        else:
            both.append(out)
    if any(isinstance(each, ChunkError) for each in both):
        assert str(both[0]) == str(both[1])
        raise both[0]
    assert np.array_equal(*both)
    return both[0]


# -- the index ---------------------------------------------------------------------------------------------------


def _entries(change):
    def make(entries):
        entries = entries.astype("<u8")
        change(entries)
        return entries

    return make


def _swap(entries):
    entries[[1, 2]] = entries[[2, 1]]


def _overlap(entries):
    entries[2] = entries[1]


def _leave_gap(entries):
    entries[2, 0] += 1
    entries[2, 1] -= 1


def _empty(entries):
    entries[3, 1] = 0


def _wrap(entries):
    entries[3] = 2**64 - 16, 32


def _shift(entries):
    entries[:, 0] += 8


@pytest.mark.parametrize("change", [_swap, _overlap, _leave_gap, _empty, _wrap, _shift])
def test_index_that_was_not_written_so_is_refused_for_all_its_trials(
    change, hostile, split_shard, make_shard, change_file, read_all_ways
):
    frames, entries = split_shard((hostile.path / SHARD).read_bytes())
    change_file(hostile.path, SHARD, make_shard(frames, _entries(change)(entries)))
    found = read_all_ways(hostile.path)
    assert isinstance(found["reader"], DamageFound)
    assert "index" in found["reader"].problem
    assert (found["quick"], found["verify"]) == (False, False)


def test_frames_in_another_order_are_other_values_which_readers_refuse_and_verify_names(
    hostile, split_shard, make_shard, change_file, read_all_ways
):
    """Whoever writes all checksums anew may say anything: what its source held is known by its digests alone."""
    frames, _ = split_shard((hostile.path / SHARD).read_bytes())
    change_file(hostile.path, SHARD, make_shard(frames[::-1]))
    found = read_all_ways(hostile.path)
    for face in ("xarray", "mean", "reader"):
        assert isinstance(found[face], DamageFound)
        assert "another trial, or of another version" in found[face].problem
    assert found["verify"] is False


# -- the header --------------------------------------------------------------------------------------------------

LIES = {
    "version": ("<B", 0, [0, 1, 3, 255]),
    "version of the compressor": ("<B", 1, [0, 2, 255]),
    "flags": ("<B", 2, [0xFF, 0x08, 0x02, 0x22, 0x41, 0xA1, 0xE1]),
    "typesize": ("<B", 3, [0, 1, 4, 255]),
    "decoded bytes": ("<I", 4, [0, 1, 8887, 8890, 2**31 - 1, 2**31, 2**32 - 1]),
    "block": ("<I", 8, [0, 1, 3, 101, 8889, 2**24, 2**31 - 1, 2**31, 2**32 - 2]),
    "stored bytes": ("<I", 12, [0, 15, 16, 2**31 - 1, 2**32 - 1]),
    "block start": ("<I", 16, [0, 4, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 4]),
    "length of a stream": ("<I", 20, [2**31 - 1, 2**31, 2**32 - 1]),
}


@pytest.mark.parametrize("cname", ["lz4", "zstd", "blosclz", "zlib"])
@pytest.mark.parametrize("lie", LIES)
def test_header_that_lies_is_refused_or_harmless(lie, cname, seal):
    form, place, values = LIES[lie]
    for value in values:
        frame = _frame(cname)
        struct.pack_into(form, frame, place, value)
        try:
            decoded = _decode(frame, seal)
        except ChunkError:
            continue
        # Nothing is left as it was: whatever came out was written.
        assert not (decoded == -31_000).any()


@pytest.mark.parametrize("block", [1, 3, 1001, 8887])
def test_blocks_of_a_part_of_a_value_are_refused(block, seal):
    """Blosc would leave bytes unwritten, which then show what was in memory before."""
    frame = _frame()
    struct.pack_into("<I", frame, 8, block)
    with pytest.raises(ChunkError, match=f"blocks of {block} bytes"):
        _decode(frame, seal)


def test_compressor_that_is_none_of_ours_is_refused(seal):
    frame = _frame()
    frame[2] = frame[2] & 0x1F | 2 << 5
    with pytest.raises(ChunkError, match="compressor 2, which is none that is supported"):
        _decode(frame, seal)


def test_memory_for_huge_blocks_is_not_asked_for(seal):
    values = np.zeros(2**24 + 2, "int16")
    frame = _frame(values=values)
    struct.pack_into("<I", frame, 8, values.nbytes)
    with pytest.raises(ChunkError, match=f"blocks of {values.nbytes} bytes"):
        _decode(frame, seal, values)


# Each stream's length adds 255 until it is negative; c-blosc then copies that many bytes as an unsigned number.
OVERFLOW = """
import struct, sys
import numpy as np
from google_crc32c import value as crc32c
from nsd_zarr.store import codec

body = b"\\0x" + bytes([7 << 5]) + b"\\xff" * 8_421_600 + b"\\0\\0\\0\\0"
out = np.zeros(2**23, "uint8")
header = struct.pack("<BBBBIIIII", 2, 1, 0x10, 1, out.nbytes, out.nbytes, 24 + len(body), 20, len(body))
frame = header + body
if sys.argv[1] == "unchecked":
    codec._has_long_match = lambda frame: False
try:
    codec.decode_chunk(np.frombuffer(frame + struct.pack("<I", crc32c(frame)), np.uint8), out)
except codec.ChunkError as error:
    print(error)
"""


@pytest.mark.parametrize(("how", "code"), [("checked", 0), ("unchecked", -11)])
def test_length_that_overflows_in_blosclz_is_refused_and_would_crash(how, code):
    done = subprocess.run([sys.executable, "-c", OVERFLOW, how], capture_output=True, text=True, timeout=60)
    if how == "unchecked" and done.returncode == 0:
        pytest.skip("this c-blosc does not overflow")
    assert done.returncode == code
    assert done.stdout.strip() == ("it holds a length that overflows in blosclz" if how == "checked" else "")


def test_large_frame_of_blosclz_is_not_taken_for_one_that_overflows(seal):
    values = np.random.default_rng(3).integers(-32_768, 32_767, 2**23, "int16")
    values[: 2**21] = -1
    frame = _frame("blosclz", 1, values)
    assert len(frame) > 8_421_504
    assert np.array_equal(_decode(frame, seal, values), values)
