"""Files read ahead into the page cache by another process, and given back."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from nsd_zarr.places import read_ahead as module
from nsd_zarr.places.read_ahead import ReadAhead, find_cached_share

MB = 2**20


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Three files of 8 MB, of which nothing counts as cached; what the kernel really has is nobody's to say."""
    monkeypatch.setattr(module, "find_cached_share", lambda path: 0.0)
    monkeypatch.setattr(module, "MIN_BYTES", MB)
    paths = [tmp_path / f"betas_session{number:02d}.hdf5" for number in (1, 2, 3)]
    for path in paths:
        path.write_bytes(bytes(8 * MB))
    return paths


def count_read_bytes(process):
    """Bytes that a process has read, whatever from."""
    pairs = (line.split(": ") for line in Path(f"/proc/{process.pid}/io").read_text().splitlines())
    return {name: int(count) for name, count in pairs}["rchar"]


def wait_until_read(process, least):
    deadline = time.monotonic() + 30
    while count_read_bytes(process) < least:
        assert time.monotonic() < deadline, "it was not read ahead"
        time.sleep(0.01)


def test_file_and_the_next_one_are_read_ahead_and_no_other(files):
    with ReadAhead(files) as read_ahead:
        read_ahead.begin(files[0])
        process = read_ahead._process
        wait_until_read(process, 16 * MB)
        assert count_read_bytes(process) < 20 * MB  # beside them what an interpreter reads of itself
        read_ahead.begin(files[1])
        wait_until_read(process, 24 * MB)


def test_what_was_read_ahead_is_given_back(files, monkeypatch):
    """Asked of the kernel, which may keep pages for a while."""
    given_back = []
    monkeypatch.setattr(os, "posix_fadvise", lambda descriptor, *what: given_back.append((os.fstat(descriptor), what)))
    with ReadAhead(files) as read_ahead:
        read_ahead.begin(files[0])
        read_ahead.end(files[0])
        read_ahead.end(files[2])
    ((found, what),) = given_back
    assert os.path.samestat(found, files[0].stat())
    assert what == (0, 0, os.POSIX_FADV_DONTNEED)


def test_what_others_had_cached_is_neither_read_nor_dropped(files, monkeypatch):
    monkeypatch.setattr(module, "find_cached_share", lambda path: 0.9)
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: pytest.fail("dropped"))
    with ReadAhead(files[:1]) as read_ahead:
        read_ahead.begin(files[0])
        assert read_ahead._process is None
        read_ahead.end(files[0])


def test_small_files_are_not_worth_a_process(files, monkeypatch):
    monkeypatch.setattr(module, "MIN_BYTES", 16 * MB)
    with ReadAhead(files) as read_ahead:
        read_ahead.begin(files[0])
        assert read_ahead._process is None


def test_file_that_was_just_read_is_in_the_cache(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(MB))
    path.read_bytes()
    assert find_cached_share(path) == 1


def test_file_that_is_empty_or_not_there_needs_no_reading(tmp_path):
    (tmp_path / "empty").touch()
    assert find_cached_share(tmp_path / "empty") == find_cached_share(tmp_path / "none") == 1


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
