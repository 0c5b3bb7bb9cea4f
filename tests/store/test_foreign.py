"""Stores of other layouts and places: the same values, through zarr-python."""

import os
import pickle
import shutil
import uuid

import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

import nsd_zarr
from nsd_zarr.errors import DamageFound, StoreError
from nsd_zarr.store.foreign.open import is_trial_sharded, open_any
from nsd_zarr.store.foreign.reader import ZarrReader, make_reader
from nsd_zarr.store.reader import TrialReader
from nsd_zarr.store.root import open_store

VOLUME = (5, 11, 3)
LAYOUTS = {
    "plain": dict(chunks=(1, *VOLUME)),
    "uncompressed": dict(chunks=(1, *VOLUME), compressors=None),
    "gzip, seven trials a chunk": dict(chunks=(7, *VOLUME), compressors=GzipCodec()),
    "chunks across trials and sessions": dict(chunks=(9, 2, 11, 2), compressors=ZstdCodec()),
    "big-endian": dict(chunks=(1, *VOLUME), serializer=BytesCodec(endian="big")),
    "transposed": dict(chunks=(1, *VOLUME), filters=TransposeCodec(order=(3, 1, 0, 2))),
    "sharded, zstd": dict(chunks=(1, *VOLUME), shards=(14, *VOLUME), compressors=ZstdCodec()),
    "sharded, no checksum": dict(chunks=(1, *VOLUME), shards=(7, *VOLUME), compressors=BloscCodec(cname="lz4")),
    "sharded, checksum first": dict(
        chunks=(1, *VOLUME), shards=(7, *VOLUME), compressors=[Crc32cCodec(), BloscCodec(cname="lz4")]
    ),
    "sharded, three trials a chunk": dict(chunks=(3, *VOLUME), shards=(42, *VOLUME)),
    "Zarr version 2": dict(chunks=(1, *VOLUME), zarr_format=2),
}
DIMS = ("trial", "z", "y", "x")


@pytest.fixture
def rewritten(volumes, tmp_path):
    """Write the store's data again with zarr-python, in another layout, attributes and seal with them."""

    def rewrite(**layout):
        version = layout.pop("zarr_format", 3)
        ours = zarr.open_group(volumes.path, mode="r")
        copy = zarr.open_group(tmp_path / "copy.zarr", mode="w", zarr_format=version)
        copy.attrs.update(dict(ours.attrs))
        names = {} if version == 2 else {"dimension_names": DIMS}
        attributes = {"_ARRAY_DIMENSIONS": list(DIMS)} if version == 2 else {}
        betas = copy.create_array("betas", shape=volumes.stored.shape, dtype="int16", **names, **layout)
        betas.attrs.update(attributes | {"scale_factor": 1 / 300})
        betas[:] = volumes.stored
        for name in ("session", "trial_in_session"):
            names = {} if version == 2 else {"dimension_names": ["trial"]}
            values = copy.create_array(name, shape=(volumes.trials,), dtype="int16", **names)
            values[:] = ours[name][:]
            values.attrs.update({"_ARRAY_DIMENSIONS": ["trial"]} if version == 2 else {})
        return tmp_path / "copy.zarr"

    return rewrite


@pytest.fixture
def remote(volumes):
    """The store on a file system that has no paths of this machine."""
    url = f"memory://{uuid.uuid4().hex}/subj01.zarr"
    files, root = fsspec.core.url_to_fs(url)
    for path in filter(lambda path: path.is_file(), volumes.path.rglob("*")):
        files.pipe_file(f"{root}/{path.relative_to(volumes.path).as_posix()}", path.read_bytes())
    yield url
    files.rm(root, recursive=True)


def read_all(store):
    reader = make_reader(store)
    out = np.empty((store.geometry.trials, *reader.volume_shape), reader.dtype)
    for trial, row in enumerate(out):
        reader.read_into(trial, row)
    return out


def test_our_own_layout_is_read_by_the_decode_engine(volumes):
    store = open_any(volumes.path)
    assert is_trial_sharded(store)
    assert isinstance(make_reader(store), TrialReader)
    assert store.location == str(volumes.path)


@pytest.mark.parametrize("form", ["file://{}", "{}/", "{}/../{name}"])
def test_our_own_layout_is_known_however_its_place_is_written(volumes, form):
    text = form.format(volumes.path, name=volumes.path.name)
    assert isinstance(make_reader(open_any(text)), TrialReader)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_other_layout_gives_the_same_values_through_slices(volumes, rewritten, layout):
    store = open_any(rewritten(**layout))
    assert isinstance(make_reader(store), ZarrReader)
    assert store.geometry.sessions == volumes.sessions
    np.testing.assert_array_equal(read_all(store), volumes.stored)


@pytest.mark.parametrize("layout", ["gzip, seven trials a chunk", "Zarr version 2"])
def test_other_layout_opens_as_the_same_dataset(volumes, rewritten, layout):
    path = rewritten(**LAYOUTS[layout])
    ours, other = nsd_zarr.open_dataset(volumes.path), nsd_zarr.open_dataset(path)
    assert other.betas.dtype == np.float32
    xr.testing.assert_equal(other[["betas"]].drop_vars("store"), ours[["betas"]].drop_vars("store"))
    np.testing.assert_array_equal(nsd_zarr.open_dataset(path, raw=True).betas[5, 1:3], volumes.stored[5, 1:3])


def test_dataset_saved_by_xarray_opens_again(volumes, tmp_path):
    part = nsd_zarr.open_dataset(volumes.path).isel(trial=slice(14, 42))
    part.to_zarr(tmp_path / "part.zarr", consolidated=False)
    part = nsd_zarr.open_dataset(tmp_path / "part.zarr")
    np.testing.assert_array_equal(part.betas, volumes.percent[14:42])
    assert part.session.values.tolist() == [3] * 14 + [5] * 14


def test_store_behind_a_url_gives_the_same_values(volumes, remote):
    store = open_any(remote)
    assert store.fingerprint == open_store(volumes.path).fingerprint
    np.testing.assert_array_equal(read_all(store), volumes.stored)
    dataset = nsd_zarr.open_dataset(remote)
    np.testing.assert_array_equal(dataset.betas[17], volumes.percent[17])
    assert dataset.session_number.values.tolist() == list(volumes.sessions)


def test_zip_file_of_a_store_is_read(volumes, tmp_path):
    shutil.make_archive(str(tmp_path / "subj01"), "zip", volumes.path)
    np.testing.assert_array_equal(read_all(open_any(tmp_path / "subj01.zip")), volumes.stored)


def test_shard_lost_behind_a_url_raises_and_is_not_read_as_zeros(remote):
    files, root = fsspec.core.url_to_fs(remote)
    files.rm_file(f"{root}/betas/c/3/0/0/0")
    reader = make_reader(open_any(remote))
    out = np.empty(reader.volume_shape, reader.dtype)
    reader.read_into(20, out)
    with pytest.raises(DamageFound, match="session 03: trial 21 is lost or damaged: its shard is missing"):
        reader.read_into(21, out)


def test_flipped_bit_behind_a_url_raises(remote):
    files, root = fsspec.core.url_to_fs(remote)
    data = bytearray(files.cat_file(f"{root}/betas/c/0/0/0/0"))
    data[30] ^= 4
    files.pipe_file(f"{root}/betas/c/0/0/0/0", bytes(data))
    reader = make_reader(open_any(remote))
    with pytest.raises(DamageFound, match="trial 0 cannot be read"):
        reader.read_into(0, np.empty(reader.volume_shape, reader.dtype))


def test_changed_root_document_behind_a_url_is_damage(remote):
    files, root = fsspec.core.url_to_fs(remote)
    data = files.cat_file(f"{root}/zarr.json")
    files.pipe_file(f"{root}/zarr.json", data.replace(b'"trials_per_shard": 7', b'"trials_per_shard": 1'))
    with pytest.raises(DamageFound, match="its checksum does not match"):
        open_any(remote)


def test_reader_goes_through_pickle(volumes, rewritten):
    reader = make_reader(open_any(rewritten(chunks=(1, *VOLUME))))
    out = np.empty(reader.volume_shape, reader.dtype)
    reader.read_into(3, out)
    again = pickle.loads(pickle.dumps(reader))
    again.read_into(8, out)
    np.testing.assert_array_equal(out, volumes.stored[8])
    again.close()
    again.read_into(9, out)
    np.testing.assert_array_equal(out, volumes.stored[9])


def test_trial_outside_the_store_is_an_index_error(rewritten):
    reader = make_reader(open_any(rewritten(chunks=(1, *VOLUME))))
    for trial in (-1, 42):
        with pytest.raises(IndexError, match="outside the store's 42 trials"):
            reader.read_into(trial, np.empty(VOLUME, np.int16))


def make_group(path, betas, **attributes):
    group = zarr.open_group(path, mode="w")
    array = group.create_array("betas", shape=betas.shape, dtype=betas.dtype, dimension_names=None)
    array[:] = betas
    array.attrs.update(attributes)
    return group


def test_array_of_any_origin_counts_as_one_session(tmp_path):
    values = np.arange(6 * 7, dtype=np.int16).reshape(6, 7) + 1
    make_group(tmp_path / "x.zarr", values)
    dataset = nsd_zarr.open_dataset(tmp_path / "x.zarr")
    np.testing.assert_array_equal(dataset.betas, np.float32(values) / np.float32(300))
    assert dataset.betas.dims == ("trial", "vertex")
    assert open_any(tmp_path / "x.zarr").geometry.sessions == (1,)


@pytest.mark.parametrize("betas", [np.ones((3, 4, 5), np.int16), np.ones((3, 4), bool)], ids=["three axes", "bool"])
def test_betas_of_another_kind_are_refused(tmp_path, betas):
    make_group(tmp_path / "x.zarr", betas)
    with pytest.raises(StoreError, match="a Zarr store that nsd-zarr did not make"):
        open_any(tmp_path / "x.zarr")


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [((3, 2**30, 4, 8), (1, 1, 1, 1)), ((40, 99), (2**30, 99)), ((2**40, 5), (1, 5)), ((0, 5), (1, 5))],
    ids=["trial", "chunk", "trials", "none"],
)
def test_betas_of_absurd_size_are_refused_before_memory_is_taken(tmp_path, shape, chunks):
    zarr.open_group(tmp_path / "x.zarr", mode="w").create_array("betas", shape=shape, chunks=chunks, dtype="int16")
    with pytest.raises(StoreError, match="expected trials and chunks of at most"):
        open_any(tmp_path / "x.zarr")


def test_root_document_that_is_a_pipe_is_refused(tmp_path):
    (tmp_path / "x.zarr").mkdir()
    os.mkfifo(tmp_path / "x.zarr/zarr.json")
    with pytest.raises(StoreError, match=r"did not make, or a damaged one|no Zarr v3 store"):
        open_any(tmp_path / "x.zarr")


def test_counts_of_another_scale_are_refused(tmp_path):
    make_group(tmp_path / "x.zarr", np.ones((3, 4), np.int16), scale_factor=0.01)
    with pytest.raises(StoreError, match=r"scale_factor 0\.01, expected 1/300"):
        open_any(tmp_path / "x.zarr")


def test_sessions_of_different_lengths_are_refused(tmp_path):
    group = make_group(tmp_path / "x.zarr", np.ones((3, 4), np.int16))
    group.create_array("session", data=np.array([1, 1, 2], np.int16))
    with pytest.raises(StoreError, match="its 2 sessions have 1 to 2 trials"):
        open_any(tmp_path / "x.zarr")


def test_unfinished_copy_is_refused_unless_asked_for(rewritten):
    path = rewritten(chunks=(1, *VOLUME))
    zarr.open_group(path, mode="r+").attrs["status"] = "incomplete"
    with pytest.raises(StoreError, match="has not finished"):
        open_any(path)
    assert open_any(path, allow_unfinished=True).geometry.trials == 42


@pytest.mark.parametrize("url", ["memory://nothing/subj01.zarr", "nothing://here/subj01.zarr"])
def test_nothing_behind_a_url_is_refused(url):
    with pytest.raises(StoreError, match=r"no Zarr store with betas is there|cannot be opened"):
        open_any(url)


def test_package_for_a_url_that_is_missing_is_reported():
    fsspec.register_implementation("absent", "nsd_zarr_no_such_package.Files", errtxt="Install absentfs", clobber=True)
    with pytest.raises(StoreError, match="a package for this URL is missing: Install absentfs"):
        open_any("absent://bucket/subj01.zarr")
