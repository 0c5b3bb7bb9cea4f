"""Files written past the page cache: the bytes that a plain file has, whatever the system takes or refuses."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsd_zarr.errors import DoesNotFit
from nsd_zarr.places import direct
from nsd_zarr.places.direct import PIECE_BYTES, DirectFile
from nsd_zarr.places.durable import write_partially
from nsd_zarr.places.page_cache import measure_cached

PIECE = 8192


@contextmanager
def make_small():
    """Pieces of PIECE bytes, none of them from before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct, "PIECE_BYTES", PIECE)
        patch.setattr(direct, "_free", [])
        yield


@pytest.fixture
def small_pieces():
    with make_small():
        yield


def is_direct(descriptor):
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & getattr(os, "O_DIRECT", 0))


class Unwilling:
    """A file that takes *most* bytes at a time, answers the call *failing* with *error*, and the calls *refused* with
    EINVAL, where they would go past the cache."""

    def __init__(self, file, most=10**9, refused=(), failing=0, error=errno.EIO):
        self.file, self.most, self.refused, self.failing, self.error = file, most, refused, failing, error
        self.calls, self.passed = 0, []
        self.fileno, self.close = file.fileno, file.close

    def write(self, data):
        self.calls += 1
        self.passed.append(is_direct(self.fileno()))
        if self.calls == self.failing:
            raise OSError(self.error, os.strerror(self.error))
        if self.calls in self.refused and self.passed[-1]:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return self.file.write(data[: self.most])


def write_parts(path, lengths, **unwilling):
    """What was written, and the file that it was written to: closed."""
    generator = np.random.default_rng(0)
    parts = [generator.bytes(length) for length in lengths]
    with DirectFile(path) as file:
        file._file = Unwilling(file._file, **unwilling)
        for part in parts:
            assert file.write(part) == len(part)
        file.flush()
    return b"".join(parts), file


@pytest.mark.usefixtures("small_pieces")
def test_whole_pieces_go_past_the_cache_and_the_rest_through_it(tmp_path):
    written, file = write_parts(tmp_path / "a", [PIECE - 1, 2 * PIECE, 5])
    assert (tmp_path / "a").read_bytes() == written
    assert file._file.passed == [file._may_pass] * 3 + [False]


lengths = st.lists(st.one_of(st.integers(0, 3 * PIECE), st.sampled_from([PIECE - 1, PIECE, PIECE + 1])), max_size=8)


@given(lengths, st.sampled_from([10**9, PIECE - 512, 4096, 700]), st.sets(st.integers(1, 6)))
def test_holds_what_a_plain_file_would_however_little_the_system_takes(lengths, most, refused):
    with make_small(), tempfile.TemporaryDirectory() as folder:
        written, file = write_parts(Path(folder, "a"), lengths, most=most, refused=refused)
        assert Path(folder, "a").read_bytes() == written
        assert file._file.passed == sorted(file._file.passed, reverse=True)  # Once refused, never tried again.


@pytest.mark.usefixtures("small_pieces")
def test_one_refusal_is_enough(tmp_path):
    _, file = write_parts(tmp_path / "a", [5 * PIECE], refused=(2, 3, 4, 5))
    if file._may_pass:
        assert file._file.passed == [True, True, False, False, False, False]


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP])
def test_file_system_that_cannot_is_written_as_any_other(code, tmp_path, monkeypatch):
    ask = fcntl.fcntl

    def refuse(file, command, *words):
        if command == fcntl.F_SETFL:
            raise OSError(code, os.strerror(code))
        return ask(file, command, *words)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    written, _ = write_parts(tmp_path / "a", [3 * PIECE + 1])
    assert (tmp_path / "a").read_bytes() == written


@pytest.mark.usefixtures("small_pieces")
def test_systems_without_it_write_as_ever(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "O_DIRECT", raising=False)
    with DirectFile(tmp_path / "a") as file:
        file.write(bytes(3 * PIECE + 1))
        file.flush()
    assert (tmp_path / "a").read_bytes() == bytes(3 * PIECE + 1)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a file system in memory")
def test_memory_file_systems_are_left_to_themselves(tmp_path):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        _, file = write_parts(Path(folder, "a"), [3 * PIECE])
        assert file._file.passed == [False] * 3


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("failing", [1, 2, 3])
def test_error_of_a_piece_is_raised_and_the_file_discarded(failing, tmp_path):
    def write():
        with write_partially(tmp_path / "a", past_cache=True) as file:
            file._file._file = Unwilling(file._file._file, failing=failing, error=errno.ENOSPC)
            file.write(bytes(2 * PIECE + 1))
            file.write(bytes(1))

    with pytest.raises(DoesNotFit, match="disk is full"):
        write()
    assert os.listdir(tmp_path) == []
    assert len(direct._free) == 2


@pytest.mark.usefixtures("small_pieces")
def test_limit_of_a_file_is_met_as_any_other_file_meets_it(tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PIECE + 100, before[1]))
    try:
        with pytest.raises(DoesNotFit, match="file-size"), write_partially(tmp_path / "a", past_cache=True) as file:
            file.write(bytes(3 * PIECE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("small_pieces")
def test_pieces_are_used_again_and_never_by_two(tmp_path):
    for name in "abc":
        write_parts(tmp_path / name, [5 * PIECE])
    assert len(direct._free) == 2
    with DirectFile(tmp_path / "d") as first, DirectFile(tmp_path / "e") as second:
        for letter in (b"x", b"y", b"z"):
            first.write(letter * (PIECE - 1))
            second.write(letter.upper() * (PIECE - 1))
        first.flush()
        second.flush()
    whole = b"".join(letter * (PIECE - 1) for letter in (b"x", b"y", b"z"))
    assert ((tmp_path / "d").read_bytes(), (tmp_path / "e").read_bytes()) == (whole, whole.upper())


@pytest.mark.usefixtures("small_pieces")
def test_process_that_was_forked_off_has_pieces_of_its_own(tmp_path):
    write_parts(tmp_path / "a", [PIECE])  # Leaves pieces that are free.
    with DirectFile(tmp_path / "b") as file:
        file.write(b"parent")
        child = os.fork()
        if child == 0:
            direct._free[0][:5] = b"child"
            file._pieces[0][:5] = b"child"
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        file.flush()
    assert (tmp_path / "b").read_bytes() == b"parent"
    assert all(piece[:5] != b"child" for piece in direct._free)


def test_page_cache_holds_nothing_of_whole_pieces(tmp_path):
    _, file = write_parts(tmp_path / "a", [4 * PIECE_BYTES])
    if not file._may_pass:
        pytest.skip("no file system of a disk")
    with open(tmp_path / "a", "rb") as opened:
        assert measure_cached(opened.fileno(), 4 * PIECE_BYTES) == 0
