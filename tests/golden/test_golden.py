"""Stores have the bytes that earlier versions of the package gave them."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from golden.stores import digest_store, make_stores, make_values
from numcodecs import blosc

import nsd_zarr
from nsd_zarr.conversion.ledger import Ledger
from nsd_zarr.store.root import open_store

DIGESTS = {
    "int16 volumes": "799cfaa28bef4f6d25ea3016dc4d4444",
    "int16 surfaces": "93087343a2390a8240df4904674cd3a1",
    "float32 volumes": "b1e831369e055437f7b4aa71d64ad098",
    "big-endian float64 volumes": "8e9708e9560f9a8ebf44298de59833fe",
    "uint8 volumes": "2cf34c7ec8ed2abe077282608a44f375",
    "with an experiment": "a150958a930a2df0b77625869a965b6f",
    "zstd": "7770ecd58f960a663362c4bd92851a21",
    "attached": "a150958a930a2df0b77625869a965b6f",
    "format 1.1": "52d6a7bfeca36eb3e4be09e48e4d8deb",
    "images": "6c5e25b83e4132c53f03c90fb1f050b5",
}
"""What version 0.1.0 gave, before root documents had a copy, with c-blosc 1.21.7 (numcodecs 0.16).

Those with an experiment have the root attribute `experiment_notes` since then, here that labels have no names and that
valid voxels and betas disagree in session 1; no other byte differs. "format 1.1" holds `shared515` and
`hemispheres_NAME`, which 0.1.0 did not know.
"""
EARLIER = Path(__file__).parent.parent / "data/store_without_root_copy.zip"
"""A store that version 0.1.0 made, with its run folder and its sources: two sessions of six trials, two a shard."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return make_stores(tmp_path_factory.mktemp("golden"))


@pytest.mark.skipif(not blosc.VERSION_STRING.startswith("1.21."), reason="another Blosc makes other bytes")
@pytest.mark.parametrize("kind", DIGESTS)
def test_store_of_every_kind_has_the_bytes_that_it_always_had(kind, stores):
    if "float" in kind and np.lib.NumpyVersion(np.__version__) < "2.4.0":
        pytest.skip("NumPy 2.0 gives NaN another sign in the statistics of infinities")
    assert digest_store(stores[kind]) == DIGESTS[kind]


def test_digests_are_of_all_kinds_and_change_with_any_file(stores, tmp_path):
    assert set(stores) == set(DIGESTS)
    shutil.copytree(stores["images"], tmp_path / "images.zarr")
    data = (tmp_path / "images.zarr/nsd_id/c/0").read_bytes()
    (tmp_path / "images.zarr/nsd_id/c/0").write_bytes(data[::-1])
    assert digest_store(tmp_path / "images.zarr") != DIGESTS["images"]


# -- a store of an earlier version -------------------------------------------------------------------------------


@pytest.fixture
def earlier(tmp_path):
    """Its folder."""
    with zipfile.ZipFile(EARLIER) as archive:
        archive.extractall(tmp_path)
    return tmp_path / "subj01.zarr"


@pytest.fixture
def copy(tmp_path):
    return tmp_path / "subj01.zarr.run/root.json"


def test_earlier_store_opens_and_verifies(earlier, copy):
    values = np.concatenate([make_values(session, (6, 3, 2, 5), "<i2") for session in (1, 2)])
    assert np.array_equal(nsd_zarr.open_dataset(earlier, raw=True).betas.values, values)
    assert nsd_zarr.verify(earlier, earlier.parent / "source").is_whole
    assert not copy.exists()


def test_run_of_an_earlier_version_is_read(earlier):
    ledger, opened = Ledger(earlier), open_store(earlier)
    assert [source.name for source in ledger.read_sources().values()] == [f"betas_session0{n}.hdf5" for n in (1, 2)]
    records = [ledger.read_session(session) for session in (1, 2)]
    written = [file for record in records for file in (*record.shards, *record.statistics)]
    assert len(written) == 10
    assert all(file.list_values() == opened.manifest[file.key].list_values() for file in written)


def test_shard_of_an_earlier_store_is_repaired_and_its_root_document_gets_a_copy(earlier, copy, digest_tree):
    whole = digest_tree(earlier)
    (earlier / "betas/c/4/0/0/0").unlink()
    (earlier / "session_mean/c/1/0/0/0").unlink()
    report = nsd_zarr.repair(earlier, earlier.parent / "source")
    assert set(report.rewritten) == {"betas/c/4/0/0/0", "session_mean/c/1/0/0/0"}
    assert digest_tree(earlier) == whole
    assert copy.read_bytes() == (earlier / "zarr.json").read_bytes()


def test_convert_that_holds_the_lock_of_an_earlier_store_adds_the_copy(earlier, copy):
    nsd_zarr.convert(earlier.parent / "source", earlier, trials_per_shard=2)  # Times of the sources are others.
    assert copy.read_bytes() == (earlier / "zarr.json").read_bytes()


def test_attach_adds_the_copy_to_an_earlier_store(earlier, copy, digest_tree):
    whole = digest_tree(earlier)
    nsd_zarr.attach(earlier, no_experiment=True)
    assert copy.read_bytes() == (earlier / "zarr.json").read_bytes()
    assert digest_tree(earlier) == whole


def test_lost_root_document_of_an_earlier_store_is_refused_with_the_way_out(earlier, check_refused):
    (earlier / "zarr.json").unlink()
    paragraph = check_refused(4, "repair", earlier, "--source", earlier.parent / "source")
    assert "comes back from its copy, subj01.zarr.run/root.json, which cannot be used: missing" in paragraph
    assert "move the store away and convert again" in paragraph


def test_lost_root_document_of_an_earlier_store_comes_back_once_there_is_a_copy(earlier, digest_tree):
    whole = digest_tree(earlier)
    nsd_zarr.attach(earlier, no_experiment=True)
    (earlier / "zarr.json").unlink()
    assert nsd_zarr.repair(earlier, earlier.parent / "source").rewritten == ("zarr.json",)
    assert digest_tree(earlier) == whole
