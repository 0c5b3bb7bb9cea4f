"""A store as a whole: opened by one small file that is checked first, or refused with what it is instead."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import zarr

from nsd_zarr.errors import DamageFound, StoreError
from nsd_zarr.layout import IMAGES, TRIALS
from nsd_zarr.store.format import make_root_metadata
from nsd_zarr.store.root import is_store, is_vacant, open_store, read_kind
from nsd_zarr.store.small import read_array


def _rewrite_root(path, **changes):
    """A root document of other content, sealed as it should be."""
    document = json.loads((path / "zarr.json").read_bytes())
    attributes = {key: value for key, value in (document["attributes"] | changes).items() if value is not None}
    data = make_root_metadata(attributes, document["consolidated_metadata"]["metadata"])
    (path / "zarr.json").write_bytes(data)


@pytest.fixture
def copied(volumes, tmp_path):
    return volumes.copy_to(tmp_path / "copied.zarr")


def test_opened_store_tells_its_geometry_and_files(volumes):
    store = open_store(volumes.path)
    assert store.is_complete
    assert store.geometry.sessions == (2, 3, 5)
    assert (store.geometry.shape, store.geometry.trials_per_shard) == ((42, 5, 11, 3), 7)
    assert "manifest" not in store.attributes.document
    assert len(store.manifest) == sum(path.is_file() for path in volumes.path.rglob("*")) - 1
    assert pickle.loads(pickle.dumps(store)) == store


def test_opening_reads_the_root_document_alone(copied):
    for path in copied.path.iterdir():
        if path.name != "zarr.json":
            path.rename(copied.path.parent / path.name)
    assert open_store(copied.path).geometry.trials == 42


def test_fingerprint_tells_stores_apart(volumes, surfaces, copied):
    assert open_store(volumes.path).fingerprint == open_store(copied.path).fingerprint
    assert open_store(volumes.path).fingerprint != open_store(surfaces.path).fingerprint


def test_small_arrays_are_what_zarr_reads(volumes):
    store = open_store(volumes.path)
    for name in ("session", "trial_in_session", "session_number", "trial_digest"):
        theirs = zarr.open_array(volumes.path / name, mode="r")[...]
        assert read_array(store, name).tolist() == theirs.tolist()


@pytest.mark.parametrize("damage", ["lost", "flipped"])
def test_small_array_that_is_damaged_is_named(damage, copied):
    path = copied.path / "session" / "c" / "0"
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.unlink() if damage == "lost" else path.write_bytes(data)
    with pytest.raises(DamageFound, match="array session is lost or damaged") as caught:
        read_array(open_store(copied.path), "session")
    assert caught.value.path == path


def test_small_array_of_another_store_is_not_believed(copied, surfaces):
    # Right in itself, and not what the manifest says.
    other = read_array(open_store(surfaces.path), "trial_digest")
    assert not np.array_equal(other, read_array(open_store(copied.path), "trial_digest"))
    (copied.path / "trial_digest/c/0").write_bytes((surfaces.path / "trial_digest/c/0").read_bytes())
    with pytest.raises(DamageFound, match="manifest"):
        read_array(open_store(copied.path), "trial_digest")


# -- refused -----------------------------------------------------------------------------------------------------


def test_unfinished_store_is_opened_only_when_that_is_said(copied):
    _rewrite_root(copied.path, status="incomplete")
    with pytest.raises(StoreError, match=r"has not finished.*convert command that began it again"):
        open_store(copied.path)
    assert not open_store(copied.path, allow_unfinished=True).is_complete


@pytest.mark.parametrize("version", [0, 2, 99, "1"])
def test_store_of_another_format_version_is_refused(version, copied):
    _rewrite_root(copied.path, format_version=version)
    with pytest.raises(StoreError, match=f"format version {version}, expected 1") as caught:
        open_store(copied.path)
    assert caught.value.found == version


@pytest.mark.parametrize(
    "changes",
    [{"settings": None}, {"status": None}, {"settings": {"sessions": []}}, {"manifest": {"a": 3}}, {"settings": 5}],
    ids=str,
)
def test_root_document_without_what_it_needs_is_damaged(changes, copied):
    _rewrite_root(copied.path, **changes)
    with pytest.raises(DamageFound, match="the root document is damaged"):
        open_store(copied.path)


def test_root_document_that_was_edited_is_damaged(copied):
    path = copied.path / "zarr.json"
    path.write_text(path.read_text().replace('"clevel": 5', '"clevel": 6', 1))
    with pytest.raises(DamageFound, match="its checksum does not match"):
        open_store(copied.path)


def test_what_is_no_store_is_refused_by_kind(tmp_path, copied):
    zarr.save_array(tmp_path / "foreign.zarr", np.arange(7))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"")
    messages = {
        "nowhere": "no such store",
        "foreign.zarr": "a Zarr store that nsd-zarr did not make",
        "empty": "it has no zarr.json",
        "file": "it has no zarr.json",
    }
    for name, text in messages.items():
        assert not is_store(tmp_path / name)
        with pytest.raises(StoreError, match=text):
            open_store(tmp_path / name)
    assert is_store(copied.path)


def test_vacant_is_nothing_or_a_folder_of_leftovers(tmp_path):
    for name in ("empty", "leftovers", "stuff"):
        (tmp_path / name).mkdir()
    (tmp_path / "leftovers" / "zarr.json.1.partial").write_bytes(b"")
    (tmp_path / "stuff" / "notes.txt").write_bytes(b"")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "linked").symlink_to("empty")
    vacant = {name: is_vacant(tmp_path / name) for name in ("nowhere", "empty", "leftovers", "linked", "file/below")}
    assert vacant == dict.fromkeys(vacant, True)
    taken = {name: is_vacant(tmp_path / name) for name in ("stuff", "file", "dangling")}
    assert taken == dict.fromkeys(taken, False)


# -- images ------------------------------------------------------------------------------------------------------


def test_store_of_images_opens_only_where_it_is_meant(stimulus_images, volumes):
    store = open_store(stimulus_images.seen, kind=IMAGES)
    assert open_store(stimulus_images.seen, kind=None) == store
    assert (read_kind(stimulus_images.seen), read_kind(volumes.path)) == (IMAGES, TRIALS)
    assert (is_store(stimulus_images.seen), is_store(stimulus_images.seen, IMAGES)) == (False, True)
    with pytest.raises(StoreError, match="a store of images, expected one of betas"):
        open_store(stimulus_images.seen)
    with pytest.raises(StoreError, match="a store of betas, expected one of images"):
        open_store(volumes.path, kind=IMAGES)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda root: root["attributes"]["settings"].update(images_per_shard=0), "images per shard are none"),
        (lambda root: root["attributes"]["settings"].update(images_per_shard=10**6), "images per shard are none"),
        (lambda root: root["attributes"]["settings"].update(images_per_shard=6), "not those that its settings make"),
        (lambda root: root["attributes"]["settings"].update(codec="zstd"), "not those that its settings make"),
        (lambda root: _images_of(root).update(shape=[42, 7, 5]), r"images have shape \[42, 7, 5\]"),
        (lambda root: _images_of(root).update(data_type="int16"), "not those that its settings make"),
        (lambda root: _images_of(root).update(shape=[2**31, 7, 5, 3]), "images per shard are none"),
    ],
)
def test_root_of_images_that_cannot_be_is_refused(change, problem, stimulus_images, tmp_path):
    root = json.loads((stimulus_images.seen / "zarr.json").read_bytes())
    change(root)
    root["attributes"].pop("checksum")
    members = root["consolidated_metadata"]["metadata"]
    (tmp_path / "zarr.json").write_bytes(make_root_metadata(root["attributes"], members))
    with pytest.raises(DamageFound, match=problem):
        open_store(tmp_path, kind=IMAGES)


def _images_of(root):
    return root["consolidated_metadata"]["metadata"]["images"]
