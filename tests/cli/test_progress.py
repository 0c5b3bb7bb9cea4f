"""Progress: a bar on a terminal, plain lines elsewhere, nothing when quiet; never on stdout."""

from __future__ import annotations

import json
import re

import pytest

import nsd_zarr
from nsd_zarr.conversion.events import SessionDone

WORDS = ("--trials-per-shard", 7, "--json")


def strip_times(shown):
    """Lines without the time that stands before each."""
    lines = shown.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines), shown
    return [line[20:] for line in lines]


def test_progress_away_from_a_terminal_is_a_line_a_session(plain, tmp_path, run_child):
    outcome = run_child("convert", plain, tmp_path / "subj01.zarr", *WORDS, "--workers", 1)
    assert json.loads(outcome.out)["trials"] == 28
    first, *sessions = strip_times(outcome.err)
    assert first == "converting 2 sessions, 28 trials"
    assert [line.partition(":")[0] for line in sessions] == ["session 01 done (1 of 2)", "session 02 done (2 of 2)"]
    assert all(line.endswith("read by offset") for line in sessions)
    assert "\x1b" not in outcome.err
    assert "\r" not in outcome.err


def test_progress_on_a_terminal_is_a_bar_with_rate_and_time(plain, tmp_path, run_on_terminal):
    outcome = run_on_terminal("convert", plain, tmp_path / "subj01.zarr", *WORDS)
    assert (outcome.code, json.loads(outcome.out)["trials"]) == (0, 28)
    assert "\x1b[" in outcome.err
    assert "100 %" in outcome.err
    assert "/s" in outcome.err
    assert "(session 2 of 2 done)" in outcome.err
    assert "session 01 done (1 of 2)" not in outcome.err


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "file"])
def test_progress_is_nothing_when_quiet(terminal, plain, tmp_path, run_child, run_on_terminal):
    call = run_on_terminal if terminal else run_child
    outcome = call("convert", plain, tmp_path / "subj01.zarr", *WORDS, "--quiet")
    assert (outcome.code, outcome.err) == (0, "")


def test_error_on_a_terminal_stands_on_a_line_of_its_own(plain, tmp_path, run_on_terminal):
    outcome = run_on_terminal("convert", plain, tmp_path / "subj01.zarr", "--trials-per-shard", 5)
    assert outcome.code == 2
    last = outcome.err.splitlines()[-1].removeprefix("\x1b[?25h")  # the cursor is shown again
    assert last.startswith("nsd-zarr: trials_per_shard = 5 does not divide")


def test_progress_of_verify_counts_trials_as_well(plain, tmp_path, run_child, run_on_terminal):
    nsd_zarr.convert(plain, tmp_path / "subj01.zarr", trials_per_shard=7)
    assert strip_times(run_child("verify", tmp_path / "subj01.zarr").err) == ["verifying 2 sessions, 28 trials"]
    assert "100 %" in run_on_terminal("verify", tmp_path / "subj01.zarr", "--source", plain).err


def test_run_that_goes_on_tells_what_was_finished_before(simulated, tmp_path, run_cli):
    def stop(event):
        if isinstance(event, SessionDone):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nsd_zarr.convert(simulated, tmp_path / "subj01.zarr", trials_per_shard=7, workers=1, on_event=stop)
    outcome = run_cli("convert", simulated, tmp_path / "subj01.zarr", "--trials-per-shard", 7)
    assert strip_times(outcome.err)[0] == "converting 1 session, 14 trials, 1 finished before"
    assert "(1 session finished before)" in outcome.out
