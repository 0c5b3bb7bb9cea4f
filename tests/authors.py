"""What the dataset's authors compute, transcribed from their code in float64 with NumPy alone: an oracle."""

import warnings

import numpy as np


def zscore_as_authors(values, session):
    """calczscore.m: nanmean, nanstd with ddof 1; a standard deviation of 0 makes the voxel NaN. float64."""
    out = np.empty(values.shape)
    for number in np.unique(session):
        mine = session == number
        part = values[mine].astype(np.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a voxel that is NaN in all trials
            mean, std = np.nanmean(part, axis=0), np.nanstd(part, axis=0, ddof=1)
        out[mine] = (part - mean) / np.where(std == 0, np.nan, std)
    return out


def transcribe_noise_variance(scored, ids, image_10k=None, half=None):
    """export_noiseceiling.m: images with exactly three showings, variance ddof 1, nanmean over images."""
    images = [image for image in np.unique(ids) if (ids == image).sum() == 3]
    if half is not None:  # 1:2:end, 2:2:end in the order of 10k ids
        images = sorted(images, key=lambda image: image_10k[ids == image][0])[half - 1 :: 2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a mean of no image
        return np.nanmean([scored[ids == image].var(axis=0, ddof=1) for image in images], axis=0)


def transcribe_ncsnr(values, session, ids, image_10k=None, half=None):
    """translatevmetric.m of the noise variance, on all trials at once."""
    variance = transcribe_noise_variance(zscore_as_authors(values, session), ids, image_10k, half)
    return np.sqrt(np.maximum(0, 1 - variance)) / np.sqrt(variance)
