import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsd_zarr.errors import ConfigError
from nsd_zarr.science.repeats import average_repeats, find_repeats

ids = st.lists(st.integers(0, 6), min_size=1, max_size=40).map(np.array)


@given(ids)
def test_repeats_hold_every_trial_once_by_image_in_order(ids):
    repeats = find_repeats(ids)
    assert sorted(repeats.trials[repeats.trials >= 0].tolist()) == list(range(len(ids)))
    assert repeats.ids.tolist() == list(dict.fromkeys(ids.tolist()))
    for image, row, count in zip(repeats.ids, repeats.trials, repeats.counts, strict=True):
        assert row[row >= 0].tolist() == np.flatnonzero(ids == image).tolist()
        assert count == (ids == image).sum()


@given(ids)
def test_average_equals_pandas_groupby(ids):
    values = np.arange(len(ids) * 3).reshape(-1, 3) ** 1.5
    expected = pd.DataFrame(values).groupby(ids, sort=False).mean()
    np.testing.assert_allclose(average_repeats(values, ids), expected.values)


def test_images_of_one_count_are_picked():
    repeats = find_repeats(np.array([5, 3, 5, 8, 5, 3]))
    assert repeats.of(3).tolist() == [[0, 2, 4]]
    assert repeats.of(2).tolist() == [[1, 5]]
    assert repeats.of(1).tolist() == [[3]]
    assert repeats.first.tolist() == [0, 1, 3]


@pytest.mark.parametrize("wrong", [np.array([], int), np.zeros(200, int)], ids=["none", "one id for all"])
def test_ids_that_are_none_are_refused(wrong):
    with pytest.raises(ConfigError):
        find_repeats(wrong)
