"""What a call announces is what its events add up to: sessions, trials, and trials read from the sources."""

from __future__ import annotations

import shutil

import pytest

import nsd_zarr


@pytest.fixture
def store(copied_store):
    return copied_store


@pytest.fixture
def count(make_recorder):
    """Names of the steps of a call with what they announced, which is what was reported."""

    def call(function, *words, **options):
        recorder = make_recorder()
        function(*words, on_event=recorder, **options)
        steps = recorder.add_up()
        assert [step.done for step in steps] == [step.announced for step in steps]
        return [(step.name, *step.announced) for step in steps]

    return call


def damage(store, shard):
    file = store / f"betas/c/{shard}/0/0/0"
    data = bytearray(file.read_bytes())
    data[5] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("odd", [{}, {"layout": "gzip"}, {"volume": (131,)}], ids=["by offset", "h5py", "surface"])
def test_conversion_counts_what_it_reads_and_writes(odd, make_source, tmp_path, count):
    source = make_source(**odd)
    assert count(nsd_zarr.convert, source, tmp_path / "new.zarr", trials_per_shard=2) == [("converting", 3, 18, 18)]


def test_conversion_that_goes_on_counts_what_is_left(source, interrupt, count):
    store = interrupt(source, at_trial=9)
    assert count(nsd_zarr.convert, source, store, trials_per_shard=2, workers=1) == [("converting", 2, 12, 12)]


def test_verifying_counts_the_store_and_then_the_sources(store, source, count):
    assert count(nsd_zarr.verify, store) == [("verifying", 3, 18, 0)]
    assert count(nsd_zarr.verify, store, source) == [("verifying", 3, 18, 0), ("comparing", 3, 18, 18)]


def test_verifying_counts_trials_of_lost_and_damaged_shards(store, count):
    damage(store, 1)
    (store / "betas/c/4/0/0/0").unlink()
    (store / "betas/c/7/0/0/0").write_bytes(b"short")
    assert count(nsd_zarr.verify, store) == [("verifying", 3, 18, 0)]


def test_repair_counts_each_step(store, source, count):
    for shard in (0, 2, 4):
        damage(store, shard)
    # Of session 1 the shards 0 and 2 of three are read with what lies between; of session 2 one alone.
    assert count(nsd_zarr.repair, store, source) == [
        ("verifying", 3, 18, 0),
        ("verifying again", 3, 18, 0),
        ("comparing", 2, 6, 8),
        ("repairing", 2, 6, 8),
    ]
    assert count(nsd_zarr.repair, store, source) == [("verifying", 3, 18, 0)]


def test_repair_without_digests_counts_the_sources_that_it_reads(store, source, count):
    damage(store, 8)
    shutil.rmtree(store / "trial_digest/c")
    shutil.rmtree(store.with_name("subj01.zarr.run"))
    assert count(nsd_zarr.repair, store, source) == [
        ("verifying", 3, 18, 0),
        ("verifying again", 3, 18, 0),
        ("reading", 3, 18, 18),
        ("comparing", 1, 2, 2),
        ("repairing", 1, 2, 2),
    ]


def test_repair_of_statistics_counts_the_trials_that_it_reads_back(store, source, count):
    (store / "session_mean/c/1/0/0/0").unlink()
    assert count(nsd_zarr.repair, store, source)[-1] == ("reading back", 1, 6, 0)


def test_images_count_blocks_of_which_the_last_is_short(tmp_path, make_stimuli, count):
    made, store = tmp_path / "nsd_stimuli.hdf5", tmp_path / "images.zarr"
    make_stimuli(made, count=13)
    assert count(nsd_zarr.convert_images, made, store, images_per_shard=5) == [("converting", 3, 13, 13)]
    assert count(nsd_zarr.verify, store, made) == [("verifying", 3, 13, 0), ("comparing", 3, 13, 13)]
