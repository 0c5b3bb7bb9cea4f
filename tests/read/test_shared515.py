"""The 515 shared images, of any selection: by the design's rule, transcribed."""

import numpy as np
import pytest

import nsd_zarr
from nsd_zarr.errors import StoreError

SESSIONS, TRIALS = 31, 12


@pytest.fixture(scope="module")
def made(make_store, extend_store):
    rng = np.random.default_rng(8)
    image = rng.permutation(np.repeat(np.arange(1, 1 + SESSIONS * TRIALS // 3), 3))
    store = make_store(
        rng.integers(-900, 900, (SESSIONS * TRIALS, 2, 3, 5)).astype(np.int16),
        sessions=tuple(range(1, SESSIONS + 1)),
        trials_per_shard=TRIALS,
    )
    repeat = np.array([(image[:place] == each).sum() for place, each in enumerate(image)], np.int8)
    columns = {"nsd_id": image.astype(np.int32), "shared1000": image <= 70, "repeat": repeat}
    extend_store(store.path, {name: (values, ("trial",), {}) for name, values in columns.items()})
    # All three showings in the first 30 sessions, and shared.
    first = image[: 30 * TRIALS]
    ids = [each for each in range(1, 71) if (first == each).sum() == 3]
    assert 0 < len(ids) < 70
    return store.path, np.isin(image, ids), image


@pytest.mark.parametrize("options", [{}, {"chunks": {}}], ids=["lazy", "dask"])
def test_split_of_any_selection_is_the_designs(made, options):
    path, expected, image = made
    ds = nsd_zarr.open_dataset(path, **options)
    for chosen in (np.arange(len(image)), np.arange(0, len(image), 2), np.flatnonzero(ds.repeat.values == 0)):
        _, test = ds.isel(trial=chosen).nsd.split("shared515")
        assert sorted(test.nsd_id.values.tolist()) == sorted(image[chosen][expected[chosen]].tolist())


def test_split_after_averaging_or_loading_is_the_designs(made):
    path, expected, image = made
    part = nsd_zarr.open_dataset(path).isel(trial=slice(100, 300))
    _, test = part.nsd.average_repeats().nsd.split("shared515")
    assert set(test.nsd_id.values.tolist()) == set(image[100:300][expected[100:300]].tolist())
    _, loaded = part.load().nsd.split("shared515")
    assert loaded.nsd_id.values.tolist() == image[100:300][expected[100:300]].tolist()


def test_store_of_few_sessions_refuses(experiment):
    with pytest.raises(StoreError, match="images="):
        nsd_zarr.open_dataset(experiment.path).nsd.split("shared515")
