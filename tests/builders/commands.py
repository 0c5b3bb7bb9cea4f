"""Scripts and command lines, run in this process or as processes of their own."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from unittest import mock

REPOSITORY = Path(__file__).parent.parent.parent


def run_script(name: str, *words: object) -> None:
    """Run a script of the repository in this process, as `python NAME WORDS` does."""
    with mock.patch.object(sys, "argv", [name, *map(str, words)]):
        runpy.run_path(str(REPOSITORY / name), run_name="__main__")
