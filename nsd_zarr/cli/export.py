"""The command that writes a store as files for other tools."""

from __future__ import annotations

from typing import Any

import click

import nsd_zarr
from nsd_zarr.cli.options import common, print_report
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
@common
def export(store: str, directory: str, form: str, quiet: bool, as_json: bool, **options: Any) -> None:
    """Write STORE, or a part of it, to DIRECTORY as files for another tool. Again: goes on."""
    from nsd_zarr.cli.show import format_export

    check_extra("convert", "nsd-zarr export")
    given = {name: value for name, value in options.items() if value not in (None, ())}
    with show_progress(quiet, FILES) as on_event:
        report = nsd_zarr.export(store, directory, form, on_event=on_event, **given)
    print_report(report.as_dict(), format_export(report), as_json, quiet)
