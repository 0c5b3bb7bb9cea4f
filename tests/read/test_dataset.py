import numpy as np
import pytest
import xarray as xr

import nsd_zarr


@pytest.fixture
def dataset(volumes):
    return nsd_zarr.open_dataset(volumes.path)


def trials_of(volumes, session):
    return [trial for trial in range(volumes.trials) if volumes.locate(trial)[0] == session]


def test_open_dataset_is_the_engine_by_name(volumes, dataset):
    xr.testing.assert_identical(dataset, xr.open_dataset(volumes.path))
    assert np.array_equal(dataset.betas[17].values, volumes.percent[17])


@pytest.mark.parametrize("options", [{"raw": True}, {"raw": True, "chunks": {}}, {"mask_and_scale": False}], ids=str)
def test_raw_delivers_the_stored_counts(volumes, options):
    betas = nsd_zarr.open_dataset(volumes.path, **options).betas
    assert betas.dtype == np.int16
    assert np.array_equal(betas.values, volumes.stored)


def test_repr_reads_no_trial(dataset, reads):
    for thing in (dataset, dataset.betas, dataset.betas[3], dataset.isel(trial=[3, 2]).session):
        assert repr(thing)
        assert thing._repr_html_()
    assert reads.trials == []


@pytest.mark.parametrize(
    "select",
    [
        lambda ds: ds.sel(trial=ds.session == 3),
        lambda ds: ds.sel(trial=(ds.session == 3).values),
        lambda ds: ds.isel(trial=ds.session == 3),
        lambda ds: ds.isel(trial=np.flatnonzero(ds.session == 3)),
        lambda ds: ds.set_xindex("session").sel(session=3),
        lambda ds: ds.where(ds.session == 3, drop=True),
        lambda ds: ds.groupby("session")[3],
    ],
    ids=["sel", "sel values", "isel", "isel places", "set_xindex", "where", "groupby"],
)
def test_trials_of_a_session_are_selected(volumes, dataset, select):
    found = select(dataset)
    trials = trials_of(volumes, 3)
    assert found.sizes["trial"] == len(trials) == 14
    assert np.array_equal(found.betas.values, volumes.percent[trials])
    assert found.trial_in_session.values.tolist() == list(range(14))
    assert (found.session == 3).all()


def test_selecting_a_session_reads_its_trials_alone(volumes, dataset, reads):
    dataset.sel(trial=dataset.session == 5).betas.load()
    assert sorted(reads.trials) == trials_of(volumes, 5)


def test_one_trial_is_found_by_session_and_place_in_it(volumes, dataset):
    indexed = dataset.set_xindex(["session", "trial_in_session"])
    found = indexed.sel(session=5, trial_in_session=4)
    assert np.array_equal(found.betas.values, volumes.percent[32])


def test_session_number_is_an_index_of_its_own(dataset):
    assert dataset.sel(session_number=3).session_number.item() == 3
    assert dataset.sel(session_number=[5, 2]).sizes == {**dataset.sizes, "session_number": 2}
    with pytest.raises(KeyError):
        dataset.sel(session_number=4)


def test_trials_are_selected_by_number_with_sel_too(volumes, dataset):
    assert np.array_equal(dataset.sel(trial=[40, 2]).betas.values, volumes.percent[[40, 2]])
    assert np.array_equal(dataset.sel(trial=slice(3, 5)).betas.values, volumes.percent[3:5])


def test_different_trials_subtract_place_by_place(volumes, dataset):
    first, second = dataset.betas.isel(trial=[0, 1, 2]), dataset.betas.isel(trial=[40, 30, 20])
    difference = first - second
    assert (difference.dtype, difference.sizes["trial"]) == (np.float32, 3)
    assert np.array_equal(difference.values, volumes.percent[[0, 1, 2]] - volumes.percent[[40, 30, 20]])


def test_groupby_session_means(volumes, dataset):
    means = dataset.betas.groupby("session").mean()
    assert means.session.values.tolist() == [2, 3, 5]
    for session in volumes.sessions:
        expected = volumes.percent[trials_of(volumes, session)].mean(0, dtype="f8")
        np.testing.assert_allclose(means.sel(session=session), expected, atol=2e-5)
    xr.testing.assert_equal(dataset.groupby("session").mean().betas, means)


def test_reductions_and_reshapes_keep_the_values(volumes, dataset):
    np.testing.assert_array_equal(dataset.betas.max(["z", "y", "x"]), volumes.percent.max((1, 2, 3)))
    voxels = dataset.betas.stack(voxel=("z", "y", "x"))
    assert np.array_equal(voxels.values, volumes.percent.reshape(42, -1))
    halves = dataset.betas.coarsen(trial=7).construct(trial=("shard", "place"))
    assert np.array_equal(halves.values, volumes.percent.reshape(6, 7, 5, 11, 3))


def test_load_reads_each_trial_once(volumes, dataset, reads):
    dataset.load()
    assert sorted(reads.trials) == list(range(42))
    assert np.array_equal(dataset.betas.values, volumes.percent)


def test_two_stores_are_concatenated(volumes, make_store):
    other = make_store(volumes.stored[:14] + 1, sessions=(7,))
    parts = [nsd_zarr.open_dataset(store.path).betas for store in (volumes, other)]
    joined = xr.concat(parts, "trial")
    assert np.array_equal(joined.values, np.concatenate([volumes.percent, other.percent]))


@pytest.mark.parametrize(
    "key",
    [{"trial": [30, 3, 8]}, {"trial": slice(5, 16)}, {"trial": 5}, {"x": [0, 2]}, {"trial": [1, 2], "y": 4}],
    ids=str,
)
def test_selection_written_as_zarr_reads_back_equal(volumes, tmp_path, key):
    part = nsd_zarr.open_dataset(volumes.path).isel(key)
    part.to_zarr(tmp_path / "part.zarr", consolidated=False)
    again = xr.open_zarr(tmp_path / "part.zarr", consolidated=False, chunks=None)
    assert again.betas.dtype == again.betas.encoding["dtype"] == np.float32
    assert np.array_equal(again.betas.values, part.betas.values)
    assert np.array_equal(again.session.values, part.session.values)
    assert set(again.coords) == set(part.coords)


def test_session_of_a_dask_dataset_written_as_zarr_reads_back_equal(volumes, tmp_path):
    dataset = nsd_zarr.open_dataset(volumes.path, chunks={})
    dataset.sel(trial=(dataset.session == 3).compute()).to_zarr(tmp_path / "part.zarr", consolidated=False)
    again = xr.open_zarr(tmp_path / "part.zarr", consolidated=False, chunks=None)
    assert np.array_equal(again.betas.values, volumes.percent[trials_of(volumes, 3)])
