"""Single trials: as stored, from any thread or process, with few open files; or an error that names the trial."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import threading
from collections import OrderedDict

import numpy as np
import pytest

import nsd_zarr
from nsd_zarr.errors import DamageFound, StoreError
from nsd_zarr.places import open_files
from nsd_zarr.store.reader import TrialReader
from nsd_zarr.store.root import open_store


@pytest.fixture
def damaged(volumes, tmp_path):
    """A copy that may be damaged: sessions 2, 3 and 5 of 14 trials, 7 to a shard."""
    return volumes.copy_to(tmp_path / "damaged.zarr")


def _read(reader, trial):
    out = np.empty(reader.volume_shape, reader.dtype)
    reader.read_into(trial, out)
    return out


def _open_files(path):
    links = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
    return sum(os.path.realpath(link).startswith(str(path)) for link in links)


@pytest.mark.parametrize("kind", ["volumes", "surfaces", "floats"])
def test_each_trial_is_as_it_was_stored(kind, request):
    made = request.getfixturevalue(kind)
    reader = TrialReader(open_store(made.path))
    assert (reader.dtype, reader.volume_shape) == (made.stored.dtype, made.stored.shape[1:])
    for trial in (*range(made.trials), 5, 0):
        assert _read(reader, trial).tobytes() == made.stored[trial].tobytes()


@pytest.mark.parametrize("trial", [-1, 42, 10**9])
def test_trial_outside_the_store_raises_index_error(trial, volumes):
    with pytest.raises(IndexError, match=f"trial {trial} is outside the store's 42 trials"):
        _read(TrialReader(open_store(volumes.path)), trial)


def test_trial_into_an_array_of_another_size_raises_and_writes_nothing(volumes):
    out = np.full((5, 11, 4), 7, "int16")
    with pytest.raises(DamageFound, match="expected 440"):
        TrialReader(open_store(volumes.path)).read_into(0, out)
    assert (out == 7).all()


# -- damage ------------------------------------------------------------------------------------------------------


def _lose(path):
    path.unlink()


def _cut(path):
    path.write_bytes(path.read_bytes()[:-30])


def _empty(path):
    path.write_bytes(b"")


def _flip(path):
    data = bytearray(path.read_bytes())
    data[40] ^= 4
    path.write_bytes(data)


def _flip_index(path):
    data = bytearray(path.read_bytes())
    data[-40] ^= 4
    path.write_bytes(data)


def _replace_by_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [_lose, _cut, _empty, _flip, _flip_index, _replace_by_folder])
def test_damage_names_trial_session_and_shard(damage, damaged):
    damage(damaged.shard_path(21))
    reader = TrialReader(open_store(damaged.path))
    with pytest.raises(DamageFound, match=r"trial 21 \(trial 7 of its session, in betas shard 3\) is lost") as caught:
        _read(reader, 21)
    assert (caught.value.session, caught.value.path) == (3, damaged.shard_path(21))
    assert "nsd-zarr verify" in str(caught.value)
    assert np.array_equal(_read(reader, 20), damaged.stored[20])


def test_shard_that_shrinks_while_it_is_open_raises(damaged):
    reader = TrialReader(open_store(damaged.path))
    _read(reader, 0)
    os.truncate(damaged.shard_path(0), 50)
    with pytest.raises(DamageFound, match="the file ends inside it"):
        _read(reader, 6)


def test_shard_that_is_mended_is_read_again(damaged):
    path, reader = damaged.shard_path(0), TrialReader(open_store(damaged.path))
    data = path.read_bytes()
    path.unlink()
    with pytest.raises(DamageFound):
        _read(reader, 0)
    path.write_bytes(data)
    assert np.array_equal(_read(reader, 0), damaged.stored[0])


def test_index_problem_is_reported_without_decoding(damaged):
    reader = TrialReader(open_store(damaged.path))
    assert [reader.find_index_problem(shard) for shard in range(6)] == [""] * 6
    _flip(damaged.shard_path(0))
    _flip_index(damaged.shard_path(7))
    reader.close()
    assert reader.find_index_problem(0) == ""
    assert "crc32c of its index" in reader.find_index_problem(1)


def test_shards_that_fail_leave_no_open_file(damaged):
    reader = TrialReader(open_store(damaged.path))
    for trial in range(0, 42, 7):
        _cut(damaged.shard_path(trial))
        with pytest.raises(DamageFound):
            _read(reader, trial)
    assert _open_files(damaged.path) == 0


# -- reads that fail for a moment ----------------------------------------------------------------------------------


PASSING = [errno.ESTALE, errno.EIO, errno.ETIMEDOUT]


@pytest.fixture
def pauses(monkeypatch):
    """Seconds that were waited for, without waiting."""
    waited = []
    monkeypatch.setattr("nsd_zarr.retry.time.sleep", waited.append)
    return waited


@pytest.fixture
def fail_reads(monkeypatch, pauses):
    """Let the next reads of trials fail, each with its number; returns the descriptors of all reads."""

    def fail(*numbers):
        left, read, descriptors = list(numbers), os.preadv, []

        def preadv(descriptor, buffers, offset):
            descriptors.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            if left:
                number = left.pop(0)
                raise OSError(number, os.strerror(number))
            return read(descriptor, buffers, offset)

        monkeypatch.setattr(os, "preadv", preadv)
        return descriptors

    return fail


@pytest.mark.parametrize("number", PASSING)
@pytest.mark.parametrize("opened", [True, False], ids=["open shard", "new shard"])
def test_one_error_that_passes_is_survived_without_waiting(number, opened, volumes, fail_reads, pauses, caplog):
    reader = TrialReader(open_store(volumes.path))
    if opened:
        _read(reader, 8)
    descriptors = fail_reads(number)
    assert np.array_equal(_read(reader, 9), volumes.stored[9])
    assert set(descriptors) == {str(volumes.shard_path(9))}
    assert pauses == []
    assert [os.strerror(number) in record.message for record in caplog.records] == [True]


def test_stale_handle_is_left_for_the_file_that_is_there_now(damaged, monkeypatch, pauses):
    reader, read = TrialReader(open_store(damaged.path)), os.preadv
    _read(reader, 0)
    path = damaged.shard_path(0)
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    stale = path.stat().st_ino
    os.replace(copy, path)

    def preadv(descriptor, buffers, offset):
        if os.fstat(descriptor).st_ino == stale:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return read(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    assert [np.array_equal(_read(reader, trial), damaged.stored[trial]) for trial in range(7)] == [True] * 7
    assert _open_files(damaged.path) == 1


def test_error_that_lasts_is_no_damage(volumes, fail_reads, pauses):
    fail_reads(*[errno.EIO] * 9)
    with pytest.raises(StoreError, match=r"trial 9 .* cannot be read: Input/output error") as caught:
        _read(TrialReader(open_store(volumes.path)), 9)
    assert (caught.value.session, caught.value.path) == (2, volumes.shard_path(9))
    assert pauses == [0.1, 0.5, 2.0]


def test_error_that_does_not_pass_is_raised_at_once(volumes, fail_reads):
    descriptors = fail_reads(errno.EACCES, errno.EACCES)
    with pytest.raises(StoreError, match="Permission denied"):
        _read(TrialReader(open_store(volumes.path)), 9)
    assert len(descriptors) == 1


@pytest.mark.parametrize("most", [1, 7, 100])
def test_reads_that_give_less_than_was_asked_are_continued(most, volumes, monkeypatch):
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda descriptor, parts, offset: read(descriptor, [parts[0][:most]], offset))
    reader = TrialReader(open_store(volumes.path))
    for trial in (0, 9, 41):
        assert np.array_equal(_read(reader, trial), volumes.stored[trial])


def test_dataset_is_read_where_every_place_fails_once(volumes, monkeypatch, pauses):
    read, failed = os.preadv, set()

    def preadv(descriptor, parts, offset):
        place = (os.fstat(descriptor).st_ino, offset)
        if place not in failed:
            failed.add(place)
            number = PASSING[len(failed) % 3]
            raise OSError(number, os.strerror(number))
        return read(descriptor, parts, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    with nsd_zarr.open_dataset(volumes.path, raw=True) as dataset:
        assert np.array_equal(dataset.betas.values, volumes.stored)
    assert len(failed) == 1 + 42 + 6  # the root document, chunks, indexes


# -- open files --------------------------------------------------------------------------------------------------


def test_open_files_are_bounded_and_given_back(volumes, monkeypatch, tmp_path):
    volumes = volumes.copy_to(tmp_path / "own.zarr")  # Others may have files of the shared store open.
    monkeypatch.setattr(open_files, "count_allowed", lambda: 2)
    monkeypatch.setattr(open_files, "_open", OrderedDict())  # What other tests left open is not counted.
    reader = TrialReader(open_store(volumes.path))
    assert _open_files(volumes.path) == 0
    for trial in (0, 7, 14, 21, 28, 35, 3):
        assert np.array_equal(_read(reader, trial), volumes.stored[trial])
        assert _open_files(volumes.path) <= 2
    reader.close()
    assert _open_files(volumes.path) == 0
    assert np.array_equal(_read(reader, 9), volumes.stored[9])
    del reader
    assert _open_files(volumes.path) == 0


def test_many_readers_read_every_trial_under_a_limit_of_few_descriptors(volumes):
    code = """
import resource, sys
import numpy as np
from pathlib import Path
import nsd_zarr
from nsd_zarr.store.reader import TrialReader
from nsd_zarr.store.root import open_store
readers = [TrialReader(open_store(Path(sys.argv[1]))) for _ in range(32)]
own = [open("/dev/null") for _ in range(30)]
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]),) * 2)
total = 0
for trial in range(42):
    for reader in readers:
        out = np.empty(reader.volume_shape, reader.dtype)
        reader.read_into(trial, out)
        total += int(out.astype("int64").sum())
print(total)
"""
    for limit in (256, 40):  # with 40, half of it is more than what is left: the system says that there are too many
        command = [sys.executable, "-c", code, str(volumes.path), str(limit)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.stdout.split() == [str(32 * int(volumes.stored.astype("int64").sum()))], done.stderr[-500:]


@pytest.mark.parametrize("trial", [0, 1])
def test_shard_that_another_file_replaced_while_it_was_closed_raises(trial, damaged, monkeypatch):
    monkeypatch.setattr(open_files, "count_allowed", lambda: 1)
    reader = TrialReader(open_store(damaged.path))
    _read(reader, 0)
    path = damaged.shard_path(0)
    path.with_name("copy").write_bytes(path.read_bytes())
    os.replace(path.with_name("copy"), path)
    assert np.array_equal(_read(reader, 8), damaged.stored[8])
    with pytest.raises(StoreError, match=f"trial {trial} .*another file has taken its place") as caught:
        _read(reader, trial)
    assert caught.value.path == path
    reader.close()
    assert np.array_equal(_read(reader, trial), damaged.stored[trial])


def test_threads_read_rightly_while_shards_are_closed_under_them(volumes, monkeypatch):
    monkeypatch.setattr(open_files, "count_allowed", lambda: 1)
    reader, wrong = TrialReader(open_store(volumes.path)), []

    def read(seed):
        try:
            trials = np.random.default_rng(seed).integers(0, 42, 400).tolist()
            wrong.extend(trial for trial in trials if not np.array_equal(_read(reader, trial), volumes.stored[trial]))
        except BaseException as error:
            wrong.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


# -- other processes ---------------------------------------------------------------------------------------------


def test_reader_goes_through_pickle_without_handles(volumes):
    reader = TrialReader(open_store(volumes.path))
    _read(reader, 0)
    other = pickle.loads(pickle.dumps(reader))
    assert np.array_equal(_read(other, 41), volumes.stored[41])
    assert np.array_equal(_read(reader, 1), volumes.stored[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # what is tested
def test_reader_that_was_used_reads_on_both_sides_of_a_fork(volumes):
    reader = TrialReader(open_store(volumes.path))
    _read(reader, 0)
    child = os.fork()
    if child == 0:
        right = all(np.array_equal(_read(reader, trial), volumes.stored[trial]) for trial in range(42))
        os._exit(0 if right else 1)
    assert all(np.array_equal(_read(reader, trial), volumes.stored[trial]) for trial in reversed(range(42)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
