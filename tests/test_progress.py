"""`progress=True` draws a bar, by tqdm where it is there and else by rich; without it nothing is drawn."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import nsd_zarr
from nsd_zarr.conversion.events import ReadCounter, RunStarted, SessionDone, TrialsDone, TrialsRead
from nsd_zarr.layout import TRIALS
from nsd_zarr.progress import BarListener, format_rate


class KeptBar:
    """A bar that keeps what it is given."""

    def __init__(self):
        self.begun, self.shown = [], []

    def begin(self, text, total_bytes):
        self.begun.append((text, total_bytes))

    def show(self, text, done_bytes):
        self.shown.append((text, done_bytes))


def test_notebook_without_ipywidgets_gets_a_bar_and_no_advice(source, tmp_path):
    pytest.importorskip("tqdm")
    # What tqdm looks at to know that it is in a notebook.
    ipython = "type('I', (), {'config': {'IPKernelApp': {}}})()"
    code = f"""
import sys, types
sys.modules["IPython"] = types.ModuleType("IPython")
sys.modules["ipywidgets"] = None
import IPython
IPython.get_ipython = lambda: {ipython}
import nsd_zarr
nsd_zarr.convert(sys.argv[1], sys.argv[2], progress=True)
"""
    words = [sys.executable, "-W", "error::Warning:tqdm", "-c", code, source, tmp_path / "subj01.zarr"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "100%" in done.stderr
    assert "Warning" not in done.stderr


@pytest.fixture(params=["tqdm", "rich"])
def library(request, monkeypatch):
    if request.param == "tqdm":
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    return request.param


def test_bar_counts_reading_and_writing_half_each():
    bar = KeptBar()
    listen = BarListener(bar, TRIALS)
    for event in (
        RunStarted(2, 8, 10, 0, reads=8, step="converting"),
        TrialsRead(4),
        TrialsDone(4),
        SessionDone(1, 5, 0.1, "by offset"),
        TrialsRead(4),
        TrialsDone(4),
        SessionDone(2, 5, 0.1, "by offset"),
        RunStarted(1, 3, 10, 0, step="verifying"),
        TrialsDone(3),
    ):
        listen(event)
    assert bar.begun == [("converting", 80), ("verifying", 30)]
    one, two = "converting (session 1 of 2 done)", "converting (session 2 of 2 done)"
    assert bar.shown == [
        ("converting", 20),
        ("converting", 40),
        (one, 40),
        (one, 60),
        (one, 80),
        (two, 80),
        ("verifying", 30),
    ]


def test_bar_never_goes_back_and_ends_full(source, tmp_path):
    bar = KeptBar()
    listen = BarListener(bar, TRIALS)
    nsd_zarr.convert(source, tmp_path / "subj01.zarr", on_event=listen, trials_per_shard=2, workers=1)
    done = [size for _, size in bar.shown]
    assert done == sorted(done)
    assert done[-1] == bar.begun[0][1] == 18 * 5 * 7 * 11 * 2


def test_estimate_is_by_the_mean_rate_since_the_step_began():
    assert format_rate(0, 100, 1.0) == ("", "")
    assert format_rate(25_000_000, 100_000_000, 50.0) == ("500 kB/s", "0:02:30 left")
    assert format_rate(10, 36_010, 1.0) == ("10 bytes/s", "1:00:00 left")


def test_values_are_counted_in_whole_trials_of_which_none_is_lost():
    events = []
    counter = ReadCounter(10, events.append)
    for values in (3, 3, 3, 3, 25, 3):
        counter.add(values)
    assert events == [TrialsRead(1), TrialsRead(2), TrialsRead(1)]


@pytest.mark.parametrize("asked", [True, False])
def test_every_function_draws_a_bar_when_it_is_asked_for(asked, library, source, tmp_path, capfd):
    store, options = tmp_path / "subj01.zarr", {"progress": asked}
    nsd_zarr.convert(source, store, trials_per_shard=2, **options)
    converted = capfd.readouterr()
    nsd_zarr.verify(store, source, **options)
    verified = capfd.readouterr()
    (store / "session_std/c/0/0/0/0").unlink()
    nsd_zarr.repair(store, source, **options)
    repaired = capfd.readouterr()
    assert (converted.out, verified.out, repaired.out) == ("", "", "")
    found = [
        bool(re.search(word, text.err))
        for word, text in zip(
            (r"converting \(session 3 of 3 done\)", "comparing", "reading back"),
            (converted, verified, repaired),
            strict=True,
        )
    ]
    assert found == [asked] * 3
    assert ("100%" if library == "tqdm" else "100 %") in converted.err or not asked


def test_images_draw_blocks(library, tmp_path, make_stimuli, capfd):
    make_stimuli(tmp_path / "nsd_stimuli.hdf5", count=13)
    nsd_zarr.convert_images(tmp_path / "nsd_stimuli.hdf5", tmp_path / "i.zarr", images_per_shard=5, progress=True)
    assert "(block 3 of 3 done)" in capfd.readouterr().err


def test_listener_hears_every_event_beside_the_bar(source, tmp_path, make_recorder, capfd):
    recorder = make_recorder()
    nsd_zarr.convert(source, tmp_path / "subj01.zarr", trials_per_shard=2, on_event=recorder, progress=True)
    assert (recorder.trials, recorder.sessions) == (18, [1, 2, 3])
    assert capfd.readouterr().err
