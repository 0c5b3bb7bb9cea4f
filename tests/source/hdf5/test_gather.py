import mmap
import os
import time
from itertools import pairwise

import numpy as np
import pytest
from builders import scale_examples
from hypothesis import given, settings
from hypothesis import strategies as st

from nsd_zarr import retry
from nsd_zarr.source.hdf5 import gather
from nsd_zarr.source.hdf5.chunk_index import ChunkIndex
from nsd_zarr.source.hdf5.gather import ShortRead, gather_trials

TRIALS, VOXELS = 7, 97


def make_rows():
    """Rows of trials, (voxel, trial), values that tell their place."""
    return (np.arange(1, VOXELS * TRIALS + 1).reshape(VOXELS, TRIALS) * 3).astype("<i2")


def create_rows(path, voxels, gaps, start=0, values=None):
    """Write the rows of *voxels* in this order, *gaps* bytes of something else before each; return their index."""
    rows, raw, offsets = make_rows() if values is None else values, bytearray(b"\xee" * start), []
    for voxel, gap in zip(voxels, gaps, strict=True):
        raw += b"\xee" * gap
        offsets.append(len(raw))
        raw += rows[voxel].tobytes()
    path.write_bytes(raw + b"\xee")
    return ChunkIndex(np.array(offsets, np.int64), np.array(voxels, np.int64), TRIALS * 2)


def run(path, index, trials, executor, check_stop=lambda: None):
    out = np.full((len(trials), VOXELS), -1, "i2")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        gather_trials(descriptor, index, trials, out, executor, check_stop)
    finally:
        os.close(descriptor)
    return out


def expect(voxels, trials, values=None):
    out = np.full((len(trials), VOXELS), -1, "i2")
    out[:, voxels] = (make_rows() if values is None else values)[voxels, trials.start : trials.stop].T
    return out


@st.composite
def rows_in_a_file(draw):
    voxels = draw(st.permutations(range(VOXELS)))[: draw(st.integers(0, VOXELS))]
    # Long runs, as in real files, or any order.
    voxels = sorted(voxels) if draw(st.booleans()) else voxels
    gaps = draw(st.lists(st.sampled_from([0, 0, 0, 1, 7, 300]), min_size=len(voxels), max_size=len(voxels)))
    first = draw(st.integers(0, TRIALS - 1))
    return voxels, gaps, range(first, draw(st.integers(first + 1, TRIALS)))


@settings(max_examples=scale_examples(80), deadline=None)
@given(
    rows=rows_in_a_file(),
    tile=st.sampled_from([1, 14, 15, 100, 333, 10**6]),
    per_task=st.sampled_from([1, 5, 96, 97, 1000]),
)
def test_any_rows_in_any_order_with_any_tile_come_to_their_place_and_each_byte_is_read_once(
    tmp_path_factory, executor, rows, tile, per_task
):
    voxels, gaps, trials = rows
    path = tmp_path_factory.getbasetemp() / "rows.raw"
    index = create_rows(path, voxels, gaps, start=3)
    spans, taken = [], []

    def preadv(descriptor, buffers, offset, real=os.preadv):
        count = real(descriptor, buffers, offset)
        spans.append((offset, offset + count))
        # Every other buffer takes what lies between rows.
        taken.append(sum(map(len, buffers[::2])))
        return count

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gather, "TILE_BYTES", tile)
        patch.setattr(gather, "ROWS_PER_TASK", per_task)
        patch.setattr(os, "preadv", preadv)
        assert np.array_equal(run(path, index, trials, executor), expect(voxels, trials))
    spans.sort()
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert sum(end - start for start, end in spans) <= path.stat().st_size
    # No read takes more rows than a tile has, or than one where that is more.
    assert all(count <= max(tile, index.row_bytes) for count in taken)


@settings(max_examples=scale_examples(60), deadline=None)
@given(
    rows=rows_in_a_file(),
    outside=st.tuples(st.integers(0, VOXELS), st.integers(0, VOXELS)).map(sorted),
    last=st.sampled_from([0, 1, 256]),
    tile=st.sampled_from([1, 14, 100, 333, 10**6]),
    per_task=st.sampled_from([5, 96, 1000]),
)
def test_tiles_that_are_zero_in_every_trial_are_read_once_and_not_handed_on(
    tmp_path_factory, executor, rows, outside, last, tile, per_task
):
    voxels, gaps, trials = rows
    path, values, spans = tmp_path_factory.getbasetemp() / "zero.raw", make_rows(), []
    values[slice(*outside)] = 0
    if outside[0] < outside[1]:
        values[outside[1] - 1, TRIALS - 1] = last  # The last value of all may be another, in either of its bytes.
    index = create_rows(path, voxels, gaps, values=values)
    zero = [voxel for voxel in voxels if not values[voxel].any()]

    def preadv(descriptor, buffers, offset, real=os.preadv):
        spans.append(sum(map(len, buffers[::2])))
        return real(descriptor, buffers, offset)

    def read(empty):
        spans.clear()
        handed, out = {}, np.full((len(trials), VOXELS), -1, "i2")
        with open(path, "rb") as file:
            gather_trials(
                file.fileno(),
                index,
                trials,
                out,
                executor,
                lambda: None,
                lambda part, place: handed.update(zip(range(place.start, place.stop), part.copy(), strict=True)),
                empty=empty,
            )
        assert np.array_equal(out, expect(voxels, trials, values))
        assert set(voxels) - set(zero) <= set(handed)
        assert all(np.array_equal(values[voxel], row) for voxel, row in handed.items())
        return sum(spans), handed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gather, "TILE_BYTES", tile)
        patch.setattr(gather, "ROWS_PER_TASK", per_task)
        patch.setattr(os, "preadv", preadv)
        empty = set()
        whole, handed = read(empty)
        rest, again = read(empty)
    assert set(handed) == set(again)
    assert whole == len(voxels) * index.row_bytes
    assert rest == len(handed) * index.row_bytes
    if tile == 1:  # A row is a tile.
        assert set(handed) == set(voxels) - set(zero)


def test_reads_that_stop_short_go_on_where_they_stopped(tmp_path, executor, monkeypatch):
    index = create_rows(tmp_path / "rows.raw", list(range(VOXELS)), [0] * VOXELS)
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda descriptor, buffers, offset: real(descriptor, [buffers[0][:11]], offset))
    out = run(tmp_path / "rows.raw", index, range(TRIALS), executor)
    assert np.array_equal(out, expect(list(range(VOXELS)), range(TRIALS)))


def test_file_that_ends_inside_a_row_is_an_error(tmp_path, executor):
    path = tmp_path / "rows.raw"
    index = create_rows(path, list(range(VOXELS)), [0] * VOXELS)
    os.truncate(path, int(index.offsets[-1]) + index.row_bytes - 1)
    with pytest.raises(ShortRead, match="ends at byte 1357"):
        run(path, index, range(TRIALS), executor)


def test_no_memory_map_is_made(tmp_path, executor, monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("a memory map")

    path = tmp_path / "rows.raw"
    index = create_rows(path, list(range(VOXELS)), [0] * VOXELS)
    monkeypatch.setattr(mmap, "mmap", refuse)
    monkeypatch.setattr(np, "memmap", refuse)
    maps = []

    def check_stop():
        with open("/proc/self/maps") as file:
            maps.append(path.name in file.read())

    run(path, index, range(TRIALS), executor, check_stop)
    assert maps == [False]


def test_stop_is_looked_for_in_every_task(tmp_path, executor, monkeypatch):
    monkeypatch.setattr(gather, "ROWS_PER_TASK", 10)
    index = create_rows(tmp_path / "rows.raw", list(range(VOXELS)), [0] * VOXELS)
    looks = []
    run(tmp_path / "rows.raw", index, range(TRIALS), executor, lambda: looks.append(1))
    assert len(looks) == 10


@pytest.mark.parametrize("cause", ["stop", "device"])
def test_after_an_error_no_task_goes_on_writing(tmp_path, executor, monkeypatch, cause):
    class Stopped(Exception):
        pass

    monkeypatch.setattr(gather, "ROWS_PER_TASK", 5)
    monkeypatch.setattr(retry, "PAUSES", ())
    path = tmp_path / "rows.raw"
    index = create_rows(path, list(range(VOXELS)), [0] * VOXELS)
    looks, reading, real = [], [], os.preadv

    def check_stop():
        looks.append(1)
        if cause == "stop" and len(looks) == 3:
            raise Stopped

    def preadv(descriptor, buffers, offset):
        if cause == "device" and offset == index.offsets[10]:
            raise OSError(5, "Input/output error")
        reading.append(offset)
        time.sleep(0.03)
        count = real(descriptor, buffers, offset)
        reading.remove(offset)
        return count

    monkeypatch.setattr(os, "preadv", preadv)
    out = np.full((TRIALS, VOXELS), -1, "i2")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(Stopped if cause == "stop" else OSError):
            gather_trials(descriptor, index, range(TRIALS), out, executor, check_stop)
        assert reading == []
        before, tasks = out.copy(), len(looks)
        time.sleep(0.1)
    finally:
        os.close(descriptor)
    assert np.array_equal(out, before)
    assert len(looks) == tasks < 20
