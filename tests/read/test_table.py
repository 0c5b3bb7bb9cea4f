"""The trial table as pandas shows it, and pictures as notebooks show them."""

from __future__ import annotations

import numpy as np
import pytest

import nsd_zarr
from nsd_zarr.errors import StoreError


@pytest.fixture
def ds(experiment):
    return nsd_zarr.open_dataset(experiment.path)


def test_table_has_a_row_a_trial_and_every_column(ds, experiment, reads):
    table = ds.nsd.trials()
    assert len(table) == experiment.store.trials
    assert "trial_digest" not in table
    np.testing.assert_array_equal(table.session, experiment.session)
    for name in ("nsd_id", "image_10k", "repeat", "shared1000", "rt"):
        np.testing.assert_array_equal(table[name], experiment.arrays[name])
    assert reads.trials == []


def test_table_of_a_selection_keeps_its_rows(ds, experiment):
    chosen = ds.isel(trial=[17, 3, 40])
    np.testing.assert_array_equal(chosen.nsd.trials().nsd_id, experiment.arrays["nsd_id"][[17, 3, 40]])
    third = ds.sel(trial=ds.session == 3)
    assert set(third.nsd.trials().session) == {3}


def test_table_of_means_has_a_row_an_image(ds):
    images = ds.nsd.average_repeats()
    table = images.nsd.trials()
    assert table.index.name == "image"
    np.testing.assert_array_equal(table.repeats, images.repeats)


def test_table_under_dask_equals(ds, experiment):
    lazy = nsd_zarr.open_dataset(experiment.path, chunks={})
    assert lazy.nsd.trials().equals(ds.nsd.trials())


def test_dataset_without_trials_has_no_table(ds):
    with pytest.raises(StoreError, match="has no trials"):
        ds.isel(trial=3, drop=True).nsd.trials()


def test_picture_is_shown_by_notebooks(ds):
    pytest.importorskip("matplotlib")
    assert ds.nsd.plot(0)._repr_png_().startswith(b"\x89PNG")
