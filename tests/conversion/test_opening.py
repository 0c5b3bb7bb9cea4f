"""Session files that are opened before their turn: each once, closed whatever happens, errors in their own session."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
import zarr

import nsd_zarr
from nsd_zarr.conversion import unit
from nsd_zarr.conversion.context import Stopped
from nsd_zarr.conversion.events import SessionDone
from nsd_zarr.conversion.pipeline.opening import Opener
from nsd_zarr.errors import SourceError
from nsd_zarr.places.read_ahead import ReadAhead
from nsd_zarr.source.find import find_session_files
from nsd_zarr.source.inspect import inspect_file
from nsd_zarr.source.session import SessionInfo
from nsd_zarr.source.trial_cache import TrialCache


@pytest.fixture
def opened(monkeypatch):
    """(session, name of the thread) of every file that is opened to be read."""
    calls, open_session = [], SessionInfo.open

    def note(self, *arguments, **options):
        calls.append((int(self.session), threading.current_thread().name.rpartition("_")[0]))
        return open_session(self, *arguments, **options)

    monkeypatch.setattr(SessionInfo, "open", note)
    return calls


def _find_descriptors(folder):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("this system does not tell what is open")
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return [os.readlink(link) for link in links if os.path.exists(link) and str(folder) in os.readlink(link)]


def test_next_session_is_opened_ahead_and_each_one_once(source, convert, read_source, opened):
    store = convert(source)
    assert [session for session, _ in opened] == [1, 2, 3]
    assert [thread for _, thread in opened] == ["nsd-zarr session", "nsd-zarr open", "nsd-zarr open"]
    assert np.array_equal(zarr.open_group(store, mode="r")["betas"][...], read_source(source))
    assert _find_descriptors(source) == []


def test_sessions_side_by_side_are_opened_when_their_turn_comes(source, convert, opened):
    convert(source, workers=6)
    assert sorted(session for session, _ in opened) == [1, 2, 3]
    assert {thread for _, thread in opened} == {"nsd-zarr session"}


def test_file_that_cannot_be_opened_ahead_is_its_own_sessions_error(source, tmp_path, monkeypatch, make_recorder):
    recorder, open_session = make_recorder(), SessionInfo.open

    def refuse(self, *arguments, **options):
        if self.session == 2:
            raise SourceError("unreadable", session=2, path=self.path)
        return open_session(self, *arguments, **options)

    monkeypatch.setattr(SessionInfo, "open", refuse)
    with pytest.raises(SourceError, match="unreadable") as caught:
        nsd_zarr.convert(source, tmp_path / "subj01.zarr", trials_per_shard=2, workers=2, on_event=recorder)
    assert caught.value.session == 2
    assert [event.session for event in recorder.events if isinstance(event, SessionDone)] == [1]


def test_file_that_was_opened_ahead_is_closed_when_the_run_fails_before_its_turn(source, convert, opened, monkeypatch):
    def fail(*arguments, **options):
        raise SourceError("failed while the next one is open")

    monkeypatch.setattr(unit, "write_statistics", fail)
    with pytest.raises(SourceError, match="next one is open"):
        convert(source)
    assert [session for session, _ in opened][:1] == [1]
    assert _find_descriptors(source) == []


def test_opening_ahead_ends_when_the_run_is_stopped_while_it_waits(source, opened):
    class NeverRead(ReadAhead):
        def wait(self, path, check_stop):
            check_stop()
            raise AssertionError("the stop was not heard")

    def stop():
        raise Stopped

    parts = [inspect_file(file, "betas") for file in find_session_files([source])]
    with Opener(parts) as opener:
        opener.begin_next(parts[0], TrialCache(), NeverRead(()), stop)
    assert opened == []
