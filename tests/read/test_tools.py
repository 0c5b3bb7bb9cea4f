"""What scikit-learn, rsatoolbox and nilearn take: equal to the store, read lazily or refused before it is read."""

import importlib.util

import numpy as np
import pytest
import xarray as xr

import nsd_zarr
from nsd_zarr.errors import ConfigError, DoesNotFit, StoreError
from nsd_zarr.read.tools import samples
from nsd_zarr.read.tools.brain_images import LazyVolumes
from nsd_zarr.read.volume import read_sides


@pytest.fixture
def ds(experiment):
    return nsd_zarr.open_dataset(experiment.path)


def find_complete(experiment, roi="roi_nsdgeneral"):
    """Voxels of a region that vary in every session, by NumPy, flat in C order."""
    stored = experiment.store.stored.reshape(3, 14, -1)
    varies = (stored.max(1) != stored.min(1)).all(0)
    return np.flatnonzero((experiment.arrays[roi].reshape(-1) > 0) & varies)


# -- samples -----------------------------------------------------------------------------------------------------


def test_x_holds_every_trial_at_the_complete_voxels_of_the_region_and_y_its_image(ds, experiment):
    x, y = ds.nsd.to_xy("nsdgeneral")
    expected = experiment.percent.reshape(42, -1)[:, find_complete(experiment)]
    np.testing.assert_array_equal(x, expected, strict=True)
    np.testing.assert_array_equal(y, experiment.arrays["nsd_id"], strict=True)
    assert x.flags.c_contiguous


def test_both_sides_of_a_split_have_the_same_voxels_and_no_image_in_common(ds, experiment):
    train, test = ds.nsd.zscore("session").nsd.to_xy("nsdgeneral", "shared1000")
    shared = experiment.arrays["shared1000"]
    scored = experiment.scored.reshape(42, -1)[:, find_complete(experiment)]
    np.testing.assert_allclose(train.x, scored[~shared], atol=1e-5)
    np.testing.assert_allclose(test.x, scored[shared], atol=1e-5)
    assert not set(train.y) & set(test.y)
    for side, values in (("train", train), ("test", test)):
        np.testing.assert_array_equal(ds.nsd.zscore("session").nsd.to_xy("nsdgeneral", side).x, values.x)


def test_samples_of_averaged_images_are_images(ds):
    averaged = ds.nsd.zscore("session").nsd.average_repeats()
    train, test = averaged.nsd.to_xy(["V1v", "V1d"], "shared1000")
    expected = averaged.nsd.roi("V1v", "V1d", complete=True)
    np.testing.assert_array_equal(train.x, expected.betas.values[~expected.shared1000.values])
    np.testing.assert_array_equal(test.y, expected.nsd_id.values[expected.shared1000.values])
    assert len(set(train.y)) == len(train.y)


def test_without_a_region_the_brain_is_taken(ds, experiment):
    x, _ = ds.nsd.to_xy()
    np.testing.assert_array_equal(x, experiment.percent.reshape(42, -1)[:, find_complete(experiment, "brainmask")])


def test_voxels_chosen_before_lose_what_is_not_complete(ds):
    chosen = ds.nsd.roi(mask=np.ones((5, 11, 3), bool))
    x, _ = chosen.nsd.to_xy()
    whole, _ = ds.nsd.to_xy(np.ones((5, 11, 3), bool))
    assert 0 < x.shape[1] < chosen.sizes["voxel"]
    np.testing.assert_array_equal(x, whole)


@pytest.mark.parametrize(("missing", "value"), [("nan", np.nan), ("zero", 0)])
@pytest.mark.parametrize("scored", [False, True])
def test_missing_voxels_are_what_is_asked_for(ds, experiment, missing, value, scored):
    every = np.ones((5, 11, 3), bool)
    x, _ = (ds.nsd.zscore("session") if scored else ds).nsd.to_xy(every, missing=missing)
    values = experiment.scored if scored else experiment.percent
    expected = np.where(np.isnan(experiment.scored), value if missing == "nan" or scored else values, values)
    np.testing.assert_allclose(x, expected.reshape(42, -1), atol=1e-5)


def test_what_was_loaded_is_not_written_to(ds):
    loaded = ds.nsd.roi("nsdgeneral").load()
    before = loaded.betas.values.copy()
    x, _ = loaded.nsd.to_xy(missing="nan")
    x[:] = 7
    np.testing.assert_array_equal(loaded.betas.values, before)


def test_samples_that_do_not_fit_are_refused_before_a_trial_is_read(ds, monkeypatch, reads):
    monkeypatch.setattr(samples, "read_available_memory", lambda: 1000)
    with pytest.raises(DoesNotFit, match="nsd-zarr export"):
        ds.nsd.to_xy("nsdgeneral")
    assert reads.trials == []


def test_every_trial_of_a_side_is_read_once(ds, experiment, reads):
    ds.nsd.to_xy("nsdgeneral", "test")
    assert sorted(reads.trials) == np.flatnonzero(experiment.arrays["shared1000"]).tolist()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"split": "shared100"}, ConfigError, "shared1000"),
        ({"missing": "mean"}, ConfigError, "drop or nan or zero"),
        ({"roi": "nsdgenral"}, ConfigError, "nsdgeneral"),
    ],
)
def test_unknown_words_are_refused_with_those_that_are_known(ds, options, error, words):
    with pytest.raises(error, match=words):
        ds.nsd.to_xy(**options)


def test_samples_need_images(volumes):
    with pytest.raises(StoreError, match="nsd_id"):
        nsd_zarr.open_dataset(volumes.path).nsd.to_xy()


def test_one_trial_is_no_samples(ds):
    with pytest.raises(ConfigError, match="one sample"):
        ds.isel(trial=3).nsd.to_rsatoolbox() if importlib.util.find_spec("rsatoolbox") else samples.find_row_dim(
            ds.isel(trial=3)
        )


def test_scikit_learn_takes_the_samples(ds):
    linear = pytest.importorskip("sklearn.linear_model")
    train, test = ds.nsd.zscore("session").nsd.to_xy("nsdgeneral", "shared1000")
    model = linear.Ridge().fit(train.x, train.y % 7)
    assert model.predict(test.x).shape == test.y.shape


def test_himalaya_takes_the_samples(ds):
    ridge = pytest.importorskip("himalaya.ridge")
    train, test = ds.nsd.zscore("session").nsd.to_xy("V1v", "shared1000")
    features = np.random.default_rng(0).normal(size=(73_000, 5)).astype(np.float32)
    model = ridge.Ridge().fit(features[train.y], train.x)
    assert model.predict(features[test.y]).shape == test.x.shape


# -- rsatoolbox --------------------------------------------------------------------------------------------------


def test_rsatoolbox_has_the_values_the_images_and_the_voxels(ds):
    pytest.importorskip("rsatoolbox")
    region = ds.nsd.zscore("session").nsd.roi("prf-visualrois")
    made = region.nsd.to_rsatoolbox()
    kept = ds.nsd.zscore("session").nsd.roi("prf-visualrois", complete=True)
    np.testing.assert_array_equal(made.measurements, kept.betas.values)
    np.testing.assert_array_equal(made.obs_descriptors["nsd_id"], ds.nsd_id.values)
    np.testing.assert_array_equal(made.channel_descriptors["label"], kept.label.values)
    assert made.descriptors == {"roi": "prf-visualrois of mask", "units": "1", "zscore": "session"} | {
        name: made.descriptors[name] for name in ("roi", "subject", "space", "betas") if name in made.descriptors
    }
    v1 = made.subset_channel("label", ["V1v"])
    assert v1.n_channel == (kept.label == "V1v").sum()


def test_rsatoolbox_computes_dissimilarities_of_images(ds):
    rsatoolbox = pytest.importorskip("rsatoolbox")
    made = ds.nsd.zscore("session").nsd.average_repeats().nsd.to_rsatoolbox("nsdgeneral")
    rdms = rsatoolbox.rdm.calc_rdm(made, method="correlation", descriptor="nsd_id")
    assert rdms.n_cond == made.n_obs


# -- nilearn -----------------------------------------------------------------------------------------------------


def test_volumes_are_an_image_that_reads_only_the_trials_asked_for(ds, experiment, reads):
    image = ds.nsd.to_nilearn()
    expected = experiment.percent.transpose(3, 2, 1, 0)
    assert image.shape == expected.shape
    np.testing.assert_allclose(image.affine, experiment.arrays["affine"], rtol=1e-6)  # float32 in the header
    assert reads.trials == []
    np.testing.assert_array_equal(image.dataobj[..., 5], expected[..., 5])
    np.testing.assert_array_equal(image.slicer[1:, :, 2:3, 7:9].get_fdata(), expected[1:, :, 2:3, 7:9])
    assert sorted(reads.trials) == [5, 7, 8]
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), expected)


def test_region_is_an_image_of_whole_volumes(ds, experiment):
    image = ds.nsd.roi("V1v").isel(trial=[4, 9]).nsd.to_nilearn()
    inside = (experiment.arrays["roi_prf-visualrois"] == 1).transpose(2, 1, 0)
    expected = np.where(inside[..., None], experiment.percent[[4, 9]].transpose(3, 2, 1, 0), np.nan)
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), expected)
    np.testing.assert_allclose(image.affine, experiment.arrays["affine"], rtol=1e-6)  # float32 in the header


def test_maps_and_single_trials_are_images_of_three_axes(ds, experiment):
    mask = ds.nsd.to_nilearn(ds.brainmask)
    np.testing.assert_array_equal(np.asarray(mask.dataobj) > 0, experiment.arrays["brainmask"].transpose(2, 1, 0))
    np.testing.assert_array_equal(ds.nsd.to_nilearn(3).dataobj, experiment.percent[3].transpose(2, 1, 0))


def test_image_is_saved_and_read_back(ds, experiment, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    ds.nsd.to_nilearn().to_filename(tmp_path / "trials.nii")
    np.testing.assert_array_equal(
        nibabel.load(tmp_path / "trials.nii").get_fdata(dtype=np.float32), experiment.percent.transpose(3, 2, 1, 0)
    )


def test_lazy_volumes_that_do_not_fit_are_refused(ds, monkeypatch):
    monkeypatch.setattr(samples, "read_available_memory", lambda: 1000)
    with pytest.raises(DoesNotFit):
        np.asarray(LazyVolumes(ds.betas))


@pytest.mark.filterwarnings("ignore")  # of nilearn, about what it takes as data
def test_masker_of_nilearn_gives_the_voxels_of_the_mask(ds, experiment):
    maskers = pytest.importorskip("nilearn.maskers")
    masker = maskers.NiftiMasker(ds.nsd.to_nilearn(ds.brainmask), standardize=None)
    found = masker.fit_transform(ds.isel(trial=slice(0, 4)).nsd.to_nilearn())
    expected = experiment.percent[:4].transpose(0, 3, 2, 1)[:, experiment.arrays["brainmask"].transpose(2, 1, 0)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_mesh_is_refused_for_volumes(ds):
    with pytest.raises(ConfigError, match="affine"):
        ds.nsd.to_nilearn(mesh={})


@pytest.fixture
def surface(surfaces):
    """11 vertices of the left and 12 of the right hemisphere."""
    sides = xr.Variable("vertex", np.repeat([0, 1], [11, 12]).astype(np.int8), {"flag_meanings": "lh rh"})
    numbers = xr.Variable("vertex", np.concatenate([np.arange(11), np.arange(12)]))
    return nsd_zarr.open_dataset(surfaces.path).assign_coords(hemisphere=sides, vertex_in_hemisphere=numbers)


def make_mesh(vertices):
    surface_of = pytest.importorskip("nilearn.surface")
    points = np.random.default_rng(0).normal(size=(vertices, 3))
    return surface_of.InMemoryMesh(points, np.array([[0, 1, 2], [1, 2, 3]]))


def test_surface_has_each_hemisphere_on_its_mesh(surface, surfaces):
    image = surface.nsd.to_nilearn(mesh={"left": make_mesh(11), "right": make_mesh(12)})
    np.testing.assert_array_equal(image.data.parts["left"], surfaces.percent[:, :11].T)
    np.testing.assert_array_equal(image.data.parts["right"], surfaces.percent[:, 11:].T)
    one = surface.nsd.to_nilearn(7, mesh={"right": make_mesh(12)})
    np.testing.assert_array_equal(one.data.parts["right"], surfaces.percent[7, 11:])


def test_region_of_a_surface_is_nan_elsewhere(surface, surfaces):
    mask = np.zeros(23, bool)
    mask[[2, 13, 20]] = True
    image = surface.nsd.roi(mask=mask).nsd.to_nilearn(0, mesh={"lh": make_mesh(11), "rh": make_mesh(12)})
    whole = np.concatenate([image.data.parts["left"], image.data.parts["right"]])
    np.testing.assert_array_equal(whole, np.where(mask, surfaces.percent[0], np.nan))


def test_surface_needs_a_mesh_of_its_size(surface):
    pytest.importorskip("nilearn.surface")
    with pytest.raises(ConfigError, match=r"lh\.white"):
        surface.nsd.to_nilearn()
    with pytest.raises(ConfigError, match="lh mesh has 5 vertices"):
        surface.nsd.to_nilearn(mesh={"left": make_mesh(5), "right": make_mesh(12)})


def test_sides_are_read_as_text_or_as_codes():
    texts = xr.DataArray(np.zeros(3), {"hemisphere": ("vertex", ["lh", "rh", "rh"])}, ["vertex"])
    assert read_sides(texts.hemisphere.variable).tolist() == ["lh", "rh", "rh"]
    codes = xr.Variable("vertex", [2, 1, 2], {"flag_values": [1, 2], "flag_meanings": "lh rh"})
    assert read_sides(codes).tolist() == ["rh", "lh", "rh"]
