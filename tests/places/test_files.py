"""Files of a store as they are read: inside, regular, bounded; else an error, and no descriptor is left."""

from __future__ import annotations

import os

import pytest

from nsd_zarr.places.files import leads_out, open_file, read_file


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store/a/c").mkdir(parents=True)
    (tmp_path / "store/a/c/0").write_bytes(b"seven b")
    (tmp_path / "outside").write_bytes(b"outside")
    return tmp_path / "store"


def test_file_is_read_whole_when_it_is_within_the_bound(store):
    assert read_file(store, "a/c/0", 7) == b"seven b"
    with pytest.raises(ValueError, match="it has 7 bytes, expected at most 6"):
        read_file(store, "a/c/0", 6)


@pytest.mark.parametrize(
    ("place", "target", "key", "out"),
    [
        (None, None, "a/c/0", False),
        (None, None, "a/c/../c/0", False),
        (None, None, "../outside", True),
        (None, None, "../store/a/c/0", False),
        ("a/link", "c/0", "a/link", False),
        ("a/link", "../../outside", "a/link", True),
        ("link", "..", "link/outside", True),
        ("link", "a", "link/c/0", False),
        ("near", "../store2", "near", True),
        (None, None, "not/there", False),
    ],
)
def test_links_are_followed_only_inside(place, target, key, out, store):
    (store.parent / "store2").mkdir()
    if place is not None:
        (store / place).symlink_to(target)
    assert leads_out(store, key) == out


def test_store_that_is_a_link_itself_is_the_folder_behind_it(store):
    (store.parent / "link").symlink_to("store")
    assert not leads_out(store.parent / "link", "a/c/0")
    assert read_file(store.parent / "link", "a/c/0", 9) == b"seven b"


def test_what_is_no_file_raises_and_leaves_nothing_open(store):
    os.mkfifo(store / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    for key in ("pipe", "a"):
        with pytest.raises(ValueError, match="no regular file"):
            open_file(store, key)
    with pytest.raises(FileNotFoundError):
        open_file(store, "gone")
    assert len(os.listdir("/proc/self/fd")) == before
