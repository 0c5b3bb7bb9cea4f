"""Voxels without data in some sessions. The oracles are float64 transcriptions of the authors' rules, NumPy alone."""

import logging

import numpy as np
import pytest
from authors import transcribe_ncsnr, transcribe_noise_variance, zscore_as_authors

import nsd_zarr
from nsd_zarr.errors import ConfigError, StoreError
from nsd_zarr.read.derive import score_sessions
from nsd_zarr.read.noise import measure_noise_variance
from nsd_zarr.science.ceiling import make_ncsnr

SESSIONS, TRIALS, IMAGES, SHAPE = 10, 72, 240, (5, 11, 7)
LACKING = {0: (), 1: (4,), 2: (2, 9), 5: (1, 3, 5, 7, 8)}
"""Sessions (from 1) without data of a group of voxels, by how many they are."""


class World:
    """Ten sessions of noise and of planted signal, of which some voxels lack some."""

    def __init__(self) -> None:
        rng = np.random.default_rng(29)
        self.image = rng.permutation(np.repeat(np.arange(IMAGES), 3))
        self.session = np.repeat(np.arange(1, SESSIONS + 1), TRIALS)
        voxels = int(np.prod(SHAPE))
        self.group = np.resize(list(LACKING), voxels)
        self.ncsnr = np.where(np.arange(voxels) % 3 == 0, 0.8, 0.0)
        values = rng.normal(size=(SESSIONS * TRIALS, voxels))
        values += self.ncsnr * rng.normal(size=(IMAGES, voxels))[self.image]
        self.full = np.rint(values * 700 + 300).astype(np.int16)
        self.missing = np.array(
            [[number in LACKING[group] for group in self.group] for number in range(1, SESSIONS + 1)]
        )
        self.stored = np.where(self.missing[self.session - 1], 0, self.full).astype(np.int16)
        # Constant but not 0, and marked by `valid` alone.
        self.stored[(self.session == 6)[:, np.newaxis] & (np.arange(voxels) == 7)] = 123
        self.missing[5, 7] = True
        self.valid = np.ones(self.missing.shape, bool)
        self.valid[0, 8] = False
        self.missing[0, 8] = True

    @property
    def percent(self):
        """Percent signal change with NaN where there are no data: what the authors' code works on. float64."""
        return np.where(self.missing[self.session - 1], np.nan, self.stored / 300)

    @property
    def columns(self):
        """Of the trial table."""
        return {
            "nsd_id": ((self.image * 7 + 5).astype(np.int32), ("trial",), {}),
            "image_10k": ((self.image * 191 % 9973 + 1).astype(np.int16), ("trial",), {}),
            "shared1000": (self.image % 4 == 0, ("trial",), {}),
        }


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def store(world, make_store, extend_store):
    made = make_store(world.stored.reshape(-1, *SHAPE), sessions=tuple(range(1, SESSIONS + 1)), trials_per_shard=36)
    dims = ("session_number", "z", "y", "x")
    arrays = world.columns | {"valid": (world.valid.reshape(-1, *SHAPE), dims, {})}
    arrays["ncsnr"] = (np.full(SHAPE, 0.5, np.float32), dims[1:], {})
    extend_store(made.path, arrays)
    return made.path


@pytest.fixture(scope="module")
def full_store(world, make_store, extend_store):
    made = make_store(world.full.reshape(-1, *SHAPE), sessions=tuple(range(1, SESSIONS + 1)), trials_per_shard=36)
    extend_store(made.path, world.columns)
    return made.path


def open_dataset(path, how="lazy"):
    ds = nsd_zarr.open_dataset(path, **({"chunks": {}} if how == "dask" else {}))
    return ds.load() if how == "memory" else ds


HOW = pytest.mark.parametrize("how", ["lazy", "memory", "dask"])


def average_by_numpy(values, image):
    """Mean over the showings with data, images as they first come; how many they are."""
    order = list(dict.fromkeys(image.tolist()))
    known = ~np.isnan(values)
    counts = np.array([known[image == each].sum(0) for each in order])
    sums = np.array([np.where(known, values, 0)[image == each].sum(0) for each in order])
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0), counts


@HOW
def test_missing_is_what_does_not_vary_or_is_not_valid(store, world, how, reads):
    ds = open_dataset(store, how)
    reads.clear()
    found = ds.nsd.missing
    assert (found.dims, found.dtype) == (("session_number", "z", "y", "x"), bool)
    assert np.array_equal(found.values.reshape(SESSIONS, -1), world.missing)
    assert np.array_equal(ds.isel(trial=[3, 700], y=slice(3, 9)).nsd.missing, found.isel(y=slice(3, 9)))
    assert reads.trials == []


def test_missing_is_lazy_and_of_one_session_reads_that_one(store, tmp_path):
    ds = nsd_zarr.open_dataset(store)
    missing = ds.nsd.missing
    assert not missing.variable._in_memory
    assert not ds.session_std.variable._in_memory
    assert missing.isel(session_number=3).values.shape == SHAPE


@HOW
@pytest.mark.parametrize("ddof", [0, 1])
def test_zscore_is_nan_where_there_are_no_data(store, world, how, ddof):
    found = open_dataset(store, how).nsd.zscore(ddof=ddof).betas.values.reshape(len(world.session), -1)
    expected = zscore_as_authors(world.percent, world.session) * np.sqrt(TRIALS / (TRIALS - 1 + ddof))
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, atol=2e-6)


@HOW
def test_leak_free_zscore_follows_the_whole_session(store, world, how):
    trials = np.arange(len(world.session)) % 5 != 2
    found = open_dataset(store, how).nsd.zscore(trials=trials).betas.values.reshape(len(world.session), -1)
    expected = np.empty(world.percent.shape)
    for number in range(1, SESSIONS + 1):
        mine = world.session == number
        part = world.percent[mine & trials]
        expected[mine] = (world.percent[mine] - part.mean(0)) / part.std(0)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, atol=4e-6)


@HOW
def test_voxel_that_varies_elsewhere_in_the_session_has_data(store, world, how):
    few = open_dataset(store, how).isel(trial=[5, 6, 7])
    found = few.nsd.zscore(trials=[0]).betas.values.reshape(3, -1)
    assert np.array_equal(np.isnan(found), np.tile(world.missing[0], (3, 1)))
    assert (found[0][~world.missing[0]] == 0).all()


@HOW
@pytest.mark.parametrize("scored", [False, True])
def test_average_is_over_the_showings_with_data(store, world, how, scored):
    ds = open_dataset(store, how)
    averaged = (ds.nsd.zscore() if scored else ds).nsd.average_repeats()
    values = zscore_as_authors(world.percent, world.session) if scored else world.percent
    scale = np.sqrt(TRIALS / (TRIALS - 1)) if scored else 1
    expected, counts = average_by_numpy(values * scale, world.image)
    found = averaged.betas.values.reshape(IMAGES, -1)
    assert np.array_equal(np.isnan(found), counts == 0)
    assert (counts == 0).any()
    np.testing.assert_allclose(found, expected, atol=4e-6)
    assert np.array_equal(averaged.nsd.count_showings().values.reshape(IMAGES, -1), counts)
    assert averaged.nsd.count_showings().dtype == np.int8


def test_average_does_not_change_by_how_it_is_made(store):
    values = [open_dataset(store, how).nsd.average_repeats().betas.values for how in ("lazy", "memory", "dask")]
    assert np.array_equal(values[0], values[1], equal_nan=True)
    assert np.array_equal(values[0], values[2], equal_nan=True)


@HOW
def test_ncsnr_equals_the_authors_definition(store, world, how):
    found = open_dataset(store, how).nsd.compute_ncsnr().values.reshape(-1)
    expected = transcribe_ncsnr(world.percent, world.session, world.image)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found[expected > 0.1], expected[expected > 0.1], atol=1e-6)
    variance = measure_noise_variance(score_sessions(open_dataset(store, how), ddof=1)).finish().reshape(-1)
    scored = zscore_as_authors(world.percent, world.session)
    np.testing.assert_allclose(variance, transcribe_noise_variance(scored, world.image), atol=1e-6)


@pytest.mark.parametrize("lacking", [1, 2, 5])
def test_noise_without_data_in_some_sessions_stays_noise(store, full_store, world, lacking):
    measure = [score_sessions(nsd_zarr.open_dataset(path), ddof=1) for path in (store, full_store)]
    variance, of_all = (measure_noise_variance(scored).finish().reshape(-1) for scored in measure)
    chosen = (world.group == lacking) & (world.ncsnr == 0)
    gone = np.isin(world.session, LACKING[lacking])
    count = IMAGES - len(np.unique(world.image[gone]))
    assert chosen.sum() > 50
    # A variance of three numbers has 2 degrees of freedom, so a standard deviation as large as itself.
    assert (np.abs(variance - of_all)[chosen] < 4 / np.sqrt(count)).all()
    # The same voxels and images without gaps: the median moves by no more than its own error.
    kept = ~np.isin(world.image, world.image[gone])
    control = measure_noise_variance(measure[1].isel(trial=np.flatnonzero(kept))).finish().reshape(-1)
    shift = np.median(make_ncsnr(variance)[chosen]) - np.median(make_ncsnr(control)[chosen])
    assert shift < 0.02


@pytest.mark.parametrize("lacking", [1, 2, 5])
def test_planted_ncsnr_survives_sessions_without_data(store, world, lacking):
    found = nsd_zarr.open_dataset(store).nsd.compute_ncsnr().values.reshape(-1)
    chosen = (world.group == lacking) & (world.ncsnr > 0)
    gone = np.isin(world.session, LACKING[lacking])
    count = IMAGES - len(np.unique(world.image[gone]))
    power, planted = found[chosen] ** 2 / (1 + found[chosen] ** 2), 0.8**2 / (1 + 0.8**2)
    assert np.abs(power - planted).max() < 4 * (1 - planted) / np.sqrt(count)


def test_noise_ceiling_of_averages_counts_showings_with_data(store, world):
    averaged = nsd_zarr.open_dataset(store).isel(trial=slice(0, 400)).nsd.average_repeats()
    _, counts = average_by_numpy(world.percent[:400], world.image[:400])
    with np.errstate(divide="ignore"):
        inverse = np.where(counts > 0, 1 / counts, 0).sum(0) / (counts > 0).sum(0)
    np.testing.assert_allclose(
        averaged.nsd.noise_ceiling().values.reshape(-1), 100 * 0.25 / (0.25 + inverse), rtol=1e-5
    )


def test_region_says_once_how_many_voxels_lack_how_many_sessions(store, world, caplog):
    ds = nsd_zarr.open_dataset(store)
    mask = np.arange(world.group.size).reshape(SHAPE) < 40
    with caplog.at_level(logging.WARNING, "nsd_zarr"):
        region = ds.nsd.roi(mask=mask)
        again = ds.nsd.roi(mask=mask)
    counts = world.missing[:, :40].sum(0)
    assert region.sessions_missing.values.tolist() == counts.tolist()
    text = f"{(counts > 0).sum()} of 40 voxels have no data in some of 10 sessions"
    assert region.betas.attrs["missing_data"].startswith(text)
    assert f"{(counts == 2).sum()} in 2" in region.betas.attrs["missing_data"]
    said = [record.getMessage() for record in caplog.records if text in record.getMessage()]
    assert len(said) == 1
    assert "1 times a voxel varies where `valid` is 0" in said[0]
    assert again.sessions_missing.values.tolist() == counts.tolist()


def test_region_of_some_sessions_counts_those(store, world):
    ds = nsd_zarr.open_dataset(store)
    part = ds.isel(trial=np.isin(world.session, [4, 5])).nsd.roi(mask=np.ones(SHAPE, bool))
    assert part.sessions_missing.values.tolist() == world.missing[[3, 4]].sum(0).tolist()


@HOW
def test_complete_region_has_data_in_all_sessions_of_the_selection(store, world, how):
    mask = np.arange(world.group.size).reshape(SHAPE) % 2 == 0
    ds = open_dataset(store, how)
    every = ds.nsd.roi(mask=mask, complete=True)
    kept = mask.reshape(-1) & ~world.missing.any(0)
    flat = np.ravel_multi_index([every[axis].values for axis in "zyx"], SHAPE)
    assert flat.tolist() == np.flatnonzero(kept).tolist()
    assert "missing_data" not in every.betas.attrs
    some = ds.isel(trial=world.session == 4).nsd.roi(mask=mask, complete=True)
    assert some.sizes["voxel"] == (mask.reshape(-1) & ~world.missing[3]).sum()


def test_region_of_which__complete_is_refused(store, world):
    mask = (world.group == 5).reshape(SHAPE)
    with pytest.raises(ConfigError, match="every voxel of the region lacks data"):
        nsd_zarr.open_dataset(store).nsd.roi(mask=mask, complete=True)


def test_what_is_missing_is_unknown_without_statistics(store):
    ds = nsd_zarr.open_dataset(store).drop_vars("session_std").load()
    for ask in (lambda: ds.nsd.missing, lambda: ds.nsd.average_repeats()):
        with pytest.raises(StoreError, match="no session_std"):
            ask()


def test_view_that_lost_its_statistics_asks_its_store(store, world):
    ds = nsd_zarr.open_dataset(store).drop_vars(["session_std", "session_mean"])
    assert np.array_equal(ds.nsd.missing.values.reshape(SESSIONS, -1), world.missing)
    found = ds.nsd.average_repeats().betas.values.reshape(IMAGES, -1)
    np.testing.assert_allclose(found, average_by_numpy(world.percent, world.image)[0], atol=4e-6)


def test_other_ddof_is_refused(store):
    with pytest.raises(ConfigError, match="ddof 2"):
        nsd_zarr.open_dataset(store).nsd.zscore(ddof=2)
