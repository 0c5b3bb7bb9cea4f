"""Several conversions into one store that start at the same moment: one of them writes, the others are refused.

    python -m stress.start_together [--rounds 100] [--seed 0]

Run in tests/. Each round forks two or five processes that wait for each other and then run the same `convert`, into a
new store or into one that a killed run left. Each must end with exit code 0 (it converted, or found a finished store)
or 4 (the store is in use), at least one with 0; the store must then have the bytes of an undisturbed one, and `verify`
find nothing. Exit code 1: a round broke a promise.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from builders.stores import digest_tree
from stress.crash_states import run_cli

SESSIONS = 3


def run_together(words: list[str], count: int, log: Path) -> list[int]:
    """Exit codes of *count* processes that run the same command line at once."""
    context: Any = multiprocessing.get_context("fork")
    barrier = context.Barrier(count)

    def run_one(number: int) -> None:
        from nsd_zarr.cli.main import run

        target = os.open(log.with_suffix(f".{number}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, 1)
        os.dup2(target, 2)
        barrier.wait(60)
        os._exit(run(words))

    children = [context.Process(target=run_one, args=(number,)) for number in range(count)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    return [child.exitcode for child in children]


def make_sources(folder: Path) -> tuple[Path, Path, dict[str, str]]:
    """A source, a store with its run folder that a killed run left, and the digests of an undisturbed store."""
    from nsd_zarr.conversion.ledger import Ledger
    from nsd_zarr.store.root import open_store

    source, whole, left = folder / "nsd", folder / "whole.zarr", folder / "left.zarr"
    words = ["simulate", str(source), "--sessions", str(SESSIONS), "--shape", "12,5,6,7", "--quiet"]
    assert run_cli(*words)[0] == 0
    assert run_cli("convert", str(source), str(whole), "--quiet")[0] == 0
    child = os.fork()
    if not child:  # Killed as soon as a session is recorded.
        from nsd_zarr.conversion import run

        def stop(*_: Any, **__: Any) -> None:
            os._exit(9)

        run.finish_store = stop
        run_cli_here(["convert", str(source), str(left), "--workers", "1", "--quiet"])
    os.waitpid(child, 0)
    assert not open_store(left, allow_unfinished=True).is_complete
    assert Ledger(left).read_session(1) is not None  # type: ignore[arg-type]
    return source, left, digest_tree(whole)


def run_cli_here(words: list[str]) -> None:
    """Run a command line in this process, and end it."""
    from nsd_zarr.cli.main import run

    os._exit(run(words))


def find_problem(codes: list[int], store: Path, source: Path, expected: dict[str, str]) -> str:
    """What is wrong after a round; empty when nothing is."""
    if set(codes) - {0, 4} or 0 not in codes:
        return f"exit codes {codes}"
    again, text = run_cli("convert", str(source), str(store), "--quiet")
    if again != 0:
        return f"the command again: {again}, {text}"
    if digest_tree(store) != expected:
        return "other bytes"
    verified, text = run_cli("verify", str(store), "--quiet")
    return "" if verified == 0 else f"verify: {text}"


def main() -> None:
    """Run the rounds, and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    numbers, tally, broken, started = random.Random(options.seed), Counter[str](), 0, time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, left, expected = make_sources(folder)
        for number in range(options.rounds):
            store, count = folder / f"round{number}.zarr", numbers.choice((2, 5))
            kind = numbers.choice(("new", "resumed"))
            if kind == "resumed":
                shutil.copytree(left, store)
                shutil.copytree(f"{left}.run", f"{store}.run")
            words = ["convert", str(source), str(store), "--workers", "1", "--quiet"]
            codes = run_together(words, count, folder / "log")
            problem = find_problem(codes, store, source, expected)
            tally[f"{kind}, {count} at once"] += 1
            tally["ended with 0"] += codes.count(0)
            tally["refused with 4"] += codes.count(4)
            broken += bool(problem)
            if problem:
                print(f"round {number} ({kind}, {count} at once): {problem}", file=sys.stderr)
            for each in (store, Path(f"{store}.run")):
                shutil.rmtree(each, ignore_errors=True)
    for kind, rounds in sorted(tally.items()):
        print(f"| {kind} | {rounds} |")
    print(f"{options.rounds} rounds, seed {options.seed}: {broken} broken, {time.perf_counter() - started:.0f} s")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
