"""Files read ahead into the page cache by another process, and given back."""

from __future__ import annotations

import os
import time
from pathlib import Path
from threading import Thread

import pytest

from nsd_zarr.places import read_ahead as module
from nsd_zarr.places.read_ahead import ReadAhead

MB = 2**20


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Three files of 8 MB, of which nothing counts as cached; what the kernel really has is nobody's to say."""
    monkeypatch.setattr(module, "is_file_cached", lambda path: False)
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
    monkeypatch.setattr(module, "is_file_cached", lambda path: True)
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


def wait_for(read_ahead, path):
    read_ahead.wait(path, lambda: None)
    assert not read_ahead.is_waited_for(path)


def test_file_is_waited_for_until_it_was_read(files):
    with ReadAhead(files) as read_ahead:
        assert not read_ahead.is_waited_for(files[0])
        read_ahead.begin(files[0])
        assert read_ahead.is_waited_for(files[0])
        wait_for(read_ahead, files[0])
        assert count_read_bytes(read_ahead._process) >= 8 * MB
        wait_for(read_ahead, files[1])
        wait_for(read_ahead, files[2])  # Not asked for.


def test_nobody_waits_for_a_process_that_is_gone_or_for_a_file_that_cannot_be_opened(files):
    with ReadAhead(files) as read_ahead:
        read_ahead.begin(files[0])
        wait_for(read_ahead, files[1])
        files[2].unlink()
        read_ahead._ask(files[2].with_name("none"))
        read_ahead._process.stdin.write(b"/none\n")
        read_ahead._process.stdin.flush()
        read_ahead._asked.append(files[2])
        wait_for(read_ahead, files[2])
        read_ahead._process.kill()
        read_ahead._asked += files
        wait_for(read_ahead, files[1])


def test_sessions_that_begin_at_once_share_one_process_and_each_hears_of_its_file(files, monkeypatch):
    started, start = [], module._start
    monkeypatch.setattr(module, "_start", lambda: started.append(time.sleep(0.05)) or start())
    with ReadAhead(files) as read_ahead:

        def convert(path):
            read_ahead.begin(path)
            wait_for(read_ahead, path)

        threads = [Thread(target=convert, args=[path], daemon=True) for path in files]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)
    assert len(started) == 1


def test_who_waits_can_be_stopped(files, monkeypatch):
    class Stop(Exception):
        pass

    def stop():
        raise Stop

    monkeypatch.setattr(module, "_READER", "import time; time.sleep(60)")
    with ReadAhead(files) as read_ahead:
        read_ahead.begin(files[0])
        with pytest.raises(Stop):
            read_ahead.wait(files[0], stop)


def test_file_for_which_the_cache_has_no_room_is_not_read_ahead(files, monkeypatch):
    monkeypatch.setattr(module, "read_available_memory", lambda: 23 * MB)
    with ReadAhead(files) as read_ahead:
        read_ahead.begin(files[0])
        assert read_ahead._process is None


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
