import numpy as np
import pytest
import xarray as xr
from builders import scale_examples
from hypothesis import given, settings
from hypothesis import strategies as st

DIMS = ("trial", "z", "y", "x")
SHAPE = (42, 5, 11, 3)


def make_indexers(length):
    """Whatever selects along an axis of *length* orthogonally."""
    places = st.integers(-length, length - 1)
    return st.one_of(
        places,
        # xarray 2026.9 raises for a slice that runs backwards over nothing, whatever the backend.
        st.slices(length).filter(lambda part: part.indices(length)[2] > 0 or len(range(*part.indices(length)))),
        st.lists(places, max_size=7).map(lambda numbers: np.array(numbers, int)),
        st.lists(st.booleans(), min_size=length, max_size=length).map(np.array),
    )


def select(values, indexers):
    """Orthogonal selection by NumPy: the oracle."""
    indexers = [np.array(key, int) if isinstance(key, list) else key for key in indexers]
    grid = [np.atleast_1d(np.arange(length)[key]) for length, key in zip(values.shape, indexers, strict=True)]
    dropped = tuple(axis for axis, key in enumerate(indexers) if isinstance(key, int))
    return values[np.ix_(*grid)].squeeze(dropped)


def test_opening_reads_no_shard(volumes, reads):
    dataset = xr.open_dataset(volumes.path)
    assert dataset.betas.shape == SHAPE
    assert (reads.opened, reads.trials) == ([], [])


def test_one_trial_reads_one_chunk_of_one_shard(volumes, reads):
    dataset = xr.open_dataset(volumes.path)
    assert np.array_equal(dataset.betas.isel(trial=5).values, volumes.percent[5])
    assert (reads.opened, reads.trials) == ([0], [5])
    # The index, and before it the checksum of the last chunk.
    assert reads.index_bytes == 16 * volumes.trials_per_shard + 4 + 4
    assert 0 < reads.chunk_bytes <= volumes.shard_path(5).stat().st_size - reads.index_bytes


def test_index_of_a_shard_is_read_once(volumes, reads):
    dataset = xr.open_dataset(volumes.path)
    for trial in (8, 9, 13):
        dataset.betas[trial].load()
    assert (reads.opened, reads.trials) == ([1], [8, 9, 13])


TRIAL_KEYS = {
    "int": 17,
    "negative int": -1,
    "list": [3, 17, 18, 40],
    "negative list": [-1, -42],
    "unsorted list": [30, 2, 17],
    "duplicates": [5, 5, 5],
    "unsorted duplicates": [9, 4, 9, 4, 9],
    "nothing": [],
    "boolean": np.arange(42) % 11 == 3,
    "slice": slice(11, 16),
    "step": slice(1, 42, 13),
    "backwards": slice(20, 10, -3),
    "all backwards": slice(None, None, -1),
    "beyond the end": slice(39, 1000),
}


@pytest.mark.parametrize("name", TRIAL_KEYS)
@pytest.mark.parametrize("voxels", [{}, {"y": slice(2, 9, 3), "x": [2, 0]}, {"z": 3}], ids=["whole", "box", "plane"])
def test_each_trial_asked_for_is_read_once_and_no_other(volumes, reads, name, voxels):
    key = TRIAL_KEYS[name]
    found = xr.open_dataset(volumes.path).betas.isel(trial=key, **voxels).values
    keys = [key, *(voxels.get(dim, slice(None)) for dim in DIMS[1:])]
    assert np.array_equal(found, select(volumes.percent, keys))
    assert found.dtype == np.float32
    wanted = np.arange(42)[np.array(key, int) if isinstance(key, list) else key]
    assert sorted(reads.trials) == np.unique(wanted).tolist()


def test_square_brackets_select_as_numpy_does(volumes):
    betas, percent = xr.open_dataset(volumes.path).betas, volumes.percent
    assert np.array_equal(betas[4, ..., -1].values, percent[4, ..., -1])
    assert np.array_equal(betas[:, ::-1, [0, 0, 2], 1].values, percent[:, ::-1][:, :, [0, 0, 2], 1])
    assert betas[41, 4, 10, 2].values == percent[41, 4, 10, 2]
    assert betas[..., 3:3].values.shape == (42, 5, 11, 0)


# Not -43: xarray 2026.9 wraps a negative place twice before any backend sees it.
@pytest.mark.parametrize("key", [42, 1000, [0, 42]])
def test_trial_outside_the_store_is_an_index_error(volumes, key):
    with pytest.raises(IndexError):
        xr.open_dataset(volumes.path).betas.isel(trial=key).load()


@pytest.mark.parametrize("key", [{"z": 5}, {"y": [0, 11]}, {"x": 3}])
def test_voxel_outside_the_volume_is_an_index_error(volumes, key):
    with pytest.raises(IndexError):
        xr.open_dataset(volumes.path).betas.isel(trial=3, **key).load()


def test_selections_upon_selections_read_what_is_left(volumes, reads):
    betas = xr.open_dataset(volumes.path).betas
    found = betas.isel(trial=slice(10, 40, 2)).isel(trial=[7, 1], z=slice(1, None)).isel(z=-1).T
    assert np.array_equal(found.values, volumes.percent[[24, 12], 4].T)
    assert sorted(reads.trials) == [12, 24]


def test_points_read_only_their_trials(volumes, reads):
    at = {"trial": [40, 3, 40, 11], "x": [0, 1, 2, 1], "y": [10, 0, 5, 5]}
    points = {dim: xr.DataArray(places, dims="point") for dim, places in at.items()}
    found = xr.open_dataset(volumes.path).betas.isel(points)
    assert found.dims == ("point", "z")
    assert np.array_equal(found.values, volumes.percent[at["trial"], :, at["y"], at["x"]])
    assert sorted(reads.trials) == [3, 11, 40]


def test_values_that_were_loaded_are_not_read_again(volumes, reads):
    betas = xr.open_dataset(volumes.path).betas[:3].load()
    reads.clear()
    assert np.array_equal(betas[1].values, volumes.percent[1])
    assert reads.trials == []


@given(st.tuples(*map(make_indexers, SHAPE)))
@settings(max_examples=scale_examples(120), deadline=None)
def test_any_orthogonal_selection_equals_numpys(volumes, indexers):
    betas = xr.open_dataset(volumes.path, cache=False).betas
    expected = select(volumes.percent, indexers)
    found = betas.isel(dict(zip(DIMS, indexers, strict=True))).values
    assert (found.shape, found.dtype) == (expected.shape, np.float32)
    assert np.array_equal(found, expected)


@given(st.tuples(*map(make_indexers, SHAPE)))
@settings(max_examples=scale_examples(25), deadline=None)
def test_any_orthogonal_selection_equals_open_zarrs_rounded(volumes, indexers):
    key = dict(zip(DIMS, indexers, strict=True))
    ours = xr.open_dataset(volumes.path, cache=False).betas.isel(key)
    theirs = xr.open_zarr(volumes.path, chunks=None).betas.isel(key)
    assert ours.dims == theirs.dims
    assert np.array_equal(ours.values, theirs.values.astype(np.float32))


@given(st.data())
@settings(max_examples=scale_examples(60), deadline=None)
def test_any_pointwise_selection_equals_that_of_an_array_in_memory(volumes, data):
    dims = data.draw(st.lists(st.sampled_from(DIMS), unique=True, min_size=1))
    count = data.draw(st.integers(1, 5))
    key = {}
    for dim in dims:
        length = SHAPE[DIMS.index(dim)]
        places = data.draw(st.lists(st.integers(-length, length - 1), min_size=count, max_size=count))
        key[dim] = xr.DataArray(places, dims="point")
    expected = xr.DataArray(volumes.percent, dims=DIMS).isel(key)
    found = xr.open_dataset(volumes.path, cache=False).betas.isel(key)
    assert found.dims == expected.dims
    assert np.array_equal(found.values, expected.values)


def test_surfaces_are_selected_by_trial_and_vertex(surfaces, reads):
    betas = xr.open_dataset(surfaces.path).betas
    assert (betas.dims, betas.shape) == (("trial", "vertex"), (42, 23))
    assert np.array_equal(betas.isel(trial=[30, 2], vertex=[22, 0, 5]).values, surfaces.percent[[30, 2]][:, [22, 0, 5]])
    assert sorted(reads.trials) == [2, 30]
    assert np.array_equal(betas.values, surfaces.percent)


@pytest.mark.parametrize("key", [7, -1, slice(3, 9), [1, 41, 1], np.arange(42) % 5 == 0])
def test_small_arrays_are_selected_like_others(volumes, key):
    dataset = xr.open_dataset(volumes.path)
    places = np.array([volumes.locate(trial) for trial in range(42)])
    assert np.array_equal(dataset.session.isel(trial=key).values, places[key, 0])
    assert np.array_equal(dataset.trial_in_session.isel(trial=key).values, places[key, 1])
    assert (dataset.session.dtype, dataset.trial_in_session.dtype) == (np.int16, np.int16)
