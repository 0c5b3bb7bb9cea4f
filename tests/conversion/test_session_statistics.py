"""Statistics of a session: equal to NumPy's on the whole, however the trials come."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from nsd_zarr.conversion.pipeline.session_statistics import make_session_moments, make_session_statistics
from nsd_zarr.science import moments as module


@pytest.fixture(scope="module")
def executor():
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest.fixture
def small_tiles(monkeypatch):
    """Several tiles in small blocks."""
    monkeypatch.setattr(module, "TILE_VOXELS", 7)


def compute(block, executor, borders=()):
    moments = make_session_moments(block.shape[1], block.dtype.name)
    for part in np.split(block, borders):
        if len(part):
            moments.add_block(np.ascontiguousarray(part), executor)
    return make_session_statistics(moments, len(block))


def compute_by_rows(block, borders=()):
    """As the file's rows come: some voxels of some trials at a time, in any order."""
    moments = make_session_moments(block.shape[1], block.dtype.name)
    for part in np.split(block, borders):
        for start in reversed(range(0, block.shape[1], 13)):
            rows = np.ascontiguousarray(part.T)[start : start + 13]
            if rows.size:
                moments.add_rows(rows, slice(start, start + len(rows)))
    return make_session_statistics(moments, len(block))


def compute_by_trials(block):
    moments = make_session_moments(block.shape[1], block.dtype.name)
    for trial in block:
        moments.add(trial)
    return make_session_statistics(moments, len(block))


def exact(block):
    """Mean and std in percent through Python integers."""
    values, trials = block.astype(object), len(block)
    sums, squares = values.sum(axis=0), (values * values).sum(axis=0)
    mean = np.array([float(each) / (300 * trials) for each in sums])
    spread = np.array([float(trials * square - each * each) for each, square in zip(sums, squares, strict=True)])
    return mean.astype("f4"), (np.sqrt(spread) / (300 * trials)).astype("f4")


@given(st.data())
def test_integers_are_exact_by_rows_by_blocks_and_by_trials_and_do_not_depend_on_passes(executor, data):
    shape = data.draw(st.tuples(st.integers(1, 300), st.integers(1, 40)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    low, high = data.draw(st.sampled_from([(-32_768, 32_768), (-300, 300), (0, 2), (0, 1), (32_767, 32_768)]))
    block = rng.integers(low, high, shape, "i2")
    block[:, rng.random(shape[1]) < 0.4] = 0
    borders = sorted(data.draw(st.lists(st.integers(0, shape[0]), max_size=3)))
    mean, std = exact(block)
    for found in (compute(block, executor, borders), compute_by_rows(block, borders), compute_by_trials(block)):
        assert np.array_equal(found.mean, mean)
        assert np.array_equal(found.std, std)
        assert found.rail_count == ((block == -32_768) | (block == 32_767)).any(axis=0).sum()


@pytest.mark.parametrize("dtype", ["int16", "int8", "uint8", "uint16", "int32", "float32", "float64"])
def test_statistics_equal_numpys(dtype, executor, small_tiles):
    block = np.random.default_rng(1).integers(1, 120, (131, 53)).astype(dtype)
    found = compute(block, executor)
    percent = block / (300 if block.dtype.kind in "iu" else 1)
    assert (found.mean.dtype, found.std.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(found.mean, percent.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.std, percent.std(axis=0), rtol=1e-6)
    assert found.rail_count == (0 if dtype == "int16" else None)


@pytest.mark.parametrize("dtype", ["int16", "float32", "int32"])
def test_bits_do_not_depend_on_passes_tiles_or_threads(dtype, executor, monkeypatch):
    block = (np.random.default_rng(2).standard_normal((97, 61)) * 1e4).astype(dtype)
    whole, one_by_one = compute(block, executor), compute_by_trials(block)
    assert (one_by_one.mean.tobytes(), one_by_one.std.tobytes()) == (whole.mean.tobytes(), whole.std.tobytes())
    monkeypatch.setattr(module, "TILE_VOXELS", 3)
    monkeypatch.setattr(module, "TILE_TRIALS", 2)
    for borders in ((), (1,), (13, 14, 60), tuple(range(1, 97))):
        parts = compute(block, executor, borders)
        assert parts.mean.tobytes() == whole.mean.tobytes()
        assert parts.std.tobytes() == whole.std.tobytes()


def test_rails_are_counted_by_voxel_and_over_passes(executor, small_tiles):
    block = np.full((11, 53), 5, "i2")
    block[3, 50], block[4, 50], block[9, 50], block[10, 20], block[0, 7] = 32_767, -32_768, 32_767, -32_768, 32_766
    for borders in ((), (4,), (10,)):
        assert compute(block, executor, borders).rail_count == compute_by_rows(block, borders).rail_count == 2


@pytest.mark.parametrize("dtype", ["int16", "float32", "float64"])
def test_constant_voxels_have_a_std_of_exactly_zero(dtype, executor):
    block = np.tile(np.array([0, 7, -31_999.0, 12_345]), (750, 1)).astype(dtype)
    found = compute(block / 3 if dtype[0] == "f" else block, executor)
    assert not found.std.any()


def test_nan_and_infinity_come_out_as_nan_in_their_voxel_alone(executor):
    block = np.random.default_rng(3).standard_normal((13, 7)).astype("f4")
    block[0, 1], block[5, 2], block[12, 3], block[3, 5] = np.nan, np.nan, np.inf, -np.inf
    found = compute(block, executor)
    odd = np.array([False, True, True, True, False, True, False])
    assert np.array_equal(np.isnan(found.std), odd)
    assert np.array_equal(np.isfinite(found.mean), ~odd)


@pytest.mark.parametrize("kind", [{}, {"layout": "contiguous"}, {"layout": "gzip"}, {"dtype": ">i2"}], ids=str)
def test_statistics_in_the_store_do_not_depend_on_how_a_file_is_read(kind, make_source, convert):
    stores = [convert(make_source(folder=f"{n}", **which), f"{n}.zarr") for n, which in enumerate(({}, kind))]
    for name in ("session_mean", "session_std", "rail_count"):
        one, other = ({p.relative_to(s): p.read_bytes() for p in (s / name).rglob("*") if p.is_file()} for s in stores)
        assert one == other


def test_voxels_that_a_file_never_stored_count_with_its_fill_value(tmp_path, convert):
    (tmp_path / "source").mkdir()
    for session, fill in ((1, 0), (2, 300)):
        with h5py.File(tmp_path / f"source/betas_session{session:02d}.hdf5", "w", libver="earliest") as file:
            data = file.create_dataset("betas", (6, 2, 3, 5), "<i2", chunks=(6, 1, 1, 1), fillvalue=fill)
            data[:, 1, 2, 3] = [600, 900, 600, 900, 600, 900]
    group = zarr.open_group(convert(tmp_path / "source"), mode="r")
    expected = np.stack([np.zeros((2, 3, 5)), np.ones((2, 3, 5))])
    expected[:, 1, 2, 3] = 2.5
    assert np.array_equal(group["session_mean"][...], expected)
    assert np.array_equal(group["session_std"][...], np.where(expected == 2.5, 0.5, 0))


def test_stop_is_heard_between_two_tasks(executor, small_tiles):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_session_moments(53, "int16").add_block(np.ones((11, 53), "i2"), executor, stop)
