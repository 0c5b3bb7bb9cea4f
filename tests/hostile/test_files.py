"""Files of a stranger's store: only what is in its folder is read, no more than there may be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import nsd_zarr
from nsd_zarr.errors import DamageFound, StoreError
from nsd_zarr.places.durable import make_place
from nsd_zarr.store.codec import BloscCodec
from nsd_zarr.store.root import open_store
from nsd_zarr.store.shard import write_shard

pytestmark = pytest.mark.slow

SHARD = "betas/c/3/0/0/0"
TEXTS = "trial_digest/c/0"


@pytest.fixture
def outside(tmp_path):
    """A folder beside the store that nobody gave."""
    (tmp_path / "outside").mkdir()
    return tmp_path / "outside"


@pytest.mark.parametrize("key", ["zarr.json", SHARD, "session/c/0", "betas/c", "betas", "session"])
def test_link_that_leads_out_is_not_followed_even_to_the_right_bytes(key, hostile, outside, read_all_ways):
    shutil.move(hostile.path / key, outside / "moved")
    (hostile.path / key).symlink_to("../" * (key.count("/") + 2) + "outside/moved")
    found = read_all_ways(hostile.path)
    assert found["verify"] is False or isinstance(found["verify"], StoreError)
    assert isinstance(found["xarray"], (DamageFound, StoreError))


def test_links_that_stay_inside_are_followed_as_is_one_to_the_store(hostile, tmp_path):
    annex = hostile.path / ".git/annex"
    annex.mkdir(parents=True)
    for number, key in enumerate([SHARD, "session/c/0", "zarr.json"]):
        (hostile.path / key).rename(annex / str(number))
        (hostile.path / key).symlink_to("../" * key.count("/") + f".git/annex/{number}")
    (tmp_path / "link.zarr").symlink_to(hostile.path)
    dataset = nsd_zarr.open_dataset(tmp_path / "link.zarr", raw=True)
    assert np.array_equal(dataset.betas, hostile.stored)
    assert dataset.session.values[-1] == 5
    assert nsd_zarr.verify(tmp_path / "link.zarr").is_whole


@pytest.mark.parametrize("key", ["zarr.json", SHARD, "session/c/0", "betas/zarr.json"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "link to itself", "link to a device"])
def test_what_is_no_file_is_refused_at_once(key, kind, hostile, read_all_ways):
    path = hostile.path / key
    path.unlink()
    {
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "link to itself": lambda: path.symlink_to(path.name),
        "link to a device": lambda: path.symlink_to("/dev/zero"),
    }[kind]()
    found = read_all_ways(hostile.path)
    assert found["verify"] is False or isinstance(found["verify"], StoreError)
    assert key == "betas/zarr.json" or isinstance(found["xarray"], (DamageFound, StoreError))


@pytest.mark.parametrize("key", ["zarr.json", SHARD, "session/c/0", TEXTS, "betas/zarr.json"])
def test_file_of_a_terabyte_is_refused_unread(key, hostile, change_root, read_all_ways):
    os.truncate(hostile.path / key, 2**40)
    if key != "zarr.json":
        change_root(hostile.path, lambda attributes, _: attributes["manifest"][key].__setitem__(0, 2**40))
    found = read_all_ways(hostile.path)
    assert found["quick"] is False or isinstance(found["quick"], StoreError)


@pytest.mark.parametrize("lengths", [[2**40, 1], [0, 2**62], [1, 2**20]], ids=str)
def test_chunk_that_is_larger_than_a_trial_is_refused_before_memory_is_taken(
    lengths, hostile, seal, change_file, read_all_ways
):
    """The shard is a hole of that size with an index that vouches for it."""
    lengths = [*lengths, *[40] * 5]
    entries = np.array([np.cumsum([0, *lengths[:-1]]), lengths], "<u8").T
    (hostile.path / SHARD).write_bytes(b"")
    data = seal(entries.tobytes())
    change_file(hostile.path, SHARD, b"\0" * 4 + data)
    found = read_all_ways(hostile.path)
    assert isinstance(found["reader"], DamageFound)
    assert found["verify"] is False


# -- small arrays ------------------------------------------------------------------------------------------------


def _texts(*texts, count=None):
    parts = [(len(texts) if count is None else count).to_bytes(4, "little")]
    for text in texts:
        parts += [len(text).to_bytes(4, "little"), text]
    return b"".join(parts)


DIGEST = b"0" * 32
LYING_TEXTS = {
    "count huge": _texts(*[DIGEST] * 42, count=2**32 - 1),
    "count small": _texts(*[DIGEST] * 42, count=1),
    "one long": _texts(*[DIGEST] * 41, b"x" * 10**5),
    "one too long for the rest": _texts(*[b""] * 41, b"x" * 1400),
    "length outside": _texts(*[DIGEST] * 42)[:-33] + b"\xff\xff\xff\xff",
    "not utf-8": _texts(*[DIGEST] * 41, b"\xff" * 32),
    "nothing": b"",
    "half a length": b"\1",
}


@pytest.mark.parametrize("name", LYING_TEXTS)
def test_texts_that_lie_about_their_lengths_are_refused(name, hostile, seal, change_file, read_all_ways):
    change_file(hostile.path, TEXTS, seal(LYING_TEXTS[name]))
    found = read_all_ways(hostile.path)
    assert isinstance(found["xarray"], DamageFound)
    # Every value is still proved by its own checksum.
    assert isinstance(found["reader"], DamageFound) or np.array_equal(found["reader"], hostile.stored)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 83, 85, 10_000])
def test_numbers_of_another_size_are_refused(size, hostile, seal, change_file, read_all_ways):
    change_file(hostile.path, "session/c/0", seal(b"\1" * size) if size > 4 else b"\0" * size)
    assert isinstance(read_all_ways(hostile.path)["xarray"], DamageFound)


# -- writing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["betas", "betas/c", "betas/c/3"])
def test_nothing_is_written_through_a_link_that_leads_out(link, hostile, outside):
    shutil.rmtree(hostile.path / link)
    (hostile.path / link).symlink_to(outside)
    with pytest.raises(StoreError, match="a link in the store leads out of its folder"):
        write_shard(hostile.path, SHARD, hostile.stored[:7].reshape(7, -1), BloscCodec("lz4", 5, 2), lambda: None)
    assert list(outside.iterdir()) == []


def test_place_of_a_file_of_the_root_is_the_store_s_folder(hostile, tmp_path):
    (tmp_path / "link.zarr").symlink_to(hostile.path)
    assert make_place(tmp_path / "link.zarr", "zarr.json") == tmp_path / "link.zarr/zarr.json"
    assert make_place(tmp_path / "link.zarr", "run/c/0").parent.is_dir()


# -- all memory --------------------------------------------------------------------------------------------------

LITTLE_MEMORY = """
import resource, sys
import nsd_zarr, nsd_zarr.read.backend, nsd_zarr.store.root

before = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (before + 2**28, before + 2**28))
try:
    nsd_zarr.open_dataset(sys.argv[1]).betas[21].load()
except nsd_zarr.NsdZarrError as error:
    print(error.problem)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS is Linux's")
def test_hostile_store_is_refused_within_little_memory(hostile, change_root):
    def change(attributes, members):
        members["betas"]["shape"][0] = 42 * 2**40

    change_root(hostile.path, change)
    command = [sys.executable, "-c", LITTLE_MEMORY, str(hostile.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "betas have shape" in done.stdout


def test_reader_of_an_opened_store_does_not_take_the_root_for_more(hostile):
    assert open_store(hostile.path).manifest["session/c/0"].tail == ""
    assert all(len(record.tail) == 32 for key, record in open_store(hostile.path).manifest.items() if "betas/c" in key)
