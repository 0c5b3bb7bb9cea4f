"""Files read ahead into the page cache by another process, and given back."""

from __future__ import annotations

import os
import time

import pytest

from nsd_zarr.places.read_ahead import CACHED_SHARE, ReadAhead, find_cached_share


def drop_from_cache(path):
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.fixture
def files(tmp_path):
    """Three files of 2 MB that are on disk, and not in the page cache."""
    paths = [tmp_path / f"betas_session{number:02d}.hdf5" for number in (1, 2, 3)]
    for path in paths:
        path.write_bytes(os.urandom(2 * 2**20))
        drop_from_cache(path)
    if find_cached_share(paths[0]) > 0:
        pytest.skip("this file system does not say what is in the page cache")
    return paths


def wait_until_cached(path):
    deadline = time.monotonic() + 30
    while find_cached_share(path) < 1:
        assert time.monotonic() < deadline, "it was not read ahead"
        time.sleep(0.01)


def test_file_and_the_next_one_are_read_ahead_and_no_other(files):
    with ReadAhead(files) as read_ahead:
        read_ahead.begin(files[0])
        wait_until_cached(files[0])
        wait_until_cached(files[1])
        assert find_cached_share(files[2]) == 0
        read_ahead.begin(files[1])
        wait_until_cached(files[2])


def test_what_was_read_ahead_is_given_back(files, monkeypatch):
    """Asked of the kernel, which may keep pages for a while."""
    given_back = []
    monkeypatch.setattr(os, "posix_fadvise", lambda descriptor, *what: given_back.append((os.fstat(descriptor), what)))
    with ReadAhead(files) as read_ahead:
        read_ahead.begin(files[0])
        wait_until_cached(files[1])
        read_ahead.end(files[0])
    ((found, what),) = given_back
    assert os.path.samestat(found, files[0].stat())
    assert what == (0, 0, os.POSIX_FADV_DONTNEED)


def test_what_others_had_cached_is_neither_read_nor_dropped(files):
    files[0].read_bytes()
    assert find_cached_share(files[0]) >= CACHED_SHARE
    with ReadAhead(files[:1]) as read_ahead:
        read_ahead.begin(files[0])
        assert read_ahead._process is None
        read_ahead.end(files[0])
    assert find_cached_share(files[0]) >= CACHED_SHARE


def test_leaving_ends_the_process(files):
    with ReadAhead(files) as read_ahead:
        read_ahead.begin(files[0])
        process = read_ahead._process
    assert process.poll() is not None


def test_files_that_cannot_be_read_ahead_change_nothing(files, tmp_path, monkeypatch):
    with ReadAhead([tmp_path / "none", *files]) as read_ahead:
        read_ahead.begin(tmp_path / "none")
        read_ahead.begin(tmp_path / "another")
        read_ahead.end(tmp_path / "none")
    monkeypatch.setattr("subprocess.Popen", lambda *words, **options: (_ for _ in ()).throw(OSError("no process")))
    with ReadAhead(files) as read_ahead:
        read_ahead.begin(files[0])
        read_ahead.end(files[0])
