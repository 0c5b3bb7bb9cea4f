"""What others do to a store, its lock and its folder while a run goes on; names of one store; odd names of files."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess

import h5py
import pytest

import nsd_zarr
from nsd_zarr.conversion.events import SessionDone, TrialsDone
from nsd_zarr.conversion.lock import check_free, hold_lock
from nsd_zarr.errors import SourceError, StoreError
from nsd_zarr.simulate import Simulation, simulate_root

OPTIONS = {"trials_per_shard": 2, "workers": 1}
OPTION_WORDS = ("--trials-per-shard", 2, "--workers", 1)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "subj01.zarr"


@pytest.fixture
def lock_file(tmp_path):
    return tmp_path / "subj01.zarr.run/lock"


# -- one store, one lock -----------------------------------------------------------------------------------------


def test_store_reached_through_a_link_has_the_same_lock_and_records(source, store, tmp_path, convert):
    convert(source)
    link = tmp_path / "link.zarr"
    link.symlink_to(store.name)
    with hold_lock(store):
        for use in (check_free, lambda path: nsd_zarr.attach(path, no_experiment=True)):
            with pytest.raises(StoreError, match="in use by a live run: process"):
                use(link)
    assert nsd_zarr.convert(source, link, **OPTIONS).sessions == ()
    assert not (tmp_path / "link.zarr.run").exists()


def test_store_reached_through_a_bind_mount_has_the_same_lock(source, store, tmp_path, convert):
    convert(source)
    other = tmp_path / "container/data.zarr"
    other.mkdir(parents=True)
    if subprocess.run(["mount", "--bind", store, other], capture_output=True).returncode != 0:
        pytest.skip("a bind mount needs root and the permission to mount")
    try:
        uses = (
            check_free,
            lambda path: nsd_zarr.attach(path, no_experiment=True),
            lambda path: nsd_zarr.plan(source, path, **OPTIONS),
        )
        with hold_lock(store):
            for use in uses:
                with pytest.raises(StoreError, match="by another path"):
                    use(other)
        nsd_zarr.attach(other, no_experiment=True)
    finally:
        subprocess.run(["umount", other], check=True)


def test_folder_that_a_run_makes_is_locked_while_it_goes_on(source, store, make_recorder, start_cli):
    found = []

    def look():
        script = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        result = subprocess.run([shutil.which("python") or "python3", "-c", script, store], capture_output=True)
        found.append(result.returncode)

    nsd_zarr.convert(source, store, on_event=make_recorder(3, look), **OPTIONS)
    assert found == [1]


# -- a lock that is no lock --------------------------------------------------------------------------------------


def _link_to_a_file(lock):
    (lock.parent.parent / "thesis.tex").write_text("a year of work\n" * 99)
    lock.symlink_to("../thesis.tex")


def _link_to_nothing(lock):
    lock.symlink_to("../made-by-nobody")


ODD_LOCKS = [_link_to_a_file, _link_to_nothing, os.mkfifo, os.mkdir]


@pytest.mark.parametrize("make", ODD_LOCKS)
@pytest.mark.parametrize("command", ["convert", "attach", "repair"])
def test_lock_that_is_a_link_or_no_file_is_refused_and_nothing_is_written(
    command, make, source, store, lock_file, convert, tmp_path, run_cli
):
    if command == "convert":
        lock_file.parent.mkdir()
        words = ["convert", source, store]
    else:
        convert(source)
        lock_file.unlink()
        (store / "session/c/0").unlink()
        words = ["attach", store, "--no-experiment"] if command == "attach" else ["repair", store, "--source", source]
    make(lock_file)
    outcome = run_cli(*words)
    assert outcome.code == 4
    assert "a link, or no regular file" in outcome.paragraph
    assert not (tmp_path / "made-by-nobody").exists()
    if make is _link_to_a_file:
        assert (tmp_path / "thesis.tex").read_text() == "a year of work\n" * 99


RECORDS = ["lock", "run.json", "session-01.json", "root.json", "arrays.json"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.write_text("[" * 100_000)])
@pytest.mark.parametrize("name", RECORDS)
def test_record_that_is_a_pipe_a_folder_or_nested_without_end_is_not_waited_for(
    name, make, source, store, convert, run_cli
):
    convert(source)
    record = store.with_name("subj01.zarr.run") / name
    for words in (
        ("convert", source, store),
        ("attach", store, "--no-experiment"),
        ("repair", store, "--source", source),
    ):
        if record.is_dir():
            shutil.rmtree(record)
        record.unlink(missing_ok=True)
        make(record)
        (store / "session/c/0").unlink(missing_ok=True)
        assert run_cli(*words, *(OPTION_WORDS if words[0] == "convert" else ())).code in (0, 4)
    record.rmdir() if record.is_dir() else record.unlink(missing_ok=True)
    nsd_zarr.repair(store, source)
    assert nsd_zarr.verify(store).is_whole


# -- what happens to a run that goes on --------------------------------------------------------------------------


def _replace_store_by_that_of_another_run(store):
    for folder in (store, store.with_name(store.name + ".run")):
        shutil.rmtree(folder)
    nsd_zarr.convert(store.parent / "others", store, **OPTIONS)


def _remove_lock(store):
    (store.with_name(store.name + ".run") / "lock").unlink()


def _take_over_from_another_host(store):
    lock = store.with_name(store.name + ".run") / "lock"
    lock.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": "now", "beat": "000000000007"}))


def _take_over_and_give_back(store):
    (store.with_name(store.name + ".run") / "lock").write_text("")


def _move_store(store):
    store.rename(store.with_name("moved.zarr"))
    shutil.copytree(store.with_name("moved.zarr"), store)


TAKEN = [
    _replace_store_by_that_of_another_run,
    _remove_lock,
    _take_over_from_another_host,
    _take_over_and_give_back,
    _move_store,
]


@pytest.mark.parametrize("take", TAKEN)
def test_run_whose_store_or_lock_was_taken_completes_nothing(take, source, make_source, store):
    folder = make_source(folder="others", dtype=">i4")
    for path in folder.glob("*.hdf5"):
        shutil.copystat(source / path.name, path)

    def take_after_the_last_session(event):
        if isinstance(event, SessionDone) and event.session == 3:
            take(store)

    with pytest.raises(StoreError, match="no longer held by this run"):
        nsd_zarr.convert(source, store, on_event=take_after_the_last_session, **OPTIONS)
    if take is _replace_store_by_that_of_another_run:
        assert nsd_zarr.verify(store, folder).is_whole
        return
    with pytest.raises(StoreError, match="has not finished"):
        nsd_zarr.open_dataset(store)


@pytest.fixture
def always_look(monkeypatch):
    """Look at the lock each time that one asks, rather than once a second."""
    monkeypatch.setattr("nsd_zarr.conversion.lock.LOOK_AGAIN_SECONDS", 0)


def _list_files(store):
    """Inode and time of change of every file of a store and its run, but for the lock and files half written."""
    folders = (store, store.with_name(store.name + ".run"))
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files if path.suffix not in ("", ".partial")
    }


@pytest.mark.usefixtures("always_look")
@pytest.mark.parametrize("trial", [1, 2], ids=["inside a shard", "before a shard gets its name"])
@pytest.mark.parametrize("take", TAKEN)
def test_run_whose_store_or_lock_is_taken_midway_writes_nothing_further(take, trial, source, make_source, store):
    make_source(folder="others", dtype=">i4")
    seen, left = [], {}

    def take_midway(event):
        seen.append(event)
        if sum(isinstance(event, TrialsDone) for event in seen) == trial and not left:
            take(store)
            left.update(_list_files(store))

    with pytest.raises(StoreError, match="no longer held by this run"):
        nsd_zarr.convert(source, store, on_event=take_midway, **OPTIONS)
    assert _list_files(store) == left
    assert not any(isinstance(event, SessionDone) for event in seen)


@pytest.mark.usefixtures("always_look")
@pytest.mark.parametrize("take", TAKEN[1:])
def test_repair_whose_lock_is_taken_midway_writes_nothing_further(take, source, store, convert, monkeypatch):
    from nsd_zarr.maintenance import repair as module

    convert(source)
    (store / "betas/c/1/0/0/0").unlink()
    real, left = module.run_unit, {}

    def take_then_run(unit, context):
        if not unit.expected_digests:
            take(store)
            left.update(_list_files(store))
        return real(unit, context)

    monkeypatch.setattr(module, "run_unit", take_then_run)
    with pytest.raises(StoreError, match="no longer held by this run"):
        nsd_zarr.repair(store, source)
    assert left
    assert _list_files(store) == left


@pytest.mark.usefixtures("always_look")
@pytest.mark.parametrize("take", TAKEN[1:])
def test_attach_whose_lock_is_taken_midway_writes_nothing_further(take, tmp_path, store, monkeypatch):
    from nsd_zarr.maintenance import attach as module

    simulate_root(tmp_path / "nsd", Simulation(1, (26, 5, 11, 7), rois=("streams",), hemispheres=False))
    nsd_zarr.convert(tmp_path / "nsd", store, no_experiment=True)
    real, left = module.make_experiment_arrays, {}

    def take_after_the_first(*words):
        arrays = real(*words)
        yield next(arrays)
        take(store)
        left.update(_list_files(store))
        yield from arrays

    monkeypatch.setattr(module, "make_experiment_arrays", take_after_the_first)
    with pytest.raises(StoreError, match="no longer held by this run"):
        nsd_zarr.attach(store, tmp_path / "nsd")
    assert left
    assert _list_files(store) == left


def test_name_of_another_host_in_the_lock_is_not_written_over(store, lock_file, monkeypatch):
    monkeypatch.setattr("nsd_zarr.conversion.lock.BEAT_SECONDS", 0.001)
    with hold_lock(store):
        _take_over_from_another_host(store)
        named = lock_file.read_text()
    assert json.loads(lock_file.read_text())["host"] == json.loads(named)["host"] == "elsewhere"


def test_shard_that_went_missing_before_the_last_write_is_refused_and_made_again(
    source, store, make_recorder, read_source
):
    def lose():
        (store / "betas/c/0/0/0/0").unlink()

    with pytest.raises(StoreError, match="betas/c/0/0/0/0 is not in the store as it was written"):
        nsd_zarr.convert(source, store, on_event=make_recorder(15, lose), **OPTIONS)
    nsd_zarr.convert(source, store, **OPTIONS)
    assert nsd_zarr.verify(store, source).is_whole


# -- what readers would refuse -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["my\u00a0region", "my\tregion", "my\\region", "x" * 196])
def test_region_of_a_name_that_readers_refuse_is_refused_before_anything_is_written(name, tmp_path, digest_tree):
    root = simulate_root(tmp_path / "nsd", Simulation(1, (26, 5, 11, 7), rois=("streams",), hemispheres=False))
    store = tmp_path / "subj01.zarr"
    nsd_zarr.convert(tmp_path / "nsd", store)
    region = tmp_path / f"{name}.nii.gz"
    shutil.copy(root.rois["streams"], region)
    before = digest_tree(store)
    with pytest.raises(SourceError, match="cannot be the name of an array"):
        nsd_zarr.attach(store, roi=region)
    with pytest.raises(SourceError, match="cannot be the name of an array"):
        nsd_zarr.convert(tmp_path / "nsd", tmp_path / "new.zarr", roi=region)
    assert digest_tree(store) == before
    assert nsd_zarr.verify(store).is_whole


def test_root_document_that_readers_would_refuse_is_not_written(source, store, monkeypatch):
    monkeypatch.setattr("nsd_zarr.conversion.root_copy.MAX_ROOT_BYTES", 5_000)
    with pytest.raises(StoreError, match=r"readers would refuse the store: it has \d+ bytes, expected at most 5000"):
        nsd_zarr.convert(source, store, **OPTIONS)
    with pytest.raises(StoreError, match="has not finished"):
        nsd_zarr.open_dataset(store)
    monkeypatch.undo()
    nsd_zarr.convert(source, store, **OPTIONS)
    assert nsd_zarr.verify(store).is_whole


# -- folders and the disk ----------------------------------------------------------------------------------------


def test_folders_that_a_killed_run_made_are_flushed_by_the_next(source, store, interrupt, monkeypatch):
    interrupt(source)
    made = {path for path in (store / "betas").rglob("*") if path.is_dir()}
    assert len(made) > 9
    flushed = set()

    def note(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            flushed.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", note)
    nsd_zarr.convert(source, store, **OPTIONS)
    assert {path.stat().st_ino for path in made} <= flushed


@pytest.mark.parametrize(("code", "converts"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)])
def test_file_system_that_does_not_flush_folders_is_used(code, converts, source, store, monkeypatch):
    def refuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    if not converts:
        with pytest.raises(StoreError, match="cannot write: Input/output error"):
            nsd_zarr.convert(source, store, **OPTIONS)
        return
    nsd_zarr.convert(source, store, **OPTIONS)
    with h5py.File(source / "betas_session02.hdf5") as file:
        assert (nsd_zarr.open_dataset(store, raw=True).betas[7].values == file["betas"][1]).all()
