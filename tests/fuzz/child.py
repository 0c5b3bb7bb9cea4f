"""Runs one fuzz target in child processes: a crash ends the child, and leaves the input that did it."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

Try = Callable[[bytes], str]
"""Tries one input; returns what became of it in a word, raises where it should not."""


def fuzz(target: str, seconds: float, seed: int, keep: Path | None = None) -> dict[str, int]:
    """Run the target (a module beside this one) so long; how many inputs ended how, "crash" among them.

    Inputs that crash or raise what they should not are written to *keep*.
    """
    tally: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        last, counts = Path(folder, "input"), Path(folder, "tally")
        while (left := deadline - time.monotonic()) > 0:
            words = ["--child", folder, "--seconds", str(left), "--seed", str(seed)]
            command = [sys.executable, "-X", "faulthandler", "-m", f"tests.fuzz.{target}", *words]
            done = subprocess.run(command, capture_output=True, text=True, timeout=left + 120, cwd=_root())
            tally.update(json.loads(counts.read_text() or "{}"))
            if done.returncode == 0:
                break
            tally["crash" if done.returncode < 0 else "wrong"] += 1
            if not last.exists():
                raise RuntimeError(done.stderr)
            if keep is not None:
                name = hashlib.sha256(last.read_bytes()).hexdigest()[:16]
                (keep / f"{target}-{name}").write_bytes(last.read_bytes())
                (keep / f"{target}-{name}.txt").write_text(done.stderr[-4000:])
            seed += 1_000_003
    return dict(tally)


def _root() -> Path:
    return Path(__file__).parent.parent.parent


def run_child(folder: Path, seconds: float, inputs: Iterator[bytes], attempt: Try) -> None:
    """Try inputs so long; each is on disk before it is tried, the tally whenever it may be the last."""
    tally: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    descriptor = os.open(folder / "input", os.O_RDWR | os.O_CREAT, 0o600)
    report = os.open(folder / "tally", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    while time.monotonic() < deadline:
        data = next(inputs)
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))
        tally[attempt(data)] += 1
        os.pwrite(report, json.dumps(tally).encode(), 0)


def main(
    target: str, make_inputs: Callable[[np.random.Generator], Iterator[bytes]], make_try: Callable[[], Try]
) -> None:
    """The command line of a target."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("."))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        run_child(options.child, options.seconds, make_inputs(np.random.default_rng(options.seed)), make_try())
        return
    tally = fuzz(target, options.seconds, options.seed, options.keep)
    print(json.dumps(tally))
    sys.exit(1 if tally.get("crash") or tally.get("wrong") else 0)
