"""The command that converts stimulus images."""

from __future__ import annotations

from typing import Any

import click

import nsd_zarr
from nsd_zarr.cli.options import common, print_report, reaching
from nsd_zarr.cli.progress import show_progress
from nsd_zarr.errors import ConfigError
from nsd_zarr.layout import IMAGES


@click.command()
@click.argument("source")
@click.argument("store")
@click.option("--all", "every", is_flag=True, help="All images. [default, without --subject and --trial-table]")
@click.option("--subject", type=int, help="Only what this subject saw, 1 to 8.")
@click.option("--subjects", help="What any of these subjects saw, such as 1-8 or 1,2,5,7.")
@click.option("--trial-table", type=click.Path(), help="responses.tsv of the subject. [default: found in an NSD root]")
@click.option("--dataset", help="Dataset in the stimulus file. [default: imgBrick]")
@click.option(
    "--experiment", help="nsd or nsdsynthetic: whose images, of an NSD root. [default: by the file, else nsd]"
)
@click.option("--images-per-shard", type=click.IntRange(1), help="Images in a shard. [default: up to 128 MiB]")
@click.option("--codec", help="lz4 (fast), zstd (small), lz4hc, blosclz, zlib. [default: lz4]")
@click.option("--clevel", type=int, help="Compression level, 0 to 9. [default: 5; zstd 3]")
@click.option("--workers", type=int, help="Threads of this process. [default: one a core]")
@click.option("--memory", help="For the whole run, such as 8GiB. [default: half of what is free]")
@click.option("--fresh", is_flag=True, default=None, help="Forget an unfinished run and start again.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@reaching
@common
def images(source: str, store: str, every: bool, quiet: bool, as_json: bool, **options: Any) -> None:
    """Convert stimulus images (SOURCE: the HDF5 file or an NSD root) to STORE, one a chunk. Again: goes on."""
    from nsd_zarr.cli.show import format_images

    if every and any(options[name] is not None for name in ("subject", "subjects", "trial_table")):
        raise ConfigError("--all, and a subject", hint="Leave out one or the other.")
    given = {name: value for name, value in options.items() if value is not None}
    with show_progress(quiet, IMAGES) as on_event:
        report = nsd_zarr.convert_images(source, store, on_event=on_event, **given)
    print_report(report.as_dict(), format_images(report), as_json, quiet)
