"""Images of trials: by id, from a store or the stimulus file, each once in a batch, faults reported by id."""

import os
import pickle
import shutil

import h5py
import numpy as np
import pytest

from nsd_zarr.errors import DamageFound, SourceError, StoreError
from nsd_zarr.loading.images import PairedImages, open_images
from nsd_zarr.loading.order import PADDING
from nsd_zarr.store.root import open_store

KINDS = ["hdf5", "every", "seen"]


def read(images, nsd_id):
    out = np.empty(images.shape, np.uint8)
    images.read_into(nsd_id, out)
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_image_is_the_row_of_its_id(kind, stimulus_images, experiment):
    images = open_images(stimulus_images.locate(kind))
    assert images.shape == (7, 5, 3)
    ids = experiment.arrays["nsd_id"]
    assert images.count == (len(np.unique(ids)) if kind == "seen" else 73_000)
    assert images.holds(ids).all()
    for nsd_id in ids.tolist():
        assert np.array_equal(read(images, nsd_id), stimulus_images.values[nsd_id])


@pytest.mark.parametrize("layout", ["contiguous", "one image a chunk", "gzip", "odd chunks", "large chunks"])
def test_image_out_of_any_layout_of_the_file_is_exact(layout, tmp_path, make_stimuli):
    values = make_stimuli(tmp_path / "s.hdf5", layout=layout)
    images = open_images(tmp_path / "s.hdf5")
    for nsd_id in (0, 100, 29, 28, 57):
        assert np.array_equal(read(images, nsd_id), values[nsd_id])


@pytest.mark.parametrize("kind", KINDS)
def test_trial_is_paired_with_the_image_that_it_showed(kind, stimulus_images, experiment):
    paired = PairedImages(open_store(experiment.path), stimulus_images.locate(kind), None)
    out = np.empty(paired.shape, np.uint8)
    for trial, nsd_id in enumerate(experiment.arrays["nsd_id"]):
        paired.read_into(trial, out)
        assert np.array_equal(out, stimulus_images.values[nsd_id])


@pytest.mark.parametrize("seed", range(5))
def test_rows_of_a_batch_may_be_filled_in_any_order_and_each_image_is_read_once(seed, stimulus_images, experiment):
    rng, ids = np.random.default_rng(seed), experiment.arrays["nsd_id"]
    paired = PairedImages(open_store(experiment.path), stimulus_images.seen, None)
    trials = rng.permutation([*rng.integers(0, 42, 20), PADDING, PADDING])
    out, counted = np.full((22, 7, 5, 3), 255, np.uint8), []
    real = paired.images.read_into
    paired.images.read_into = lambda nsd_id, *rest: (counted.append(nsd_id), real(nsd_id, *rest))
    for row in rng.permutation(22):
        paired.fill_row(out, row, trials)
    assert sorted(counted) == np.unique(ids[trials[trials != PADDING]]).tolist()
    for row, trial in enumerate(trials):
        assert np.array_equal(out[row], stimulus_images.values[ids[trial]] * (trial != PADDING))


def test_image_that_the_store_lacks_is_reported_with_its_id(stimulus_images, experiment, tmp_path, make_stimuli):
    ids = experiment.arrays["nsd_id"]
    make_stimuli(tmp_path / "few.hdf5", 101)
    first = int(np.flatnonzero(ids >= 101)[0])
    with pytest.raises(StoreError, match=rf"image {ids[first]} \(0-based 73k id\), which trial {first} showed, and"):
        PairedImages(open_store(experiment.path), tmp_path / "few.hdf5", None)
    PairedImages(open_store(experiment.path), tmp_path / "few.hdf5", np.flatnonzero(ids < 101))
    with pytest.raises(StoreError, match=r"image 6 \(0-based 73k id\) is not in the store of images"):
        read(open_images(stimulus_images.seen), 6)


def test_store_without_a_trial_table_is_refused(volumes, stimulus_images):
    with pytest.raises(StoreError, match="the store has no nsd_id, a column of the trial table"):
        PairedImages(open_store(volumes.path), stimulus_images.seen, None)


def test_what_is_no_source_of_images_is_refused(volumes, tmp_path):
    with pytest.raises(StoreError, match="a store of betas, expected one of images"):
        open_images(volumes.path)
    with pytest.raises(StoreError, match=r"no such store.*nsd-zarr images SOURCE STORE"):
        open_images(tmp_path / "nothing")
    (tmp_path / "text").write_text("no HDF5")
    with pytest.raises(SourceError, match="neither a store of images nor a stimulus file"):
        open_images(tmp_path / "text")
    with h5py.File(tmp_path / "betas.hdf5", "w") as file:
        file["betas"] = np.zeros((2, 3))
    with pytest.raises(SourceError, match="neither a store of images nor a stimulus file"):
        open_images(tmp_path / "betas.hdf5")
    with h5py.File(tmp_path / "odd.hdf5", "w") as file:
        file["imgBrick"] = np.zeros((2, 3, 4, 3), "i2")
    with pytest.raises(SourceError, match=r"imgBrick is int16 of shape \(2, 3, 4, 3\)"):
        open_images(tmp_path / "odd.hdf5")


def test_damaged_image_is_reported_with_its_id(stimulus_images, experiment, tmp_path):
    shutil.copytree(stimulus_images.seen, tmp_path / "damaged.zarr")
    ids = np.unique(experiment.arrays["nsd_id"])
    shard = tmp_path / "damaged.zarr/images/c/1/0/0/0"
    data = bytearray(shard.read_bytes())
    data[20] ^= 1
    shard.write_bytes(data)
    with pytest.raises(
        DamageFound, match=rf"image {ids[5]} \(0-based 73k id\), row 5 of images \(in shard 1\) is lost"
    ):
        read(open_images(tmp_path / "damaged.zarr"), int(ids[5]))


def test_file_that_was_cut_short_raises_rather_than_give_zeros(tmp_path, make_stimuli):
    make_stimuli(tmp_path / "s.hdf5")
    images = open_images(tmp_path / "s.hdf5")
    read(images, 3)
    os.truncate(tmp_path / "s.hdf5", (tmp_path / "s.hdf5").stat().st_size - 105)
    with pytest.raises(SourceError, match=r"image 100 \(0-based 73k id\) cannot be read"):
        read(images, 100)


def test_file_is_opened_only_when_it_is_read(tmp_path, make_stimuli, monkeypatch):
    make_stimuli(tmp_path / "s.hdf5")
    images = open_images(tmp_path / "s.hdf5")
    opened = []
    real = h5py.File
    monkeypatch.setattr(h5py, "File", lambda *words, **named: (opened.append(words), real(*words, **named))[1])
    assert opened == []
    read(images, 3)
    read(images, 4)
    assert len(opened) == 1


def test_pairs_describe_their_source_in_few_bytes(stimulus_images, experiment):
    store = open_store(experiment.path)
    found = {kind: PairedImages(store, stimulus_images.locate(kind), None).describe() for kind in KINDS}
    assert len({tuple(each.values()) for each in found.values()}) == 3
    assert all(len(pickle.dumps(each)) < 500 for each in found.values())
    size = stimulus_images.hdf5.stat().st_size
    assert found["hdf5"]["fingerprint"] == f"nsd_stimuli.hdf5 {size}"
