import numpy as np
import pytest
from authors import transcribe_ncsnr

import nsd_zarr
from nsd_zarr.errors import ConfigError, StoreError
from nsd_zarr.simulate import (
    Simulation,
    make_planted_ncsnr,
    make_trial_table,
    make_valid,
    simulate_root,
)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory, extend_store):
    """A simulated subject: 2 sessions of 750 trials of a small volume, converted, with its trial table."""
    folder = tmp_path_factory.mktemp("simulated")
    root = simulate_root(folder / "nsd", Simulation(sessions=2, shape=(750, 7, 11, 5)))
    nsd_zarr.convert(root.betas_folder, folder / "subj01.zarr")
    table = make_trial_table(2, 750)
    percent = nsd_zarr.open_dataset(folder / "subj01.zarr").betas.values.reshape(2, 750, 7, 11, 5).astype(np.float64)
    dims = ("session_number", "z", "y", "x")
    extend_store(
        folder / "subj01.zarr",
        {
            "nsd_id": ((table["73KID"] - 1).astype(np.int32), ("trial",), {}),
            "session_mean": (percent.mean(1).astype(np.float32), dims, {}),
            "session_std": (percent.std(1).astype(np.float32), dims, {}),
        },
    )
    return folder / "subj01.zarr"


def test_ncsnr_equals_the_definition(experiment, reads):
    ds = nsd_zarr.open_dataset(experiment.path)
    found = ds.nsd.compute_ncsnr()
    ids, counts = np.unique(experiment.arrays["nsd_id"], return_counts=True)
    wanted = np.flatnonzero(np.isin(experiment.arrays["nsd_id"], ids[counts == 3]))
    assert sorted(reads.trials) == wanted.tolist()
    assert (found.dims, found.dtype, found.attrs["images"]) == (("z", "y", "x"), np.float32, (counts == 3).sum())
    expected = transcribe_ncsnr(experiment.percent, experiment.session, experiment.arrays["nsd_id"])
    # Where noise fills nearly all of the variance, a rounding of z-scores to float32 is magnified.
    np.testing.assert_allclose(found.values, expected, atol=1e-4)
    steady = expected > 0.1
    np.testing.assert_allclose(found.values[steady], expected[steady], atol=1e-6)


def test_ncsnr_of_simulated_sessions_equals_the_definition_to_a_millionth(simulated):
    ds = nsd_zarr.open_dataset(simulated)
    counts = np.rint(ds.betas.values.astype(np.float64) * 300)
    expected = transcribe_ncsnr(counts, ds.session.values, ds.nsd_id.values)
    found = ds.nsd.compute_ncsnr().values
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    steady = np.nan_to_num(expected) > 0.1
    np.testing.assert_allclose(found[steady], expected[steady], atol=1e-6)


def test_planted_ncsnr_is_recovered_within_sampling_error(simulated):
    found = nsd_zarr.open_dataset(simulated).nsd.compute_ncsnr()
    planted = make_planted_ncsnr((7, 11, 5))
    whole = make_valid((7, 11, 5), session=1) & make_valid((7, 11, 5), session=2)
    inside = np.isfinite(planted) & whole
    assert np.array_equal(np.isfinite(found.values)[whole], inside[whole])
    # The noise variance is the mean of some 400 variances of 2 degrees of freedom: 5 % of it; signal power is the rest.
    power = planted[inside] ** 2 / (1 + planted[inside] ** 2)
    error = found.values[inside] ** 2 / (1 + found.values[inside] ** 2) - power
    assert found.attrs["images"] > 250
    assert np.abs(error.mean()) < 0.02
    assert error.std() < 0.06


@pytest.mark.parametrize("bytes_at_once", [1, 10**5, 10**9])
def test_ncsnr_is_the_same_for_any_block(experiment, monkeypatch, bytes_at_once):
    expected = nsd_zarr.open_dataset(experiment.path).nsd.compute_ncsnr().values
    monkeypatch.setattr("nsd_zarr.read.noise.BLOCK_BYTES", bytes_at_once)
    found = nsd_zarr.open_dataset(experiment.path).nsd.compute_ncsnr().values
    assert np.array_equal(found, expected, equal_nan=True)


@pytest.mark.parametrize("options", [{}, {"chunks": {}}], ids=["memory", "dask"])
def test_ncsnr_of_a_roi_and_of_values_in_memory_is_the_same(experiment, options):
    ds = nsd_zarr.open_dataset(experiment.path, **options)
    mask = experiment.arrays["roi_nsdgeneral"] > 0
    whole = nsd_zarr.open_dataset(experiment.path).nsd.compute_ncsnr().values[mask]
    roi = ds.nsd.roi("nsdgeneral")
    np.testing.assert_allclose(roi.nsd.compute_ncsnr().values, whole, atol=1e-4)
    np.testing.assert_allclose(roi.nsd.zscore(ddof=1).load().nsd.compute_ncsnr().values, whole, atol=1e-4)


@pytest.mark.parametrize("half", [1, 2])
def test_ncsnr_of_a_half_takes_every_second_image_in_the_order_of_10k_ids(experiment, half):
    found = nsd_zarr.open_dataset(experiment.path).nsd.compute_ncsnr(half=half).values
    arrays = experiment.arrays
    expected = transcribe_ncsnr(experiment.percent, experiment.session, arrays["nsd_id"], arrays["image_10k"], half)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found[expected > 0.1], expected[expected > 0.1], atol=1e-6)


@pytest.mark.parametrize("half", [0, 3, "odd"])
def test_another_half_is_refused(experiment, half):
    with pytest.raises(ConfigError, match="expected 1 or 2"):
        nsd_zarr.open_dataset(experiment.path).nsd.compute_ncsnr(half=half)


def test_ncsnr_without_repeats_is_refused(experiment):
    ds = nsd_zarr.open_dataset(experiment.path)
    with pytest.raises(ConfigError, match="shown 3 times"):
        ds.isel(trial=slice(0, 2)).nsd.compute_ncsnr()


def test_noise_ceiling_is_the_manuals_formula(experiment):
    ds = nsd_zarr.open_dataset(experiment.path)
    ncsnr = experiment.arrays["ncsnr"]
    found = ds.nsd.noise_ceiling(3)
    np.testing.assert_allclose(found.values, 100 * ncsnr**2 / (ncsnr**2 + 1 / 3), rtol=1e-6)
    assert (found.dims, found.attrs["units"]) == (("z", "y", "x"), "percent")


def test_noise_ceiling_of_averages_counts_their_repeats(experiment):
    averaged = nsd_zarr.open_dataset(experiment.path).nsd.roi("nsdgeneral").nsd.average_repeats()
    ncsnr = experiment.arrays["ncsnr"][experiment.arrays["roi_nsdgeneral"] > 0]
    over = (1 / averaged.repeats.values).mean()
    never = (experiment.scored != experiment.scored).all(0)[experiment.arrays["roi_nsdgeneral"] > 0]
    ncsnr = np.where(never, np.nan, ncsnr)  # what never has data has no mean, and no ceiling
    np.testing.assert_allclose(averaged.nsd.noise_ceiling().values, 100 * ncsnr**2 / (ncsnr**2 + over), rtol=1e-5)


def test_noise_ceiling_of_what_was_computed(experiment):
    ds = nsd_zarr.open_dataset(experiment.path)
    computed = ds.assign(ncsnr=ds.nsd.compute_ncsnr())
    assert computed.nsd.noise_ceiling(1).sizes == {"z": 5, "y": 11, "x": 3}


def test_noise_ceiling_without_what_it_needs_is_refused(experiment, volumes):
    with pytest.raises(ConfigError, match="noise_ceiling"):
        nsd_zarr.open_dataset(experiment.path).nsd.noise_ceiling()
    with pytest.raises(StoreError, match="compute_ncsnr"):
        nsd_zarr.open_dataset(volumes.path).nsd.noise_ceiling(3)
