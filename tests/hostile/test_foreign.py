"""Stores of other layouts by a stranger: zarr-python reads them, so that what is bounded is bounded before it does."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import zipfile

import numcodecs
import numpy as np
import pytest
import zarr

import nsd_zarr
from nsd_zarr.errors import NsdZarrError

pytestmark = pytest.mark.slow

SHAPE = (8, 5, 7, 3)
HUGE = 2**40


@pytest.fixture
def foreign(tmp_path):
    """A store that zarr-python made: 6 trials, one a chunk, and an array beside them."""
    path = tmp_path / "given" / "other.zarr"
    group = zarr.open_group(path, mode="w")
    names = ("trial", "z", "y", "x")
    betas = group.create_array("betas", shape=SHAPE, chunks=(1, *SHAPE[1:]), dtype="int16", dimension_names=names)
    betas[:] = np.arange(betas.size).reshape(SHAPE) + 1
    volume = group.create_array("ncsnr", shape=SHAPE[1:], dtype="float32", dimension_names=names[1:])
    volume[:] = 0.5
    return path


OPEN = """
import resource, sys
import nsd_zarr, xarray, zarr, fsspec, fsspec.implementations.local

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    nsd_zarr.open_dataset(sys.argv[1])
except nsd_zarr.NsdZarrError as error:
    print(error)
print("more KiB:", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.fixture
def run_in_little_memory():
    """What is said when a store is opened in a process of its own, which may take 200 MiB for it."""

    def run(location):
        result = subprocess.run([sys.executable, "-c", OPEN, str(location)], capture_output=True, text=True, check=True)
        said, _, more = result.stdout.partition("more KiB:")
        assert int(more) < 200 * 1024
        return said

    return run


def change(path, change_document, array="betas"):
    """Change the metadata of an array as a stranger would."""
    place = path / array / "zarr.json"
    document = json.loads(place.read_bytes())
    change_document(document)
    place.write_bytes(json.dumps(document).encode())


def set_chunk(document, shape):
    document["chunk_grid"]["configuration"]["chunk_shape"] = shape


CHANGES = {
    "trials": lambda document: document.update(shape=[HUGE, *SHAPE[1:]]),
    "volume": lambda document: document.update(shape=[8, HUGE, 7, 3]),
    "chunk": lambda document: set_chunk(document, [HUGE, 5, 7, 3]),
    "chunk below a session": lambda document: set_chunk(document, [1, 2**31, 7, 3]),
    "chunk of nothing": lambda document: set_chunk(document, [0, 5, 7, 3]),
    "fill value of text": lambda document: document.update(fill_value="fill me"),
    "fill value too large": lambda document: document.update(fill_value=HUGE),
    "codec": lambda document: document.update(codecs=[{"name": "no_such_codec"}]),
    "codec of Python": lambda document: document.update(codecs=[{"name": "pickle"}, {"name": "bytes"}]),
    "no codec": lambda document: document.update(codecs=[]),
    "dtype": lambda document: document.update(data_type="complex128"),
    "dtype of nothing": lambda document: document.update(data_type={"name": []}),
    "shape of words": lambda document: document.update(shape=["many", 5, 7, 3]),
    "grid": lambda document: document.update(chunk_grid={"name": "heap"}),
    "scale of words": lambda document: document["attributes"].update(scale_factor="large"),
    "scale of a list": lambda document: document["attributes"].update(scale_factor=[300]),
    "scale of nothing": lambda document: document["attributes"].update(scale_factor=float("nan")),
    "format": lambda document: document.update(zarr_format=99),
}


def is_refused_by_all(found):
    """Whether each face refused it with an error of ours, or with an exit code."""
    return all(isinstance(value, NsdZarrError) or value in (1, 4) for value in found.values())


def test_store_that_nobody_changed_is_read(foreign, read_all_ways):
    stored = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) + 1
    found = read_all_ways(foreign)
    np.testing.assert_array_equal(found["raw"], stored[[-1, 0, 7]])


@pytest.mark.parametrize("change_document", CHANGES.values(), ids=CHANGES)
def test_hostile_metadata_of_betas_are_refused_within_bounds(change_document, foreign, read_all_ways):
    change(foreign, change_document)
    assert is_refused_by_all(read_all_ways(foreign))


BESIDE = {
    "shape": lambda document: document.update(shape=[HUGE, 7, 3]),
    "chunk": lambda document: set_chunk(document, [HUGE, 7, 3]),
    "codec": lambda document: document.update(codecs=[{"name": "no_such_codec"}]),
    "dimensions": lambda document: document.update(dimension_names=["z", "z", "z"]),
    "chunk of gigabytes": lambda document: set_chunk(document, [2**30, 7, 3]),
    "lengths": lambda document: document.update(dimension_names=["trial", "y", "x"]),
    "dtype": lambda document: document.update(data_type="numpy.timedelta64"),
    "fill value": lambda document: document.update(fill_value=[]),
}


@pytest.mark.parametrize("change_document", BESIDE.values(), ids=BESIDE)
def test_hostile_metadata_of_another_array_are_refused_within_bounds(change_document, foreign, read_all_ways):
    change(foreign, change_document, "ncsnr")
    assert is_refused_by_all(read_all_ways(foreign))


SESSIONS = {
    "shape": lambda document: document.update(shape=[HUGE]),
    "chunk": lambda document: set_chunk(document, [HUGE]),
    "dtype": lambda document: document.update(data_type="float32", fill_value=0.0),
    "codec": lambda document: document.update(codecs=[{"name": "no_such_codec"}]),
}


@pytest.mark.parametrize("change_document", SESSIONS.values(), ids=SESSIONS)
def test_hostile_session_numbers_are_refused_before_they_are_read(change_document, foreign, read_all_ways):
    group = zarr.open_group(foreign, mode="r+")
    group.create_array("session", data=np.repeat(np.int16([1, 2]), 4), dimension_names=["trial"])
    change(foreign, change_document, "session")
    assert is_refused_by_all(read_all_ways(foreign))


def make_huge(place):
    with open(place, "r+b") as file:
        file.truncate(2**40)


def make_pipe(place):
    place.unlink()
    os.mkfifo(place)


@pytest.mark.parametrize("key", ["zarr.json", "betas/zarr.json", "ncsnr/zarr.json"])
@pytest.mark.parametrize("spoil", [make_huge, make_pipe])
def test_metadata_that_are_no_small_file_are_refused_unread(key, spoil, foreign, read_all_ways):
    spoil(foreign / key)
    assert is_refused_by_all(read_all_ways(foreign))


@pytest.mark.parametrize("key", ["zarr.json", "betas/zarr.json", "betas/c/0/0/0/0"])
def test_member_of_a_zip_file_that_expands_is_refused_within_little_memory(key, tmp_path, run_in_little_memory):
    """300 MB of blanks, which deflate to 0.3 MB."""
    bomb = tmp_path / "bomb.zip"
    root = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        if key != "zarr.json":
            file.writestr("zarr.json", json.dumps(root))
        with file.open(key, "w") as member:
            for _ in range(300):
                member.write(b" " * 10**6)
    assert "expands to 300000000 bytes" in run_in_little_memory(bomb)


def test_root_document_behind_a_url_that_is_huge_is_refused_within_little_memory(tmp_path, run_in_little_memory):
    place = tmp_path / "far" / "zarr.json"
    place.parent.mkdir()
    place.write_bytes(b'{\n "')
    os.truncate(place, 10**9)
    assert "zarr.json has more than 16777216 bytes" in run_in_little_memory(f"local://{place.parent}")


def test_chunk_that_lies_is_refused_when_it_is_read(foreign):
    chunk = next(path for path in (foreign / "betas/c").rglob("*") if path.is_file())
    chunk.write_bytes(bytes(range(256)))
    with pytest.raises(NsdZarrError, match="cannot be read"):
        nsd_zarr.open_dataset(foreign).betas.load()


class Touches:
    """What runs code when it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("where", ["compressor", "filters"])
def test_store_whose_chunk_is_a_pickle_is_refused_and_nothing_runs(tmp_path, monkeypatch, where):
    # As numcodecs before 0.16.6, which unpickled whatever it was given.
    monkeypatch.setattr("numcodecs.pickles.Pickle.decode", lambda self, data, out=None: pickle.loads(bytes(data)))
    path, ran = tmp_path / "other.zarr", tmp_path / "ran"
    (path / "betas").mkdir(parents=True)
    (path / "x").mkdir()
    base = {"zarr_format": 2, "compressor": None, "filters": None, "fill_value": 0, "order": "C"}
    text = base | {"shape": [2], "chunks": [2], "dtype": "|O", "fill_value": "", "filters": [{"id": "vlen-utf8"}]}
    pickled = {"compressor": {"id": "pickle"}} if where == "compressor" else {"filters": [{"id": "pickle"}]}
    documents = {
        ".zgroup": {"zarr_format": 2},
        "betas/.zarray": base | {"shape": [1, 2, 2, 2], "chunks": [1, 2, 2, 2], "dtype": "<i2"},
        "betas/.zattrs": {"_ARRAY_DIMENSIONS": ["trial", "z", "y", "x"], "scale_factor": 1 / 300},
        "x/.zarray": text | pickled,
        "x/.zattrs": {"_ARRAY_DIMENSIONS": ["x"]},
    }
    for name, document in documents.items():
        (path / name).write_text(json.dumps(document))
    (path / "betas/0.0.0.0").write_bytes(np.ones((1, 2, 2, 2), "<i2").tobytes())
    (path / "x/0").write_bytes(pickle.dumps(Touches(ran)))
    with pytest.raises(NsdZarrError):
        nsd_zarr.open_dataset(path)
    assert not ran.exists()


def test_stores_with_the_usual_codecs_are_read(tmp_path):
    stored = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) + 1
    codecs = {2: [numcodecs.Zlib(), numcodecs.Blosc(), numcodecs.Zstd(), None], 3: [zarr.codecs.GzipCodec(), None]}
    for number, (version, codec) in enumerate((v, c) for v, each in codecs.items() for c in each):
        group = zarr.open_group(tmp_path / f"{number}.zarr", mode="w", zarr_format=version)
        filters = [numcodecs.Delta("<i2")] if version == 2 else "auto"
        shards = SHAPE if version == 3 else None
        options = {"shape": SHAPE, "chunks": (1, *SHAPE[1:]), "dtype": "int16", "compressors": codec, "shards": shards}
        group.create_array("betas", filters=filters, **options)[:] = stored
        found = nsd_zarr.open_dataset(tmp_path / f"{number}.zarr", raw=True).betas
        np.testing.assert_array_equal(found, stored)
