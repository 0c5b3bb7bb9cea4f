import numpy as np
import pandas as pd
import pytest

import nsd_zarr
from nsd_zarr.errors import ConfigError, StoreError
from nsd_zarr.read.lazy import find_lazy


def average_by_pandas(values, ids):
    frame = pd.DataFrame(values.reshape(len(values), -1).astype(np.float64))
    averaged = frame.groupby(ids, sort=False).mean()
    return averaged.index.values, averaged.values.reshape(-1, *values.shape[1:])


def find_data(experiment):
    """Whether each voxel varies in the session of each trial."""
    values, data = experiment.store.stored, np.zeros(experiment.store.stored.shape, bool)
    for session in experiment.store.sessions:
        mine = experiment.session == session
        data[mine] = values[mine].max(0) != values[mine].min(0)
    return data


def open_dataset(experiment, how="lazy"):
    ds = nsd_zarr.open_dataset(experiment.path, **({"chunks": {}} if how == "dask" else {}))
    return ds.load() if how == "memory" else ds


@pytest.mark.parametrize("how", ["lazy", "memory", "dask"])
def test_average_equals_pandas_groupby(experiment, how, reads):
    found = open_dataset(experiment, how).nsd.average_repeats()
    ids, expected = average_by_pandas(
        np.where(find_data(experiment), experiment.percent, np.nan), experiment.arrays["nsd_id"]
    )
    assert found.betas.dims == ("image", "z", "y", "x")
    assert found.nsd_id.values.tolist() == ids.tolist()
    np.testing.assert_allclose(found.betas.values, expected, rtol=1e-6, atol=1e-5)
    counts = pd.Series(experiment.arrays["nsd_id"]).value_counts(sort=False)
    assert found.repeats.values.tolist() == counts[ids].tolist()
    assert sorted(found.repeats.values.tolist()) == [1] * 8 + [2] * 4 + [3] * 10 or found.repeats.sum() == 42


def test_opening_an_average_reads_nothing_and_one_image_its_trials(experiment, reads):
    found = open_dataset(experiment).nsd.average_repeats()
    assert reads.trials == []
    image = int(np.flatnonzero(found.repeats.values == 3)[2])
    found.betas[image].load()
    assert reads.trials == np.flatnonzero(experiment.arrays["nsd_id"] == found.nsd_id.values[image]).tolist()


def test_every_trial_is_read_once_for_all_images(experiment, reads):
    open_dataset(experiment).nsd.average_repeats().betas.load()
    assert sorted(reads.trials) == list(range(42))


def test_roi_zscore_and_average_follow_each_other(experiment, reads):
    mask = experiment.arrays["roi_prf-visualrois"] > 0
    _, expected = average_by_pandas(experiment.scored[:, mask], experiment.arrays["nsd_id"])
    ds = open_dataset(experiment)
    found = ds.nsd.roi("prf-visualrois").nsd.zscore().nsd.average_repeats()
    other = ds.nsd.zscore().nsd.average_repeats().nsd.roi("prf-visualrois")
    assert reads.trials == []
    assert find_lazy(found.betas.variable) is not None
    assert found.betas.dims == other.betas.dims == ("image", "voxel")
    np.testing.assert_allclose(found.betas.values, expected, atol=4e-6)
    assert np.array_equal(found.betas.values, other.betas.values, equal_nan=True)
    assert found.betas.attrs["units"] == "1"


def test_average_over_some_trials_is_of_those(experiment):
    chosen = np.array([40, 3, 17, 22, 9, 30, 1])
    ids, expected = average_by_pandas(
        np.where(find_data(experiment), experiment.percent, np.nan)[chosen], experiment.arrays["nsd_id"][chosen]
    )
    found = open_dataset(experiment).isel(trial=chosen, z=[3, 0]).nsd.average_repeats()
    np.testing.assert_allclose(found.betas.values, expected[:, [3, 0]], rtol=1e-6, atol=1e-5)
    assert found.nsd_id.values.tolist() == ids.tolist()


def test_columns_of_the_trial_give_way_to_those_of_the_image(experiment):
    found = open_dataset(experiment).nsd.average_repeats()
    assert {name for name, each in found.coords.items() if each.dims == ("image",)} == {
        "nsd_id",
        "image_10k",
        "shared1000",
        "store",
        "repeats",
    }
    assert "trial" not in found.dims
    first = [experiment.arrays["nsd_id"].tolist().index(shown) for shown in found.nsd_id.values]
    assert np.array_equal(found.image_10k.values, experiment.arrays["image_10k"][first])


def test_average_without_image_ids_is_refused(volumes):
    with pytest.raises(StoreError, match="no nsd_id"):
        nsd_zarr.open_dataset(volumes.path).nsd.average_repeats()


@pytest.mark.parametrize("how", ["lazy", "memory"])
def test_average_of_an_average_or_of_one_trial_is_refused(experiment, how):
    ds = open_dataset(experiment, how)
    with pytest.raises(ConfigError, match="no trials to average"):
        ds.nsd.average_repeats().nsd.average_repeats()
    with pytest.raises(ConfigError, match="no trials to average"):
        ds.isel(trial=0).nsd.average_repeats()


def test_split_by_shared1000_is_lazy_and_shares_no_image(experiment, reads):
    split = open_dataset(experiment).nsd.roi("nsdgeneral").nsd.split("shared1000")
    train, test = split
    assert reads.trials == []
    shared = experiment.arrays["shared1000"]
    assert 0 < test.sizes["trial"] == shared.sum() < 42
    assert np.array_equal(train.nsd_id.values, experiment.arrays["nsd_id"][~shared])
    assert not set(train.nsd_id.values) & set(test.nsd_id.values)
    mask = experiment.arrays["roi_nsdgeneral"] > 0
    assert np.array_equal(split.test.betas.values, experiment.percent[shared][:, mask])
    assert sorted(reads.trials) == np.flatnonzero(shared).tolist()


def test_split_of_averaged_images(experiment):
    train, test = open_dataset(experiment).nsd.average_repeats().nsd.split("shared1000")
    assert test.shared1000.all()
    assert not train.shared1000.any()
    assert test.sizes["image"] + train.sizes["image"] == len(set(experiment.arrays["nsd_id"].tolist()))


def test_split_by_shared515_of_few_sessions_asks_for_the_images(experiment):
    ds = open_dataset(experiment)
    with pytest.raises(StoreError, match="images="):
        ds.nsd.split("shared515")
    images = experiment.arrays["nsd_id"][experiment.arrays["shared1000"]][:1]
    train, test = ds.nsd.split("shared515", images=images)
    assert set(test.nsd_id.values) == set(images.tolist())
    assert not train.shared1000.any()


def test_split_without_a_trial_table_or_of_another_name_is_refused(volumes, experiment):
    with pytest.raises(StoreError, match="no shared1000"):
        nsd_zarr.open_dataset(volumes.path).nsd.split("shared1000")
    with pytest.raises(ConfigError, match="Choose one of"):
        open_dataset(experiment).nsd.split("shared")
