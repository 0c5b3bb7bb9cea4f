"""The commands that look at a store: what is in it, and how fast it is; for each subject of a store of several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from nsd_zarr.cli.options import (
    choosing_subjects,
    common,
    count_bench_workers,
    locate_store,
    print_report,
    printing_others,
    reaching,
)
from nsd_zarr.cli.terminal import note

Found = TypeVar("Found")
ALONE = 0
"""In place of a subject, of a store that is not one of several."""


def do_for_each(store: Path, subjects: str | None, look: Callable[[Path], Found]) -> dict[int, Found]:
    """What *look* finds in the store, or by subject in each group of a store of several. Raises as run_each."""
    from nsd_zarr.store.tree.groups import is_tree

    if subjects is None and not is_tree(store):
        return {ALONE: look(store)}
    # Here: one store is looked at without the libraries that make one.
    from nsd_zarr.config import make_config
    from nsd_zarr.conversion.events import ignore_event
    from nsd_zarr.conversion.subjects.each import run_one_or_each

    def work(path: Path, config: Any, listen: Any) -> dict[int, Found]:
        return {config.subject or ALONE: look(path)}

    def join(tree: Path, found: dict[int, dict[int, Found]], seconds: float) -> dict[int, Found]:
        return {subject: each for one in found.values() for subject, each in one.items()}

    return run_one_or_each(store, make_config(None, subjects=subjects), ignore_event, work, join, None)


def print_each(
    found: dict[int, Found],
    describe: Callable[[Found], dict[str, Any]],
    write: Callable[[Found], str],
    store: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Print what was found in one store, or in each group of a store of several."""
    if ALONE in found:
        print_report(describe(found[ALONE]), write(found[ALONE]), as_json, quiet)
        return
    values = {"store": store, "subjects": {str(subject): describe(each) for subject, each in found.items()}}
    text = "\n\n".join(f"subject {subject}\n{write(each)}" for subject, each in found.items())
    print_report(values, text, as_json, quiet)


@click.command()
@click.argument("store")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@choosing_subjects
@reaching
@common
def info(store: str, quiet: bool, as_json: bool, subjects: str | None, **options: Any) -> None:
    """Say what is in STORE and what made it."""
    from nsd_zarr.cli.show import describe_store, format_store
    from nsd_zarr.store.root import Store, open_store

    def show(opened: dict[int, Store]) -> None:
        print_each(opened, describe_store, format_store, store, as_json, quiet)

    with printing_others(show):
        where = locate_store(store, options)
        show(do_for_each(where, subjects, lambda path: open_store(path, allow_unfinished=True, kind=None)))


@click.command()
@click.argument("store")
@click.option("--source", help="Session files, to read a trial through h5py as well.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Rounds; medians are shown.")
@click.option("--trials", type=click.IntRange(1), default=960, show_default=True, help="Trials a round and reader.")
@click.option(
    "--workers", is_flag=False, flag_value="", help="Threads of readers that take several. [default: one a core]"
)
@click.option("--threads", hidden=True, help="The former name of --workers.")
@click.option("--cold", is_flag=True, help="Also with the files dropped from the page cache.")
@click.option("--dataloaders", is_flag=True, help="Also PyTorch's DataLoader with 2 and 4 worker processes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@choosing_subjects
@common
def bench(
    store: str,
    quiet: bool,
    as_json: bool,
    subjects: str | None,
    workers: str | None,
    threads: str | None,
    dataloaders: bool,
    **options: Any,
) -> None:
    """Measure random trials of STORE by every reader installed, beside what the hardware allows."""
    from nsd_zarr.bench.run import BenchReport, make_table
    from nsd_zarr.bench.run import bench as measure

    def show_step(step: str) -> None:
        if not quiet:
            note(step)

    def show(reports: dict[int, BenchReport]) -> None:
        print_each(reports, BenchReport.as_dict, make_table, store, as_json, quiet)

    count = count_bench_workers(workers, threads)
    with printing_others(show):
        show(
            do_for_each(
                Path(store),
                subjects,
                lambda path: measure(path, threads=count, workers=dataloaders, on_step=show_step, **options),
            )
        )
