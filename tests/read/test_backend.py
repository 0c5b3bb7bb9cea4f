import io
import json
import os
import shutil

import numpy as np
import pytest
import xarray as xr
import zarr
from xarray.backends.plugins import guess_engine

from nsd_zarr.errors import DamageFound, StoreError
from nsd_zarr.read.backend import NsdZarrBackendEntrypoint
from nsd_zarr.store.format import decode_root_metadata, make_root_metadata, read_members


def guess(path):
    return NsdZarrBackendEntrypoint().guess_can_open(path)


class BytesPath:
    def __fspath__(self):
        return b"/nowhere"


def test_engine_is_registered_by_the_package():
    assert isinstance(xr.backends.list_engines()["nsd_zarr"], NsdZarrBackendEntrypoint)


@pytest.mark.parametrize("kind", [str, lambda path: path, lambda path: f"{path}/"], ids=["str", "Path", "slash"])
def test_our_store_is_opened_without_naming_an_engine(volumes, kind):
    assert guess_engine(kind(volumes.path)) == "nsd_zarr"
    dataset = xr.open_dataset(kind(volumes.path))
    assert dataset.betas.dtype == np.float32
    assert dataset.encoding["source"] == str(volumes.path)


def test_our_store_is_found_from_its_folder_and_from_home(volumes, monkeypatch):
    monkeypatch.chdir(volumes.path.parent)
    monkeypatch.setenv("HOME", str(volumes.path.parent))
    for path in (volumes.path.name, f"~/{volumes.path.name}"):
        assert guess(path)
        assert np.array_equal(xr.open_dataset(path).betas[4].values, volumes.percent[4])


NO_FOLDERS = {
    "nothing": "",
    "missing": "/nowhere.zarr",
    "netcdf": "x.nc",
    "s3": "s3://bucket/subj01.zarr",
    "https": "https://example.org/subj01.zarr",
    "nul": "a\0b",
    "nul in a home": "~a\0b",
    "too long": "x" * 5000,
    "surrogate": "\udcff",
    "path of bytes": BytesPath(),
    "None": None,
    "number": 5,
    "bytes": b"bytes",
    "open file": io.BytesIO(b"{}"),
    "dict": {"betas": 1},
}
ROOTS = {
    "nothing": "",
    "half": "{",
    "list": "[]",
    "null": "null",
    "no attributes": "{}",
    "attributes null": '{"attributes": null}',
    "attributes list": '{"attributes": ["format"]}',
    "attributes empty": '{"attributes": {}}',
    "nested": "[" * 50_000,
    "binary": "\xff\xfe\0",
    "other format": '{"attributes": {"format": "other"}}',
    "listed format": '{"attributes": {"format": ["nsd_zarr"]}}',
}


@pytest.mark.parametrize("thing", NO_FOLDERS.values(), ids=NO_FOLDERS)
def test_what_is_no_folder_is_left_to_others(thing):
    assert guess(thing) is False


@pytest.mark.parametrize("text", ROOTS.values(), ids=ROOTS)
def test_folder_with_another_root_document_is_left_to_others(tmp_path, text):
    (tmp_path / "zarr.json").write_text(text, "latin-1")
    assert guess(tmp_path) is False


def test_folder_without_a_root_document_is_left_to_others(tmp_path, volumes):
    assert guess(tmp_path) is False
    assert guess(volumes.path / "betas") is False
    assert guess(volumes.path / "zarr.json") is False
    (tmp_path / "zarr.json").mkdir()
    assert guess(tmp_path) is False


def test_relative_path_without_a_working_folder_is_left_to_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.rmdir(tmp_path)
    assert guess("subj01.zarr") is False


@pytest.mark.parametrize("version", [2, 3])
def test_foreign_zarr_store_is_opened_by_zarr(tmp_path, version):
    values = np.arange(35.0).reshape(5, 7)
    xr.Dataset({"betas": (("a", "b"), values)}).to_zarr(tmp_path / "x.zarr", zarr_format=version, consolidated=False)
    assert guess_engine(tmp_path / "x.zarr") == "zarr"
    dataset = xr.open_dataset(tmp_path / "x.zarr", consolidated=False)
    assert np.array_equal(dataset.betas.values, values)


@pytest.mark.parametrize("version", [2, 3])
def test_foreign_zarr_array_at_the_root_is_left_to_others(tmp_path, version):
    zarr.create_array(tmp_path / "x.zarr", shape=(5, 7), dtype="int16", zarr_format=version)
    assert guess(tmp_path / "x.zarr") is False


def test_betas_say_what_they_are(volumes):
    betas = xr.open_dataset(volumes.path).betas
    assert (betas.dtype, betas.dims, betas.shape) == (np.float32, ("trial", "z", "y", "x"), (42, 5, 11, 3))
    assert betas.attrs == {"long_name": "single-trial response amplitude", "units": "percent"}
    assert {name for name in betas.encoding if name not in ("source", "original_shape")} == {"preferred_chunks"}
    assert betas.encoding["preferred_chunks"] == {"trial": 7, "z": 5, "y": 11, "x": 3}


def test_coordinates_tell_session_and_trial(volumes):
    dataset = xr.open_dataset(volumes.path)
    statistics = {"session_mean", "session_std", "rail_count"}
    assert set(dataset.coords) == {"session", "trial_in_session", "session_number", "store"} | statistics
    assert list(dataset.data_vars) == ["betas"]
    assert dataset.session.dims == dataset.trial_in_session.dims == ("trial",)
    assert dataset.session_number.values.tolist() == [2, 3, 5]
    assert list(dataset.indexes) == ["session_number"]
    assert not {"format", "format_version", "status", "checksum"} & set(dataset.attrs)


@pytest.mark.parametrize(
    "options", [{"mask_and_scale": False}, {"decode_cf": False}, {"mask_and_scale": {"betas": False}}], ids=str
)
def test_counts_are_delivered_where_scaling_is_declined(volumes, options):
    betas = xr.open_dataset(volumes.path, **options).betas
    assert betas.dtype == np.int16
    assert betas.attrs["scale_factor"] == 1 / 300
    assert np.array_equal(betas.values, volumes.stored)


def test_decoding_the_counts_as_cf_says_gives_the_percent(volumes):
    raw = xr.open_dataset(volumes.path, mask_and_scale=False)
    assert np.array_equal(xr.decode_cf(raw).betas.values.astype(np.float32), volumes.percent)


def test_options_for_other_engines_are_taken(volumes):
    options = {"decode_times": False, "decode_coords": "all", "decode_timedelta": False, "mask_and_scale": True}
    dataset = xr.open_dataset(volumes.path, concat_characters=False, cache=False, **options)
    assert np.array_equal(dataset.betas[3].values, volumes.percent[3])


def test_dropped_variables_are_left_out(volumes):
    assert "betas" not in xr.open_dataset(volumes.path, drop_variables="betas")
    dataset = xr.open_dataset(volumes.path, drop_variables=["session", "store", "no_such"])
    statistics = {"session_mean", "session_std", "rail_count"}
    assert set(dataset.variables) == {"betas", "trial_in_session", "session_number"} | statistics
    array = xr.open_dataarray(volumes.path, drop_variables=statistics)
    assert np.array_equal(array.values, volumes.percent)


def test_float_source_is_delivered_as_it_is(floats):
    betas = xr.open_dataset(floats.path).betas
    assert (betas.dtype, betas.attrs["units"]) == (np.float32, "percent")
    assert np.array_equal(betas.values.view("u4"), floats.stored.view("u4"))


def test_missing_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match=r"no such store\. Check the path.*nothing\.zarr\]"):
        xr.open_dataset(tmp_path / "nothing.zarr", engine="nsd_zarr")


def test_other_zarr_store_is_refused_by_our_engine(tmp_path):
    zarr.create_group(tmp_path / "x.zarr")
    with pytest.raises(StoreError, match="a Zarr store that nsd-zarr did not make"):
        xr.open_dataset(tmp_path / "x.zarr", engine="nsd_zarr")


def test_other_folder_is_refused_by_our_engine(tmp_path):
    with pytest.raises(StoreError, match="no Zarr v3 store"):
        xr.open_dataset(tmp_path, engine="nsd_zarr")


def test_later_format_is_refused_with_the_cure(volumes, tmp_path, rewrite_root):
    store = volumes.copy_to(tmp_path / "later.zarr")
    rewrite_root(store.path, format_version=2)
    with pytest.raises(StoreError, match=r"format version 2, expected 1\. Update nsd-zarr"):
        xr.open_dataset(store.path)


def test_unfinished_store_is_refused_unless_asked_for(volumes, tmp_path, rewrite_root):
    store = volumes.copy_to(tmp_path / "unfinished.zarr")
    rewrite_root(store.path, status="incomplete", manifest={})
    store.shard_path(30).unlink()
    with pytest.raises(StoreError, match="has not finished"):
        xr.open_dataset(store.path)
    dataset = xr.open_dataset(store.path, allow_unfinished=True)
    assert np.array_equal(dataset.betas[29 - 7].values, volumes.percent[22])
    with pytest.raises(DamageFound, match="trial 30 "):
        dataset.betas[30].load()


def test_root_document_that_was_changed_is_damage(volumes, tmp_path):
    store = volumes.copy_to(tmp_path / "changed.zarr")
    root = store.path / "zarr.json"
    root.write_bytes(root.read_bytes().replace(b'"trials_per_shard": 7', b'"trials_per_shard": 1'))
    with pytest.raises(DamageFound, match="root document is damaged: its checksum does not match"):
        xr.open_dataset(store.path)


@pytest.mark.parametrize("lost", ["betas", "settings"])
def test_root_document_that_lacks_something_is_damage(volumes, tmp_path, rewrite_root, lost):
    store = volumes.copy_to(tmp_path / "lacking.zarr")
    if lost == "settings":
        rewrite_root(store.path, settings={})
    else:
        document = json.loads((store.path / "zarr.json").read_bytes())
        del document["consolidated_metadata"]["metadata"]["betas"]
        (store.path / "zarr.json").write_text(json.dumps(document))
        rewrite_root(store.path)
    with pytest.raises(DamageFound, match="root document is damaged"):
        xr.open_dataset(store.path)


def test_root_document_that_was_cut_short_is_refused(volumes, tmp_path):
    store = volumes.copy_to(tmp_path / "cut.zarr")
    os.truncate(store.path / "zarr.json", 1000)
    with pytest.raises(StoreError, match="or a damaged one"):
        xr.open_dataset(store.path, engine="nsd_zarr")


def test_control_characters_of_a_title_reach_no_terminal(volumes, tmp_path):
    made = tmp_path / "copy.zarr"
    shutil.copytree(volumes.path, made)
    data = (made / "zarr.json").read_bytes()
    attributes = decode_root_metadata(data) | {"title": "a\x1b[2J\x07b"}
    attributes.pop("checksum", None)
    (made / "zarr.json").write_bytes(make_root_metadata(attributes, read_members(data)))
    assert json.loads((made / "zarr.json").read_bytes())["attributes"]["title"] == "a\x1b[2J\x07b"
    shown = repr(xr.open_dataset(made, engine="nsd_zarr"))
    assert "a\\x1b[2J\\x07b" in shown
    assert "\x1b" not in shown
