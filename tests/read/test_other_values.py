"""Chunks that are whole, at a place where they do not belong: of another trial, or of another version of the store."""

from __future__ import annotations

import json
import os
import shutil
import struct

import numpy as np
import pytest
import xarray as xr
import zarr
from google_crc32c import value as crc32c

import nsd_zarr
from nsd_zarr.errors import DamageFound
from nsd_zarr.loading.images import open_images
from nsd_zarr.read.view import ViewReader
from nsd_zarr.store.foreign.open import open_any
from nsd_zarr.store.foreign.reader import ZarrReader, make_reader
from nsd_zarr.store.reader import TrialReader
from nsd_zarr.store.root import open_store

TRIALS, SHAPE, PER_SHARD = 14, (5, 11, 3), 7


def _random(seed, dtype="int16"):
    """Values that no codec makes smaller, so that all chunks have one length."""
    codes = np.random.default_rng(seed).integers(0, 2**16, (2 * TRIALS, *SHAPE), "uint16").view("int16")
    return codes if dtype == "int16" else codes.astype(dtype) / 300


@pytest.fixture(scope="module")
def versions(make_store):
    """A store of two sessions of 14 trials, 7 to a shard; and a later version, in which trials 7, 8 and 9 differ."""
    values = _random(1)
    later = values.copy()
    later[7:10] ^= 1
    return [make_store(each, sessions=(1, 2), trials_per_shard=PER_SHARD) for each in (values, later)]


@pytest.fixture
def store(versions, tmp_path):
    """A copy of the first version, to be changed; its source is beside the original."""
    assert len({length for _, length in _find_chunks(versions[0].shard_path(8))}) == 1
    return versions[0].copy_to(tmp_path / "subj01.zarr")


@pytest.fixture
def source(versions):
    return versions[0].path.parent / "source"


def _find_chunks(path, slots=PER_SHARD):
    data = path.read_bytes()
    return np.frombuffer(data[-16 * slots - 4 : -4], "<u8").reshape(slots, 2).astype(int).tolist()


def _put(path, position, chunk):
    offset, length = _find_chunks(path)[position]
    assert len(chunk) == length
    data = bytearray(path.read_bytes())
    data[offset : offset + length] = chunk
    path.write_bytes(data)


def _get(path, position):
    offset, length = _find_chunks(path)[position]
    return path.read_bytes()[offset : offset + length]


def _swap(made, later):
    """Trials 8 and 10 change places."""
    path = made.shard_path(8)
    chunks = [_get(path, position) for position in (1, 3)]
    _put(path, 3, chunks[0])
    _put(path, 1, chunks[1])


def _take_from_another_shard(made, later):
    _put(made.shard_path(8), 1, _get(made.shard_path(15), 1))


def _take_from_another_version(made, later):
    """As a copy in place that was cut short leaves it: the front of the file is of the later version."""
    end = _find_chunks(made.shard_path(8))[3][0]
    data = later.shard_path(8).read_bytes()[:end] + made.shard_path(8).read_bytes()[end:]
    assert data != made.shard_path(8).read_bytes()
    made.shard_path(8).write_bytes(data)


def _read_by_reader(path):
    reader = TrialReader(open_store(path))
    return _read(reader, 8)


def _read(reader, trial):
    out = np.empty(reader.store.geometry.volume_shape, reader.dtype)
    reader.read_into(trial, out)
    return out


def _read_by_view(path):
    view = ViewReader(TrialReader(open_store(path)), voxels=np.array([3, 5, 1]))
    out = np.empty(3, np.float32)
    view.read_into(8, out)
    return out


def _read_by_torch(path):
    pytest.importorskip("torch")
    from nsd_zarr.torch import TrialDataset

    return TrialDataset(path)[8]["betas"]


def _read_by_workers(path):
    torch = pytest.importorskip("torch")
    from nsd_zarr.torch import TrialDataset

    return list(torch.utils.data.DataLoader(TrialDataset(path, trials=np.arange(7, 14)), batch_size=3, num_workers=1))


def _read_by_loader(path, **options):
    pytest.importorskip("torch")
    from nsd_zarr.torch import TrialDataset, TrialLoader

    return list(TrialLoader(TrialDataset(path), batch_size=5, threads=2, **options))


READERS = {
    "engine": _read_by_reader,
    "dataset": lambda path: nsd_zarr.open_dataset(path).betas[8].values,
    "raw": lambda path: nsd_zarr.open_dataset(path, raw=True).betas[5:10].values,
    "xarray": lambda path: xr.open_dataset(path, engine="nsd_zarr").betas[8, 1].values,
    "dask": lambda path: nsd_zarr.open_dataset(path, chunks={}).betas.mean().compute(),
    "z-scores": lambda path: nsd_zarr.open_dataset(path).nsd.zscore("session").betas[8].values,
    "view": _read_by_view,
    "TrialDataset": _read_by_torch,
    "DataLoader": _read_by_workers,
    "TrialLoader": _read_by_loader,
    "TrialLoader, reuse": lambda path: _read_by_loader(path, reuse=True),
    "URL": lambda path: nsd_zarr.open_dataset(f"local://{path}").betas[8].values,
}
CHANGES = [_swap, _take_from_another_shard, _take_from_another_version]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_value_of_another_trial_or_version_raises_in_every_reader(change, read, store, versions):
    read(store.path)
    change(store, versions[1])
    with pytest.raises(DamageFound, match=r"trial \d+ .*another trial, or of another version"):
        read(store.path)


def test_other_trials_of_the_shard_are_read(store, versions):
    _swap(store, versions[1])
    reader = TrialReader(open_store(store.path))
    for trial in sorted(set(range(28)) - {8, 10}):
        assert np.array_equal(_read(reader, trial), store.stored[trial])


def test_floats_are_compared_bit_for_bit(make_store):
    """Another NaN is another value, though no comparison of numbers tells."""
    values = _random(3, "float32")
    values[8, 0] = np.nan
    made = make_store(values, sessions=(1, 2), trials_per_shard=PER_SHARD, clevel=0)
    assert np.isnan(_read(TrialReader(open_store(made.path)), 8)[0]).all()
    path, bits = made.shard_path(8), values[8].view("<u4").copy()
    bits[0] |= 7
    chunk = _get(path, 1)
    frame = chunk[:16] + bits.tobytes()
    assert len(frame) == len(chunk) - 4
    _put(path, 1, frame + struct.pack("<I", crc32c(frame)))
    with pytest.raises(DamageFound, match="another trial, or of another version"):
        _read(TrialReader(open_store(made.path)), 8)


def test_crc32c_that_alone_is_wrong_gives_the_right_values_and_verify_names_it(store):
    offset, length = _find_chunks(store.shard_path(8))[1]
    data = bytearray(store.shard_path(8).read_bytes())
    data[offset + length - 2] ^= 16
    store.shard_path(8).write_bytes(data)
    assert np.array_equal(nsd_zarr.open_dataset(store.path, raw=True).betas[8].values, store.stored[8])
    assert [damage.trials for damage in nsd_zarr.verify(store.path, workers=1).damages] == [(8, 8)]


# -- images ------------------------------------------------------------------------------------------------------


def test_image_of_another_id_raises(stimulus_images, tmp_path):
    shutil.copytree(stimulus_images.seen, tmp_path / "images.zarr")
    images = open_images(tmp_path / "images.zarr")
    slots = images.store.geometry.trials_per_shard
    path = tmp_path / "images.zarr" / "images/c/0/0/0/0"
    places = _find_chunks(path, slots)[: min(slots, images.count)]
    first, second = next((a, b) for a in range(len(places) - 1) for b in range(a) if places[a][1] == places[b][1])
    data = path.read_bytes()
    changed = bytearray(data)
    for target, origin in ((first, second), (second, first)):
        (offset, length), (start, _) = places[target], places[origin]
        changed[offset : offset + length] = data[start : start + length]
    path.write_bytes(changed)
    out = np.empty(images.shape, np.uint8)
    for row in (first, second):
        nsd_id = int(images._ids[row])
        with pytest.raises(DamageFound, match=rf"image {nsd_id} .*another trial, or of another version"):
            images.read_into(nsd_id, out)


# -- digests -----------------------------------------------------------------------------------------------------


def test_digests_are_read_once_and_with_the_first_trial(store, monkeypatch):
    read, seen = os.open, []

    def note(path, *rest, **named):
        seen.append(os.fspath(path))
        return read(path, *rest, **named)

    monkeypatch.setattr(os, "open", note)
    readers = [TrialReader(open_store(store.path)) for _ in range(3)]
    dataset = nsd_zarr.open_dataset(store.path)
    assert not any("trial_digest" in str(path) for path in seen)
    for reader in readers:
        for trial in range(28):
            _read(reader, trial)
    assert dataset.betas[3].values.any()
    assert sum("trial_digest" in str(path) for path in seen) == 1


@pytest.mark.parametrize("damage", [os.unlink, lambda path: os.truncate(path, 100)], ids=["lost", "cut short"])
def test_nothing_is_given_out_where_digests_are_damaged(damage, store, source):
    damage(store.path / "trial_digest/c/0")
    dataset = nsd_zarr.open_dataset(store.path)
    assert dataset.session.values.tolist() == [1] * 14 + [2] * 14
    for _ in range(2):
        with pytest.raises(DamageFound, match=r"cannot be checked.*trial_digest is lost or damaged.*nsd-zarr repair"):
            _ = dataset.betas[8].variable.values
    nsd_zarr.repair(store.path, source, workers=1)
    assert np.array_equal(dataset.betas[8].variable.values, store.percent[8])


def test_digests_and_statistics_are_repaired_together(store, source):
    for name in ("trial_digest/c/0", "rail_count/c/0"):
        (store.path / name).unlink()
    done = nsd_zarr.repair(store.path, source, workers=1)
    assert set(done.rewritten) == {"trial_digest/c/0", "rail_count/c/0"}
    assert nsd_zarr.verify(store.path, workers=1).is_whole


# -- copies by other tools ---------------------------------------------------------------------------------------


@pytest.fixture
def copied(store, tmp_path):
    """A copy in other chunks, with our attributes and digests."""
    target = zarr.open_group(tmp_path / "copy.zarr", mode="w")
    group = zarr.open_group(store.path, mode="r")
    target.attrs.update(dict(group.attrs))
    for name in ("betas", "session", "trial_digest"):
        array = group[name]
        made = target.create_array(
            name,
            shape=array.shape,
            dtype=array.dtype,
            chunks=array.chunks,
            dimension_names=array.metadata.dimension_names,
        )
        made.attrs.update(dict(array.attrs))
        made[:] = array[:]
    return target


def test_copy_by_another_tool_is_checked_too(copied, store, tmp_path):
    reader = make_reader(open_any(tmp_path / "copy.zarr"))
    assert isinstance(reader, ZarrReader)
    assert np.array_equal(_read(reader, 8), store.stored[8])
    copied["betas"][8] = store.stored[10]
    with pytest.raises(
        DamageFound, match=r"trial 8 .*another trial, or of another version.*trial_digest from the copy"
    ):
        _read(reader, 8)
    assert np.array_equal(_read(reader, 9), store.stored[9])


def test_changed_copy_without_digests_is_read_as_it_is(copied, store, tmp_path):
    copied["betas"][8] = store.stored[10]
    del copied["trial_digest"]
    assert np.array_equal(_read(make_reader(open_any(tmp_path / "copy.zarr")), 8), store.stored[10])


def test_unfinished_store_is_checked_by_its_crc32c(store):
    document = json.loads((store.path / "zarr.json").read_text())
    attributes, members = document["attributes"], document["consolidated_metadata"]["metadata"]
    from nsd_zarr.store.format import make_root_metadata

    del attributes["manifest"], members["trial_digest"]
    attributes["status"] = "incomplete"
    (store.path / "zarr.json").write_bytes(make_root_metadata(attributes, members))
    reader = TrialReader(open_store(store.path, allow_unfinished=True))
    assert np.array_equal(_read(reader, 8), store.stored[8])
    data = bytearray(store.shard_path(8).read_bytes())
    data[_find_chunks(store.shard_path(8))[1][0] + 40] ^= 1
    store.shard_path(8).write_bytes(data)
    with pytest.raises(DamageFound, match="crc32c"):
        _read(reader, 8)
