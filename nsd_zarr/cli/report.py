"""The command that makes a page about a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import nsd_zarr
from nsd_zarr.cli.look import do_for_each, print_each
from nsd_zarr.cli.options import choosing_subjects, common, locate_store, printing_others
from nsd_zarr.cli.progress import show_progress
from nsd_zarr.libraries import check_extra


@click.command()
@click.argument("store")
@click.option("--out", default="report.html", show_default=True, help="The page: HTML that loads nothing.")
@click.option("--verify", is_flag=True, help="Check every trial as well, as nsd-zarr verify does.")
@click.option("--bench", help="Output of nsd-zarr bench --json, to be shown as well.")
@click.option("--json", "as_json", is_flag=True, help="Print the same numbers as one JSON object on stdout.")
@choosing_subjects
@common
def report(store: str, out: str, quiet: bool, as_json: bool, subjects: str | None, **options: Any) -> int:
    """Make a page with pictures and numbers of STORE; of several subjects one each. Exit code 1: damage."""
    from nsd_zarr.store.tree.groups import is_tree

    check_extra("convert", "nsd-zarr report")
    made: list[nsd_zarr.Report] = []
    where = locate_store(store, {})
    is_one = not is_tree(where)

    def make(path: Path) -> nsd_zarr.Report:
        page = Path(out)
        page = page if is_one else page.with_stem(f"{page.stem}-{path.name}")
        with show_progress(quiet) as on_event:
            made.append(nsd_zarr.make_report(path, page, on_event=on_event, **options))
        return made[-1]

    def show(found: dict[int, nsd_zarr.Report]) -> None:
        print_each(found, nsd_zarr.Report.as_dict, str, store, as_json, quiet)

    with printing_others(show):
        show(do_for_each(where, subjects, make))
    return 0 if all(each.verdict.is_whole for each in made) else 1
