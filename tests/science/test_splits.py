import numpy as np
import pytest

from nsd_zarr.errors import ConfigError, StoreError
from nsd_zarr.nsd import SESSIONS_OF_ALL
from nsd_zarr.science.splits import make_split, select_split

PER_SESSION = 10


def make_table(sessions, seed=5):
    """A whole experiment of 40 sessions cut to *sessions*: 10 trials each, images shown up to three times."""
    order = np.random.default_rng(seed).permutation(np.repeat(np.arange(1, 135), 3))[: 40 * PER_SESSION]
    repeat = np.array([(order[:place] == image).sum() for place, image in enumerate(order)])
    session = np.repeat(np.arange(1, 41), PER_SESSION)
    table = {"session": session, "repeat": repeat, "nsd_id": order * 7 + 3, "shared1000": order <= 40}
    kept = np.isin(session, sessions)
    return {name: values[kept] for name, values in table.items()}


def test_shared1000_splits_all_trials_by_image():
    table = make_table(range(1, 4))
    split = make_split("shared1000", table.__getitem__)
    assert np.array_equal(split.train, ~split.test)
    assert np.array_equal(split.test, table["shared1000"])


@pytest.mark.parametrize("sessions", [30, 32, 40])
def test_shared515_is_the_same_for_subjects_of_different_length(sessions):
    table = make_table(range(1, sessions + 1))
    found = set(table["nsd_id"][make_split("shared515", table.__getitem__).test])
    least = make_table(range(1, SESSIONS_OF_ALL + 1))
    ids, counts = np.unique(least["nsd_id"][least["shared1000"]], return_counts=True)
    assert found == set(ids[counts == 3])
    assert 0 < len(found) < 40


def test_shared515_tests_all_showings_and_trains_on_what_is_not_shared():
    table = make_table(range(1, 41))
    split = make_split("shared515", table.__getitem__)
    assert (np.unique(table["nsd_id"][split.test], return_counts=True)[1] == 3).all()
    assert np.array_equal(split.train, ~table["shared1000"])


def test_shared515_without_a_session_of_the_first_30_is_refused():
    table = make_table([*range(1, 8), *range(9, 41)])
    with pytest.raises(StoreError, match="1 of them are not here, session 8 first"):
        make_split("shared515", table.__getitem__)


def test_given_images_replace_the_rule():
    table = make_table([2])
    images = table["nsd_id"][:3]
    split = make_split("shared515", table.__getitem__, images=images.tolist())
    assert np.array_equal(split.test, np.isin(table["nsd_id"], images))
    assert not (split.train & split.test).any()


@pytest.mark.parametrize("select", [make_split, select_split])
def test_unknown_split_is_refused(select):
    with pytest.raises(ConfigError, match="shared1000"):
        select("shared999", make_table([1]).__getitem__)


def test_words_name_trials():
    table = make_table(range(1, 41))
    assert np.array_equal(select_split("train", table.__getitem__), ~table["shared1000"])
    assert np.array_equal(select_split("test", table.__getitem__), table["shared1000"])
    assert np.array_equal(select_split("shared515", table.__getitem__), make_split("shared515", table.__getitem__).test)
