"""Images: which one each trial shows, how its ids are numbered, and its latent features."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nsd_zarr.nsd import ALL_IMAGES, IMAGES_PER_SUBJECT, SHARED_IMAGES, SHOWINGS, SUBJECTS
from nsd_zarr.simulate.streams import Stream, make_generator

IMAGE_FEATURES = 8
"""Latent features of an image; our choice, few enough for an encoder to learn from a few hundred trials."""
_ID_STEP, _ID_START = 30_011, 46_002
"""Our scramble of the 73k ids: a step prime to 73,000, and a start that makes 10k id 1 the 0-based image 46002."""


def make_image_order(sessions: int, trials_per_session: int, seed: int = 0) -> NDArray[np.int64]:
    """The image of each trial, sessions after each other, the same for every subject as in the dataset.

    Each image is shown up to three times. Half of the lags are short, so that repeats fall within sessions
    as well as across them. The experiment is laid out a fifth longer than it runs, as for the subjects
    who stopped early, so that most images come three times and some once or twice; at 30,000 trials all come
    three times. Returns 1-based 10k ids of shape (sessions * trials_per_session,).
    """
    trials = sessions * trials_per_session
    rng = make_generator(seed, Stream.IMAGE_ORDER, SUBJECTS[0])
    images = choose_images(count_images(trials), rng)
    times = draw_showing_times(len(images), trials, trials_per_session, rng)
    order = np.argsort(times, axis=None, kind="stable")
    return np.repeat(images, SHOWINGS)[order[:trials]]


def make_master_ordering(sessions: int, trials_per_session: int, seed: int = 0) -> NDArray[np.int64]:
    """The image of each trial of the whole experiment: make_image_order, then all showings that are left, shuffled.

    Returns 1-based 10k ids of shape (30000,), each three times.
    """
    order = make_image_order(sessions, trials_per_session, seed)
    shown = np.bincount(order, minlength=IMAGES_PER_SUBJECT + 1)[1:]
    left = np.repeat(np.arange(1, IMAGES_PER_SUBJECT + 1), SHOWINGS - shown)
    rng = make_generator(seed, Stream.IMAGE_ORDER, SUBJECTS[0], sessions)
    return np.concatenate([order, rng.permutation(left)])


def count_images(trials: int) -> int:
    """Images that an experiment cut off after *trials* trials is laid out for."""
    return min(IMAGES_PER_SUBJECT, max(-(-trials // SHOWINGS), trials * 6 // 5 // SHOWINGS))


def choose_images(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Distinct 10k ids, 1-based, a tenth of them shared1000 and at least one; shape (count,)."""
    shared = max(1, count // (IMAGES_PER_SUBJECT // SHARED_IMAGES))
    own = rng.choice(np.arange(SHARED_IMAGES + 1, IMAGES_PER_SUBJECT + 1), count - shared, replace=False)
    return np.concatenate([rng.choice(np.arange(1, SHARED_IMAGES + 1), shared, replace=False), own])


def draw_showing_times(
    images: int, trials: int, trials_per_session: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """When each image is shown, in trials from the start, on a circle so that no time is crowded; shape (images, 3)."""
    lags = rng.uniform(0, trials, (images, SHOWINGS))
    short = rng.random((images, SHOWINGS)) < 0.5
    short[:, 0] = False  # The first column is when the image first comes, not a lag.
    lags[short] = rng.exponential(trials_per_session / 6, short.sum())
    return np.cumsum(lags, axis=1) % trials


def make_73k_ids(ids_10k: NDArray[np.int64], subject: int = 1) -> NDArray[np.int64]:
    """The 73k ids, 1-based, of *ids_10k* (1-based) of *subject*.

    As in the dataset, subjects share the ids of shared1000 and no others, and all 73,000 are used once.
    """
    own = SHARED_IMAGES + (subject - SUBJECTS[0]) * (IMAGES_PER_SUBJECT - SHARED_IMAGES)
    row = np.where(ids_10k <= SHARED_IMAGES, ids_10k - 1, own + ids_10k - SHARED_IMAGES - 1)
    return 1 + (row * _ID_STEP + _ID_START) % ALL_IMAGES


def make_image_features(nsd_ids: NDArray[np.integer], seed: int = 0) -> NDArray[np.float32]:
    """Latent features of images, standard normal over all images, the same for every subject.

    *nsd_ids*: 0-based 73k ids (73KID - 1), any shape. Returns float32 of shape (*nsd_ids.shape, 8). Raises IndexError
    outside 0 .. 72999.
    """
    ids = np.asarray(nsd_ids)
    if ids.size and (ids.min() < 0 or ids.max() >= ALL_IMAGES):
        raise IndexError(f"nsd_ids run from {ids.min()} to {ids.max()}, expected 0 to {ALL_IMAGES - 1}")
    features: NDArray[np.float32] = _draw_features(seed)[ids]
    return features


@lru_cache(maxsize=2)
def _draw_features(seed: int) -> NDArray[np.float32]:
    # Kept, 2.3 MB: images are made some at a time, and drawing all features takes as long as making a thousand images.
    rng = make_generator(seed, Stream.IMAGE_FEATURES)
    return rng.standard_normal((ALL_IMAGES, IMAGE_FEATURES), dtype=np.float32)
