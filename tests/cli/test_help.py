"""The help: 80 columns, commands by purpose, an example each that the parser understands."""

from __future__ import annotations

import shlex

import pytest

from nsd_zarr.cli.help import EXAMPLES, SECTIONS, WIDTH
from nsd_zarr.cli.main import commands


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize("words", [(), *((name,) for name in commands.commands)], ids=" ".join)
def test_help_fits_80_columns(words, run_cli):
    outcome = run_cli(*words, "--help")
    assert outcome.code == 0
    assert max(map(len, outcome.out.splitlines())) <= WIDTH == 80


def test_help_lists_every_command_by_purpose_with_its_example(run_cli):
    lines = [line.strip() for line in run_cli("--help").out.splitlines()]
    assert set(commands.commands) <= {name for names in SECTIONS.values() for name in names}
    for title, names in SECTIONS.items():
        assert f"{title}:" in lines
        for name in (name for name in names if name in commands.commands):
            what, example = EXAMPLES[name]
            place = next(place for place, line in enumerate(lines) if line.split()[:1] == [name])
            assert lines[place].endswith(what)
            assert lines[place + 1] == f"$ {example}"


@pytest.mark.parametrize("name", commands.commands)
def test_example_is_understood_and_ends_the_help_of_its_command(name, run_cli):
    example = EXAMPLES[name][1]
    assert run_cli(name, "--help").out.rstrip().endswith(f"Example: {example}")
    words = shlex.split(example)
    assert words[:2] == ["nsd-zarr", name]
    group = commands.make_context("nsd-zarr", words[1:])
    commands.commands[name].make_context(name, words[2:], parent=group)
