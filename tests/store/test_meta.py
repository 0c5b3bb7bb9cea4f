"""Metadata of an array: what zarr-python reads there, parsed once, and made again byte for byte."""

from __future__ import annotations

import dataclasses
import json
import pickle

import pytest
import zarr

from nsd_zarr.store.format import encode_json
from nsd_zarr.store.meta import parse_array
from nsd_zarr.store.root import open_store


@pytest.fixture(scope="module")
def opened(experiment):
    return open_store(experiment.path)


def test_metadata_are_what_zarr_python_reads(opened, experiment):
    group = zarr.open_group(experiment.path, mode="r")
    assert set(opened.members) == set(group.array_keys())
    for name, meta in opened.members.items():
        array = group[name]
        assert meta.shape == array.shape
        assert meta.dims == array.metadata.dimension_names
        assert meta.chunk_shape == (array.shards or array.chunks)
        assert dict(meta.attributes) == dict(array.attrs)
        assert meta.is_text == (array.metadata.to_dict()["data_type"] == "string")
        assert meta.is_text or meta.dtype == array.dtype.name


def test_metadata_are_encoded_as_they_are_on_disk(opened, experiment):
    for name, meta in opened.members.items():
        assert encode_json(meta.make_document()) == (experiment.path / name / "zarr.json").read_bytes()


def test_arrays_with_a_blosc_codec_are_compressed(opened, experiment):
    group = zarr.open_group(experiment.path, mode="r")
    for name in set(opened.members) - {"betas"}:
        codecs = {type(codec).__name__ for codec in group[name].metadata.codecs}
        assert opened.members[name].is_compressed == ("BloscCodec" in codecs)
    assert {meta.is_compressed for meta in opened.members.values()} == {True, False}


def test_other_attributes_are_in_the_document_too_and_the_first_is_as_it_was(opened):
    first = opened.members["betas"]
    other = first.with_attributes({**first.attributes, "coordinates": "session"})
    assert other.make_document()["attributes"]["coordinates"] == other.attributes["coordinates"] == "session"
    assert "trial_digest" in first.attributes["coordinates"]
    assert "trial_digest" in first.make_document()["attributes"]["coordinates"]
    assert list(other.make_document()) == list(first.make_document())


def test_metadata_do_not_change_and_go_through_pickle(opened):
    for meta in opened.members.values():
        assert pickle.loads(pickle.dumps(meta)) == meta
        with pytest.raises(dataclasses.FrozenInstanceError):
            meta.shape = (1,)


@pytest.mark.parametrize("key", ["shape", "data_type", "dimension_names", "chunk_grid", "codecs", "attributes"])
def test_document_without_a_part_is_refused(key, experiment):
    document = json.loads((experiment.path / "session/zarr.json").read_bytes())
    del document[key]
    with pytest.raises(KeyError, match=key):
        parse_array(document)
