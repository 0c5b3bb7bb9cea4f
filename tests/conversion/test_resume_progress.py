"""What an earlier run left: gone on with, proved again, or refused where settings or sources are others."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import h5py
import pytest

import nsd_zarr
from nsd_zarr.conversion import resume as module
from nsd_zarr.conversion import settings
from nsd_zarr.conversion.ledger import Ledger

OPTIONS = ("--trials-per-shard", 2, "--workers", 1)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "subj01.zarr"


def _touch(path, seconds=7):
    os.utime(path, ns=(seconds * 10**9,) * 2)


def _change_value(path, trial=4, keep_time=False):
    modified = path.stat().st_mtime_ns
    with h5py.File(path, "r+") as file:
        file["betas"][trial, 2, 3, 5] += 1
    if keep_time:
        os.utime(path, ns=(modified, modified))


# -- finished ----------------------------------------------------------------------------------------------------

CHANGES = {
    "codec": ("--codec", "zstd"),
    "clevel": ("--clevel", 6),
    "trials_per_shard": ("--trials-per-shard", 3),
}


@pytest.mark.parametrize("name", CHANGES)
def test_store_finished_with_other_settings_is_refused(name, source, convert, check_refused):
    store = convert(source)
    paragraph = check_refused(4, "convert", source, store, *OPTIONS, *CHANGES[name])
    assert f"the store is finished, with other settings: {name} " in paragraph


def test_finished_store_is_not_forgotten_by_fresh(source, convert, check_refused):
    assert "this is not one" in check_refused(4, "convert", source, convert(source), *OPTIONS, "--fresh")


def test_finished_store_whose_sources_were_touched_is_compared_once(source, convert, make_recorder, digest_tree):
    store = convert(source)
    before = digest_tree(store)
    _touch(source / "betas_session02.hdf5")
    for expected in ([2], []):
        recorder = make_recorder()
        convert(source, on_event=recorder)
        assert recorder.sessions == expected
    assert digest_tree(store) == before


def test_finished_store_whose_source_changed_is_refused(source, convert, run_cli, digest_tree):
    store = convert(source)
    before = digest_tree(store.parent)
    _change_value(source / "betas_session02.hdf5")
    before |= {f"source/{path.name}": digest for path, digest in _digests(source, digest_tree)}
    outcome = run_cli("convert", source, store, *OPTIONS)
    assert outcome.code == 5
    assert outcome.paragraph.startswith("session 02: the source changed since it was converted: trial 4 of the session")
    assert digest_tree(store.parent) == before


def _digests(folder, digest_tree):
    return [(folder / name, digest) for name, digest in digest_tree(folder).items()]


def test_finished_store_without_its_run_proves_identity_by_reading(source, convert, make_recorder, digest_tree):
    store = convert(source)
    before = digest_tree(store)
    shutil.rmtree(store.with_name("subj01.zarr.run"))
    for expected in ([1, 2, 3], []):
        recorder = make_recorder()
        report = nsd_zarr.convert(source, store, trials_per_shard=2, on_event=recorder)
        assert recorder.sessions == expected
        assert {done.stored_bytes for done in report.sessions} <= {0}
    assert digest_tree(store) == before


def test_finished_store_without_its_run_and_with_another_source_is_refused(source, convert, run_cli, digest_tree):
    store = convert(source)
    before = digest_tree(store)
    shutil.rmtree(store.with_name("subj01.zarr.run"))
    _change_value(source / "betas_session03.hdf5", trial=0, keep_time=True)
    outcome = run_cli("convert", source, store, *OPTIONS)
    assert (outcome.code, outcome.paragraph[:12]) == (5, "session 03: ")
    assert digest_tree(store) == before


def test_finished_store_moved_without_its_run_goes_on_being_one(source, convert, tmp_path, make_recorder):
    moved = convert(source).rename(tmp_path / "moved.zarr")
    recorder = make_recorder()
    nsd_zarr.convert(source, moved, trials_per_shard=2, on_event=recorder)
    assert recorder.sessions == [1, 2, 3]


# -- unfinished --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHANGES)
def test_run_begun_with_other_settings_is_refused(name, source, interrupt, check_refused):
    store = interrupt(source)
    paragraph = check_refused(5, "convert", source, store, *OPTIONS, *CHANGES[name])
    assert f"the run began with other settings: {name} " in paragraph
    assert "--fresh" in paragraph


def test_run_begun_with_other_libraries_is_refused(source, interrupt, check_refused, monkeypatch):
    store = interrupt(source)
    versions = module.make_byte_versions()
    monkeypatch.setattr(module, "make_byte_versions", lambda: versions | {"numcodecs": "99.0"})
    paragraph = check_refused(5, "convert", source, store, *OPTIONS)
    assert f"numcodecs {versions['numcodecs']}, now 99.0" in paragraph


def test_run_goes_on_after_an_upgrade_of_what_decides_no_byte(
    source, interrupt, convert, make_recorder, monkeypatch, digest_tree
):
    store, real = interrupt(source, at_trial=9), settings.version
    upgraded = {"nsd-zarr": "99.1", "numpy": "99.2", "h5py": "99.3"}
    monkeypatch.setattr(settings, "version", lambda name: upgraded.get(name) or real(name))
    monkeypatch.setattr(h5py.version, "hdf5_version", "99.4")
    recorder = make_recorder()
    convert(source, on_event=recorder)
    assert recorder.sessions == [2, 3]
    assert digest_tree(store) == digest_tree(convert(source, "undisturbed.zarr"))
    assert nsd_zarr.verify(store, source).is_whole


def test_finished_store_made_by_other_libraries_is_left_alone(source, convert, monkeypatch, make_recorder):
    store = convert(source)
    monkeypatch.setattr(module, "make_byte_versions", lambda: {"numcodecs": "99.0"})
    recorder = make_recorder()
    nsd_zarr.convert(source, store, trials_per_shard=2, on_event=recorder)
    assert recorder.events == []


@pytest.mark.parametrize("change", [_touch, _change_value])
def test_source_that_changed_before_it_was_converted_is_refused(change, source, interrupt, check_refused):
    store = interrupt(source, at_trial=9)
    change(source / "betas_session03.hdf5")
    paragraph = check_refused(5, "convert", source, store, *OPTIONS)
    assert paragraph.startswith(
        "session 03: the source changed since the run began: its modification time is another. Put the former file back"
    )


def test_source_of_another_size_is_refused_with_both_sizes(source, make_session, interrupt, check_refused):
    store, path = interrupt(source, at_trial=9), source / "betas_session03.hdf5"
    before = path.stat().st_size
    make_session(3, userblock=512)
    paragraph = check_refused(5, "convert", source, store, *OPTIONS)
    assert f"{path.stat().st_size} bytes, expected {before}" in paragraph


def test_source_of_another_name_is_refused_with_both_names(source, interrupt, check_refused):
    store = interrupt(source, at_trial=9)
    (source / "betas_session03.hdf5").rename(source / "other_session03.hdf5")
    paragraph = check_refused(5, "convert", f"{source}/*session*.hdf5", store, *OPTIONS)
    assert "file other_session03.hdf5, expected betas_session03.hdf5" in paragraph


def test_source_that_changed_after_it_was_converted_is_refused_by_value(
    source, interrupt, run_cli, digest_tree, recorded_sessions
):
    store = interrupt(source, at_trial=9)
    before, recorded = digest_tree(store), recorded_sessions(store)
    _change_value(source / "betas_session01.hdf5", trial=2)
    outcome = run_cli("convert", source, store, *OPTIONS)
    assert outcome.code == 5
    assert outcome.paragraph.startswith("session 01: the source changed since it was converted: trial 2 of the session")
    assert (recorded, recorded_sessions(store)) == ([1], [1])
    assert {name: digest for name, digest in digest_tree(store).items() if name in before} == before


def test_source_touched_after_it_was_converted_is_read_again_and_gone_on_with(
    source, interrupt, convert, digest_tree, make_recorder
):
    store = interrupt(source, at_trial=9)
    shard = store / "betas/c/0/0/0/0"
    written = shard.stat().st_mtime_ns
    _touch(source / "betas_session01.hdf5")
    recorder = make_recorder()
    convert(source, on_event=recorder)
    assert (recorder.sessions, shard.stat().st_mtime_ns) == ([1, 2, 3], written)
    assert digest_tree(store) == digest_tree(convert(source, "undisturbed.zarr"))


def test_sources_moved_with_their_times_are_the_same(source, interrupt, convert, tmp_path, make_recorder):
    interrupt(source, at_trial=9)
    shutil.copytree(source, tmp_path / "elsewhere", copy_function=shutil.copy2)
    recorder = make_recorder()
    convert(tmp_path / "elsewhere", on_event=recorder)
    assert recorder.sessions == [2, 3]


# -- fresh -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("--codec", "zstd")], ids=["same settings", "other settings"])
def test_fresh_forgets_an_unfinished_run(words, source, interrupt, run_cli, convert, digest_tree, make_recorder):
    store = interrupt(source, at_trial=9)
    assert run_cli("convert", source, store, *OPTIONS, *words, "--fresh").code == 0
    codec = {"codec": "zstd"} if words else {}
    assert digest_tree(store) == digest_tree(convert(source, "undisturbed.zarr", **codec))


def test_fresh_takes_sources_that_changed(source, interrupt, run_cli):
    store = interrupt(source, at_trial=9)
    _change_value(source / "betas_session03.hdf5")
    assert run_cli("convert", source, store, *OPTIONS, "--fresh").code == 0
    assert nsd_zarr.verify(store, source).is_whole


def test_fresh_where_nothing_is_starts(source, store, run_cli):
    assert run_cli("convert", source, store, *OPTIONS, "--fresh").code == 0


def test_fresh_of_plan_forgets_nothing(source, interrupt, run_cli, digest_tree):
    store = interrupt(source)
    before = digest_tree(store.parent)
    printed = json.loads(run_cli("plan", source, store, *OPTIONS, "--fresh", "--json").out)
    assert (printed["state"], printed["units_of_work"]) == ("new", 3)
    assert digest_tree(store.parent) == before


@pytest.mark.parametrize("words", [(), ("--fresh",)], ids=["the same", "fresh again"])
def test_fresh_killed_while_it_removes_can_be_run_again(
    words, source, interrupt, convert, run_cli, digest_tree, monkeypatch
):
    undisturbed, unlink = digest_tree(convert(source, "undisturbed.zarr")), os.unlink
    for removals in range(12):
        store, left = interrupt(source, f"killed{removals}.zarr", at_trial=13), list(range(removals))

        def stop(path, *, dir_fd=None, store=store, left=left):
            if not left:
                raise KeyboardInterrupt
            left.pop()
            unlink(path, dir_fd=dir_fd)

        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", stop)
            patch.setattr(Path, "unlink", lambda path, missing_ok=False: stop(path))
            assert run_cli("convert", source, store, *OPTIONS, "--fresh").code == 130
        assert run_cli("convert", source, store, *OPTIONS, *words).code == 0
        assert digest_tree(store) == undisturbed


def test_ledger_outlives_its_store_and_is_begun_anew(source, interrupt, convert, make_recorder):
    store = interrupt(source, at_trial=15)
    shutil.rmtree(store)
    recorder = make_recorder()
    convert(source, on_event=recorder)
    assert recorder.sessions == [1, 2, 3]
    assert sorted(Ledger(store).read_sources()) == [1, 2, 3]
