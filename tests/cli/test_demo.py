"""demo: the whole story, to a verified store."""

from __future__ import annotations

import re
import sys

import pytest

import nsd_zarr
from nsd_zarr.cli import demo


@pytest.fixture
def small_demo(monkeypatch):
    """The story on sessions that are made in no time."""
    monkeypatch.setattr(demo, "DEMO_SHAPE", (14, 5, 11, 7))


def test_demo_tells_the_whole_story(small_demo, tmp_path, run_cli):
    outcome = run_cli("demo", tmp_path / "demo")
    assert outcome.code == 0
    commands = re.findall(r"^\$ nsd-zarr (\w+)", outcome.out, re.MULTILINE)
    assert commands == ["simulate", "plan", "convert", "verify"]
    first = outcome.out.splitlines()[0]
    assert first.startswith("About 20 seconds on two cores, and 600 MB of disk: ")
    assert re.search(r"one trial from betas_session02.hdf5: \d+\.\d+ s", outcome.out)
    assert re.search(r"one random trial from the store.*times faster\), values equal", outcome.out)
    assert "nsd_zarr.open_dataset(" in outcome.out
    assert f"rm -r {tmp_path / 'demo'}" in outcome.out
    assert nsd_zarr.verify(tmp_path / "demo/subj01.zarr", tmp_path / "demo").is_whole


def test_demo_ends_with_a_picture_that_it_made(small_demo, tmp_path, run_cli):
    pytest.importorskip("matplotlib")
    outcome = run_cli("demo", tmp_path / "demo")
    assert str(tmp_path / "demo/demo.png") in outcome.out
    assert (tmp_path / "demo/demo.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_demo_without_matplotlib_says_what_draws_its_picture(small_demo, tmp_path, run_cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    outcome = run_cli("demo", tmp_path / "demo")
    assert outcome.code == 0
    assert 'no picture: ds.nsd.plot needs matplotlib: pip install "nsd-zarr[plot]"' in outcome.out


def test_demo_shows_its_progress_also_without_a_terminal(small_demo, tmp_path, run_cli):
    outcome = run_cli("demo", tmp_path / "demo")
    assert re.search(r"^simulating: (\d+) of \1$", outcome.err, re.MULTILINE)
    assert "session 03 done (3 of 3)" in outcome.err or "(3 of 3)" in outcome.err


def test_demo_runs_again_where_it_was_run(small_demo, tmp_path, run_cli):
    for _ in range(2):
        assert run_cli("demo", tmp_path / "demo").code == 0


def test_demo_that_is_quiet_says_nothing(small_demo, tmp_path, run_cli):
    outcome = run_cli("demo", tmp_path / "demo", "--quiet")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


def test_demo_whose_store_is_damaged_fails(small_demo, tmp_path, run_cli, monkeypatch):
    convert = nsd_zarr.convert

    def convert_and_damage(source, store, **options):
        report = convert(source, store, **options)
        (store / "session/c/0").unlink()
        return report

    monkeypatch.setattr(nsd_zarr, "convert", convert_and_damage)
    outcome = run_cli("demo", tmp_path / "demo")
    assert outcome.code == 1
    assert "the demo's store is damaged" in outcome.err


@pytest.mark.slow
def test_demo_as_it_is_shipped_ends_with_a_whole_store(tmp_path, run_child):
    outcome = run_child("demo", tmp_path / "demo")
    assert outcome.code == 0, outcome.err
    assert "2250 trials" in outcome.out
    assert "is whole" in outcome.out
