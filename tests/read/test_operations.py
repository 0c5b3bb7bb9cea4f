"""What xarray does to a dataset: volumes are coordinates, which operations leave alone, and neither read nor repeat."""

import pickle
import warnings

import numpy as np
import pytest
import xarray as xr
from builders import make_shuffled_values

import nsd_zarr
from nsd_zarr.errors import ConfigError, NsdZarrError
from nsd_zarr.read import lazy

VOLUMES = ("roi_nsdgeneral", "ncsnr", "session_mean", "session_std", "valid", "affine")


@pytest.fixture
def volume_reads(monkeypatch):
    """Names of the arrays beside betas of which a chunk was read, trial table left out."""
    names = []
    real = lazy.read_chunk

    def watched(store, name, row):
        if "trial" not in store.members[name].dims:
            names.append(name)
        return real(store, name, row)

    monkeypatch.setattr(lazy, "read_chunk", watched)
    return names


@pytest.fixture(scope="module")
def other(make_store, make_experiment):
    """A second store of the same grid, sessions and trial table, other values."""
    return make_experiment(make_store(-make_shuffled_values(42, (5, 11, 3))))


@pytest.fixture(params=[False, True], ids=["old defaults", "new defaults"])
def concat(request):
    def join(*parts):
        with xr.set_options(use_new_combine_kwarg_defaults=request.param), warnings.catch_warnings():
            warnings.simplefilter("error")
            return xr.concat(parts, "trial")

    return join


def open_dataset(experiment, **options):
    return nsd_zarr.open_dataset(experiment.path, **options)


def find_places(ds, name):
    found = ds.nsd.roi(name)
    return list(zip(*(found[axis].values.tolist() for axis in "zyx"), strict=True))


def score(experiment):
    """float64, by NumPy: NaN where a voxel does not vary in the session, or `valid` is 0."""
    sessions = experiment.percent.astype(np.float64).reshape(3, 14, 5, 11, 3)
    varies = (sessions.max(1) != sessions.min(1)) & experiment.arrays["valid"].astype(bool)
    with np.errstate(invalid="ignore", divide="ignore"):
        scored = (sessions - sessions.mean(1, keepdims=True)) / sessions.std(1, keepdims=True)
    return np.where(varies[:, np.newaxis], scored, np.nan).reshape(42, 5, 11, 3)


def test_volumes_are_coordinates_and_digests_are_not_there(experiment, reads, volume_reads):
    ds = open_dataset(experiment)
    assert list(ds.data_vars) == ["betas"]
    assert set(VOLUMES) <= set(ds.coords)
    assert "trial_digest" not in ds.variables
    assert reads.trials == []
    assert set(volume_reads) <= {"session_number"}


CHANGES = {
    "abs": abs,
    "clip": lambda ds: ds.clip(-3, 3),
    "times 2": lambda ds: ds * 2,
    "greater": lambda ds: ds > 0,
    "float64": lambda ds: ds.astype(np.float64),
    "minus the mean": lambda ds: ds - ds.mean("trial"),
    "where": lambda ds: ds.where(ds.ncsnr > 0),
    "fillna": lambda ds: ds.fillna(0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_arithmetic_leaves_regions_alone(experiment, name, volume_reads):
    ds = open_dataset(experiment)
    changed = CHANGES[name](ds)
    assert set(volume_reads) <= {"session_number", "ncsnr"}
    for region in ("nsdgeneral", "V2d"):
        assert find_places(changed, region) == find_places(ds, region)


@pytest.mark.parametrize("name", CHANGES)
def test_zscore_of_computed_betas_is_refused_or_theirs(experiment, name):
    changed = CHANGES[name](open_dataset(experiment))
    if name in ("where", "fillna", "float64"):
        kept = ~np.isnan(changed.betas.values)
        np.testing.assert_allclose(changed.nsd.zscore().betas.values[kept], score(experiment)[kept], atol=4e-6)
        return
    with pytest.raises(ConfigError, match=r"z-scored|computed from those of the store"):
        changed.nsd.zscore()


CHANGED_IN_PLACE = {
    "item": lambda ds: ds.betas.__setitem__((3, 2, 1, 0), 5),
    "values": lambda ds: setattr(ds.betas, "values", ds.betas.values * 2),
    "copy": lambda ds: ds.update({"betas": ds.betas.copy(data=ds.betas.values * 2)}),
    "shift": lambda ds: ds.update({"betas": ds.betas.shift(trial=1)}),
    "roll": lambda ds: ds.update({"betas": ds.betas.roll(x=1)}),
}


@pytest.mark.parametrize("name", CHANGED_IN_PLACE)
def test_zscore_of_betas_changed_in_place_is_refused(experiment, name):
    ds = open_dataset(experiment)
    ds.betas.load()
    assert np.isfinite(ds.nsd.zscore().betas.values).any()
    CHANGED_IN_PLACE[name](ds)
    with pytest.raises(ConfigError, match="computed from those of the store"):
        ds.copy().nsd.zscore()


@pytest.mark.parametrize("chunks", [None, {}], ids=["numpy", "dask"])
def test_where_selects_a_session_and_no_volume_grows(experiment, chunks):
    ds = open_dataset(experiment, chunks=chunks)
    chosen = ds.where(ds.session == 3, drop=True)
    assert {name: chosen[name].dims for name in VOLUMES} == {name: ds[name].dims for name in VOLUMES}
    assert chosen.nbytes < 1.1 * ds.isel(trial=np.flatnonzero(ds.session == 3)).nbytes
    assert chosen.nsd.roi("nsdgeneral").betas.dims == ("trial", "voxel")
    assert chosen.nsd.to_nifti(0).shape == (3, 11, 5)
    scored = chosen.load().nsd.zscore().betas
    np.testing.assert_allclose(scored.values, score(experiment)[14:28], atol=4e-6)


def test_volumes_that_were_averaged_are_no_regions(experiment):
    coarse = open_dataset(experiment).isel(y=slice(0, 10)).coarsen(y=2).mean()
    with pytest.raises(ConfigError, match="expected whole numbers"):
        coarse.nsd.roi("nsdgeneral")
    with pytest.raises(ConfigError, match="computed from those of the store"):
        coarse.nsd.zscore()


# -- concat ------------------------------------------------------------------------------------------------------


def test_parts_of_a_store_are_joined_without_reading_or_repeating_volumes(experiment, concat, reads, volume_reads):
    ds = open_dataset(experiment)
    parts = [ds.isel(trial=[trial]) for trial in (40, 3, 17)]
    joined = concat(*parts)
    assert set(volume_reads) <= {"session_number"}
    assert sorted(reads.trials) == [3, 17, 40]
    assert {name: joined[name].dims for name in VOLUMES} == {name: ds[name].dims for name in VOLUMES}
    assert find_places(joined, "V2d") == find_places(ds, "V2d")
    np.testing.assert_allclose(joined.nsd.zscore().betas.values, score(experiment)[[40, 3, 17]], atol=4e-6)


def test_parts_that_were_opened_apart_are_joined_without_reading_volumes(experiment, concat, volume_reads):
    joined = concat(*(open_dataset(experiment).isel(trial=slice(first, first + 7)) for first in (21, 0)))
    assert set(volume_reads) <= {"session_number"}
    assert joined.session_mean.dims == ("session_number", "z", "y", "x")


@pytest.mark.parametrize("chunks", [None, {}], ids=["numpy", "dask"])
def test_two_stores_are_joined_without_reading_or_repeating_volumes(experiment, other, concat, chunks, volume_reads):
    one, two = (open_dataset(each, chunks=chunks) for each in (experiment, other))
    joined = concat(one.isel(trial=slice(0, 5)), two.isel(trial=slice(20, 30)))
    assert set(volume_reads) <= {"session_number"}
    assert {name: joined[name].dims for name in VOLUMES} == {name: one[name].dims for name in VOLUMES}
    assert np.array_equal(joined.betas.values, np.concatenate([experiment.percent[:5], other.percent[20:30]]))


QUESTIONS = {
    "zscore": lambda ds: ds.nsd.zscore(),
    "leak-free zscore": lambda ds: ds.nsd.zscore(trials=slice(None)),
    "roi": lambda ds: ds.nsd.roi("nsdgeneral"),
    "rois": lambda ds: ds.nsd.rois,
    "missing": lambda ds: ds.nsd.missing,
    "average_repeats": lambda ds: ds.nsd.average_repeats(),
    "compute_ncsnr": lambda ds: ds.nsd.compute_ncsnr(),
    "noise_ceiling": lambda ds: ds.nsd.noise_ceiling(3),
    "to_nifti": lambda ds: ds.nsd.to_nifti(0),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_what_two_stores_do_not_share_is_refused(experiment, other, concat, name):
    one, two = open_dataset(experiment), open_dataset(other)
    joined = concat(one.isel(trial=slice(0, 5)), two.isel(trial=slice(20, 30)))
    with pytest.raises(ConfigError, match="these trials are of 2 stores"):
        QUESTIONS[name](joined)
    number = int(two.store[0])
    with pytest.raises(ConfigError, match=r"another store than its trials|no ncsnr"):
        QUESTIONS[name](joined.isel(trial=np.flatnonzero(joined.store == number)))


def test_trials_of_the_first_store_are_its_own_again(experiment, other, concat):
    one, two = open_dataset(experiment), open_dataset(other)
    joined = concat(one.isel(trial=slice(0, 5)), two.isel(trial=slice(20, 30)))
    mine = joined.isel(trial=np.flatnonzero(joined.store == int(one.store[0])))
    np.testing.assert_allclose(mine.nsd.zscore().betas.values, score(experiment)[:5], atol=4e-6)


def test_mask_is_taken_from_two_stores_and_their_volumes_are_dropped(experiment, other, concat):
    joined = concat(*(open_dataset(each).isel(trial=slice(0, 3)) for each in (experiment, other)))
    mask = experiment.arrays["roi_nsdgeneral"] > 0
    found = joined.nsd.roi(mask=mask)
    assert np.array_equal(found.betas.values, np.concatenate([experiment.percent[:3], other.percent[:3]])[:, mask])
    assert not set(VOLUMES) & set(found.variables)


def test_scores_of_each_store_are_joined(experiment, other, concat):
    joined = concat(*(open_dataset(each).nsd.zscore().isel(trial=slice(4, 9)) for each in (experiment, other)))
    expected = np.concatenate([score(experiment)[4:9], score(other)[4:9]])
    np.testing.assert_allclose(joined.betas.values, expected, atol=4e-6)


def test_arithmetic_of_two_stores_drops_their_volumes_unread(experiment, other, volume_reads):
    difference = open_dataset(experiment).betas - open_dataset(other).betas
    assert set(volume_reads) <= {"session_number"}
    assert not set(VOLUMES) & set(difference.coords)


def test_equality_of_two_stores_is_that_of_their_values(experiment, other):
    one, two = open_dataset(experiment), open_dataset(other)
    assert one.session_mean.variable.equals(open_dataset(experiment).session_mean.variable)
    assert not one.session_mean.variable.equals(two.session_mean.variable)
    assert one.roi_nsdgeneral.variable.equals(two.roi_nsdgeneral.variable)
    assert not one.equals(two)


# -- saving ------------------------------------------------------------------------------------------------------

DERIVED = {
    "mean": lambda ds: ds[["betas"]].mean("trial"),
    "one trial": lambda ds: ds.isel(trial=5),
    "volumes alone": lambda ds: ds[["ncsnr", "roi_nsdgeneral"]],
    "table alone": lambda ds: ds[["session", "nsd_id"]].reset_coords(),
    "new axis": lambda ds: ds[["betas"]].expand_dims(subject=[1]),
    "shift": lambda ds: ds.shift(trial=1),
    "reindex": lambda ds: ds.reindex(z=range(7)),
    "coarsen": lambda ds: ds.isel(trial=slice(0, 9)).coarsen(y=2, boundary="trim").mean(),
    "large": lambda ds: ds * 40,
    "zscore": lambda ds: ds.nsd.zscore(),
    "split": lambda ds: ds.nsd.roi(mask=ds.ncsnr > 0).nsd.split("shared1000").train,
}


@pytest.mark.parametrize("kind", ["zarr", "netcdf"])
@pytest.mark.parametrize("name", DERIVED)
def test_what_is_derived_and_saved_is_ordinary(experiment, tmp_path, name, kind):
    part = DERIVED[name](open_dataset(experiment))
    if kind == "zarr":
        part.to_zarr(tmp_path / "part.zarr", consolidated=False)
        again = xr.open_dataset(tmp_path / "part.zarr", consolidated=False)
    else:
        pytest.importorskip("scipy")
        part.to_netcdf(tmp_path / "part", engine="scipy")
        again = xr.open_dataset(tmp_path / "part", engine="scipy")
    assert set(again.variables) == set(part.variables)
    for each in part.variables:
        assert again[each].dims == part[each].dims
        np.testing.assert_array_equal(again[each].values, part[each].values)
    assert not {"format", "checksum", "status", "format_version"} & set(again.attrs)


def test_saved_selection_says_of_which_store_it_is(experiment, tmp_path):
    ds = open_dataset(experiment)
    ds.isel(trial=slice(14, 28)).to_zarr(tmp_path / "part.zarr", consolidated=False)
    for options in ({"consolidated": False}, {"engine": "nsd_zarr"}):
        again = xr.open_dataset(tmp_path / "part.zarr", **options)
        assert find_places(again, "nsdgeneral") == find_places(ds, "nsdgeneral")
        assert set(again.store.values.tolist()) == {int(ds.store[0])}


# -- trial table -------------------------------------------------------------------------------------------------


def test_table_is_not_chunked_and_groups(experiment):
    ds = open_dataset(experiment, chunks={})
    assert ds.session.chunks is None
    assert ds.betas.chunks is not None
    means = ds.betas.groupby("session").mean().values
    np.testing.assert_allclose(means, experiment.percent.reshape(3, 14, 5, 11, 3).mean(1), atol=2e-5)
    assert ds.sel(trial=ds.session == 3).sizes["trial"] == 14
    assert ds.sortby("nsd_id").nsd_id.values.tolist() == sorted(experiment.arrays["nsd_id"].tolist())


@pytest.mark.parametrize("chunks", [None, {}], ids=["numpy", "dask"])
def test_multiindex_on_trial_works_throughout(experiment, chunks):
    ds = open_dataset(experiment, chunks=chunks)
    indexed = ds.set_index(trial=["session", "trial_in_session"])
    chosen = indexed.sel(session=3)
    assert chosen.betas.shape[0] == 14
    part = indexed.isel(trial=slice(20, 30))
    np.testing.assert_allclose(part.nsd.zscore().betas.values, score(experiment)[20:30], atol=4e-6)
    assert find_places(part, "V2d") == find_places(ds, "V2d")
    table = part.nsd.trials()
    assert table.index.names == ["session", "trial_in_session"]
    assert table.query("session == 3").nsd_id.tolist() == experiment.arrays["nsd_id"][20:28].tolist()
    averaged = indexed.nsd.average_repeats()
    np.testing.assert_array_equal(averaged.betas.values, ds.nsd.average_repeats().betas.values)
    assert indexed.nsd.split("shared1000").test.sizes["trial"] == int(experiment.arrays["shared1000"].sum())
    np.testing.assert_array_equal(indexed.nsd.compute_ncsnr().values, ds.nsd.compute_ncsnr().values)


# -- options and pickles -----------------------------------------------------------------------------------------

OPTIONS = {
    "consolidated": {"consolidated": False},
    "backend_kwargs": {"backend_kwargs": {"consolidated": True}},
    "group": {"group": "/"},
    "storage_options": {"storage_options": {}},
    "chunks": {"chunks": "auto"},
    "cache": {"cache": False},
    "decode_cf": {"decode_cf": True},
    "zarr_format": {"zarr_format": 3},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_the_zarr_engine_are_taken(experiment, name):
    ds = xr.open_dataset(experiment.path, **OPTIONS[name])
    np.testing.assert_array_equal(ds.betas[4].values, experiment.percent[4])


def test_group_names_a_store_inside_a_folder(experiment):
    folder, name = experiment.path.parent, experiment.path.name
    ds = xr.open_dataset(folder, engine="nsd_zarr", group=f"/{name}")
    np.testing.assert_array_equal(ds.betas[4].values, experiment.percent[4])
    with pytest.raises(NsdZarrError):
        xr.open_dataset(folder, engine="nsd_zarr", group="subj09")


def test_pickled_dataset_keeps_what_it_knows(experiment, volume_reads):
    ds = open_dataset(experiment)
    again = pickle.loads(pickle.dumps(ds))
    joined = xr.concat([ds.isel(trial=[1]), again.isel(trial=[2])], "trial")
    assert set(volume_reads) <= {"session_number"}
    np.testing.assert_allclose(joined.nsd.zscore().betas.values, score(experiment)[[1, 2]], atol=4e-6)
