import numpy as np
import pytest

from nsd_zarr.errors import ConfigError
from nsd_zarr.science.ceiling import NoiseVariance, make_ncsnr, make_noise_ceiling


def transcribe_ncsnr(images):
    """The definition, word for word: shape (image, repeat, voxel)."""
    noise_variance = images.var(axis=1, ddof=1).mean(axis=0)
    return np.sqrt(np.maximum(0, 1 - noise_variance)) / np.sqrt(noise_variance)


def test_streamed_ncsnr_equals_the_definition():
    images = np.random.default_rng(3).standard_normal((40, 3, 7)) * np.linspace(0.1, 0.9, 7)
    left, right = NoiseVariance((7,)), NoiseVariance((7,))
    for image in images[:11]:
        left.add(image)
    for image in images[11:]:
        right.add(image)
    left.merge(right)
    np.testing.assert_allclose(make_ncsnr(left.finish()), transcribe_ncsnr(images), rtol=1e-6)


@pytest.mark.parametrize("ncsnr", [0.3, 1.0, 1.5])
def test_planted_ncsnr_is_recovered_within_sampling_error(ncsnr):
    rng, images = np.random.default_rng(11), 4000
    signal = rng.standard_normal((images, 1, 50)) * ncsnr
    trials = signal + rng.standard_normal((images, 3, 50))
    trials = (trials - trials.mean((0, 1))) / trials.std((0, 1))
    variance = NoiseVariance((50,))
    for image in trials:
        variance.add(image)
    np.testing.assert_allclose(make_ncsnr(variance.finish()), ncsnr, atol=0.08)


def test_noise_variance_of_no_image_is_refused():
    with pytest.raises(ConfigError, match="shown 3 times"):
        NoiseVariance((2,)).finish()


def test_noise_ceiling_of_mixed_repeats_is_the_manuals_formula():
    ncsnr = np.array([0.0, 0.4, 1.3, np.nan], np.float32)
    three, two, one = 7, 5, 3
    found = make_noise_ceiling(ncsnr, [3] * three + [2] * two + [1] * one)
    over = (three / 3 + two / 2 + one) / (three + two + one)
    np.testing.assert_allclose(found, 100 * ncsnr**2 / (ncsnr**2 + over), rtol=1e-6)
    assert found.dtype == np.float32


def test_noise_ceiling_grows_with_trials():
    assert make_noise_ceiling(np.array([0.5]), 1) < make_noise_ceiling(np.array([0.5]), 3)


@pytest.mark.parametrize("wrong", [0, -1, [], [3, 0], np.nan])
def test_averages_over_no_trial_are_refused(wrong):
    with pytest.raises(ConfigError, match="positive"):
        make_noise_ceiling(np.ones(1), wrong)
