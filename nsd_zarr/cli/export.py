"""The command that writes a store as files for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import nsd_zarr
from nsd_zarr.cli.look import do_for_each, print_each
from nsd_zarr.cli.options import choosing_subjects, common, locate_store, printing_others
from nsd_zarr.cli.progress import show_progress
from nsd_zarr.layout import Kind
from nsd_zarr.libraries import check_extra

FILES = Kind("betas", "sample", "file")
"""The words of an export."""


@click.command()
@click.argument("store")
@click.argument("directory")
@click.option("--as", "form", required=True, help="hdf5, npy, parquet or nifti.")
@click.option("--layout", help="plain, mindeye2 (of hdf5) or algonauts (of npy). [default: plain]")
@click.option("--roi", multiple=True, help="A region or label, such as nsdgeneral or V1v; may come several times.")
@click.option("--split", help="shared1000 or shared515: folders train and test; or train, or test. [default: all]")
@click.option("--zscore", help="session: z-scored within each session.")
@click.option("--average", is_flag=True, default=None, help="The mean over the showings of each image.")
@click.option("--raw", is_flag=True, default=None, help="Stored counts instead of percent signal change.")
@click.option("--missing", help="Voxels without data in a session: drop, nan or zero. [default: as the store has them]")
@click.option("--order", help="zyx, or xyz: voxels in the order of nibabel's arrays. [default: zyx]")
@click.option("--sessions", help="Such as 1-40 or 1-3,5. [default: all]")
@click.option("--memory", help="For the whole run, such as 8GiB. [default: half of what is free]")
@click.option("--fresh", is_flag=True, default=None, help="Forget an unfinished export and start again.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@choosing_subjects
@common
def export(
    store: str, directory: str, form: str, quiet: bool, as_json: bool, subjects: str | None, **options: Any
) -> None:
    """Write STORE, or a part of it, to DIRECTORY as files for another tool; a folder a subject. Again: goes on."""
    from nsd_zarr.cli.show import format_export
    from nsd_zarr.store.tree.groups import is_tree

    check_extra("convert", "nsd-zarr export")
    given = {name: value for name, value in options.items() if value not in (None, ())}
    where = locate_store(store, {})
    is_one = not is_tree(where)

    def write(path: Path) -> nsd_zarr.ExportReport:
        folder = Path(directory) if is_one else Path(directory) / path.name
        with show_progress(quiet, FILES) as on_event:
            return nsd_zarr.export(path, folder, form, on_event=on_event, **given)

    def show(found: dict[int, nsd_zarr.ExportReport]) -> None:
        print_each(found, nsd_zarr.ExportReport.as_dict, format_export, store, as_json, quiet)

    with printing_others(show):
        show(do_for_each(where, subjects, write))
