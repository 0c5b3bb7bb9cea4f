import numpy as np
import pytest
import xarray as xr
from builders import scale_examples
from hypothesis import given, settings
from hypothesis import strategies as st

import nsd_zarr
from nsd_zarr.errors import ConfigError, StoreError
from nsd_zarr.read.roi import Atlas

SHAPE = (5, 11, 3)


def find_expected(experiment, rois):
    """The mask by NumPy: {roi: numbers or None}."""
    masks = []
    for roi, numbers in rois.items():
        values = experiment.arrays[f"roi_{roi}"]
        masks.append(values > 0 if numbers is None else np.isin(values, numbers))
    return np.any(masks, axis=0)


ASKED = {
    "whole ROI": ((("nsdgeneral",), {}), {"nsdgeneral": None}),
    "ROI of labels": ((("prf-visualrois",), {}), {"prf-visualrois": None}),
    "label": ((("V2d",), {}), {"prf-visualrois": [4]}),
    "labels": ((("V2d", "V3v"), {}), {"prf-visualrois": [4, 5]}),
    "label and ROI": ((("V2d", "nsdgeneral"), {}), {"prf-visualrois": [4], "nsdgeneral": None}),
    "list of names": (((["V2d", "V3v"],), {}), {"prf-visualrois": [4, 5]}),
    "label numbers": ((("prf-visualrois",), {"labels": [1, 2]}), {"prf-visualrois": [1, 2]}),
    "label names": ((("Kastner2015",), {"labels": ["hV4", "IPS1"]}), {"Kastner2015": [1, 3]}),
    "one label": ((("Kastner2015",), {"labels": "IPS0"}), {"Kastner2015": [2]}),
    "NumPy numbers": ((("Kastner2015",), {"labels": np.array([4, 1])}), {"Kastner2015": [1, 4]}),
    "one number": ((("Kastner2015",), {"labels": 4}), {"Kastner2015": [4]}),
}


@pytest.mark.parametrize("name", ASKED)
def test_roi_equals_numpys_boolean_selection(experiment, name, reads):
    (names, options), rois = ASKED[name]
    mask = find_expected(experiment, rois)
    found = nsd_zarr.open_dataset(experiment.path).nsd.roi(*names, **options)
    assert reads.trials == []
    assert (found.betas.dims, found.betas.dtype) == (("trial", "voxel"), np.float32)
    assert np.array_equal(found.betas.values.view("u4"), experiment.percent[:, mask].view("u4"))
    assert sorted(reads.trials) == list(range(42))


def test_codes_below_one_are_in_no_roi(experiment):
    ds = nsd_zarr.open_dataset(experiment.path)
    for name in ("nsdgeneral", "prf-visualrois", "Kastner2015"):
        values = ds.nsd.roi(name)[f"roi_{name}"].values
        assert values.min() == 1
        assert (experiment.arrays[f"roi_{name}"] < 1).any()


def test_brainmask_is_asked_for_by_its_name(experiment):
    found = nsd_zarr.open_dataset(experiment.path).nsd.roi("brainmask")
    assert found.sizes["voxel"] == experiment.arrays["brainmask"].sum()


def test_other_volumes_are_gathered_alike(experiment):
    mask = experiment.arrays["roi_nsdgeneral"] > 0
    found = nsd_zarr.open_dataset(experiment.path).nsd.roi("nsdgeneral")
    for name, values in experiment.arrays.items():
        if values.shape[-3:] == SHAPE:
            assert found[name].dims[-1] == "voxel"
            assert np.array_equal(found[name].values, values[..., mask], equal_nan=values.dtype.kind == "f")
    assert np.array_equal(found.nsd_id.values, experiment.arrays["nsd_id"])


def test_voxels_know_their_place_in_volume_and_scanner(experiment):
    mask = experiment.arrays["roi_prf-visualrois"] == 4
    found = nsd_zarr.open_dataset(experiment.path).nsd.roi("V2d")
    z, y, x = np.nonzero(mask)
    for name, expected in {"z": z, "y": y, "x": x}.items():
        assert np.array_equal(found[name].values, expected)
    millimetres = experiment.arrays["affine"] @ [x, y, z, np.ones(len(x))]
    for name, expected in zip(("right_mm", "anterior_mm", "superior_mm"), millimetres, strict=False):
        np.testing.assert_allclose(found[name].values, expected)


def test_part_of_a_volume_keeps_its_voxels_places(experiment, reads):
    part = nsd_zarr.open_dataset(experiment.path).isel(z=slice(1, 4), y=[9, 2, 5], trial=slice(30, 3, -4))
    found = part.nsd.roi("nsdgeneral")
    mask = experiment.arrays["roi_nsdgeneral"][1:4][:, [9, 2, 5]] > 0
    assert np.array_equal(found.betas.values, experiment.percent[30:3:-4, 1:4][:, :, [9, 2, 5]][:, mask])
    assert np.array_equal(found.y.values, np.array([9, 2, 5])[np.nonzero(mask)[1]])
    assert sorted(reads.trials) == list(range(6, 31, 4))
    flat = np.ravel_multi_index([found[axis].values for axis in "zyx"], SHAPE)
    assert (experiment.arrays["roi_nsdgeneral"].reshape(-1)[flat] > 0).all()


def test_roi_of_a_roi_is_both(experiment, reads):
    ds = nsd_zarr.open_dataset(experiment.path).nsd.roi("nsdgeneral").nsd.roi("prf-visualrois", labels=[3, 6])
    mask = (experiment.arrays["roi_nsdgeneral"] > 0) & np.isin(experiment.arrays["roi_prf-visualrois"], [3, 6])
    assert reads.trials == []
    assert np.array_equal(ds.betas.values, experiment.percent[:, mask])
    assert np.array_equal(ds.y.values, np.nonzero(mask)[1])
    assert np.array_equal(ds.session_std.values, experiment.arrays["session_std"][:, mask])


MASKS = {
    "booleans": lambda mask: mask,
    "DataArray": lambda mask: xr.DataArray(mask, dims=("z", "y", "x")),
    "transposed": lambda mask: xr.DataArray(mask, dims=("z", "y", "x")).transpose("x", "z", "y"),
    "numbers": lambda mask: np.where(mask, 2, -1),
    "NaN": lambda mask: np.where(mask, 0.5, np.nan),
}


@pytest.mark.parametrize("kind", MASKS)
def test_mask_of_any_kind_selects_what_is_above_zero(experiment, kind):
    mask = experiment.arrays["ncsnr"] > 0.4
    found = nsd_zarr.open_dataset(experiment.path).nsd.roi(mask=MASKS[kind](mask))
    assert np.array_equal(found.betas.values, experiment.percent[:, mask])


def test_mask_from_the_dataset_itself(experiment):
    ds = nsd_zarr.open_dataset(experiment.path)
    mask = experiment.arrays["ncsnr"] > 0.4
    assert np.array_equal(ds.nsd.roi(mask=ds.ncsnr > 0.4).betas[7].values, experiment.percent[7][mask])


def test_one_trial_of_a_roi_reads_one_trial(experiment, reads):
    found = nsd_zarr.open_dataset(experiment.path).nsd.roi("nsdgeneral")
    mask = experiment.arrays["roi_nsdgeneral"] > 0
    assert np.array_equal(found.betas[5].values, experiment.percent[5][mask])
    assert reads.trials == [5]
    one = nsd_zarr.open_dataset(experiment.path).isel(trial=6).nsd.roi("nsdgeneral")
    assert np.array_equal(one.betas.values, experiment.percent[6][mask])
    assert reads.trials == [5, 6]


@pytest.mark.parametrize("options", [{}, {"chunks": {}}], ids=["memory", "dask"])
def test_roi_of_values_in_memory_or_dask_is_the_same(experiment, options):
    ds = nsd_zarr.open_dataset(experiment.path, **options)
    ds = ds if options else ds.load()
    found = ds.nsd.roi("V2d")
    mask = experiment.arrays["roi_prf-visualrois"] == 4
    assert np.array_equal(found.betas.values, experiment.percent[:, mask])
    assert np.array_equal(found.y.values, np.nonzero(mask)[1])


def test_values_that_were_changed_are_what_is_selected(experiment):
    ds = nsd_zarr.open_dataset(experiment.path)
    mask = experiment.arrays["roi_nsdgeneral"] > 0
    doubled = ds.assign(betas=ds.betas * 2).nsd.roi("nsdgeneral")
    assert np.array_equal(doubled.betas.values, 2 * experiment.percent[:, mask])
    ds.betas[3] = 5.0
    assert (ds.nsd.roi("nsdgeneral").betas[3] == 5).all()
    turned = nsd_zarr.open_dataset(experiment.path).transpose("x", "trial", "z", "y", ...).nsd.roi("nsdgeneral")
    assert turned.betas.sizes["voxel"] == mask.sum()
    flat = np.ravel_multi_index([turned[axis].values for axis in "zyx"], SHAPE)
    assert np.array_equal(turned.betas.transpose("trial", "voxel").values, experiment.percent.reshape(42, -1)[:, flat])


def test_raw_counts_of_a_roi(experiment):
    found = nsd_zarr.open_dataset(experiment.path, raw=True).nsd.roi("nsdgeneral").betas
    assert found.dtype == np.int16
    assert np.array_equal(found.values, experiment.store.stored[:, experiment.arrays["roi_nsdgeneral"] > 0])


def test_surfaces_and_float_sources_are_selected_by_mask(surfaces, floats):
    mask = np.arange(23) % 3 == 1
    found = nsd_zarr.open_dataset(surfaces.path).nsd.roi(mask=mask)
    assert np.array_equal(found.betas.values, surfaces.percent[:, mask])
    assert np.array_equal(found.vertex.values, np.flatnonzero(mask))
    mask = np.arange(5 * 3 * 11).reshape(5, 3, 11) % 4 == 1
    found = nsd_zarr.open_dataset(floats.path).nsd.roi(mask=mask)
    assert np.array_equal(found.betas.values.view("u4"), floats.stored[:, mask].view("u4"))


REFUSED = {
    "near": (("V1",), {}, r"'V1' is unknown\. There are .*V1v"),
    "of an atlas alone": (("IPS0",), {}, r'IPS0\' is a label of Kastner2015, .*roi\("Kastner2015", labels="IPS0"\)'),
    "side of a set without": (("V2d",), {"hemisphere": "lh"}, "does not know the hemispheres of prf-visualrois"),
    "no side": (("V2d",), {"hemisphere": "left"}, "hemisphere = 'left'"),
    "side of a mask": ((), {"mask": np.ones(SHAPE, bool), "hemisphere": "lh"}, "by names or by a mask"),
    "nothing near": (("amygdala",), {}, "There are "),
    "labels of two": (("nsdgeneral", "Kastner2015"), {"labels": [1]}, "labels of 2 ROIs"),
    "labels of a label": (("V2d",), {"labels": [1]}, "'V2d' is unknown"),
    "unknown label": (("Kastner2015",), {"labels": ["V2d"]}, "'V2d' is unknown"),
    "no label": (("Kastner2015",), {"labels": [0]}, "0 is no label"),
    "not there": (("Kastner2015",), {"labels": [77]}, "no voxel"),
    "nothing": ((), {}, "by names or by a mask"),
    "both": (("V2d",), {"mask": np.ones(SHAPE, bool)}, "by names or by a mask"),
    "shape": ((), {"mask": np.ones(SHAPE[::-1], bool)}, "transpose them"),
    "empty": ((), {"mask": np.zeros(SHAPE)}, "no voxel"),
}


def test_label_that_an_atlas_has_too_is_the_subjects_own(experiment):
    ds = nsd_zarr.open_dataset(experiment.path)
    own, atlas = (ds.nsd.roi(roi, labels=["hV4"]) for roi in ("prf-visualrois", "Kastner2015"))
    found = ds.nsd.roi("hV4")
    assert [found[dim].values.tolist() for dim in "zyx"] == [own[dim].values.tolist() for dim in "zyx"]
    assert found.sizes["voxel"] != atlas.sizes["voxel"]


def test_label_of_two_rois_of_the_subject_is_refused():
    atlas = Atlas({"floc-faces": {"FFA": 1}, "floc-other": {"FFA": 3}}, frozenset(), lambda name: np.ones(3))
    with pytest.raises(ConfigError, match=r"one of several ROIs: floc-faces, floc-other\. Say of which"):
        atlas.find_mask(["FFA"])


@pytest.mark.parametrize("name", REFUSED)
def test_region_that_is_unclear_is_refused_with_what_is_near(experiment, name):
    names, options, match = REFUSED[name]
    with pytest.raises(ConfigError, match=match):
        nsd_zarr.open_dataset(experiment.path).nsd.roi(*names, **options)


def test_store_without_rois_says_so(volumes):
    with pytest.raises(StoreError, match="no ROI volumes"):
        nsd_zarr.open_dataset(volumes.path).nsd.roi("V1v")
    found = nsd_zarr.open_dataset(volumes.path).nsd.roi(mask=np.ones(SHAPE, bool))
    assert found.sizes["voxel"] == 165
    assert "right_mm" not in found.coords


def test_dataset_without_betas_says_so():
    with pytest.raises(StoreError, match="no betas"):
        xr.Dataset().nsd.roi("V1v")


def make_indexers(length):
    places = st.integers(-length, length - 1)
    return st.one_of(
        places,
        st.slices(length).filter(lambda part: part.indices(length)[2] > 0 or len(range(*part.indices(length)))),
        st.lists(places, max_size=9).map(lambda numbers: np.array(numbers, int)),
        st.lists(st.booleans(), min_size=length, max_size=length).map(np.array),
    )


@given(st.data())
@settings(max_examples=scale_examples(120), deadline=None)
def test_any_selection_of_a_roi_equals_numpys(experiment, data):
    mask = experiment.arrays["roi_nsdgeneral"] > 0
    values = experiment.percent[:, mask]
    keys = [data.draw(make_indexers(length)) for length in values.shape]
    found = nsd_zarr.open_dataset(experiment.path, cache=False).nsd.roi("nsdgeneral").betas
    found = found.isel(dict(zip(("trial", "voxel"), keys, strict=True))).values
    grid = [np.atleast_1d(np.arange(length)[key]) for length, key in zip(values.shape, keys, strict=True)]
    dropped = tuple(axis for axis, key in enumerate(keys) if isinstance(key, int))
    assert np.array_equal(found, values[np.ix_(*grid)].squeeze(dropped))


@given(st.data())
@settings(max_examples=scale_examples(60), deadline=None)
def test_any_selection_of_a_sessions_volumes_equals_numpys(experiment, data):
    values = experiment.arrays["session_mean"]
    keys = [data.draw(make_indexers(length)) for length in values.shape]
    found = nsd_zarr.open_dataset(experiment.path, cache=False).session_mean
    found = found.isel(dict(zip(("session_number", "z", "y", "x"), keys, strict=True))).values
    grid = [np.atleast_1d(np.arange(length)[key]) for length, key in zip(values.shape, keys, strict=True)]
    dropped = tuple(axis for axis, key in enumerate(keys) if isinstance(key, int))
    assert np.array_equal(found, values[np.ix_(*grid)].squeeze(dropped))


def test_table_as_long_as_the_volume_has_vertices_is_no_volume(make_store, make_experiment):
    values = (np.arange(28 * 28) * 7919 % 60_013 - 30_000).astype(np.int16).reshape(28, 28)
    made = make_experiment(make_store(values, sessions=(1, 2)), ["nsd_id", "session_mean", "session_std"])
    found = nsd_zarr.open_dataset(made.path).nsd.roi(mask=np.arange(28) % 3 == 1)
    assert found.nsd_id.dims == ("trial",)
    assert np.array_equal(found.nsd_id.values, made.arrays["nsd_id"])
    assert np.array_equal(found.session_std.values, made.arrays["session_std"][:, 1::3])


def test_roi_becomes_dask_arrays_as_it_is_chunked(experiment):
    roi = nsd_zarr.open_dataset(experiment.path).nsd.roi("nsdgeneral").nsd.zscore()
    expected = roi.betas.values
    for chunks in ({}, {"trial": 9}, "auto"):
        again = nsd_zarr.open_dataset(experiment.path).nsd.roi("nsdgeneral").nsd.zscore().chunk(chunks)
        assert again.betas.chunks is not None
        assert np.array_equal(again.betas.values, expected, equal_nan=True)
