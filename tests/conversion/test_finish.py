"""The files that make a store complete: its attributes, manifest, coordinates and digests."""

from __future__ import annotations

import json
from importlib.metadata import version

import numpy as np
import pytest
import xxhash
import zarr

from nsd_zarr.conversion.finish import create_skeleton, finish_store
from nsd_zarr.conversion.ledger import Ledger
from nsd_zarr.conversion.settings import Settings
from nsd_zarr.store.root import open_store

ARRAYS = {
    *("betas", "session", "trial_in_session", "session_number", "trial_digest"),
    *("session_mean", "session_std", "rail_count"),
}


@pytest.fixture
def root(source, convert):
    """The root document of a converted store, as plain JSON."""
    return json.loads((convert(source) / "zarr.json").read_bytes())


def test_root_attributes_tell_format_settings_libraries_and_status(root):
    attributes = root["attributes"]
    assert attributes["Conventions"].startswith("CF-")
    assert (attributes["format"], attributes["format_version"], attributes["status"]) == ("nsd_zarr", 1, "complete")
    assert attributes["settings"] == {
        "dataset": "betas",
        "sessions": [1, 2, 3],
        "trials_per_shard": 2,
        "codec": "lz4",
        "clevel": 5,
        "shape": [6, 5, 7, 11],
        "dtype": "int16",
    }
    for library in ("numcodecs", "numpy", "h5py"):
        assert attributes["libraries"][library] == version(library)


def test_root_attributes_name_each_source_with_size_and_value_digest(root, source, read_source):
    values = read_source(source)
    for number, entry in enumerate(root["attributes"]["sources"]):
        path = source / f"betas_session{number + 1:02d}.hdf5"
        digests = [xxhash.xxh3_128_digest(trial.tobytes()) for trial in values[6 * number : 6 * number + 6]]
        assert entry == {
            "session": number + 1,
            "name": path.name,
            "size": path.stat().st_size,
            "digest": xxhash.xxh3_128_hexdigest(b"".join(digests)),
        }


def test_manifest_covers_every_other_file_with_size_and_digest(source, convert):
    store = convert(source)
    manifest = open_store(store).manifest
    files = {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}
    del files["zarr.json"]
    assert {key: (record.size, record.digest) for key, record in manifest.items()} == {
        key: (len(data), xxhash.xxh3_128_hexdigest(data)) for key, data in files.items()
    }


@pytest.mark.parametrize(
    "kind", [{}, {"dtype": ">i2"}, {"dtype": "<f4", "nan": True, "layout": "gzip"}, {"volume": (131,)}], ids=str
)
def test_trial_digest_is_xxh3_of_the_source_trial(kind, make_source, read_source, convert):
    folder = make_source(**kind)
    values = read_source(folder)
    little = values.astype(values.dtype.newbyteorder("<"))
    digests = zarr.open_array(convert(folder) / "trial_digest", mode="r")[...]
    assert digests.tolist() == [xxhash.xxh3_128_hexdigest(trial.tobytes()) for trial in little]


def test_consolidated_metadata_equal_each_array_document(source, convert):
    store = convert(source)
    members = json.loads((store / "zarr.json").read_bytes())["consolidated_metadata"]["metadata"]
    assert set(members) == ARRAYS
    for name, member in members.items():
        assert json.loads((store / name / "zarr.json").read_bytes()) == member


def test_finishing_again_writes_the_same_bytes(source, convert, digest_tree):
    store = convert(source)
    before, attributes = digest_tree(store), open_store(store).attributes
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in attributes.settings.items()}
    records = [Ledger(store).read_session(session) for session in (1, 2, 3)]
    finish_store(store, Settings(**settings), records)
    assert digest_tree(store) == before


def test_skeleton_says_incomplete_and_holds_no_trial(tmp_path):
    settings = Settings("betas", (1, 2), 2, "lz4", 5, (6, 5, 7, 11), "int16")
    create_skeleton(tmp_path / "new.zarr", settings)
    opened = open_store(tmp_path / "new.zarr", allow_unfinished=True)
    assert not opened.is_complete
    assert opened.manifest == {}
    assert zarr.open_array(tmp_path / "new.zarr" / "betas", mode="r").nchunks_initialized == 0


@pytest.mark.parametrize(("dtype", "scaled"), [("<i2", True), ("u1", True), ("<f4", False)])
def test_only_integer_betas_carry_a_scale_and_none_a_fill_value(dtype, scaled, make_source, convert):
    attributes = zarr.open_array(convert(make_source(sessions=(1,), dtype=dtype)) / "betas", mode="r").attrs
    assert attributes["units"] == "percent"
    assert attributes.get("scale_factor") == (1 / 300 if scaled else None)
    assert "_FillValue" not in attributes


def test_coordinates_are_int16(source, convert):
    store = convert(source)
    for name in ("session", "trial_in_session", "session_number"):
        assert zarr.open_array(store / name, mode="r").dtype == np.int16
