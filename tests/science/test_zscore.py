import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from nsd_zarr.science.moments import Moments, Statistics, compute_statistics
from nsd_zarr.science.zscore import make_factor, zscore

preprocessing = pytest.importorskip("sklearn.preprocessing")

COUNTS = np.random.default_rng(7).integers(-32_768, 32_768, (750, 11), np.int16)


def scale_by_sklearn(values):
    return preprocessing.StandardScaler().fit_transform(values.astype(np.float64))


@pytest.mark.parametrize("dtype", [np.int16, np.int8, np.uint16, np.int32, np.float32, np.float64])
def test_zscore_equals_sklearns_standard_scaler(dtype):
    values = COUNTS.astype(dtype)
    found = zscore(values.astype(np.float64), compute_statistics(values))
    np.testing.assert_allclose(found, scale_by_sklearn(values), rtol=0, atol=3e-6)


def test_statistics_of_counts_are_exact_in_percent():
    found = compute_statistics(COUNTS, scale=300)
    percent = COUNTS / 300
    assert np.array_equal(found.mean, percent.mean(0).astype(np.float32))
    assert np.array_equal(found.std, percent.std(0).astype(np.float32))
    assert found.std.dtype == np.float32


@pytest.mark.parametrize("value", [0, 7, -32_768])
@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32])
def test_constant_voxel_has_no_data(value, dtype):
    values = np.full((749, 2), value, dtype)
    values[3, 1] += 1
    statistics = compute_statistics(values)
    assert statistics.std[0] == 0 < statistics.std[1]
    scored = zscore(values, statistics)
    assert np.isnan(scored[:, 0]).all()
    assert scored[3, 1] > 0


def test_voxel_with_data_that_does_not_vary_among_the_given_trials_is_zero():
    statistics = compute_statistics(np.full((5, 1), 2.0))
    assert zscore(np.array([[9.0]]), statistics, np.array([False])).tolist() == [[0.0]]
    assert np.isnan(zscore(np.array([[9.0]]), statistics, np.array([True]))).all()


@pytest.mark.parametrize("ddof", [0, 1])
def test_ddof_is_numpys(ddof):
    found = compute_statistics(COUNTS, scale=300, ddof=ddof)
    np.testing.assert_allclose(found.std, (COUNTS / 300).std(0, ddof=ddof), rtol=1e-7)


def test_one_trial_has_std_0_for_any_ddof():
    assert compute_statistics(COUNTS[:1], ddof=1).std.tolist() == [0] * 11


def test_nan_makes_its_voxel_nan_and_no_other():
    values = COUNTS[:9].astype(np.float32)
    values[4, 2] = np.nan
    scored = zscore(values, compute_statistics(values))
    assert np.isnan(scored[:, 2]).all()
    assert np.isfinite(np.delete(scored, 2, 1)).all()


def test_statistics_of_no_trial_are_refused():
    with pytest.raises(ValueError, match="no trial"):
        Moments((3,), np.int16).finish()


def test_statistics_of_both_rails_do_not_overflow():
    values = np.tile(np.array([[-32_768], [32_767]], np.int16), (23_000, 1))
    statistics = compute_statistics(values)
    assert statistics.mean == np.float32(-0.5)
    assert statistics.std == np.float32(32_767.5)


@given(arrays(np.int16, (13, 3)))
def test_counts_and_floats_give_the_same_statistics(values):
    exact, floating = compute_statistics(values), compute_statistics(values.astype(np.float64))
    np.testing.assert_allclose(exact.mean, floating.mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(exact.std, floating.std, rtol=1e-6, atol=1e-6)
    assert np.array_equal(exact.std == 0, (values == values[0]).all(0))


def test_factor_of_zero_and_of_what_is_missing():
    found = make_factor(np.array([4.0, 0.0, 8.0]), np.array([False, False, True]))
    assert np.array_equal(found, [0.25, 0.0, np.nan], equal_nan=True)


def test_zscore_leaves_its_input_alone():
    values = np.ones((2, 1))
    zscore(values, Statistics(np.zeros(1), np.ones(1)))
    assert (values == 1).all()
