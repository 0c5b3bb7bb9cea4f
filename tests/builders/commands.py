"""Command lines, scripts and code, run in this process or as processes of their own."""

from __future__ import annotations

import json
import os
import pty
import re
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

REPOSITORY = Path(__file__).parent.parent.parent
CLI = "from nsd_zarr.cli import main; main()"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command line left behind."""

    code: int
    """Its exit code."""
    out: str
    """What stands on stdout."""
    err: str
    """What stands on stderr."""

    @property
    def json(self) -> dict[str, Any]:
        """What stdout holds, which must be one JSON object and nothing else."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found

    @property
    def paragraph(self) -> str:
        """What was refused, without the progress lines before it; one paragraph, and nothing on stdout."""
        assert self.out == ""
        assert "Traceback" not in self.err
        assert "\n\n" not in self.err
        (paragraph,) = re.findall(r"^nsd-zarr: (.*)\Z", self.err.strip(), re.MULTILINE | re.DOTALL)
        return paragraph


def run_cli(capsys: pytest.CaptureFixture[str], *words: object) -> Outcome:
    """Run one command line in this process."""
    from nsd_zarr.cli.main import run

    capsys.readouterr()
    code = run([str(word) for word in words])
    return Outcome(code, *capsys.readouterr())


def start_code(code: str, *words: object, prefix: Sequence[str] = (), **options: Any) -> subprocess.Popen[str]:
    """Start Python on *code* with these words as a process of its own, warnings being errors."""
    command = [*prefix, sys.executable, "-W", "error", "-c", code, *map(str, words)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **pipes | options)


def start_cli(*words: object, before: str = "", **options: Any) -> subprocess.Popen[str]:
    """Start one command line as a process of its own; *before* is code that runs first."""
    return start_code(f"{before}\n{CLI}", *words, **options)


def finish(process: subprocess.Popen[str], timeout: float = 60) -> Outcome:
    """Wait for a process to end."""
    out, err = process.communicate(timeout=timeout)
    return Outcome(process.returncode, out, err)


def run_on_terminal(*words: object) -> Outcome:
    """Run one command line, as a process of its own, whose stderr is a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    process = start_cli(*words, stderr=theirs, env=os.environ | {"TERM": "xterm", "COLUMNS": "100"})
    os.close(theirs)
    shown = bytearray()

    def read() -> None:
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:  # the other end is closed
                return
            shown.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    out, _ = process.communicate(timeout=60)
    reader.join()
    os.close(ours)
    return Outcome(process.returncode, out, shown.decode())


def run_script(name: str, *words: object) -> None:
    """Run a script of the repository in this process, as `python NAME WORDS` does."""
    with mock.patch.object(sys, "argv", [name, *map(str, words)]):
        runpy.run_path(str(REPOSITORY / name), run_name="__main__")


def find_prefix_without_privileges() -> list[str]:
    """What to put before a command so that file permissions hold for it, even where tests run as root."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("runs as root, and there is no setpriv to drop its privileges")
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
