import contextlib
import math
import os
import pickle
from itertools import product

import h5py
import numpy as np
import pytest
from builders import scale_examples
from hypothesis import given, settings
from hypothesis import strategies as st

from nsd_zarr.errors import SourceError
from nsd_zarr.layout import SessionNumber
from nsd_zarr.source.find import SessionFile
from nsd_zarr.source.hdf5 import reader as reader_module
from nsd_zarr.source.hdf5.chunk_index import ChunkIndex
from nsd_zarr.source.hdf5.reader import read_by_h5py
from nsd_zarr.source.protocol import check_unchanged
from nsd_zarr.source.session import inspect_session

RANGES = [range(6), range(1), range(5, 6), range(2, 5), range(1, 6)]
BY_OFFSET, BY_LIBRARY = True, False
LAYOUTS = {
    "the_dataset_s_own": ({}, BY_OFFSET),
    "chunks_in_random_order": ({"order": "random"}, BY_OFFSET),
    "chunks_in_reverse_order": ({"order": "reverse"}, BY_OFFSET),
    "some_chunks_missing": ({"missing": 0.4}, BY_OFFSET),
    "some_chunks_missing_fill_77": ({"missing": 0.4, "fillvalue": -77, "order": "random"}, BY_OFFSET),
    "some_chunks_missing_never_filled": ({"missing": 0.4, "fill_time": "never"}, BY_OFFSET),
    "some_chunks_missing_fill_77_never_filled": (
        {"missing": 0.4, "fillvalue": -77, "fill_time": "never"},
        BY_LIBRARY,
    ),
    "all_chunks_missing": ({"missing": "all"}, BY_OFFSET),
    "all_chunks_missing_fill_77": ({"missing": "all", "fillvalue": -77}, BY_OFFSET),
    "user_block": ({"userblock": 512}, BY_OFFSET),
    "large_user_block_missing_chunks": ({"userblock": 8192, "missing": 0.3, "fillvalue": 5}, BY_OFFSET),
    "odd_byte_offsets": ({"odd": True}, BY_OFFSET),
    "latest_format": ({"libver": "latest"}, BY_LIBRARY),
    "version_1_10_format": ({"libver": ("v110", "v110")}, BY_LIBRARY),
    "big_endian": ({"dtype": ">i2"}, BY_LIBRARY),
    "twelve_bits_in_sixteen": ({"precision": 12}, BY_LIBRARY),
    "gzip": ({"filters": {"compression": "gzip"}}, BY_LIBRARY),
    "lzf": ({"filters": {"compression": "lzf"}}, BY_LIBRARY),
    "shuffle": ({"filters": {"shuffle": True}}, BY_LIBRARY),
    "fletcher32": ({"filters": {"fletcher32": True}}, BY_LIBRARY),
    "scaleoffset": ({"filters": {"scaleoffset": 0}}, BY_LIBRARY),
    "gzip_shuffle_fletcher32": (
        {"filters": {"compression": "gzip", "shuffle": True, "fletcher32": True}, "chunks": (1, 5, 7, 3)},
        BY_LIBRARY,
    ),
    "filter_mask_differs_per_chunk": ({"filters": {"compression": "gzip"}, "unfiltered_chunks": True}, BY_LIBRARY),
    "contiguous": ({"layout": "contiguous"}, BY_LIBRARY),
    "compact": ({"layout": "compact"}, BY_LIBRARY),
    "one_trial_a_chunk": ({"chunks": (1, 5, 7, 3)}, BY_LIBRARY),
    "chunks_over_the_edge": ({"chunks": (4, 2, 3, 2)}, BY_LIBRARY),
    "chunks_over_the_edge_missing": ({"chunks": (4, 2, 3, 2), "missing": 0.5, "fillvalue": 9}, BY_LIBRARY),
    "extendible_everywhere": ({"maxshape": (None,) * 4}, BY_OFFSET),
    "extendible_everywhere_over_the_edge": ({"maxshape": (None,) * 4, "chunks": (4, 2, 3, 2)}, BY_LIBRARY),
    "extendible_trials_in_whole_rows": ({"maxshape": (None, 5, 7, 3), "missing": 0.2}, BY_OFFSET),
    "extendible_trials_in_rows_too_long": ({"maxshape": (None, 5, 7, 3), "chunks": (8, 1, 1, 1)}, BY_LIBRARY),
    "virtual_parts_beside": ({"layout": "virtual"}, BY_LIBRARY),
    "virtual_parts_inside": ({"layout": "virtual_inside"}, BY_LIBRARY),
    "external_storage_beside": ({"layout": "external"}, BY_LIBRARY),
    "external_storage_beside_unlimited": ({"layout": "external_unlimited"}, BY_LIBRARY),
    "float32_with_nan": ({"dtype": "<f4", "nan": True}, BY_OFFSET),
    "float32_with_nan_gzip": ({"dtype": "<f4", "nan": True, "filters": {"compression": "gzip"}}, BY_LIBRARY),
    "float32_missing_is_nan": ({"dtype": "<f4", "missing": 0.4, "fillvalue": np.nan}, BY_OFFSET),
    "float32_big_endian": ({"dtype": ">f4", "nan": True}, BY_LIBRARY),
    "float64": ({"dtype": "<f8", "order": "random"}, BY_OFFSET),
    "float16": ({"dtype": "<f2"}, BY_OFFSET),
    "int8": ({"dtype": "i1"}, BY_OFFSET),
    "uint8": ({"dtype": "u1"}, BY_OFFSET),
    "uint16": ({"dtype": "<u2"}, BY_OFFSET),
    "int32": ({"dtype": "<i4", "odd": True}, BY_OFFSET),
    "int64": ({"dtype": "<i8"}, BY_OFFSET),
    "surface": ({"shape": (31,), "order": "random"}, BY_OFFSET),
    "surface_float32_missing": ({"shape": (131,), "dtype": "<f4", "missing": 0.4, "fillvalue": 2.5}, BY_OFFSET),
    "surface_in_other_chunks": ({"shape": (31,), "chunks": (4, 7)}, BY_LIBRARY),
    "surface_contiguous": ({"shape": (31,), "layout": "contiguous"}, BY_LIBRARY),
    "deep_tree": ({"shape": (11, 23, 19), "order": "random", "missing": 0.1, "fillvalue": 3}, BY_OFFSET),
    "soft_link": ({"link": "soft"}, BY_OFFSET),
    "in_a_group": ({"name": "group/inner/betas"}, BY_OFFSET),
    "external_link_beside": ({"link": "external"}, BY_LIBRARY),
    "external_link_beside_to_external_storage": ({"link": "external", "layout": "external"}, BY_LIBRARY),
}


@pytest.mark.parametrize(("odd", "by_offset"), LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_is_read_as_the_library_reads_it(
    tmp_path, make_session, make_values, read_plainly, read_session, odd, by_offset
):
    file = make_session(tmp_path / "betas_session03.hdf5", **odd)
    dataset = odd.get("name", "betas")
    expected = read_plainly(file, dataset)
    if not {"missing", "nan", "precision"} & set(odd):
        made = make_values(3, 6, odd.get("shape", (5, 7, 3)), odd.get("dtype", "<i2"))
        assert np.array_equal(expected, made)
    expected = expected.reshape(len(expected), -1)
    for trials in RANGES:
        values, fast = read_session(file, dataset, trials)
        assert values.tobytes() == expected[trials.start : trials.stop].tobytes()
        assert fast is by_offset
        values, fast = read_session(file, dataset, trials, trust_offsets=False)
        assert values.tobytes() == expected[trials.start : trials.stop].tobytes()
        assert not fast


# Only when rows are compared with the library does it show that it leaves missing chunks as they are.
TOLD_WHEN_PLANNED = {name: case for name, case in LAYOUTS.items() if name != "some_chunks_missing_fill_77_never_filled"}


@pytest.mark.parametrize(("odd", "by_offset"), TOLD_WHEN_PLANNED.values(), ids=TOLD_WHEN_PLANNED)
def test_what_is_planned_is_what_is_done(tmp_path, make_session, odd, by_offset):
    info = inspect_session(make_session(tmp_path / "betas_session03.hdf5", **odd), odd.get("name", "betas"))
    assert (info.how == "by offset") is by_offset
    assert bool(info.offset_refusal) is not by_offset


def test_other_session_or_other_trial_has_other_values(make_values):
    one, other = make_values(3, 6, (5, 7, 3), "<i2"), make_values(4, 6, (5, 7, 3), "<i2")
    assert one.all()
    assert other.all()
    assert (one != other).all()
    assert len(np.unique(one)) == one.size


@st.composite
def sessions(draw):
    """Keywords of make_session, and trials of it."""
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=3, max_size=3)) if draw(st.booleans()) else [23])
    trials = draw(st.integers(1, 7))
    rows = draw(st.booleans())
    chunks = tuple(draw(st.integers(1, size)) for size in (trials, *shape))
    odd = {
        "trials": trials,
        "shape": shape,
        "dtype": draw(st.sampled_from(["<i2", ">i2", "i1", "<u2", "<i4", "<f4", ">f4", "<f8"])),
        "chunks": "rows" if rows else chunks,
        "order": draw(st.sampled_from(["file", "random", "reverse"])),
        "missing": draw(st.sampled_from([0.0, 0.0, 0.3, 0.8, "all"])),
        "fillvalue": draw(st.sampled_from([None, 7])),
        "fill_time": draw(st.sampled_from(["ifset", "alloc", "never"])),
        "userblock": draw(st.sampled_from([0, 512, 1024])),
        "odd": draw(st.booleans()),
        "libver": draw(st.sampled_from(["earliest", "earliest", "latest"])),
        "filters": draw(st.sampled_from([None, None, {"compression": "gzip", "shuffle": True}])),
        "maxshape": draw(st.sampled_from([None, (None,) * (1 + len(shape))])),
        "seed": draw(st.integers(0, 99)),
    }
    first = draw(st.integers(0, trials - 1))
    return odd, range(first, draw(st.integers(first + 1, trials)))


@settings(max_examples=scale_examples(120), deadline=None)
@given(sessions())
def test_any_layout_any_trials_read_as_the_library_reads_them(
    tmp_path_factory, make_session, read_plainly, read_session, session
):
    odd, trials = session
    path = tmp_path_factory.getbasetemp() / "any_session03.hdf5"
    file = make_session(path, **odd)
    expected = read_plainly(file).reshape(odd["trials"], -1)[trials.start : trials.stop]
    values, fast = read_session(file, trials=trials)
    assert values.tobytes() == expected.tobytes()
    rows = odd["chunks"] in ("rows", (odd["trials"], *(1 for _ in odd["shape"])))
    plain = rows and odd["libver"] == "earliest" and not odd["filters"] and odd["dtype"][0] != ">"
    if not (odd["missing"] and odd["fill_time"] == "never"):
        assert fast is plain


# Work, memory and handles


@contextlib.contextmanager
def recorded_reads(monkeypatch):
    """Box (trials, z, y, x) of every read through the library."""
    reads = []
    real = h5py.Dataset.read_direct

    def read_direct(self, dest, source_sel=None, dest_sel=None):
        reads.append(tuple((part.start, part.stop) for part in source_sel))
        real(self, dest, source_sel, dest_sel)

    with monkeypatch.context() as patch:
        patch.setattr(h5py.Dataset, "read_direct", read_direct)
        yield reads


@settings(max_examples=scale_examples(60), deadline=None)
@given(
    chunks=st.tuples(st.integers(1, 11), st.integers(1, 7), st.integers(1, 3), st.integers(1, 2)),
    first=st.integers(0, 10),
    count=st.integers(1, 11),
    slab=st.sampled_from([1, 100, 300, 1000, 10**6]),
    most=st.sampled_from([1, 4, 50, 10**6]),
)
def test_library_path_decodes_each_chunk_once_a_pass(
    tmp_path_factory, make_session, read_plainly, chunks, first, count, slab, most
):
    file = make_session(
        tmp_path_factory.getbasetemp() / "once_session03.hdf5", trials=11, shape=(7, 3, 2), chunks=chunks
    )
    trials = range(first, min(first + count, 11))
    out = np.full((len(trials), 42), -1, "i2")
    with pytest.MonkeyPatch.context() as patch, h5py.File(file.path) as hdf5:
        patch.setattr(reader_module, "SLAB_BYTES", slab)
        patch.setattr(reader_module, "MAX_CHUNKS", most)
        with recorded_reads(patch) as reads:
            read_by_h5py(hdf5["betas"], trials, out)
    assert np.array_equal(out, read_plainly(file)[trials.start : trials.stop].reshape(len(trials), -1))
    touched = [
        chunk
        for box in reads
        for chunk in product(
            *(range(low // n, (high - 1) // n + 1) for (low, high), n in zip(box, chunks, strict=True))
        )
    ]
    assert len(touched) == len(set(touched))
    whole_chunk = min(chunks[0], len(trials)) * math.prod(chunks[1:]) * 2
    for box in reads:
        assert math.prod(high - low for low, high in box) * 2 <= max(slab, whole_chunk)
    assert len(touched) <= most * len(reads)


def test_library_path_reads_contiguous_trials_some_at_a_time(tmp_path, make_session, executor, monkeypatch):
    file = make_session(tmp_path / "betas_session03.hdf5", layout="contiguous")
    monkeypatch.setattr(reader_module, "SLAB_BYTES", 2 * 105 * 2)
    out = np.zeros((4, 105), "i2")
    with inspect_session(file, "betas").open() as reader, recorded_reads(monkeypatch) as reads:
        reader.read_into(range(1, 5), out, executor)
    assert all(box[1:] == ((0, 5), (0, 7), (0, 3)) for box in reads)
    assert [trial for (start, stop), *_ in reads for trial in range(start, stop)] == [1, 2, 3, 4]
    assert max(stop - start for (start, stop), *_ in reads) == 2


def test_inspecting_reads_no_value_and_opening_only_a_sample(tmp_path, make_session, monkeypatch):
    file = make_session(tmp_path / "betas_session03.hdf5", trials=1000, shape=(5, 7, 11))
    row_bytes = 2000
    taken = []
    for name in ("pread", "preadv"):
        real = getattr(os, name)

        def count(descriptor, *rest, real=real):
            result = real(descriptor, *rest)
            taken.append(len(result) if isinstance(result, bytes) else result)
            return result

        monkeypatch.setattr(os, name, count)
    info = inspect_session(file, "betas")
    assert sum(taken) < row_bytes
    taken.clear()
    with info.open() as reader:
        assert reader.by_offset
    sample = reader_module.SAMPLE_ROWS * row_bytes
    assert sample <= sum(taken) < sample + 100 * info.voxels + 10_000 < info.trials * info.trial_bytes / 4


@pytest.mark.parametrize("odd", [{}, {"chunks": (1, 5, 7, 3)}, {"layout": "contiguous"}, {"layout": "virtual"}])
def test_stop_is_heard_and_passed_on_as_it_is(tmp_path, make_session, executor, odd, monkeypatch):
    class Stopped(Exception):
        pass

    def check_stop():
        raise Stopped("now")

    file = make_session(tmp_path / "betas_session03.hdf5", **odd)
    out = np.full((6, 105), -1, "i2")
    with (
        pytest.raises(Stopped, match="now"),
        recorded_reads(monkeypatch) as reads,
        inspect_session(file, "betas").open() as reader,
    ):
        reader.read_into(range(6), out, executor, check_stop)
    assert reads == []


def test_library_path_looks_at_the_stop_signal_before_every_read(tmp_path, make_session, executor, monkeypatch):
    file = make_session(tmp_path / "betas_session03.hdf5", chunks=(1, 5, 7, 3))
    monkeypatch.setattr(reader_module, "SLAB_BYTES", 1)
    looks = []
    with inspect_session(file, "betas").open() as reader, recorded_reads(monkeypatch) as reads:
        reader.read_into(range(6), np.zeros((6, 105), "i2"), executor, lambda: looks.append(len(reads)))
    assert looks == list(range(6))


def test_inspected_session_travels_as_a_pickle(tmp_path, make_session, executor, read_plainly):
    file = make_session(tmp_path / "betas_session03.hdf5")
    info = inspect_session(file, "betas")
    again = pickle.loads(pickle.dumps(info))
    assert again == info
    out = np.zeros((6, 105), "i2")
    with again.open() as reader:
        reader.read_into(range(6), out, executor)
    assert np.array_equal(out, read_plainly(file).reshape(6, -1))


def test_relative_path_is_read_from_the_working_directory(
    tmp_path, make_session, read_plainly, read_session, monkeypatch
):
    for odd in ({}, {"layout": "virtual"}, {"layout": "external"}, {"link": "external"}):
        file = make_session(tmp_path / "betas_session03.hdf5", **odd)
        expected = read_plainly(file).reshape(6, -1)
        monkeypatch.chdir(tmp_path.parent)
        relative = type(file)(file.session, file.path.relative_to(tmp_path.parent))
        assert np.array_equal(read_session(relative)[0], expected)


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_index_that_names_wrong_rows_is_found_out(
    tmp_path, make_session, read_session, read_plainly, missing, monkeypatch
):
    file = make_session(tmp_path / "betas_session03.hdf5", missing=missing, fillvalue=-77)
    real = reader_module.read_chunk_index

    def read_wrong_index(data, descriptor):
        index = real(data, descriptor)
        return ChunkIndex(index.offsets, np.roll(index.voxels, 1), index.row_bytes)

    monkeypatch.setattr(reader_module, "read_chunk_index", read_wrong_index)
    values, by_offset = read_session(file)
    assert not by_offset
    assert np.array_equal(values, read_plainly(file).reshape(6, -1))


def test_index_that_lacks_rows_is_found_out(tmp_path, make_session, read_session, read_plainly, monkeypatch):
    file = make_session(tmp_path / "betas_session03.hdf5")
    real = reader_module.read_chunk_index

    def read_short_index(data, descriptor):
        index = real(data, descriptor)
        return ChunkIndex(index.offsets[:-1], index.voxels[:-1], index.row_bytes)

    monkeypatch.setattr(reader_module, "read_chunk_index", read_short_index)
    values, by_offset = read_session(file)
    assert not by_offset
    assert np.array_equal(values, read_plainly(file).reshape(6, -1))


# The file changes while it is used


def test_file_cut_between_inspection_and_opening_is_refused(tmp_path, make_session):
    file = make_session(tmp_path / "betas_session03.hdf5")
    info = inspect_session(file, "betas")
    os.truncate(file.path, file.path.stat().st_size - 1)
    with pytest.raises(SourceError, match=r"session 03: the file is cut short.*Fetch it again"), info.open():
        pass


def find_last_block(file):
    """Byte offset of what lies last in the file of the dataset's values."""
    offsets = []
    with h5py.File(file.path, locking=False) as hdf5:
        if hdf5["betas"].chunks is None:
            return hdf5["betas"].id.get_offset()
        hdf5["betas"].id.chunk_iter(lambda chunk: offsets.append(chunk.byte_offset))
    return max(offsets)


@pytest.mark.parametrize(
    "odd",
    [{}, {"order": "random"}, {"layout": "contiguous"}, {"chunks": (1, 5, 7, 3)}, {"filters": {"compression": "gzip"}}],
    ids=str,
)
def test_file_cut_after_opening_is_refused(tmp_path, make_session, executor, odd):
    file = make_session(tmp_path / "betas_session03.hdf5", **odd)
    out, last = np.zeros((6, 105), "i2"), find_last_block(file)
    with inspect_session(file, "betas").open() as reader:
        os.truncate(file.path, last + 1)
        with pytest.raises(SourceError, match="session 03: ") as caught:
            reader.read_into(range(6), out, executor)
    assert caught.value.hint
    assert caught.value.path == file.path


@pytest.mark.parametrize("layout", ["virtual", "external"])
def test_part_that_goes_away_after_opening_is_refused(tmp_path, make_session, executor, layout):
    file = make_session(tmp_path / "betas_session03.hdf5", layout=layout)
    info = inspect_session(file, "betas")
    assert len(info.parts) == 2
    with info.open() as reader:
        info.parts[1].unlink()
        with pytest.raises(SourceError, match="session 03: ") as caught:
            reader.read_into(range(6), np.zeros((6, 105), "i2"), executor)
    assert caught.value.hint


@pytest.mark.parametrize(("layout", "cut"), [("virtual", 2), ("external", 0), ("external_unlimited", 0)])
def test_part_that_is_cut_after_inspection_is_refused(tmp_path, make_session, executor, layout, cut):
    file = make_session(tmp_path / "betas_session03.hdf5", layout=layout)
    info = inspect_session(file, "betas")
    part = info.parts[-1]
    os.truncate(part, part.stat().st_size // 2 if cut == 0 else part.stat().st_size - cut)
    with pytest.raises(SourceError, match="session 03: ") as caught, info.open() as reader:
        reader.read_into(range(6), np.zeros((6, 105), "i2"), executor)
    assert caught.value.hint


@pytest.mark.parametrize("other", [{"trials": 5}, {"shape": (5, 3, 7)}, {"shape": (31,)}, {"dtype": "<f4"}], ids=str)
def test_file_replaced_by_another_shape_or_dtype_is_refused(tmp_path, make_session, other):
    path = tmp_path / "betas_session03.hdf5"
    info = inspect_session(make_session(path), "betas")
    make_session(path, **other)
    with pytest.raises(SourceError, match=r"session 03: .*replaced.*int16 of shape \(6, 5, 7, 3\)"), info.open():
        pass


def test_file_replaced_by_another_layout_is_read_as_it_is_now(tmp_path, make_session, executor, read_plainly):
    path = tmp_path / "betas_session03.hdf5"
    info = inspect_session(make_session(path), "betas")
    file = make_session(path, session=4, filters={"compression": "gzip"})
    out = np.zeros((6, 105), "i2")
    with info.open() as reader:
        reader.read_into(range(6), out, executor)
    assert np.array_equal(out, read_plainly(file).reshape(6, -1))
    with pytest.raises(SourceError, match="changed while it was read"):
        check_unchanged(info)


def test_device_error_is_reported_with_session_and_trials(tmp_path, make_session, executor, monkeypatch):
    file = make_session(tmp_path / "betas_session03.hdf5")

    def fail(*args):
        raise OSError(5, "Input/output error")

    with inspect_session(file, "betas").open() as reader:
        monkeypatch.setattr(os, "preadv", fail)
        with pytest.raises(SourceError, match=r"session 03: reading trials 2 to 4 failed: .*Input/output error.*\["):
            reader.read_into(range(2, 5), np.zeros((3, 105), "i2"), executor)


def test_file_that_vanishes_after_inspection_is_refused(tmp_path, make_session):
    file = make_session(tmp_path / "betas_session03.hdf5")
    info = inspect_session(file, "betas")
    file.path.unlink()
    with pytest.raises(SourceError, match=r"session 03: cannot read the file: No such file"), info.open():
        pass
    with pytest.raises(SourceError, match=r"session 03: cannot read .*No such file"):
        check_unchanged(info)


# Damage


@pytest.fixture(scope="module")
def small_file(tmp_path_factory, make_session):
    """Bytes of a small file with missing chunks, and where its metadata lie."""
    path = tmp_path_factory.mktemp("small") / "small_session03.hdf5"
    make_session(path, trials=3, shape=(2, 5, 7), missing=0.3, fillvalue=-7, order="random")
    metadata = np.ones(path.stat().st_size, bool)
    with h5py.File(path) as hdf5:
        offsets = []
        hdf5["betas"].id.chunk_iter(lambda row: offsets.append(row.byte_offset))
    metadata[np.add.outer(offsets, np.arange(6))] = False
    return path.read_bytes(), np.flatnonzero(metadata).tolist()


# Always the same examples: the library itself is what reads damaged metadata here.
@settings(max_examples=scale_examples(500), deadline=None, derandomize=True)
@given(data=st.data())
def test_damaged_metadata_never_change_values_and_never_raise_anything_else(
    tmp_path_factory, small_file, read_session, read_plainly, data
):
    whole, metadata = small_file
    damaged = bytearray(whole)
    for place in data.draw(st.lists(st.sampled_from(metadata), min_size=1, max_size=3)):
        damaged[place] ^= data.draw(st.sampled_from([1, 2, 3, 64, 128, 255]))
    path = tmp_path_factory.getbasetemp() / "damaged_session03.hdf5"
    path.write_bytes(damaged)
    file = SessionFile(SessionNumber(3), path)
    values, refusal = read_or_refusal(read_session, file)
    if refusal is None:
        assert values.tobytes() == read_plainly(file).tobytes()
    else:
        assert refusal.session == 3
        assert refusal.hint


def read_or_refusal(read_session, file):
    try:
        return read_session(file)[0], None
    except SourceError as error:
        return None, error
