import numpy as np
import pytest

from nsd_zarr.simulate import make_73k_ids, make_image_features, make_image_order, make_master_ordering


@pytest.mark.parametrize(("sessions", "trials"), [(1, 6), (3, 13), (2, 2), (3, 750), (40, 750)])
def test_no_image_is_shown_more_than_three_times(sessions, trials):
    ids, showings = np.unique(make_image_order(sessions, trials), return_counts=True)
    assert showings.max() <= 3
    assert ids.min() >= 1
    assert ids.max() <= 10_000


def test_three_sessions_have_many_images_of_three_repeats_and_some_of_fewer():
    ids, showings = np.unique(make_image_order(3, 750), return_counts=True)
    once, twice, thrice = np.bincount(showings)[1:]
    assert thrice > 400
    assert min(once, twice) > 30
    shared = ids <= 1000
    assert 0.05 < shared.mean() < 0.15
    assert (showings[shared] == 3).sum() > 20


def test_whole_experiment_shows_all_images_three_times():
    ids, showings = np.unique(make_image_order(40, 750), return_counts=True)
    assert np.array_equal(ids, np.arange(1, 10_001))
    assert set(showings) == {3}


def test_six_trials_hold_a_shared_image_and_a_repeat():
    ids = make_image_order(1, 6)
    assert (ids <= 1000).any()
    assert len(np.unique(ids)) < len(ids)


def test_order_follows_the_seed():
    order = make_image_order(2, 53, seed=1)
    assert np.array_equal(order, make_image_order(2, 53, seed=1))
    assert not np.array_equal(order, make_image_order(2, 53, seed=2))


def test_master_ordering_begins_with_the_order_and_shows_every_image_three_times():
    ordering = make_master_ordering(2, 53, seed=1)
    assert np.array_equal(ordering[:106], make_image_order(2, 53, seed=1))
    assert np.array_equal(np.bincount(ordering), [0] + 10_000 * [3])


def test_73k_ids_of_all_subjects_are_every_image_once():
    shared, own = np.arange(1, 1001), np.arange(1001, 10_001)
    assert all(np.array_equal(make_73k_ids(shared, 1), make_73k_ids(shared, subject)) for subject in range(2, 9))
    every = np.concatenate([make_73k_ids(shared), *(make_73k_ids(own, subject) for subject in range(1, 9))])
    assert np.array_equal(np.sort(every), np.arange(1, 73_001))


def test_features_of_an_image_depend_on_seed_and_id_alone():
    few = make_image_features(np.array([72_999, 0, 31]), seed=5)
    assert few.shape == (3, 8)
    assert few.dtype == np.float32
    assert np.array_equal(few, make_image_features(np.arange(73_000), seed=5)[[72_999, 0, 31]])
    assert not np.array_equal(few, make_image_features(np.array([72_999, 0, 31]), seed=6))


def test_features_are_standard_normal_over_all_images():
    features = make_image_features(np.arange(73_000))
    assert np.abs(features.mean(axis=0)).max() < 0.02
    assert np.abs(np.cov(features.T) - np.eye(8)).max() < 0.03


@pytest.mark.parametrize("wrong", [-1, 73_000])
def test_features_of_an_id_outside_the_dataset_are_refused(wrong):
    with pytest.raises(IndexError, match="72999"):
        make_image_features(np.array([3, wrong]))
