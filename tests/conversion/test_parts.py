"""One conversion shared by several processes: --part i/n, in any order and number, then the command that finishes."""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nsd_zarr
from nsd_zarr.conversion import lock
from nsd_zarr.conversion.lock import hold_lock, hold_part_lock
from nsd_zarr.errors import ConfigError, ResumeRefused, StoreError
from nsd_zarr.layout import Part, parse_part
from nsd_zarr.places.holder import write_holder
from nsd_zarr.simulate import Simulation, simulate_root

OPTIONS = {"trials_per_shard": 2, "workers": 1}


@pytest.fixture
def store(tmp_path):
    return tmp_path / "subj01.zarr"


@pytest.fixture
def source(make_source):
    return make_source((1, 2, 3, 4, 5))


@pytest.fixture
def expected(source, convert, digest_tree):
    return digest_tree(convert(source, "at_once.zarr"))


def convert_part(source, store, part, **options):
    return nsd_zarr.convert(source, store, part=part, **OPTIONS | options)


# -- which sessions ----------------------------------------------------------------------------------------------


@given(st.integers(0, 50), st.integers(1, 60))
def test_every_session_belongs_to_one_part(sessions, count):
    parts = [Part(number, count).take(range(sessions)) for number in range(1, count + 1)]
    assert sorted(itertools.chain(*parts)) == list(range(sessions))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "3/", "/3", "a/b", "1/0", "-1/3", "1/3/5", " 1/3", "²/3"])
def test_odd_part_is_refused(text, source, store, check_refused):
    assert "expected i/n such as 3/8" in check_refused(2, "convert", source, store, "--part", text)
    with pytest.raises(ValueError, match="i from 1 to n"):
        parse_part(text)


# -- the bytes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_parts_in_any_order_then_the_plain_command_make_the_store(count, source, store, expected, digest_tree):
    numbers = [*range(1, count + 1)] * 2  # Each twice: safe to repeat.
    random.Random(count).shuffle(numbers)
    done = []
    for number in numbers:
        report = convert_part(source, store, f"{number}/{count}")
        done += [session.session for session in report.sessions]
        assert nsd_zarr.plan(source, store, **OPTIONS).progress.state.value != "finished"
    assert sorted(done) == [1, 2, 3, 4, 5]
    assert report.left == ()
    assert nsd_zarr.convert(source, store, **OPTIONS).sessions == ()
    assert digest_tree(store) == expected
    names = {path.name for path in store.with_name("subj01.zarr.run").iterdir()}
    assert {name for name in names if not name.startswith("session-")} == {"lock", "run.json", "root.json"}


def test_plain_command_does_what_no_part_did(source, store, expected, digest_tree, make_recorder):
    convert_part(source, store, "2/3")
    recorder = make_recorder()
    nsd_zarr.convert(source, store, on_event=recorder, **OPTIONS)
    assert recorder.sessions == [1, 3, 4]
    assert digest_tree(store) == expected


def test_parts_work_at_the_same_time(source, store, expected, digest_tree, start_cli):
    words = ("convert", source, store, "--trials-per-shard", 2, "--workers", 1, "--quiet")
    parts = [start_cli(*words, "--part", f"{number}/4") for number in (3, 1, 4, 2)]
    assert [part.wait(120) for part in parts] == [0, 0, 0, 0]
    assert nsd_zarr.convert(source, store, **OPTIONS).sessions == ()
    assert digest_tree(store) == expected


def test_interrupted_part_goes_on_and_others_do_not_mind(source, store, expected, digest_tree, make_recorder):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_part(source, store, "1/2", on_event=make_recorder(9, stop))
    assert [each.session for each in convert_part(source, store, "2/2").sessions] == [2, 4]
    report = convert_part(source, store, "1/2")
    assert ([each.session for each in report.sessions], report.finished_before) == ([3, 5], 1)
    nsd_zarr.convert(source, store, **OPTIONS)
    assert digest_tree(store) == expected


def test_part_stopped_at_any_rename_goes_on(source, store, expected, digest_tree, stop_at_rename):
    for number in range(1, 9):
        with stop_at_rename(number):
            convert_part(source, store, "1/2")
        convert_part(source, store, "1/2")
        convert_part(source, store, "2/2")
        nsd_zarr.convert(source, store, **OPTIONS)
        assert digest_tree(store) == expected
        shutil.rmtree(store)
        shutil.rmtree(store.with_name("subj01.zarr.run"))


def test_parts_begin_anew_beside_the_records_of_a_store_that_is_gone(
    source, make_source, store, convert, expected, digest_tree
):
    convert(make_source((1, 2, 3, 4, 5), "other", seed=9, order="reverse"), trials_per_shard=3)
    shutil.rmtree(store)
    for number in (2, 1):
        convert_part(source, store, f"{number}/2")
    nsd_zarr.convert(source, store, **OPTIONS)
    assert digest_tree(store) == expected


def test_parts_go_on_with_a_run_that_was_interrupted(source, interrupt, expected, digest_tree):
    store = interrupt(source)
    assert convert_part(source, store, "2/2").finished_before == 0
    report = convert_part(source, store, "1/2")
    assert [each.session for each in report.sessions] == [3, 5]
    nsd_zarr.convert(source, store, **OPTIONS)
    assert digest_tree(store) == expected


def test_part_of_several_subjects_is_that_part_of_each(tmp_path, digest_tree):
    for subject in (1, 2):
        simulate_root(tmp_path / "nsd", Simulation(2, (12, 3, 5, 7), subject=subject, rois=(), hemispheres=False))
    options = {"trials_per_shard": 3, "workers": 1, "subjects": "1-2"}
    for number in (2, 1):
        report = nsd_zarr.convert(tmp_path / "nsd", tmp_path / "parts.zarr", part=f"{number}/2", **options)
        assert [(each.subject, each.session) for each in report.sessions] == [(1, number), (2, number)]
    nsd_zarr.convert(tmp_path / "nsd", tmp_path / "parts.zarr", **options)
    nsd_zarr.convert(tmp_path / "nsd", tmp_path / "plain.zarr", **options)
    assert digest_tree(tmp_path / "parts.zarr") == digest_tree(tmp_path / "plain.zarr")


# -- what is shown -----------------------------------------------------------------------------------------------


def test_part_shows_what_it_did_and_what_is_left(source, store, run_cli):
    words = ("convert", source, store, "--trials-per-shard", 2, "--workers", 1, "--part")
    outcome = run_cli(*words, "2/3")
    assert "part 2/3: sessions 2,5 done in" in outcome.out
    assert "sessions 1,3-4 of the run are left" in outcome.out
    assert "the same command without --part, which finishes" in outcome.out
    assert "part 2/3: nothing to do" in run_cli(*words, "2/3").out
    shown = run_cli(*words, "1/3", "--json").json
    assert (shown["part"], shown["left"], shown["trials"]) == ("1/3", [3], 12)


def test_command_that_finishes_behind_all_parts_says_that_it_completed_the_store(source, store, run_cli):
    words = ("convert", source, store, "--trials-per-shard", 2, "--workers", 1)
    for part in ("1/2", "2/2"):
        assert run_cli(*words, "--part", part).code == 0
    finished = run_cli(*words)
    assert "0 sessions in" in finished.out
    assert "(5 sessions finished before)" in finished.out
    assert f"Next: nsd-zarr verify {store}" in finished.out
    assert run_cli(*words).out == f"{store} is finished: nothing to do.\n"


def test_part_without_a_session_does_nothing(source, store):
    report = convert_part(source, store, "9/9")
    assert (report.sessions, report.trials, report.left) == ((), 0, (1, 2, 3, 4, 5))


def test_part_of_a_finished_store_has_nothing_to_do(source, store, convert, make_source, digest_tree, check_refused):
    convert(source)
    before = digest_tree(store)
    assert convert_part(source, store, "1/2").sessions == ()
    assert digest_tree(store) == before
    more = make_source((1, 2, 3, 4, 5, 6), "more")
    assert "added to it by one run" in check_refused(4, "convert", more, store, "--part", "1/2")


# -- what is refused ---------------------------------------------------------------------------------------------


def test_another_number_of_parts_is_refused(source, store, digest_tree):
    convert_part(source, store, "1/3")
    before = digest_tree(store)
    with pytest.raises(ResumeRefused, match="part 1/2, and the run is divided into 3 parts"):
        convert_part(source, store, "1/2")
    assert digest_tree(store) == before


def test_other_settings_and_sources_are_refused(source, make_session, store):
    convert_part(source, store, "1/3")
    with pytest.raises(ResumeRefused, match="codec lz4, now zstd"):
        convert_part(source, store, "2/3", codec="zstd")
    make_session(2, order="reverse")
    with pytest.raises(ResumeRefused, match="session 02: the source changed since the run began"):
        convert_part(source, store, "2/3")


@pytest.mark.parametrize("options", [{"fresh": True}, {"scheduler": "tcp://127.0.0.1:1"}], ids=["fresh", "cluster"])
def test_options_that_a_part_cannot_have_are_refused(options, source, store):
    with pytest.raises(ConfigError, match="part, and"):
        convert_part(source, store, "1/3", **options)
    assert not store.exists()


@contextlib.contextmanager
def working(source, store, part):
    """A part that is at work in this block."""
    begun, go_on = threading.Event(), threading.Event()

    def wait(event):
        begun.set()
        go_on.wait(60)

    thread = threading.Thread(target=convert_part, args=(source, store, part), kwargs={"on_event": wait})
    thread.start()
    begun.wait(60)
    try:
        yield
    finally:
        go_on.set()
        thread.join()


def test_what_must_not_work_beside_a_part_is_refused(source, store, expected, digest_tree):
    with working(source, store, "2/3"):
        in_use = "in use by a live run: part 2/3, process"
        with pytest.raises(StoreError, match=in_use):
            convert_part(source, store, "2/3")
        for call in (nsd_zarr.convert, nsd_zarr.plan):
            with pytest.raises(StoreError, match=in_use):
                call(source, store, **OPTIONS)
        with pytest.raises(StoreError, match=in_use), hold_lock(store):
            pass
        convert_part(source, store, "1/3")
    convert_part(source, store, "3/3")
    nsd_zarr.convert(source, store, **OPTIONS)
    assert digest_tree(store) == expected


def test_part_beside_a_run_that_finishes_is_refused(source, store):
    convert_part(source, store, "1/3")
    with hold_lock(store):
        with pytest.raises(StoreError, match="in use by a live run: process"):
            convert_part(source, store, "2/3")
        with pytest.raises(StoreError, match="in use by a live run"), hold_part_lock(store, Part(2, 3)):
            pass


def write_holder_of(path, beat=1):
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with open(path, "r+b") as file:
        write_holder(file.fileno(), {"host": "elsewhere", "pid": 7, "started": "now", "part": "2/3"}, beat)


def test_part_on_another_host_is_watched(source, store, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.5)
    path = store.with_name("subj01.zarr.run") / "part-2-of-3.lock"
    stop = threading.Event()

    def beat():
        for number in itertools.count():
            if stop.wait(0.01):
                return
            write_holder_of(path, number)

    write_holder_of(path)
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(StoreError, match="part 2/3, process 7 on elsewhere"), hold_lock(store):
            pass
    finally:
        stop.set()
        thread.join()
    with hold_lock(store):  # It stands still: dead, or suspended, and finds its lock gone.
        assert not path.exists()


def test_run_on_another_host_that_seems_dead_finds_its_name_gone(source, store, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.2)
    path = store.with_name("subj01.zarr.run") / "lock"
    write_holder_of(path)
    with hold_part_lock(store, Part(1, 3)):
        assert path.read_bytes() == b""
