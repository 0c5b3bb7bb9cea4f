"""States that a power cut may leave: the model on safe and unsafe sequences, and a few states of each command."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from stress.crash.model import MODES, Model
from stress.crash.trace import Operation

HERE = Path(__file__).parent.parent


def cut_everywhere(top: Path, operations: list[Operation], first: int = 0) -> list[dict]:
    """States of every kind at every point, several draws of each."""
    model = Model(str(top))
    model.add(operations)
    chance = random.Random(0)
    points = range(first, len(model.log) + 1)
    return [model.cut(point, mode, chance) for point in points for mode in MODES for _ in range(30)]


def write_by(top: Path, *steps: str) -> list[Operation]:
    """A file that is written under another name; *steps* says what is flushed and when it is renamed."""
    partial, path = str(top / "file.partial"), str(top / "file")
    made = {
        "flush": Operation("fsync", partial),
        "rename": Operation("rename", partial, path),
        "flush folder": Operation("fsync", str(top)),
    }
    return [Operation("create", partial), Operation("write", partial, (None, b"new")), *(made[step] for step in steps)]


def test_file_flushed_renamed_and_its_folder_flushed_is_whole_or_the_former_one(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    operations = write_by(tmp_path, "flush", "rename", "flush folder")
    states = cut_everywhere(tmp_path, operations)
    assert {state.get("file") for state in states} == {b"old", b"new"}
    ended = cut_everywhere(tmp_path, operations, first=len(operations))
    assert {state.get("file") for state in ended} == {b"new"}
    assert not any("file.partial" in state for state in ended)


def test_file_renamed_before_it_is_flushed_may_be_torn(tmp_path):
    states = cut_everywhere(tmp_path, write_by(tmp_path, "rename", "flush folder"))
    found = {state.get("file") for state in states}
    assert {None, b"", b"new", bytes(3)} <= found


def test_name_whose_folder_is_not_flushed_may_be_lost(tmp_path):
    operations = write_by(tmp_path, "flush", "rename")
    ended = cut_everywhere(tmp_path, operations, first=len(operations))
    assert None in {state.get("file") for state in ended}


def test_killed_process_leaves_everything_that_it_wrote(tmp_path):
    model = Model(str(tmp_path))
    model.add(write_by(tmp_path, "rename"))
    assert model.cut(3, "kill", random.Random(0)) == {"file": b"new"}
    assert model.cut(2, "kill", random.Random(0)) == {"file.partial": b"new"}


def test_commands_end_right_from_a_few_states_of_each():
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    command = [sys.executable, "-m", "stress.crash_states", "--states", "14", "--seed", "3"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=240)
    if "ptrace" in done.stderr:
        pytest.skip("this machine does not let a process be traced")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 states, 0 broken" in done.stdout
