from dataclasses import replace

import h5py
import numpy as np
import pytest

from nsd_zarr.simulate import (
    Simulation,
    make_brain_mask,
    make_image_features,
    make_planted_ncsnr,
    make_roi,
    make_trial_table,
    make_valid,
    make_voxel_truth,
    simulate_root,
)
from nsd_zarr.simulate.voxels import make_ncsnr

RECIPE = Simulation(sessions=3, shape=(251, 11, 17, 13), layout="contiguous", seed=7)


def find_whole_voxels():
    """Voxels of the brain with data in all sessions, shape (z, y, x)."""
    valid = [make_valid(RECIPE.volume_shape, RECIPE.seed, session=session) for session in (1, 2, 3)]
    return make_brain_mask(RECIPE.volume_shape) & np.all(valid, axis=0)


def make_whole_truth():
    """What is planted in these voxels alone."""
    truth = make_voxel_truth(RECIPE)
    whole = find_whole_voxels()[truth.mask]
    vectors = ("coordinates", "ncsnr", "noise_counts", "weights", "rails")
    return replace(truth, **{name: getattr(truth, name)[whole] for name in vectors})


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    """Stored counts of three sessions, voxels of the brain with data in all; shape (session, trial, voxel)."""
    root = simulate_root(tmp_path_factory.mktemp("ncsnr"), RECIPE)
    mask = find_whole_voxels()
    sessions = []
    for path in root.session_files:
        with h5py.File(path) as file:
            sessions.append(file["betas"][...][:, mask])
    return np.stack(sessions)


@pytest.fixture(scope="module")
def ids():
    return make_trial_table(RECIPE.sessions, RECIPE.trials_per_session, RECIPE.seed)["73KID"].astype(int)


@pytest.fixture(scope="module")
def zscores(counts):
    z = (counts - counts.mean(axis=1, keepdims=True)) / counts.std(axis=1, keepdims=True)
    return z.reshape(-1, z.shape[2])


def noise_variance(zscores, ids):
    """Mean over three-repeat images of the ddof-1 variance, and the number of these images."""
    images, showings = np.unique(ids, return_counts=True)
    rows = np.stack([np.flatnonzero(ids == image) for image in images[showings == 3]])
    return zscores[rows].var(axis=1, ddof=1).mean(axis=0), len(rows)


def test_planted_ncsnr_is_recovered_by_the_datasets_definition(zscores, ids):
    planted = make_planted_ncsnr(RECIPE.volume_shape, RECIPE.seed)[find_whole_voxels()]
    variance, images = noise_variance(zscores, ids)
    assert images > 120
    expected = 1 / (1 + planted**2)
    # Relative sampling sd in a voxel of pure noise: a mean of *images* variances of 2 degrees of freedom each, over
    # the variance of all trials, of which they are part.
    error = (variance / expected - 1) / np.sqrt(1 / images - 2 / len(ids))
    assert abs(np.median(error)) < 0.3
    assert 0.7 < error.std() < 1.3
    assert np.abs(error).max() < 6
    recovered = np.sqrt(np.maximum(0, 1 - variance)) / np.sqrt(variance)
    visual = planted > 0.3
    assert np.median(np.abs(recovered[visual] / planted[visual] - 1)) < 0.1


def test_planted_ncsnr_is_high_in_nsdgeneral_low_elsewhere_and_nan_outside():
    shape = (17, 13, 19)
    planted, visual = make_planted_ncsnr(shape), make_roi("nsdgeneral", shape) > 0
    mask = make_brain_mask(shape)
    assert planted.dtype == np.float32
    assert np.array_equal(np.isnan(planted), ~mask)
    assert planted[visual].min() >= 0.3 > planted[mask & ~visual].max()
    assert 1.2 < planted[visual].max() <= 1.5


def test_signal_is_linear_in_the_image_features(zscores, ids):
    truth = make_whole_truth()
    features = make_image_features(ids - 1, RECIPE.seed)
    learned, *_ = np.linalg.lstsq(features, zscores, rcond=None)
    best = truth.ncsnr > 1
    agreement = np.sum(learned.T * truth.weights, axis=1) / np.linalg.norm(learned, axis=0)
    assert best.any()
    assert agreement[best].min() > 0.95


def test_weights_have_unit_norm_and_noise_is_a_few_percent():
    truth = make_voxel_truth(Simulation(shape=(2, 31, 29, 37)))
    assert np.allclose(np.linalg.norm(truth.weights, axis=1), 1, atol=1e-5)
    logarithm = np.log(truth.noise_counts / 300)
    assert abs(logarithm.mean() - np.log(2)) < 0.02
    assert abs(logarithm.std() - 0.4) < 0.02


def test_sessions_drift_apart_by_less_than_half_a_standard_deviation(counts):
    truth = make_whole_truth()
    means = (counts.mean(axis=1) / truth.noise_counts)[:, ~truth.rails]
    shifts = np.abs(means[0] - means[1])
    assert 0.1 < shifts.mean() < 0.6
    assert np.corrcoef(means[0], means[1])[0, 1] < 0.9


def test_rails_are_reached_by_the_few_rail_voxels_in_every_session(counts):
    truth = make_whole_truth()
    assert truth.rails.sum() == 4
    assert np.array_equal((counts == -32768).any(axis=1), np.tile(truth.rails, (3, 1)))
    assert np.array_equal((counts == 32767).any(axis=1), np.tile(truth.rails, (3, 1)))


def test_slab_slices_tile_the_brain_once():
    truth = make_voxel_truth(Simulation(shape=(2, 5, 7, 3)))
    slices = [truth.voxels_of_slab(z) for z in range(5)]
    assert [0, *(part.stop for part in slices)] == [*(part.start for part in slices), len(truth.ncsnr)]


def test_ncsnr_is_nan_where_no_image_has_three_showings_with_data():
    recipe = Simulation(sessions=3, shape=(29, 11, 17, 13), seed=5)
    ids = make_trial_table(3, 29, 5)["73KID"]
    valid = np.array([make_valid((11, 17, 13), 5, session=session) for session in (1, 2, 3)])
    counted = np.zeros((11, 17, 13), int)
    for image in np.unique(ids):
        trials = np.flatnonzero(ids == image)
        if len(trials) == 3:
            counted += valid[trials // 29].all(axis=0)
    planted, found = make_planted_ncsnr((11, 17, 13), 5), make_ncsnr(recipe)
    assert found.dtype == np.float32
    assert np.array_equal(found, np.where(counted > 0, planted, np.nan), equal_nan=True)
    assert (np.isnan(found) & ~np.isnan(planted)).any()
