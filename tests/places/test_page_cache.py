"""What the page cache holds of a file, asked of the kernel, and that it is given back."""

import mmap
import os

import pytest

from nsd_zarr import buffers
from nsd_zarr.buffers import BufferPool
from nsd_zarr.places import local, page_cache
from nsd_zarr.places.choose import choose_place
from nsd_zarr.places.page_cache import drop_from_cache, is_cached, measure_cached, open_for_advice

MB = 2**20


@pytest.fixture
def path(tmp_path):
    (tmp_path / "file").write_bytes(os.urandom(MB))
    return tmp_path / "file"


@pytest.fixture
def advice(monkeypatch):
    """What was said of which file (by its inode)."""
    said, advise = [], os.posix_fadvise

    def note(descriptor, offset, length, what):
        said.append((os.fstat(descriptor).st_ino, what))
        advise(descriptor, offset, length, what)

    monkeypatch.setattr(os, "posix_fadvise", note)
    return said


def is_file_cached(path):
    with open_for_advice(path) as descriptor:
        return is_cached(descriptor)


def test_file_that_was_just_read_is_cached(path):
    path.read_bytes()
    assert is_file_cached(path)


def test_pages_are_counted_and_those_of_others_sampled(path, monkeypatch):
    path.write_bytes(bytes(4 * MB))
    with open_for_advice(path) as descriptor:
        assert measure_cached(descriptor, 4 * MB) == 1
        drop_from_cache(path)  # A file system in memory keeps its pages.
        share = measure_cached(descriptor, 4 * MB)
        assert share in (0, 1)
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        path.read_bytes()
        asked, read = [], os.preadv
        monkeypatch.setattr(os, "preadv", lambda *words: asked.append(words) or read(*words))
        assert is_cached(descriptor)
        assert len(asked) == page_cache.SAMPLES


def test_large_file_is_asked_about_in_windows(path, monkeypatch):
    path.write_bytes(bytes(8 * MB + 1))
    with open_for_advice(path) as descriptor:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 5 * MB, os.POSIX_FADV_DONTNEED)
        # How much stays is the file system's choice: one in memory keeps all, others pages that they hold together.
        share, asked = measure_cached(descriptor, 8 * MB + 1), []
        monkeypatch.setattr(page_cache, "WINDOWS", 16)
        monkeypatch.setattr(page_cache, "WINDOW_BYTES", 2**16)
        ask = page_cache._ask_mincore
        monkeypatch.setattr(page_cache, "_ask_mincore", lambda *words: asked.append(words[2]) or ask(*words))
        assert abs(page_cache._estimate_cached(descriptor, 8 * MB + 1) - share) < 0.1
        [windows] = asked
        assert len(windows) == 16
        assert {length for _, length in windows} == {2**16}
        assert windows[0][0] == 0
        assert 8 * MB - 2**16 - mmap.PAGESIZE <= windows[-1][0] <= 8 * MB + 1 - 2**16


def test_file_that_is_empty_is_not_worth_reading(tmp_path):
    (tmp_path / "empty").touch()
    assert not is_file_cached(tmp_path / "empty")


def test_where_nothing_can_be_asked_a_file_counts_as_cached(path, monkeypatch):
    monkeypatch.delattr(os, "posix_fadvise")
    assert is_file_cached(path)
    drop_from_cache(path)


def test_dropped_file_is_flushed_first(path, advice, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(len(advice)))
    drop_from_cache(path)
    assert flushed == [0]
    assert advice == [(path.stat().st_ino, os.POSIX_FADV_DONTNEED)]


@pytest.mark.parametrize("was_cached", [True, False])
def test_object_that_is_read_once_is_given_back_unless_it_was_cached(path, advice, monkeypatch, was_cached):
    monkeypatch.setattr(local, "is_cached", lambda descriptor: was_cached)
    opened = choose_place(path.parent).open("file")
    inode = path.stat().st_ino
    with opened.read_once():
        assert opened.read_range(0, MB) == path.read_bytes()
        assert advice == [(inode, os.POSIX_FADV_SEQUENTIAL)]
    assert advice[1:] == ([] if was_cached else [(inode, os.POSIX_FADV_DONTNEED)])


def test_verify_gives_back_every_shard_that_was_not_cached(volumes, tmp_path, advice, monkeypatch):
    import nsd_zarr

    store = volumes.copy_to(tmp_path / "subj01.zarr").path
    monkeypatch.setattr(local, "is_cached", lambda descriptor: False)
    assert nsd_zarr.verify(store).is_whole
    shards = sorted(path.stat().st_ino for path in (store / "betas/c").rglob("*") if path.is_file())
    assert sorted(inode for inode, what in advice if what == os.POSIX_FADV_DONTNEED) == shards


def test_memory_that_was_touched_is_the_memory_that_is_borrowed():
    pool = BufferPool()
    pool.begin_touching((3, 2 * page_cache.SAMPLES), "int16")
    pool.end_touching()
    (touched,) = pool._free
    with pool.borrow((3, 2 * page_cache.SAMPLES), "int16") as buffer:
        assert buffer.base is not None
        assert buffer.ctypes.data == touched.ctypes.data
    pool.begin_touching((3,), "int16")
    pool.end_touching()
    assert len(pool._free) == 1


def test_memory_is_borrowed_at_once_though_not_all_of_it_was_touched(monkeypatch):
    monkeypatch.setattr(buffers, "_TOUCHED_AT_ONCE", 1)  # So many steps that a whole one would take a minute.
    pool = BufferPool()
    pool.begin_touching((2**26,), "uint8")
    with pool.borrow((2**26,), "uint8") as buffer:
        assert not pool._free
        buffer[-1] = 1
    assert [len(each) for each in pool._free] == [2**26]
