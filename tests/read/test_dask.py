import copy
import pickle
import subprocess
import sys

import cloudpickle
import dask
import numpy as np
import pytest
import xarray as xr

import nsd_zarr

PICKLERS = pytest.mark.parametrize("pickler", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])


def test_a_dask_chunk_is_a_shard(volumes, reads):
    dataset = nsd_zarr.open_dataset(volumes.path, chunks={})
    assert dataset.betas.chunks == ((7,) * 6, (5,), (11,), (3,))
    assert dataset.chunks["trial"] == (7,) * 6  # refused where variables disagree
    assert reads.trials == []


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [({}, (7,) * 6), ("auto", (42,)), ({"trial": 14}, (14,) * 3), ({"trial": -1}, (42,)), ({"z": 5}, (7,) * 6)],
    ids=str,
)
def test_chunks_of_whole_shards_give_equal_values(volumes, chunks, expected):
    dataset = xr.open_dataset(volumes.path, chunks=chunks)
    assert dataset.betas.chunks[0] == expected
    loaded = dataset.compute(scheduler="threads")
    assert loaded.betas.dtype == np.float32
    assert np.array_equal(loaded.betas.values, volumes.percent)
    xr.testing.assert_identical(loaded, xr.open_dataset(volumes.path).load())


def test_chunks_that_split_shards_give_equal_values_and_xarrays_warning(volumes, reads):
    with pytest.warns(UserWarning, match="separate the stored chunks"):
        betas = xr.open_dataset(volumes.path, chunks={"trial": 3}).betas
    assert betas.chunks[0] == (3,) * 14
    assert np.array_equal(betas.compute(scheduler="threads").values, volumes.percent)
    assert sorted(reads.trials) == list(range(42))


def test_computing_reads_each_trial_once(volumes, reads):
    betas = nsd_zarr.open_dataset(volumes.path, chunks={}).betas
    mean = betas.mean("trial").compute(scheduler="threads")
    np.testing.assert_allclose(mean, volumes.percent.mean(0), atol=2e-5)
    assert sorted(reads.trials) == list(range(42))


def test_selected_trials_of_a_dask_array_equal_numpys(volumes):
    betas = nsd_zarr.open_dataset(volumes.path, chunks={}).betas
    for key in (5, [30, 2, 2, 17], slice(20, 3, -4), np.arange(42) % 5 == 1):
        assert np.array_equal(betas.isel(trial=key).values, volumes.percent[key])


def test_same_store_opened_twice_has_the_same_keys(volumes):
    first, second = (nsd_zarr.open_dataset(volumes.path, chunks={}).betas for _ in range(2))
    raw = nsd_zarr.open_dataset(volumes.path, chunks={}, raw=True).betas
    assert dask.base.tokenize(first.data) == dask.base.tokenize(second.data) != dask.base.tokenize(raw.data)


def test_several_stores_are_opened_as_one(volumes, make_store):
    other = make_store(volumes.stored[:14] - 1, sessions=(9,))
    options = {"data_vars": "minimal", "coords": "minimal", "compat": "override", "join": "outer"}
    joined = xr.open_mfdataset([volumes.path, other.path], combine="nested", concat_dim="trial", **options)
    assert joined.betas.chunks[0] == (7,) * 8
    assert np.array_equal(joined.betas.values, np.concatenate([volumes.percent, other.percent]))


@PICKLERS
@pytest.mark.parametrize("chunks", [None, {}], ids=["numpy", "dask"])
@pytest.mark.parametrize("read_before", [False, True])
def test_dataset_arrays_and_selections_pickle(volumes, pickler, chunks, read_before):
    dataset = nsd_zarr.open_dataset(volumes.path, chunks=chunks)
    if read_before:
        dataset.betas[3].values  # noqa: B018
    again = pickler.loads(pickler.dumps(dataset))
    xr.testing.assert_identical(again, dataset)
    assert np.array_equal(again.betas[40].values, volumes.percent[40])
    betas = pickler.loads(pickler.dumps(dataset.betas.isel(trial=[30, 2], x=1)))
    assert np.array_equal(betas.values, volumes.percent[[30, 2], ..., 1])
    again.close()


def test_pickle_holds_no_trial(volumes):
    dataset = nsd_zarr.open_dataset(volumes.path)
    before = len(pickle.dumps(dataset))
    dataset.betas[0].values  # noqa: B018
    assert len(pickle.dumps(dataset)) == before


def test_pickle_is_read_by_another_process_in_another_folder(volumes, tmp_path, monkeypatch):
    monkeypatch.chdir(volumes.path.parent)
    dataset = nsd_zarr.open_dataset(volumes.path.name)
    (tmp_path / "ds.pickle").write_bytes(pickle.dumps(dataset))
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(dataset.betas[20].values, volumes.percent[20])
    code = "import pickle; print(pickle.load(open('ds.pickle', 'rb')).betas[41].values.sum(dtype='f8'))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120
    )
    assert float(result.stdout) == volumes.percent[41].sum(dtype="f8")
    assert result.stderr == ""


@pytest.mark.parametrize("make_copy", [copy.deepcopy, lambda ds: ds.copy(deep=True)], ids=["copy", "xarray"])
def test_deep_copies_stand_by_themselves(volumes, make_copy):
    dataset = nsd_zarr.open_dataset(volumes.path)
    copied = make_copy(dataset)
    dataset.close()
    assert np.array_equal(copied.betas[7].values, volumes.percent[7])
    copied.betas[8] = 0
    assert np.array_equal(dataset.betas[8].values, volumes.percent[8])


def test_closed_dataset_opens_its_shards_again(volumes, reads):
    with nsd_zarr.open_dataset(volumes.path) as dataset:
        assert np.array_equal(dataset.betas[7].values, volumes.percent[7])
    assert np.array_equal(dataset.betas[8].values, volumes.percent[8])
    assert reads.opened == [1, 1]
