"""Surfaces: both hemispheres along vertex, noise ceiling and labels beside them, and everything that reads volumes."""

from __future__ import annotations

import gzip
import json
import shutil

import nibabel
import numpy as np
import pytest
import xarray as xr
import zarr

import nsd_zarr
from nsd_zarr.errors import ConfigError, SourceError, StoreError
from nsd_zarr.forms import FSAVERAGE, NATIVESURFACE
from nsd_zarr.simulate import ROI_LABELS, Simulation, simulate_root
from nsd_zarr.simulate.surfaces import make_mgh_header, make_vertices

SHAPE = (24, 5, 11, 7)
FORMS = (NATIVESURFACE, FSAVERAGE)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three sessions on both surfaces. Never changed."""
    recipe = Simulation(3, SHAPE, forms=tuple(form.name for form in FORMS))
    return simulate_root(tmp_path_factory.mktemp("surfaces"), recipe)


@pytest.fixture(scope="module")
def stores(root, tmp_path_factory):
    """The store of each surface, by name. Never changed."""
    folder = tmp_path_factory.mktemp("stores")
    for form in FORMS:
        nsd_zarr.convert(root.root, folder / f"{form.name}.zarr", form=form.name, trials_per_shard=6)
    return {form.name: folder / f"{form.name}.zarr" for form in FORMS}


@pytest.fixture(params=FORMS, ids=lambda form: form.name)
def form(request):
    return request.param


def read_map(path):
    data = path.read_bytes()
    image = nibabel.MGHImage.from_bytes(gzip.decompress(data) if path.suffix == ".mgz" else data)
    return np.asarray(image.dataobj).reshape(-1)


def read_labels(root, form, name):
    """The oracle: label codes of the left and of the right hemisphere, by nibabel."""
    subject = "subj01" if form is NATIVESURFACE else "fsaverage"
    folder = root.root / "nsddata/freesurfer" / subject / "label"
    return [read_map(folder / f"{side}.{name}.mgz") for side in ("lh", "rh")]


def test_vertices_know_their_hemisphere_and_their_place_in_it(stores, form):
    left, right = map(len, make_vertices(form, SHAPE[1:]))
    ds, plain = nsd_zarr.open_dataset(stores[form.name]), xr.open_zarr(stores[form.name])
    assert ds.betas.dims == ("trial", "vertex")
    assert ds.hemisphere.values.tolist() == ["lh"] * left + ["rh"] * right
    assert ds.vertex_in_hemisphere.values.tolist() == [*range(left), *range(right)]
    assert plain.hemisphere.values.tolist() == [0] * left + [1] * right
    assert plain.hemisphere.attrs["flag_meanings"] == "lh rh"
    chosen = ds.sel(vertex=ds.hemisphere == "rh").isel(vertex=slice(2, 5))
    assert chosen.vertex_in_hemisphere.values.tolist() == [2, 3, 4]
    assert set(chosen.hemisphere.values) == {"rh"}
    attributes = json.loads((stores[form.name] / "zarr.json").read_bytes())["attributes"]
    assert (attributes["format_minor"], attributes["settings"]["vertices"]) == (2, [left, right])


def test_side_files_are_attached_as_nibabel_reads_them(root, stores, form):
    group = zarr.open_group(stores[form.name], mode="r")
    folder = root.forms[form.name][0][0].parent
    expected = np.concatenate([read_map(folder / f"{side}.ncsnr.mgh") for side in ("lh", "rh")])
    assert np.isnan(expected).any()
    assert np.array_equal(group["ncsnr"][...], expected, equal_nan=True)
    for name in ("nsdgeneral", "HCP_MMP1", *(["prf-visualrois", "floc-faces"] if form is NATIVESURFACE else [])):
        left, right = read_labels(root, form, name)
        assert (left > 0).any()
        assert np.array_equal(group[f"roi_{name}"][...], np.concatenate([left, right]))
        sides = [np.concatenate([left, 0 * right]), np.concatenate([0 * left, right])]
        assert np.array_equal(group[f"hemispheres_{name}"][...], sides)
    assert not {"roi_MTL", "brainmask", "valid", "affine"} & set(group)
    assert {"nsd_id", "rt"} <= set(group)


def test_regions_labels_and_hemispheres_are_chosen_as_in_volumes(root, stores, form):
    ds = nsd_zarr.open_dataset(stores[form.name])
    left, right = read_labels(root, form, "streams")
    whole = np.concatenate([left, right])
    region = ds.nsd.roi("streams")
    assert np.array_equal(region.vertex, np.flatnonzero(whole))
    assert np.array_equal(region.betas.values, ds.betas.values[:, whole > 0], equal_nan=True)
    sides = np.where(np.flatnonzero(whole) < len(left), "lh", "rh")
    assert np.array_equal(region.hemisphere, sides)
    assert np.array_equal(region.vertex_in_hemisphere, ds.vertex_in_hemisphere.values[whole > 0])
    number = int(right.max())
    one = ds.nsd.roi("streams", labels=number, hemisphere="rh")
    assert np.array_equal(one.vertex, len(left) + np.flatnonzero(right == number))
    assert set(one.label.values) == {ROI_LABELS["streams"][number - 1]}
    counts = ds.nsd.rois.query(f"roi == 'streams' and number == {number}").iloc[0]
    assert (counts.voxels, counts.lh, counts.rh) == tuple((codes == number).sum() for codes in (whole, left, right))
    mask = ds.nsd.roi(mask=ds.hemisphere == "lh")
    assert set(mask.hemisphere.values) == {"lh"}
    assert mask.nsd.to_volume(mask.ncsnr).shape == whole.shape


def test_missing_vertices_are_those_that_are_nan_or_zero_all_session(stores, form):
    ds = nsd_zarr.open_dataset(stores[form.name])
    betas = ds.betas.values.reshape(3, 24, -1)
    missing = np.isnan(betas).any(1) | (betas == 0).all(1)
    assert missing.any()
    assert np.array_equal(ds.nsd.missing, missing)
    scores = ds.nsd.zscore("session").betas.values.reshape(betas.shape)
    assert np.array_equal(np.isnan(scores).all(1), missing)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = (betas - betas.mean(1, keepdims=True)) / betas.std(1, keepdims=True)
    np.testing.assert_allclose(scores[~np.isnan(scores)], expected[~np.isnan(scores)], rtol=2e-3, atol=1e-4)


def test_noise_ceiling_is_computed_and_images_averaged(stores, form):
    ds = nsd_zarr.open_dataset(stores[form.name])
    computed = ds.nsd.compute_ncsnr()
    assert computed.dims == ("vertex",)
    assert np.isfinite(computed.values).any()
    means = ds.nsd.average_repeats()
    assert means.betas.dims == ("image", "vertex")
    assert means.betas.values.shape == (len(set(ds.nsd_id.values)), ds.sizes["vertex"])


def test_trials_of_vertices_go_to_pytorch(stores, form):
    pytest.importorskip("torch")
    from nsd_zarr.torch import TrialDataset, TrialLoader

    ds = nsd_zarr.open_dataset(stores[form.name])
    data = TrialDataset(stores[form.name])
    expected = np.nan_to_num(ds.betas[7].values)
    assert np.array_equal(np.nan_to_num(data[7]["betas"].numpy()), expected)
    region = TrialDataset(stores[form.name], roi="nsdgeneral", zscore="session")
    scored = np.nan_to_num(ds.nsd.roi("nsdgeneral").nsd.zscore("session").betas[7].values)
    np.testing.assert_allclose(region[7]["betas"].numpy(), scored, rtol=1e-5, atol=1e-6)
    batches = list(TrialLoader(region, batch_size=10, threads=2))
    assert sorted(int(trial) for batch in batches for trial in batch["trial"][batch["valid"]]) == list(range(72))


def test_info_plan_and_verify_say_what_there_is(root, stores, form, run_cli):
    store = stores[form.name]
    assert run_cli("info", store).code == 0
    outcome = run_cli("plan", root.root, store, "--form", form.name, "--trials-per-shard", 6)
    assert (outcome.code, "0 to convert" in outcome.out) == (0, True)
    assert nsd_zarr.verify(store, root.root).is_whole  # of two betas folders the one that it was made of
    planned = nsd_zarr.plan(root.root, store.with_name("new.zarr"), form=form.name, trials_per_shard=6)
    assert planned.space.files == sum(path.is_file() for path in store.rglob("*"))


def test_experiment_taken_out_and_attached_again_gives_the_same_bytes(root, stores, form, tmp_path, digest_tree):
    store = tmp_path / "s.zarr"
    shutil.copytree(stores[form.name], store)
    nsd_zarr.attach(store, no_experiment=True)
    assert "roi_streams" not in nsd_zarr.open_dataset(store)
    assert nsd_zarr.open_dataset(store).hemisphere.values[0] == "lh"
    assert "ncsnr" not in zarr.open_group(store, mode="r")
    nsd_zarr.attach(store, root.root, subject=1, form=form.name)
    assert digest_tree(store) == digest_tree(stores[form.name])


@pytest.mark.parametrize("lost", ["hemisphere/c/0", "vertex_in_hemisphere/zarr.json", "roi_streams/c/0", "zarr.json"])
def test_lost_file_is_made_again(root, stores, lost, tmp_path, digest_tree):
    store = tmp_path / "s.zarr"
    for end in ("", ".run"):
        shutil.copytree(f"{stores['nativesurface']}{end}", f"{store}{end}")
    (store / lost).unlink()
    assert nsd_zarr.repair(store, root.root, form="nativesurface").is_whole
    assert digest_tree(store) == digest_tree(stores["nativesurface"])


@pytest.mark.parametrize("side", ["lh", "rh"])
def test_one_hemisphere_alone_is_a_store_of_its_own(root, stores, form, side, tmp_path):
    store, whole = tmp_path / "s.zarr", nsd_zarr.open_dataset(stores[form.name])
    nsd_zarr.convert(root.root, store, form=form.name, hemisphere=side, trials_per_shard=6)
    ds, part = nsd_zarr.open_dataset(store), whole.sel(vertex=whole.hemisphere == side)
    for name in ("betas", "hemisphere", "vertex_in_hemisphere", "ncsnr", "roi_streams"):
        xr.testing.assert_equal(ds[name].variable.to_base_variable(), part[name].variable.to_base_variable())
    assert np.array_equal(
        ds.nsd.roi("nsdgeneral", hemisphere=side).betas, ds.nsd.roi("nsdgeneral").betas, equal_nan=True
    )
    assert nsd_zarr.verify(store, root.root).is_whole
    with pytest.raises(StoreError, match="vertices"):
        nsd_zarr.convert(root.root, store, form=form.name, trials_per_shard=6)


def test_hemisphere_and_form_are_checked():
    for options in ({"hemisphere": "left"}, {"form": "zarr"}):
        with pytest.raises(ConfigError, match=f"{next(iter(options))} = "):
            nsd_zarr.plan("nowhere", "s.zarr", **options)


def test_side_file_that_is_unfit_is_left_out_with_a_note_or_refused_where_it_was_named(root, tmp_path):
    copy = tmp_path / "nsd"
    shutil.copytree(root.root, copy)
    labels, betas = copy / "nsddata/freesurfer/subj01/label", root.forms["nativesurface"][0][0].parent
    (labels / "rh.streams.mgz").write_bytes(gzip.compress(make_mgh_header(3, 1) + np.ones(3, ">f4").tobytes()))
    (labels / "lh.floc-words.mgz").write_bytes(b"no map")
    (labels / "rh.floc-words.mgz").unlink()
    (copy / betas.relative_to(root.root) / "rh.ncsnr.mgh").write_bytes(b"\0\0\0\1")
    nsd_zarr.convert(copy, tmp_path / "s.zarr", form="nativesurface")
    group = zarr.open_group(tmp_path / "s.zarr", mode="r")
    assert not {"ncsnr", "roi_floc-words"} & set(group)
    left, right = read_labels(root, NATIVESURFACE, "streams")
    assert np.array_equal(group["roi_streams"][...], np.concatenate([left, 0 * right]))
    notes = " ".join(group.attrs["experiment_notes"])
    for words in (
        "rh.streams.mgz is left out: a map of shape",
        "lh.floc-words.mgz is left out",
        "ncsnr.mgh is left out",
    ):
        assert words in notes
    with pytest.raises(SourceError, match="no surface map can be read") as caught:
        nsd_zarr.convert(copy, tmp_path / "t.zarr", form="nativesurface", roi=labels / "lh.floc-words.mgz")
    assert caught.value.path == labels / "lh.floc-words.mgz"
