"""A folder as a place: what is written is there whole and durable; what is read is inside, and complete."""

from __future__ import annotations

import errno
import os
import pickle
import threading

import pytest

from nsd_zarr.errors import StoreError
from nsd_zarr.places.free import read_free_space
from nsd_zarr.places.local import LocalPlace
from nsd_zarr.places.locks import try_lock
from nsd_zarr.places.place import Place


@pytest.fixture
def place(tmp_path) -> Place:
    return LocalPlace(tmp_path / "store")


def test_object_is_written_below_folders_that_were_not_there(place, tmp_path):
    place.write("a/c/0", b"seven b")
    assert (tmp_path / "store/a/c/0").read_bytes() == b"seven b"
    assert (place.read("a/c/0", 7), place.measure("a/c/0")) == (b"seven b", 7)
    assert place.locate("a/c/0") == f"{place.location}/a/c/0" == str(tmp_path / "store/a/c/0")


def test_object_that_is_not_there_raises_file_not_found(place):
    for call in (lambda: place.read("a", 7), lambda: place.open("a"), lambda: place.measure("a")):
        with pytest.raises(FileNotFoundError):
            call()


def test_object_in_parts_is_there_once_it_is_committed(place):
    with place.begin("a/b") as new:
        new.write(b"one")
        new.write(b"two")
        assert list(place.list_keys()) == []
        assert place.count_partials() == 1
    new.commit()
    assert place.read("a/b", 9) == b"onetwo"
    assert place.count_partials() == 0


def test_what_a_killed_writer_left_is_not_listed_and_can_be_removed(place, tmp_path):
    place.write("a", b"")
    (tmp_path / "store/b.1.partial").write_bytes(b"half")
    assert list(place.list_keys()) == ["a"]
    assert (place.remove_partials(), place.remove_partials()) == (1, 0)


def test_keys_are_listed_below_a_prefix(place):
    for key in ("zarr.json", "a/zarr.json", "a/c/1/0", "b/c/0"):
        place.write(key, b"")
    assert sorted(place.list_keys()) == ["a/c/1/0", "a/zarr.json", "b/c/0", "zarr.json"]
    assert sorted(place.list_keys("a")) == ["a/c/1/0", "a/zarr.json"]
    assert list(place.list_keys("gone")) == []


def test_removing_is_flushed_and_takes_what_is_there(place, monkeypatch):
    flushed = []
    for key in ("a/1", "a/2", "b"):
        place.write(key, b"")
    monkeypatch.setattr(os, "fsync", flushed.append)
    place.remove("a/1", "a/2", "gone")
    assert list(place.list_keys()) == ["b"]
    assert len(flushed) == 1
    place.remove("gone")
    assert len(flushed) == 1


def test_removing_what_may_not_be_removed_is_explained(place, monkeypatch):
    def fail(self):
        raise PermissionError(errno.EACCES, "Permission denied")

    place.write("a", b"")
    monkeypatch.setattr("pathlib.Path.unlink", fail)
    with pytest.raises(StoreError, match="Permission denied"):
        place.remove("a")


def test_removing_below_a_link_leaves_what_is_behind_it(place, tmp_path):
    place.write("a/1", b"")
    place.write("a/c/2", b"")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").write_bytes(b"")
    (tmp_path / "store/link").symlink_to(tmp_path / "outside")
    for prefix in ("a", "link", "gone"):
        place.remove_below(prefix)
    assert list(place.list_keys("a")) == []
    assert (tmp_path / "outside/kept").exists()


def test_nothing_is_written_through_a_link_that_leads_out(place, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store/a").symlink_to(tmp_path / "outside")
    for call in (place.write, place.create):
        with pytest.raises(StoreError, match="a link in the store leads out"):
            call("a/c/0", b"")
    assert os.listdir(tmp_path / "outside") == []


def test_place_goes_through_pickle(place):
    assert pickle.loads(pickle.dumps(place)) == place


# -- create if absent --------------------------------------------------------------------------------------------


def test_object_is_created_only_where_there_is_none(place):
    assert place.create("a/b", b"first")
    assert not place.create("a/b", b"second")
    assert place.read("a/b", 9) == b"first"
    assert list(place.list_keys()) == ["a/b"]
    assert place.count_partials() == 0


def test_one_of_many_who_create_at_once_succeeds(place):
    start, created = threading.Barrier(8), []

    def create(number):
        start.wait()
        if place.create("a", b"%d" % number * 1000):
            created.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(created) == 1
    assert place.read("a", 1000) == b"%d" % created[0] * 1000
    assert place.count_partials() == 0


# -- ranges ------------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(place):
    place.write("a", bytes(range(200)))
    return place.open("a")


def test_range_fills_the_buffer_or_ends_with_the_object(opened):
    out = bytearray(7)
    assert opened.size == 200
    assert (opened.read_into(memoryview(out), 30), bytes(out)) == (7, bytes(range(30, 37)))
    assert opened.read_into(memoryview(out), 195) == 5
    assert opened.read_range(195, 7) == bytes(range(195, 200))
    assert opened.read_range(200, 7) == b""


def test_short_reads_are_continued_until_the_buffer_is_full(opened, monkeypatch):
    read, counts = os.preadv, []

    def read_three_at_most(descriptor, buffers, offset):
        counts.append(read(descriptor, [buffers[0][:3]], offset))
        return counts[-1]

    monkeypatch.setattr(os, "preadv", read_three_at_most)
    out = bytearray(10)
    assert (opened.read_into(memoryview(out), 30), bytes(out)) == (10, bytes(range(30, 40)))
    assert counts == [3, 3, 3, 1]
    assert opened.read_range(196, 10) == bytes(range(196, 200))


def test_whole_read_asks_once(opened, monkeypatch):
    read, counts = os.preadv, []
    monkeypatch.setattr(os, "preadv", lambda *words: counts.append(read(*words)) or counts[-1])
    opened.read_into(memoryview(bytearray(10)), 30)
    assert counts == [10]


def test_descriptor_is_closed_with_the_object(place):
    place.write("a", b"whole")
    before = os.listdir("/proc/self/fd")
    opened = place.open("a")
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    del opened
    assert len(os.listdir("/proc/self/fd")) == len(before)


# -- what lock and space ask -------------------------------------------------------------------------------------


def test_lock_of_one_excludes_others_and_shared_ones_do_not(tmp_path):
    first, second, third = (os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(3))
    try:
        assert (try_lock(first), try_lock(second), try_lock(second, shared=True)) == (True, False, False)
        os.close(first)
        assert (try_lock(second, shared=True), try_lock(third, shared=True), try_lock(third)) == (True, True, False)
    finally:
        os.close(second)
        os.close(third)


def test_free_space_is_that_of_the_nearest_folder(tmp_path, monkeypatch):
    asked = []
    statvfs = os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda path: asked.append(path) or statvfs(path))
    found, status = read_free_space(tmp_path / "not/there"), statvfs(tmp_path)
    assert asked == [tmp_path]
    assert abs(found.bytes - status.f_bavail * status.f_frsize) < 2**30
    assert found.inodes is None or found.inodes > 0
