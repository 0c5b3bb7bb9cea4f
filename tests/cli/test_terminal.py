"""Standard streams that are closed, full or read by nobody; arguments that are forgotten; logs."""

from __future__ import annotations

import logging
import os
import re
import shlex
import socket
import subprocess
import sys

import pytest

import nsd_zarr
from nsd_zarr.cli.terminal import start_log
from nsd_zarr.places import free

MAIN = "from nsd_zarr.cli import main; main()"


def run_shell(redirections, *words):
    command = shlex.join([sys.executable, "-c", MAIN, *map(str, words)])
    return subprocess.run(["bash", "-c", f"{command} {redirections}"], capture_output=True, text=True, timeout=120)


@pytest.fixture(autouse=True)
def _restore_log():
    yield
    start_log(False, None)
    logging.getLogger("nsd_zarr").handlers.clear()


@pytest.mark.parametrize("redirections", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_convert_with_closed_streams_converts(redirections, plain, tmp_path):
    assert run_shell(redirections, "convert", plain, tmp_path / "subj01.zarr").returncode == 0
    assert nsd_zarr.verify(tmp_path / "subj01.zarr", plain).is_whole


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_full_standard_output_is_6_and_no_bug_of_ours(plain, tmp_path):
    done = run_shell("> /dev/full", "plan", plain, tmp_path / "subj01.zarr")
    assert done.returncode == 6
    assert done.stderr.startswith("nsd-zarr: standard output: No space left on device")


def test_reader_that_went_away_is_not_taken_for_damage(plain, tmp_path):
    nsd_zarr.convert(plain, tmp_path / "subj01.zarr")
    done = run_shell("| true; exit ${PIPESTATUS[0]}", "info", tmp_path / "subj01.zarr")
    assert (done.returncode, done.stderr) == (0, "")


def test_next_line_can_be_pasted(simulated, tmp_path, run_cli):
    store = tmp_path / "with a space.zarr"
    last = run_cli("convert", simulated, store).out
    assert shlex.split(re.search(r"^Next: (.*)$", last, re.MULTILINE)[1]) == [
        "nsd-zarr",
        "verify",
        str(store),
    ]


@pytest.mark.parametrize("command", ["plan", "convert"])
def test_forgotten_store_is_2_and_named(command, simulated, run_cli):
    files = sorted(simulated.glob("*.hdf5"))
    for words in ([simulated], files):
        outcome = run_cli(command, *words)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.startswith("nsd-zarr: STORE is missing: the last argument names the store")
    assert not list(simulated.glob("*.run"))


def test_name_that_leaves_no_room_for_the_run_is_2(simulated, tmp_path, run_cli):
    outcome = run_cli("convert", simulated, tmp_path / ("x" * 252))
    assert outcome.code == 2
    assert "a name of 252 bytes, expected at most 251" in outcome.err
    assert run_cli("convert", simulated, tmp_path / ("x" * 251), "--quiet").code == 0


def test_store_below_folders_that_do_not_exist_is_made(simulated, tmp_path, run_cli):
    assert run_cli("convert", simulated, tmp_path / "a/b/subj01.zarr", "--quiet").code == 0
    assert nsd_zarr.verify(tmp_path / "a/b/subj01.zarr").is_whole


def test_plan_into_a_folder_that_may_not_be_written_is_4(simulated, tmp_path, run_cli, monkeypatch):
    monkeypatch.setattr(free.os, "access", lambda path, mode: path != tmp_path)
    outcome = run_cli("plan", simulated, tmp_path / "a/subj01.zarr")
    assert outcome.code == 4
    assert "may not write in the folder of the store" in outcome.err
    assert outcome.err.strip().endswith(f"[{tmp_path}]")


def test_log_file_says_what_is_done_with_time_and_host(simulated, tmp_path, run_cli):
    log = tmp_path / "log.txt"
    for word in ("plan", "convert"):
        assert run_cli(word, simulated, tmp_path / "subj01.zarr", "--log-file", log, "--quiet").err == ""
    lines = log.read_text().splitlines()
    assert all(
        re.match(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ {re.escape(socket.gethostname())} \d+ ", line)
        for line in lines
    )
    assert sum("SessionDone" in line for line in lines) == 2
    assert run_cli("info", tmp_path / "subj01.zarr", "--log-file", tmp_path / "no/log.txt").code == 2


def test_info_of_an_unfinished_store_says_what_is_done_and_what_comes_next(simulated, tmp_path, run_cli):
    store, seen = tmp_path / "subj01.zarr", []

    def stop(event):
        if isinstance(event, nsd_zarr.SessionDone):
            seen.append(run_cli("info", store).out)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nsd_zarr.convert(simulated, store, workers=1, on_event=stop)
    assert str(os.getpid()) in seen[0]
    shown = run_cli("info", store).out
    assert "done       1 of 2 sessions" in shown
    assert "Next: type the command again" in shown
