"""docs/format.md is enough to read a store: a reader by it alone gives what zarr-python and the sources say."""

from __future__ import annotations

import ast
import json
import re
import zipfile
from pathlib import Path

import independent_reader as independent
import numpy as np
import pytest
import xxhash
import zarr
from golden.stores import TRIALS, VOLUME, make_stores, make_values

import nsd_zarr
from nsd_zarr.simulate import Simulation, simulate_root
from nsd_zarr.store.format import FORMAT_MINOR, FORMAT_VERSION

HERE = Path(__file__).parent
PAGE = (HERE.parent / "docs/format.md").read_text()
MAX_LINES = 65
EARLIER = {"format 1.0": "store_of_format_1_0.zip", "0.1.0": "store_without_root_copy.zip"}
KINDS = [
    *("int16 volumes", "int16 surfaces", "float32 volumes", "big-endian float64 volumes", "uint8 volumes"),
    *("with an experiment", "zstd", "attached", "format 1.1", "images", "hemispheres", "several subjects", *EARLIER),
]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("format")
    made = make_stores(folder / "golden")
    root = simulate_root(folder / "nsd", Simulation(sessions=2, shape=(12, 7, 5, 3), forms=("hdf5", "nativesurface")))
    for kind, options in (
        ("hemispheres", {"subject": 1, "form": "nativesurface"}),
        ("several subjects", {"subjects": 1, "form": "hdf5"}),
    ):
        made[kind] = folder / f"{kind}.zarr"
        nsd_zarr.convert(root.root, made[kind], **options)
    made["several subjects"] /= "subj01"
    for kind, name in EARLIER.items():
        with zipfile.ZipFile(HERE / "data" / name) as archive:
            archive.extractall(folder / kind)
        made[kind] = next((folder / kind).rglob("zarr.json")).parent
        while made[kind].parent != folder and (made[kind].parent / "zarr.json").exists():
            made[kind] = made[kind].parent
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_every_array_of_every_kind_is_read_by_the_page_alone(kind, stores):
    _, members = independent.open_root(stores[kind])
    group = zarr.open_group(stores[kind], mode="r")
    assert set(members) == set(group)
    for name in members:
        values, expected = independent.read_array(stores[kind], name), group[name][...]
        assert values.shape == expected.shape, name
        assert values.tolist() == expected.tolist() or np.array_equal(values, expected, equal_nan=True), name


def test_all_kinds_that_the_suite_makes_are_read(stores):
    assert set(stores) == set(KINDS)


@pytest.mark.parametrize(
    ("kind", "shape", "dtype"),
    [
        ("int16 volumes", (TRIALS, *VOLUME), "<i2"),
        ("int16 surfaces", (TRIALS, 23), "<i2"),
        ("float32 volumes", (TRIALS, *VOLUME), "<f4"),
    ],
)
def test_values_are_those_of_the_sources(kind, shape, dtype, stores):
    expected = np.concatenate([make_values(session, shape, dtype) for session in (1, 2)])
    assert independent.read_array(stores[kind], "betas").tobytes() == expected.tobytes()


def test_digests_are_what_the_page_says(stores):
    betas = independent.read_array(stores["format 1.1"], "betas")
    digests = independent.read_array(stores["format 1.1"], "trial_digest").tolist()
    assert [xxhash.xxh3_128_hexdigest(np.ascontiguousarray(trial)) for trial in betas] == digests
    about, _ = independent.open_root(stores["format 1.1"])
    joined = [b"".join(map(bytes.fromhex, digests[at : at + TRIALS])) for at in (0, TRIALS)]
    assert [source["digest"] for source in about["sources"]] == [*map(xxhash.xxh3_128_hexdigest, joined)]


def test_manifest_names_every_other_file(stores):
    for store in stores.values():
        about, _ = independent.open_root(store)
        files = {path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file()}
        assert set(about["manifest"]) == files - {"zarr.json"}


def test_reader_notices_a_changed_byte(stores, tmp_path):
    store = stores["int16 volumes"]
    for key in ("betas/c/1/0/0/0", "session/c/0", "zarr.json"):
        whole = (store / key).read_bytes()
        (store / key).write_bytes(whole[:70] + bytes([whole[70] ^ 1]) + whole[71:])
        with pytest.raises((AssertionError, ValueError)):
            independent.read_array(store, key.split("/")[0].replace("zarr.json", "betas"))
        (store / key).write_bytes(whole)


def test_reader_is_short_and_imports_nothing_of_this_package():
    text = (HERE / "independent_reader.py").read_text()
    names = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert names == {"json", "math", "pathlib", "numpy", "google_crc32c", "numcodecs", "xxhash"}
    assert len([line for line in text.splitlines() if line.strip() and not line.strip().startswith('"""')]) <= MAX_LINES


# -- the page says all that there is -----------------------------------------------------------------------------


def test_page_names_every_attribute_array_and_member_of_documents(stores):
    words = set(re.findall(r"[\w-]+", PAGE))
    for store in stores.values():
        document = json.loads((store / "zarr.json").read_text())
        about, members = document["attributes"], document["consolidated_metadata"]["metadata"]
        assert set(about) | set(about["settings"]) <= words
        for name, meta in members.items():
            listed = re.sub(r"^(roi|hemispheres)_.*", r"\1_NAME", name)
            is_column = meta["dimension_names"] == ["trial"]
            assert listed in words or is_column, name
            assert set(meta) | set(meta["attributes"]) | {codec["name"] for codec in meta["codecs"]} <= words, name


def test_page_says_the_version_that_is_written():
    assert f"This is version {FORMAT_VERSION}.{FORMAT_MINOR}." in PAGE
    assert re.findall(r"^\| (\d\.\d) \|", PAGE, re.MULTILINE)[-1] == f"{FORMAT_VERSION}.{FORMAT_MINOR}"


def test_trial_lies_where_the_page_says(stores):
    store = stores["int16 volumes"]
    settings = independent.open_root(store)[0]["settings"]
    ds = nsd_zarr.open_dataset(store, raw=True)
    for trial in (0, 12, 13, 51):
        assert int(ds.session[trial]) == settings["sessions"][trial // settings["shape"][0]]
        assert int(ds.trial_in_session[trial]) == trial % settings["shape"][0]
        assert (store / f"betas/c/{trial // settings['trials_per_shard']}/0/0/0").exists()
