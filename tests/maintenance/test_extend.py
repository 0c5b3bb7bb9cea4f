"""Sessions added to a finished store, or replaced in it: the bytes of a conversion of all sessions at once."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from builders import create_source, make_values, stop_at_change, watch_changes

import nsd_zarr
from nsd_zarr.errors import NsdZarrError, ResumeRefused, StoreError
from nsd_zarr.places import swap
from nsd_zarr.simulate import Simulation, simulate_root
from nsd_zarr.store.reader import TrialReader
from nsd_zarr.store.root import open_store

OPTIONS = {"trials_per_shard": 2, "workers": 1, "codec": "zstd", "clevel": 5}
"""None of them the default: an extension is not told."""
SIMULATION = Simulation(4, (26, 5, 11, 7), rois=("nsdgeneral", "streams"), hemispheres=False)
TRIALS, SHAPE = 4, (3, 5, 7)


def make_session_values(session, seed=0):
    return make_values(session + 10 * seed, TRIALS, SHAPE)


@pytest.fixture
def make(tmp_path):
    """A folder of sessions; of those in *other* the file was delivered anew, with other values."""

    def make_folder(name, sessions, other=()):
        values = {session: make_session_values(session, int(session in other)) for session in sessions}
        folder = create_source(tmp_path / name, values)
        for session in sessions:  # A copy with its times kept: known as the same file.
            os.utime(folder / f"betas_session{session:02d}.hdf5", (session, 100 * session + (session in other)))
        return folder

    return make_folder


@pytest.fixture
def at_once(convert, digest_tree):
    """Digests of the store that one conversion of a folder makes."""
    return lambda folder, name="at_once.zarr", **options: digest_tree(convert(folder, name, **OPTIONS | options))


def extend(source, store, **options):
    return nsd_zarr.convert(source, store, workers=1, **options)


def list_run_folder(store):
    return {path.name for path in store.with_name(store.name + ".run").iterdir()}


# -- the bytes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "then"),
    [((1, 2), (1, 2, 3, 4)), ((1, 3), (1, 2, 3)), ((3, 4), (1, 2, 3, 4)), ((2,), (1, 2, 3))],
    ids=["behind", "between", "before", "around"],
)
def test_extended_store_is_the_one_made_at_once(first, then, make, convert, at_once, digest_tree, make_recorder):
    store = convert(make("first", first), sessions=first, **OPTIONS)
    recorder = make_recorder()
    report = extend(make("then", then), store, on_event=recorder)
    assert digest_tree(store) == at_once(make("then", then))
    assert recorder.sessions == sorted({*then} - {*first})
    assert (report.finished_before, report.trials, report.kept) == (len(first), TRIALS * len(then), ())
    assert nsd_zarr.verify(store, make("then", then)).is_whole
    names = {f"session-{session:02d}.json" for session in then}
    assert list_run_folder(store) == {"lock", "run.json", "root.json", *names}
    assert extend(make("then", then), store).sessions == ()


def test_shards_that_stay_are_neither_read_nor_written(make, convert, monkeypatch):
    store = convert(make("first", (1, 3)), sessions=(1, 3), **OPTIONS)
    before = [(store / f"betas/c/{shard}/0/0/0").stat().st_ino for shard in range(4)]
    extend(make("then", (1, 2, 3)), store)
    after = [(store / f"betas/c/{shard}/0/0/0").stat().st_ino for shard in (0, 1, 4, 5)]
    assert before == after


def test_shards_are_copied_where_files_cannot_have_two_names(make, convert, at_once, digest_tree, monkeypatch):
    def refuse(old, new, **options):
        raise OSError(errno.EPERM, "Operation not permitted")

    store = convert(make("first", (1, 3)), sessions=(1, 3), **OPTIONS)
    monkeypatch.setattr(os, "link", refuse)
    extend(make("then", (1, 2, 3)), store)
    assert digest_tree(store) == at_once(make("then", (1, 2, 3)))


def test_replaced_session_is_the_one_of_the_new_file(make, convert, at_once, digest_tree, make_recorder):
    store, source = convert(make("source", (1, 2, 3)), **OPTIONS), make("source", (1, 2, 3), other=[2])
    with pytest.raises(ResumeRefused, match="--replace-session 2"):
        extend(source, store)
    recorder = make_recorder()
    extend(source, store, replace_session=2, on_event=recorder)
    assert recorder.sessions == [2]
    assert digest_tree(store) == at_once(source)
    assert extend(source, store, replace_session=2).sessions == ()  # It is known by now.


def test_sessions_are_added_and_replaced_at_once(make, convert, at_once, digest_tree):
    store, source = convert(make("source", (2, 3)), sessions=(2, 3), **OPTIONS), make("source", (1, 2, 3), other=[3])
    extend(source, store, replace_session="3")
    assert digest_tree(store) == at_once(source)


def test_sessions_whose_files_are_gone_stay(make, convert, at_once, digest_tree, run_cli):
    store = convert(make("first", (1, 2)), **OPTIONS)
    report = extend(make("rest", (3, 4)), store)
    assert digest_tree(store) == at_once(make("all", (1, 2, 3, 4)))
    assert report.kept == (1, 2)
    outcome = run_cli("convert", make("rest", (3, 4)), store)
    assert (
        outcome.out == f"{store} is finished: nothing to do.\nnote        sessions 1-2 not in SOURCE: kept as stored\n"
    )


def test_run_folder_that_is_lost_costs_reading_the_sessions_that_stay(
    make, convert, at_once, digest_tree, make_recorder
):
    store, recorder = convert(make("first", (1, 2)), **OPTIONS), make_recorder()
    shutil.rmtree(store.with_name(store.name + ".run"))
    extend(make("all", (1, 2, 3)), store, on_event=recorder)
    assert recorder.sessions == [1, 2, 3]
    assert digest_tree(store) == at_once(make("all", (1, 2, 3)))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """An NSD root of four sessions, and one that has two of them."""
    top = tmp_path_factory.mktemp("extend")
    root = simulate_root(top / "nsd", SIMULATION)
    shutil.copytree(top / "nsd", top / "half")
    for session in (1, 4):
        (top / "half" / root.betas_folder.relative_to(top / "nsd") / f"betas_session{session:02d}.hdf5").unlink()
    return top


def test_experiment_is_extended_as_well(simulated, tmp_path, digest_tree):
    options = {"trials_per_shard": 13, "workers": 1}
    nsd_zarr.convert(simulated / "half", tmp_path / "grown.zarr", sessions="2-3", **options)
    nsd_zarr.convert(simulated / "nsd", tmp_path / "grown.zarr", workers=1)
    nsd_zarr.convert(simulated / "nsd", tmp_path / "at_once.zarr", **options)
    assert digest_tree(tmp_path / "grown.zarr") == digest_tree(tmp_path / "at_once.zarr")
    assert {"nsd_id", "valid", "roi_streams", "ncsnr"} <= set(open_store(tmp_path / "grown.zarr").members)


def test_store_without_an_experiment_stays_without(simulated, tmp_path, digest_tree):
    options = {"trials_per_shard": 13, "workers": 1, "no_experiment": True}
    nsd_zarr.convert(simulated / "half", tmp_path / "grown.zarr", sessions="2-3", **options)
    report = nsd_zarr.convert(simulated / "nsd", tmp_path / "grown.zarr", workers=1)
    assert report.experiment.notes == ("the store has no experiment, and gets none: nsd-zarr attach gives it one",)
    nsd_zarr.convert(simulated / "nsd", tmp_path / "at_once.zarr", **options)
    assert digest_tree(tmp_path / "grown.zarr") == digest_tree(tmp_path / "at_once.zarr")


def test_experiment_that_the_source_lacks_is_not_lost(simulated, tmp_path, check_refused):
    store = tmp_path / "subj01.zarr"
    nsd_zarr.convert(simulated / "half", store, sessions="2-3", trials_per_shard=13, workers=1)
    for option, code, problem in (
        ("--skip-roi=streams", 3, "the store has roi_streams"),
        ("--no-experiment", 4, "asked"),
    ):
        assert problem in check_refused(code, "convert", simulated / "nsd", store, option)


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option",
    [("--codec", "lz4"), ("--clevel", 3), ("--trials-per-shard", 4), ("--dataset", "others")],
    ids=lambda each: each[0],
)
def test_other_settings_than_the_stores_are_refused(option, make, convert, check_refused):
    store, source = convert(make("first", (1, 2)), **OPTIONS), make("all", (1, 2, 3))
    for command in ("plan", "convert"):
        assert "the store is finished, with other settings" in check_refused(4, command, source, store, *option)


def test_own_settings_may_be_asked_for(make, convert, at_once, digest_tree):
    store = convert(make("first", (1, 2)), **OPTIONS)
    extend(make("all", (1, 2, 3)), store, codec="zstd", clevel=5, trials_per_shard=2)
    assert digest_tree(store) == at_once(make("all", (1, 2, 3)))


def test_session_of_another_shape_is_refused(make, convert, tmp_path, check_refused):
    store = convert(make("first", (1, 2)), **OPTIONS)
    create_source(tmp_path / "odd", {3: make_values(0, TRIALS, (3, 5, 8))})
    assert "shape [4, 3, 5, 7], now [4, 3, 5, 8]" in check_refused(4, "convert", tmp_path / "odd", store)


def test_gap_among_new_sessions_is_refused(make, convert, check_refused):
    store = convert(make("first", (1, 2)), **OPTIONS)
    refusal = check_refused(3, "convert", make("gap", (1, 4)), store)
    assert "session 03 is missing" in refusal
    assert "--sessions 1-2,4" in refusal


@pytest.mark.parametrize(("number", "code", "problem"), [(9, 2, "no session 9"), (2, 3, "session 2 to be replaced")])
def test_session_that_cannot_be_replaced_is_refused(number, code, problem, make, convert, check_refused):
    store = convert(make("first", (1, 2)), **OPTIONS)
    assert problem in check_refused(code, "convert", make("rest", (1, 3)), store, "--replace-session", number)


def test_replacing_in_what_is_not_finished_is_refused(source, tmp_path, interrupt, check_refused):
    for store in (tmp_path / "new.zarr", interrupt(source)):
        assert "no finished store" in check_refused(4, "convert", source, store, "--replace-session", 1)


@pytest.mark.parametrize("name", ["mine/zarr.json", "notes.txt", "betas/c/notes.txt", "link"])
def test_store_in_which_the_user_has_files_is_refused(name, make, convert, check_refused):
    store = convert(make("first", (1, 2)), **OPTIONS)
    (store / name).parent.mkdir(exist_ok=True)
    (store / name).symlink_to(store / "betas") if name == "link" else (store / name).write_text("{}")
    assert f"cannot be extended: {name} in its folder" in check_refused(4, "convert", make("all", (1, 2, 3)), store)


def test_what_killed_runs_left_in_the_store_stops_nothing(make, convert, at_once, digest_tree):
    store = convert(make("first", (1, 2)), **OPTIONS)
    (store / "betas/c/0/0/0/0.1234.partial").write_bytes(b"half")
    extend(make("all", (1, 2, 3)), store)
    assert digest_tree(store) == at_once(make("all", (1, 2, 3)))


def test_store_of_other_libraries_is_refused(make, convert, check_refused, monkeypatch):
    store = convert(make("first", (1, 2)), **OPTIONS)
    versions = {"format_version": "1", "numcodecs": "0.0.1", "c-blosc": "1.21.0"}
    monkeypatch.setattr("nsd_zarr.maintenance.extension.allowed.make_byte_versions", lambda: versions)
    assert "now 0.0.1" in check_refused(4, "convert", make("all", (1, 2, 3)), store)


def test_shard_that_is_lost_is_refused_before_the_store_is_touched(make, convert, digest_tree):
    store = convert(make("first", (1, 2)), **OPTIONS)
    (store / "betas/c/1/0/0/0").unlink()
    before = digest_tree(store)
    with pytest.raises(StoreError, match="cannot be taken over: No such file"):
        extend(make("all", (1, 2, 3)), store)
    assert digest_tree(store) == before


# -- stopped at any moment ---------------------------------------------------------------------------------------


@pytest.fixture(params=["exchange", "two renames"])
def switch(request, monkeypatch):
    """Both ways in which folders change places."""
    if request.param == "two renames":
        monkeypatch.setattr(swap, "exchange_names", lambda one, other: False)
    return request.param


@pytest.fixture
def former(make, convert):
    """Copies the same finished store to the same path, run folder and all; and the source that extends it."""
    store = convert(make("first", (1, 3)), sessions=(1, 3), **OPTIONS)
    kept, run = store.with_name("kept"), store.with_name(store.name + ".run")
    shutil.copytree(store, kept)
    shutil.copytree(run, store.with_name("kept.run"))

    def put_back() -> Path:
        for old, new in ((kept, store), (store.with_name("kept.run"), run)):
            shutil.rmtree(new)
            shutil.copytree(old, new)
        return store

    return put_back


def test_extension_stopped_at_any_change_of_a_name_goes_on(former, make, at_once, digest_tree, switch):
    source, expected = make("then", (1, 2, 3), other=[3]), at_once(make("then", (1, 2, 3), other=[3]))
    store = former()
    before, number = digest_tree(store), 0
    while True:
        number += 1
        with stop_at_change(number) as kinds:
            extend(source, former(), replace_session=3)
            break
        assert len(kinds) >= number  # A shard that another thread commits may follow.
        if store.exists():
            assert digest_tree(store) in (before, expected), number
        else:
            assert switch == "two renames"
        extend(source, store, replace_session=3)
        assert digest_tree(store) == expected, number
        assert not {"next", "next.run", "former", "extension.json"} & list_run_folder(store)
        if not {"exchange", "rename"} & {*kinds}:
            number += 4  # Of the many that are alike before the switch.
    assert number > 40


def test_stopped_between_two_renames_says_so_and_is_ended(
    former, make, at_once, digest_tree, monkeypatch, check_refused
):
    monkeypatch.setattr(swap, "exchange_names", lambda one, other: False)
    source, store, rename = make("then", (1, 2, 3)), former(), os.rename

    def die(old, new):
        rename(old, new)
        os._exit(9)

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(os, "rename", die)
        extend(source, store)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not store.exists()
    assert "stopped at its last step" in check_refused(4, "plan", source, store)
    extend(source, store)
    assert digest_tree(store) == at_once(source)


def test_failed_rename_puts_the_store_back(former, make, digest_tree, monkeypatch):
    monkeypatch.setattr(swap, "exchange_names", lambda one, other: False)
    store, rename = former(), os.rename
    before, source = digest_tree(store), make("then", (1, 2, 3))

    def fail(old, new):
        if Path(old).name == "next":
            raise OSError(errno.EIO, "Input/output error")
        rename(old, new)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(StoreError, match="Input/output error"):
        extend(source, store)
    assert digest_tree(store) == before


def stop_in_the_middle(source, store, **options):
    with stop_at_change(12):
        extend(source, store, **options)
        raise AssertionError("it was not stopped")
    assert "extension.json" in list_run_folder(store)


def test_unfinished_extension_to_other_sessions_is_refused_or_forgotten(former, make, at_once, digest_tree):
    store = former()
    stop_in_the_middle(make("then", (1, 2, 3)), store)
    with pytest.raises(ResumeRefused, match="sessions"):
        extend(make("more", (1, 2, 3, 4)), store)
    extend(make("more", (1, 2, 3, 4)), store, fresh=True)
    assert digest_tree(store) == at_once(make("more", (1, 2, 3, 4)))


def test_store_that_changed_since_is_extended_from_the_start(former, make, at_once, digest_tree, simulated):
    store, source = former(), make("then", (1, 2, 3))
    stop_in_the_middle(source, store)
    shutil.rmtree(store)
    nsd_zarr.convert(make("first", (1, 3)), store, sessions=(1, 3), **OPTIONS | {"trials_per_shard": 4})
    extend(source, store)
    assert digest_tree(store) == at_once(source, trials_per_shard=4)


def test_shard_repaired_meanwhile_is_taken_over_anew(former, make, at_once, digest_tree):
    store, source = former(), make("then", (1, 2, 3))
    stop_in_the_middle(source, store)
    shard = store / "betas/c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    data[20] ^= 1
    with shard.open("r+b") as file:
        file.write(data)  # In place: both generations have it.
    assert nsd_zarr.repair(store, make("first", (1, 3))).is_whole
    extend(source, store)
    assert digest_tree(store) == at_once(source)


def test_fresh_without_anything_to_forget_is_refused(former, make, check_refused):
    assert "--fresh forgets an unfinished run" in check_refused(
        4, "convert", make("then", (1, 2, 3)), former(), "--fresh"
    )


# -- readers -----------------------------------------------------------------------------------------------------


def test_reader_that_is_open_all_the_while_is_right_or_raises(former, make, switch, monkeypatch):
    store, source = former(), make("then", (1, 2, 3), other=[3])
    old = np.concatenate([make_session_values(1), make_session_values(3)])
    new = np.concatenate([make_session_values(1), make_session_values(2), make_session_values(3, 1)])
    kept, forgetful = TrialReader(open_store(store)), TrialReader(open_store(store))
    dataset, seen = nsd_zarr.open_dataset(store, raw=True), set()

    def compare(name, read, expected):
        try:
            assert np.array_equal(read(), expected), name
            seen.add((name, "right"))
        except NsdZarrError:
            seen.add((name, "raised"))

    def read_trial(reader, trial):
        values = np.empty(SHAPE, np.int16)
        reader.read_into(trial, values)
        return values

    def look(number=0):
        forgetful.close()
        for trial in range(len(old)):
            compare("kept", lambda trial=trial: read_trial(kept, trial), old[trial])
            compare("forgetful", lambda trial=trial: read_trial(forgetful, trial), old[trial])
        compare("dataset", lambda: dataset.betas[-1].values, old[-1])
        try:
            opened = nsd_zarr.open_dataset(store, raw=True)
        except NsdZarrError:
            seen.add(("opened", "raised"))
            return
        assert np.array_equal(opened.betas.values, old if opened.sizes["trial"] == len(old) else new)
        seen.add(("opened", opened.sizes["trial"]))

    with watch_changes(look):
        extend(source, store, replace_session=3)
    look()
    assert {
        ("kept", "right"),
        ("forgetful", "right"),
        ("forgetful", "raised"),
        ("opened", len(old)),
        ("opened", len(new)),
    } <= seen
    assert (("opened", "raised") in seen) == (switch == "two renames")
