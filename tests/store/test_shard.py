"""A shard: the bytes that zarr-python reads, written once, with nothing left when it fails."""

from __future__ import annotations

import json
import os
import threading

import numpy as np
import pytest
import xxhash
import zarr

from nsd_zarr.layout import Geometry
from nsd_zarr.store.codec import BloscCodec
from nsd_zarr.store.format import encode_json, make_betas_metadata, make_shard_key
from nsd_zarr.store.index import shard_index_bytes
from nsd_zarr.store.shard import write_shard

GEOMETRY, CODEC = Geometry((1, 2), 6, 3, (5, 7, 11), "int16"), BloscCodec("zstd", 3, 2)
VALUES = (np.arange(12 * 385, dtype="int16") + 1).reshape(4, 3, 385)


def _write(store, number, on_trial=lambda: None, values=VALUES):
    return write_shard(store, make_shard_key(GEOMETRY, number), values[number], CODEC, on_trial)


def test_shards_are_what_zarr_reads(tmp_path):
    for number in range(4):
        _write(tmp_path, number).commit()
    (tmp_path / "betas" / "zarr.json").write_bytes(encode_json(make_betas_metadata(GEOMETRY, CODEC)))
    array = zarr.open_array(tmp_path / "betas", mode="r")
    assert np.array_equal(array[...], VALUES.reshape(12, 5, 7, 11))
    assert array.nchunks_initialized == 4 * 3 or array.nchunks_initialized == 4


def test_shard_of_zeros_is_stored_too(tmp_path):
    # Zero is a legal beta and the fill value: what is not there must always mean lost.
    record = _write(tmp_path, 0, values=np.zeros_like(VALUES)).commit()
    data = (tmp_path / record.key).read_bytes()
    entries = np.frombuffer(data[-shard_index_bytes(3) : -4], "<u8").reshape(3, 2)
    assert (entries[:, 1] > 0).all()


def test_record_tells_size_and_digests(tmp_path):
    record = _write(tmp_path, 2).commit()
    data = (tmp_path / record.key).read_bytes()
    assert (record.key, record.size) == ("betas/c/2/0/0/0", len(data))
    assert record.digest == xxhash.xxh3_128_hexdigest(data)
    assert record.trial_digests == tuple(xxhash.xxh3_128_hexdigest(trial.tobytes()) for trial in VALUES[2])
    assert json.dumps(record.trial_digests)


def test_shard_is_not_there_before_it_is_committed(tmp_path):
    pending = _write(tmp_path, 0)
    assert not (tmp_path / pending.record.key).exists()
    pending.file.discard()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("at_trial", [1, 2, 3])
def test_shard_stopped_at_a_trial_leaves_nothing(at_trial, tmp_path):
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == at_trial:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _write(tmp_path, 0, stop)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_shard_reads_nothing_back(tmp_path, monkeypatch):
    reads = []
    for name in ("read", "pread", "preadv"):
        monkeypatch.setattr(os, name, lambda *words, _name=name: reads.append(_name))
    _write(tmp_path, 0).commit()
    assert reads == []


def test_shard_written_again_has_the_same_bytes(tmp_path):
    written = set()

    def write():
        written.add(_write(tmp_path, 1).commit())

    for _ in range(3):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert len(written) == 1
