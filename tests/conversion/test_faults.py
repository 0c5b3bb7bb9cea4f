"""Faults of disks, sources and permissions, each provoked while data move; then the same command finishes.

Space that runs out has its tests in test_space, what befalls clusters in test_cluster_faults.
"""

from __future__ import annotations

import builtins
import errno
import logging
import os
import stat
import subprocess
import threading
from contextlib import suppress

import h5py
import numpy as np
import pytest

import nsd_zarr
from nsd_zarr import retry
from nsd_zarr.errors import DoesNotFit, SourceError, StoreError
from nsd_zarr.source.hdf5.gather import _read_exactly

OPTIONS = ("--trials-per-shard", 2, "--workers", 1)
GO_ON = "then run the same command again: it goes on where it was"


@pytest.fixture
def undisturbed(prepared_store, digest_tree):
    """The bytes of a store whose conversion nothing disturbed."""
    return digest_tree(prepared_store)


@pytest.fixture
def check_gone_on_from(source, convert, digest_tree, undisturbed):
    """Every shard that is there is whole; then the same command finishes, byte for byte."""

    def check(store, least=0, source=source):
        there = {
            key: digest for key, digest in digest_tree(store).items() if key.startswith("betas/c") and "." not in key
        }
        shards = {key for key, digest in there.items() if digest != "folder"}
        assert len(shards) >= least
        assert {key: undisturbed[key] for key in there} == there
        assert digest_tree(convert(source, store)) == undisturbed

    return check


@pytest.fixture
def without_pauses(monkeypatch):
    monkeypatch.setattr(retry, "PAUSES", (0, 0, 0))


def _check_reported(outcome, code, *words):
    """One paragraph, however many threads met the fault."""
    assert outcome.code == code, outcome.err
    assert len(outcome.err) < 800
    for word in words:
        assert word in outcome.paragraph


# Runs in the command's own process, before it: at shard 4, in session 2, something happens.
AT_SHARD_4 = """
import os
from contextlib import suppress
from pathlib import Path
from nsd_zarr.conversion import unit
from nsd_zarr.store.shard import write_shard
def write(store, key, *words):
    if key == "betas/c/4/0/0/0":
        {act}
    return write_shard(store, key, *words)
unit.write_shard = write
"""


# -- the target --------------------------------------------------------------------------------------------------


def test_disk_that_is_full_is_reported_with_session_and_shard(source, make_disk, run_child, check_gone_on_from):
    store = make_disk("size=200k") / "subj01.zarr"
    ballast = store.with_name("ballast")
    # A shard that is written meanwhile takes some of what was free.
    fill = f"with suppress(OSError): Path({str(ballast)!r}).write_bytes(bytes(os.statvfs(store).f_bavail * 4096))"
    outcome = run_child("convert", source, store, *OPTIONS, before=AT_SHARD_4.format(act=fill))
    # Of shard 4, or of shard 3, which may wait for the disk still.
    _check_reported(outcome, 6, "session 02: cannot write: the disk is full", GO_ON, "/0/0/0]")
    ballast.unlink()
    check_gone_on_from(store, least=3)


def test_inodes_that_are_used_up_are_reported_with_session_and_shard(source, make_disk, run_child, check_gone_on_from):
    store = make_disk("size=1m,nr_inodes=300") / "subj01.zarr"
    folder = store.with_name("ballast")
    use_up = "with suppress(OSError): "
    use_up += f"[open(os.path.join({str(folder)!r}, str(n)), 'w').close() for n in range(os.statvfs(store).f_favail)]"
    folder.mkdir()
    outcome = run_child("convert", source, store, *OPTIONS, before=AT_SHARD_4.format(act=use_up))
    _check_reported(outcome, 6, "session 02: cannot write: the disk is full (or out of inodes)", GO_ON, "/betas/c/")
    subprocess.run(["rm", "-r", str(folder)], check=True)
    check_gone_on_from(store, least=3)


def test_disk_that_is_read_only_is_reported_before_anything_is_read(source, make_disk, run_child):
    disk = make_disk("size=1m,ro")
    outcome = run_child("convert", source, disk / "subj01.zarr", *OPTIONS)
    _check_reported(outcome, 4, "cannot write: Read-only file system. See to permissions and the disk", str(disk))


def test_file_size_limit_is_reported_with_session_and_shard(source, tmp_path, run_child, check_gone_on_from):
    store = tmp_path / "subj01.zarr"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))"
    outcome = run_child("convert", source, store, *OPTIONS, before=AT_SHARD_4.format(act=limit))
    # Or the shard before, which may wait for the disk still.
    _check_reported(outcome, 6, "session 02: cannot write: the file would exceed the file-size limit", "/0/0/0]")
    check_gone_on_from(store, least=3)


def test_permission_lost_midway_is_reported_with_session_and_shard(
    source, tmp_path, run_child, without_privileges, check_gone_on_from
):
    store = tmp_path / "subj01.zarr"
    act = "os.chmod(store / 'betas/c', 0o555)"
    outcome = run_child(
        "convert", source, store, *OPTIONS, before=AT_SHARD_4.format(act=act), prefix=without_privileges
    )
    (store / "betas/c").chmod(0o755)
    _check_reported(outcome, 4, "session 02: cannot write: Permission denied", GO_ON, "/betas/c/4/0/0")
    check_gone_on_from(store, least=3)


KINDS = {
    errno.ENOSPC: (DoesNotFit, "the disk is full"),
    errno.EDQUOT: (DoesNotFit, "the disk quota is used up"),
    errno.EFBIG: (DoesNotFit, "the file would exceed the file-size limit"),
    errno.EROFS: (StoreError, "Read-only file system"),
    errno.EIO: (StoreError, "Input/output error"),
}


def _fail_at(monkeypatch, owner, name, number, count, matches):
    """Let the call of a function of *owner* that is the *count*-th to match fail."""
    calls, real = [], getattr(owner, name)

    def call(*words, **options):
        if matches(*words):
            calls.append(words)
            if len(calls) == count:
                raise OSError(number, os.strerror(number))
        return real(*words, **options)

    monkeypatch.setattr(owner, name, call)


def _is_shard(path, *_):
    return "betas/c/4/" in str(path)


def _is_file(descriptor):
    return stat.S_ISREG(os.fstat(descriptor).st_mode) and "/betas/c/4/" in os.readlink(f"/proc/self/fd/{descriptor}")


PLACES = {
    "open": (builtins, "open", _is_shard),
    "flush": (os, "fsync", _is_file),
    "rename": (os, "replace", _is_shard),
    "make a folder": (os, "mkdir", _is_shard),
}


@pytest.mark.parametrize("number", KINDS, ids=errno.errorcode.get)
@pytest.mark.parametrize("place", PLACES)
def test_write_that_fails_anywhere_is_reported_and_gone_on_from(
    place, number, source, tmp_path, monkeypatch, check_gone_on_from, recorded_sessions
):
    owner, name, matches = PLACES[place]
    kind, problem = KINDS[number]
    store = tmp_path / "subj01.zarr"
    with monkeypatch.context() as patch:
        _fail_at(patch, owner, name, number, 1, matches)
        with pytest.raises(kind, match=f"session 02: cannot write: {problem}") as caught:
            nsd_zarr.convert(source, store, trials_per_shard=2, workers=1)
    assert "betas/c/4" in str(caught.value.path)
    assert GO_ON in str(caught.value)
    assert not list(store.rglob("*.partial"))
    assert recorded_sessions(store) == [1]
    check_gone_on_from(store, least=3)


# -- the source --------------------------------------------------------------------------------------------------


@pytest.fixture(params=["rows", "gzip"])
def read_midway(request, make_source, monkeypatch):
    """A source, and a way to have something happen at its nth read of values, whichever way these are read."""
    source = make_source(layout=request.param)
    reads = {"rows": (os, "preadv"), "gzip": (h5py.Dataset, "read_direct")}

    def at_read(counts, act):
        calls, (owner, name) = [], reads[request.param]
        real = getattr(owner, name)

        def call(*words, **options):
            calls.append(words)
            if len(calls) in counts:
                act()
            return real(*words, **options)

        monkeypatch.setattr(owner, name, call)
        return calls

    return source, at_read


def test_source_that_shrinks_while_it_is_read_is_reported_and_gone_on_from(read_midway, tmp_path, run_cli, monkeypatch):
    source, at_read = read_midway
    path, store = source / "betas_session02.hdf5", tmp_path / "subj01.zarr"
    kept = path.read_bytes()
    at_read([2], lambda: os.truncate(path, len(kept) // 2))
    outcome = run_cli("convert", source, store, *OPTIONS)
    assert outcome.code == 3, outcome.err
    assert outcome.paragraph.startswith("session 02: ")
    assert "betas_session02.hdf5]" in outcome.paragraph
    assert "run the same command again" in outcome.paragraph
    monkeypatch.undo()
    path.write_bytes(kept)
    assert run_cli("convert", source, store, *OPTIONS).code == 0
    assert nsd_zarr.verify(store, source).is_whole


def test_source_that_disappears_while_it_is_read_is_reported_and_gone_on_from(
    read_midway, tmp_path, run_cli, monkeypatch, recorded_sessions
):
    source, at_read = read_midway
    path, store = source / "betas_session02.hdf5", tmp_path / "subj01.zarr"
    at_read([2], lambda: path.rename(tmp_path / "away.hdf5"))
    outcome = run_cli("convert", source, store, *OPTIONS)
    assert outcome.code == 3, outcome.err
    assert outcome.paragraph.startswith("session 02: cannot read betas_session02.hdf5: No such file or directory")
    assert recorded_sessions(store) == [1]
    monkeypatch.undo()
    (tmp_path / "away.hdf5").rename(path)
    assert run_cli("convert", source, store, *OPTIONS).code == 0
    assert nsd_zarr.verify(store, source).is_whole


def _raise(number):
    def act():
        # As the system raises it, and as HDF5 words it.
        raise OSError(number, f"Can't read data (file read failed, errno = {number}, error message = '...')")

    return act


@pytest.mark.usefixtures("without_pauses")
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE], ids=errno.errorcode.get)
def test_read_that_fails_once_is_tried_again_and_logged(number, read_midway, convert, caplog):
    source, at_read = read_midway
    calls = at_read([2], _raise(number))
    store = convert(source)
    assert len(calls) == 4  # once a session, and again
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("nsd_zarr.retry", logging.WARNING)
    assert record.getMessage().startswith("reading ")
    assert record.getMessage().endswith("; try 2 of 4 follows")
    assert nsd_zarr.verify(store, source).is_whole


@pytest.mark.usefixtures("without_pauses")
def test_read_that_fails_always_is_reported_after_four_tries(read_midway, tmp_path, run_cli, monkeypatch, caplog):
    source, at_read = read_midway
    store = tmp_path / "subj01.zarr"
    calls = at_read(range(2, 99), _raise(errno.EIO))
    outcome = run_cli("convert", source, store, *OPTIONS)
    assert outcome.code == 3, outcome.err
    assert "session 02: reading trials 0 to 5 failed: " in outcome.paragraph
    assert "run the same command again" in outcome.paragraph
    assert len(caplog.records) == 3
    monkeypatch.undo()
    assert len(calls) == 5
    assert run_cli("convert", source, store, *OPTIONS).code == 0
    assert nsd_zarr.verify(store, source).is_whole


@pytest.mark.usefixtures("without_pauses")
def test_error_that_does_not_pass_is_raised_at_once(read_midway, convert, caplog):
    source, at_read = read_midway
    at_read([2], _raise(errno.EBADF))
    with pytest.raises(SourceError, match="session 02: reading trials 0 to 5 failed"):
        convert(source, workers=1)
    assert caplog.records == []


@pytest.mark.usefixtures("without_pauses")
def test_input_output_error_of_the_system_is_tried_four_times(caplog):
    """A real one: reading an address of one's own memory where nothing is."""
    descriptor = os.open("/proc/self/mem", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Input/output error"):
            _read_exactly(descriptor, np.empty(7, np.uint8).data, 0)
    finally:
        os.close(descriptor)
    assert len(caplog.records) == 3


# -- memory ------------------------------------------------------------------------------------------------------


def test_memory_that_runs_out_is_reported_and_gone_on_from(source, tmp_path, run_child, check_gone_on_from):
    """The process may not take another page, from shard 4 on."""
    store = tmp_path / "subj01.zarr"
    act = (
        "import resource; used = int(Path('/proc/self/statm').read_text().split()[0]) * 4096; "
        "resource.setrlimit(resource.RLIMIT_AS, (used, used)); bytearray(10**9)"
    )
    outcome = run_child("convert", source, store, *OPTIONS, before=AT_SHARD_4.format(act=act))
    _check_reported(outcome, 6, "session 02: memory ran out", "--memory", "betas_session02.hdf5")
    check_gone_on_from(store, least=3)


# -- threads -----------------------------------------------------------------------------------------------------


def test_threads_that_may_not_be_started_are_no_fault_of_source_or_package(source, tmp_path, monkeypatch, digest_tree):
    """The first thread fails, then the second, and so on, until there are enough."""
    start, store = threading.Thread.start, tmp_path / "subj01.zarr"
    for allowed in range(99):
        started = []

        def start_some(thread, allowed=allowed, started=started):
            if len(started) == allowed:
                raise RuntimeError("can't start new thread")  # Python's own words
            started.append(thread)
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", start_some)
        with suppress(DoesNotFit):
            nsd_zarr.convert(source, store, trials_per_shard=2, workers=2)
            break
        assert not list(tmp_path.rglob("*.fault"))
    monkeypatch.undo()
    assert allowed > 4
    nsd_zarr.convert(source, tmp_path / "other.zarr", trials_per_shard=2)
    assert digest_tree(store) == digest_tree(tmp_path / "other.zarr")


def test_command_that_may_not_start_a_thread_says_so(source, tmp_path, monkeypatch, run_cli):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    outcome = run_cli("convert", source, tmp_path / "subj01.zarr")
    assert outcome.code == 6
    assert "start no more threads. Raise the limit" in outcome.paragraph
