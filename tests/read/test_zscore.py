import pickle

import numpy as np
import pytest

import nsd_zarr
from nsd_zarr.errors import ConfigError, DamageFound, StoreError

preprocessing = pytest.importorskip("sklearn.preprocessing")

TRAIN = np.arange(42) % 4 != 1


def scale_by_sklearn(experiment, fitted=None):
    """StandardScaler, fitted and applied session by session; NaN for a voxel that does not vary in a session."""
    flat = experiment.percent.reshape(42, -1).astype(np.float64)
    out = np.empty_like(flat)
    for session in experiment.store.sessions:
        mine = experiment.session == session
        scaler = preprocessing.StandardScaler().fit(flat[mine if fitted is None else mine & fitted])
        out[mine] = scaler.transform(flat[mine])
        out[mine] = np.where(flat[mine].max(0) != flat[mine].min(0), out[mine], np.nan)
    return out.reshape(experiment.percent.shape)


def open_dataset(experiment, how="lazy", **options):
    ds = nsd_zarr.open_dataset(experiment.path, **options, **({"chunks": {}} if how == "dask" else {}))
    return ds.load() if how == "memory" else ds


@pytest.mark.parametrize("how", ["lazy", "memory", "dask"])
def test_zscore_equals_sklearn_in_each_session(experiment, how, reads):
    found = open_dataset(experiment, how).nsd.zscore("session").betas
    if how != "memory":
        assert reads.trials == []
    assert (found.dtype, found.dims) == (np.float32, ("trial", "z", "y", "x"))
    assert found.attrs["units"] == "1"
    np.testing.assert_allclose(found.values, scale_by_sklearn(experiment), atol=4e-6)


@pytest.mark.parametrize("how", ["lazy", "memory", "dask"])
def test_leak_free_zscore_equals_sklearn_fitted_on_those_trials(experiment, how):
    found = open_dataset(experiment, how).nsd.zscore("session", trials=TRAIN).betas.values
    expected = scale_by_sklearn(experiment, TRAIN)
    varies = np.ones(expected.shape[1:], bool)
    varies.reshape(-1)[[4, 9]] = False
    np.testing.assert_allclose(found[:, varies], expected[:, varies], atol=8e-6)
    assert np.isnan(found.reshape(42, -1)[:, 4]).all()


def test_statistics_of_all_trials_are_those_of_the_store(experiment):
    ds = open_dataset(experiment)
    every = ds.nsd.zscore("session", trials=slice(None)).betas.values
    assert np.array_equal(every, ds.nsd.zscore().betas.values, equal_nan=True)


@pytest.mark.parametrize("trials", [TRAIN, np.flatnonzero(TRAIN), np.flatnonzero(TRAIN).tolist()], ids=type)
def test_trials_are_chosen_by_booleans_or_positions(experiment, trials):
    found = open_dataset(experiment).nsd.zscore("session", trials=trials).betas[20]
    expected = open_dataset(experiment).nsd.zscore("session", trials=TRAIN).betas[20]
    assert np.array_equal(found.values, expected.values, equal_nan=True)


def test_trials_are_chosen_by_a_coordinate_of_a_selection(experiment):
    ds = open_dataset(experiment).isel(trial=slice(41, 3, -1))
    trials = ds.repeat == 0
    found = ds.nsd.zscore("session", trials=trials).betas
    kept = np.zeros(42, bool)
    kept[np.arange(42)[41:3:-1][trials.values]] = True
    expected = scale_by_sklearn(experiment, kept)[41:3:-1]
    varies = np.ones(expected.shape[1:], bool)
    varies.reshape(-1)[[4, 9]] = False
    np.testing.assert_allclose(found.values[:, varies], expected[:, varies], atol=8e-6)


def test_voxel_that_does_not_vary_is_nan(experiment):
    found = open_dataset(experiment).nsd.zscore().betas.values.reshape(42, -1)
    assert np.isnan(found[:, 4]).all()
    assert np.isnan(found[28:, 9]).all()
    assert np.isfinite(found[:14, 9]).all()


def test_zscore_and_roi_come_in_any_order(experiment, reads):
    mask = experiment.arrays["roi_nsdgeneral"] > 0
    ds = open_dataset(experiment)
    first = ds.nsd.roi("nsdgeneral").nsd.zscore("session")
    then = ds.nsd.zscore("session").nsd.roi("nsdgeneral")
    assert reads.trials == []
    assert np.array_equal(first.betas.values, then.betas.values, equal_nan=True)
    np.testing.assert_allclose(first.betas.values, scale_by_sklearn(experiment)[:, mask], atol=4e-6)
    leak_free = ds.nsd.zscore("session", trials=TRAIN).nsd.roi("nsdgeneral").betas.values
    assert np.array_equal(leak_free, ds.nsd.zscore("session", trials=TRAIN).betas.values[:, mask], equal_nan=True)


def test_one_trial_reads_one_trial(experiment, reads):
    scored = open_dataset(experiment).nsd.zscore()
    scored.betas[30].load()
    assert reads.trials == [30]
    np.testing.assert_allclose(scored.betas[30, 2].values, scale_by_sklearn(experiment)[30, 2], atol=4e-6)


def test_leak_free_statistics_are_read_once_for_a_session(experiment, reads):
    scored = open_dataset(experiment).nsd.zscore("session", trials=TRAIN)
    scored.betas[30].load()
    in_session = np.flatnonzero(TRAIN & (np.arange(42) >= 28)).tolist()
    assert sorted(reads.trials) == sorted([*in_session, 30])
    reads.clear()
    scored.betas[40].load()
    assert reads.trials == [40]


def test_selections_behind_the_zscore_are_of_the_whole_session(experiment):
    ds = open_dataset(experiment)
    expected = scale_by_sklearn(experiment)
    part = ds.isel(trial=[40, 2, 17]).nsd.zscore().betas
    np.testing.assert_allclose(part.values, expected[[40, 2, 17]], atol=4e-6)
    one = ds.isel(trial=17).nsd.zscore().betas
    np.testing.assert_allclose(one.values, expected[17], atol=4e-6)
    loaded = ds.isel(trial=17).load().nsd.zscore().betas
    np.testing.assert_allclose(loaded.values, expected[17], atol=4e-6)


def test_statistics_beyond_what_is_kept_are_read_again(experiment, monkeypatch):
    monkeypatch.setattr("nsd_zarr.read.view.KEPT_BYTES", 1)
    found = open_dataset(experiment).nsd.zscore().betas.isel(trial=[0, 40, 1, 41, 15, 2])
    np.testing.assert_allclose(found.values, scale_by_sklearn(experiment)[[0, 40, 1, 41, 15, 2]], atol=4e-6)


def test_nan_of_a_float_source_stays_nan(make_store, make_experiment):
    values = np.random.default_rng(5).normal(size=(28, 5, 3, 11)).astype(np.float32)
    values[3, 1, 1, 1] = np.nan
    made = make_experiment(make_store(values, sessions=(1, 2)), ["session_mean"])
    ds = nsd_zarr.open_dataset(made.path)
    scored = ds.nsd.zscore("session", trials=slice(None)).betas.values
    assert np.isnan(scored[:14, 1, 1, 1]).all()
    assert np.isfinite(scored[14:]).all()
    assert np.isfinite(np.delete(scored.reshape(28, -1), 1 * 33 + 11 + 1, 1)).all()


def test_scored_dataset_pickles(experiment):
    scored = open_dataset(experiment).nsd.roi("V2d").nsd.zscore()
    scored.betas[0].load()
    again = pickle.loads(pickle.dumps(scored))
    assert np.array_equal(again.betas.values, scored.betas.values, equal_nan=True)


def test_store_without_statistics_is_refused_with_how_to_compute_them(volumes):
    ds = nsd_zarr.open_dataset(volumes.path).drop_vars(["session_mean", "session_std"])
    for each in (ds, ds.load()):
        with pytest.raises(StoreError, match=r"no session_mean.*trials=slice\(None\)"):
            each.nsd.zscore("session")
    assert abs(np.nanmean(ds.nsd.zscore("session", trials=slice(None)).betas.values)) < 1e-6


def test_damaged_statistics_are_reported(experiment, tmp_path):
    store = experiment.store.copy_to(tmp_path / "subj01.zarr")
    (store.path / "session_std/c/1/0/0/0").unlink()
    betas = nsd_zarr.open_dataset(store.path).nsd.zscore().betas
    betas[3].load()
    with pytest.raises(DamageFound, match="session_std is lost"):
        betas.load()


REFUSED = {
    "by run": lambda ds: ds.nsd.zscore("run"),
    "twice": lambda ds: ds.nsd.zscore().nsd.zscore(),
    "after averaging": lambda ds: ds.nsd.average_repeats().nsd.zscore(),
    "a session without trials": lambda ds: ds.nsd.zscore(trials=np.arange(14)),
    "one trial with statistics": lambda ds: ds.isel(trial=3).nsd.zscore(trials=[0]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_zscore_that_makes_no_sense_is_refused(experiment, name):
    with pytest.raises(ConfigError):
        REFUSED[name](open_dataset(experiment))


@pytest.mark.parametrize("load", [False, True])
def test_raw_counts_are_not_scored_or_averaged(experiment, load):
    ds = nsd_zarr.open_dataset(experiment.path, raw=True)
    ds = ds.load() if load else ds
    with pytest.raises(ConfigError, match="raw=True"):
        ds.nsd.zscore()
    with pytest.raises(ConfigError, match="raw=True"):
        ds.nsd.average_repeats()
