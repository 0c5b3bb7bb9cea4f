"""Files that are there whole, or not at all."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from nsd_zarr.errors import DoesNotFit, StoreError
from nsd_zarr.places.durable import (
    DurableFile,
    explain_write_error,
    make_folder,
    remove_partials,
    write_durably,
    write_partially,
)


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the operating system, in order."""
    noted = []

    def watch(name, call):
        def note(*words):
            noted.append(name)
            return call(*words)

        monkeypatch.setattr(os, name, note)

    watch("fsync", os.fsync)
    watch("replace", os.replace)
    return noted


def test_file_is_flushed_then_renamed_then_its_folder_is_flushed(tmp_path, calls):
    write_durably(tmp_path / "a", b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert calls == ["fsync", "replace", "fsync"]
    assert os.listdir(tmp_path) == ["a"]


def test_file_is_not_there_before_it_is_committed(tmp_path):
    with write_partially(tmp_path / "a") as file:
        file.write(b"half")
        assert not (tmp_path / "a").exists()
    assert not (tmp_path / "a").exists()
    file.commit()
    assert (tmp_path / "a").read_bytes() == b"half"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_file_whose_writing_fails_leaves_nothing(error, tmp_path):
    (tmp_path / "a").write_bytes(b"before")

    def write():
        with write_partially(tmp_path / "a") as file:
            file.write(b"half")
            raise error

    with pytest.raises(StoreError if error is OSError else error):
        write()
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"before"


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()], ids=repr)
def test_file_whose_commit_fails_leaves_nothing(call, error, tmp_path, monkeypatch):
    def fail(*words):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StoreError if isinstance(error, OSError) else KeyboardInterrupt):
            write_durably(tmp_path / "a", b"whole")
    assert os.listdir(tmp_path) == []


def test_two_writers_of_one_path_do_not_mix(tmp_path):
    first, second = DurableFile(tmp_path / "a"), DurableFile(tmp_path / "a")
    for file, letter in ((first, b"1"), (second, b"2")):
        file.write(letter * 100_000)
    second.commit()
    assert (tmp_path / "a").read_bytes() == b"2" * 100_000
    first.commit()
    assert (tmp_path / "a").read_bytes() == b"1" * 100_000
    assert os.listdir(tmp_path) == ["a"]


def test_file_may_be_committed_by_another_thread(tmp_path):
    with write_partially(tmp_path / "a") as file:
        file.write(b"whole")
    thread = threading.Thread(target=file.commit, kwargs={"keep_cached": False})
    thread.start()
    thread.join()
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_folders_are_made_and_flushed_up_to_the_first_that_was_there(tmp_path, calls):
    make_folder(tmp_path / "a" / "b" / "c")
    assert calls == ["fsync"] * 3
    make_folder(tmp_path / "a" / "b" / "c")
    assert calls == ["fsync"] * 3


def test_folder_below_a_file_is_explained(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(StoreError, match=r"cannot write: Not a directory.*permissions.*\[.*/a/b\]"):
        make_folder(tmp_path / "a" / "b")


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.ENOSPC, DoesNotFit, "the disk is full"),
        (errno.EDQUOT, DoesNotFit, "quota"),
        (errno.EFBIG, DoesNotFit, "ulimit -f"),
        (errno.EACCES, StoreError, "Permission denied"),
        (errno.EROFS, StoreError, "Read-only file system"),
        (errno.EIO, StoreError, "Input/output error"),
    ],
)
def test_write_error_is_explained_with_what_to_do(number, kind, message, tmp_path):
    error = explain_write_error(OSError(number, os.strerror(number)), tmp_path / "a")
    assert type(error) is kind
    assert message in str(error)
    assert "run the same command again" in str(error)
    assert str(tmp_path / "a") in str(error)


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    for name in ("a.1.partial", "deep/er/b.2.partial", "deep/c", "partial"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert remove_partials(tmp_path) == 2
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["c", "partial"]
