"""The commands of `nsd-zarr`."""

from __future__ import annotations

import gc
import signal
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

import nsd_zarr
from nsd_zarr.cli.export import export
from nsd_zarr.cli.help import WIDTH, GroupedCommands
from nsd_zarr.cli.images import images
from nsd_zarr.cli.look import bench, info
from nsd_zarr.cli.options import (
    check_both_named,
    choosing,
    common,
    configured,
    converting,
    count_sessions,
    locate_store,
    naming_experiment,
    print_report,
    printing_others,
    reaching,
    scratching,
    split_words,
)
from nsd_zarr.cli.progress import show_progress
from nsd_zarr.cli.report import report
from nsd_zarr.cli.terminal import note, open_missing_streams, say
from nsd_zarr.errors import ConfigError, MissingLibrary, NsdZarrError
from nsd_zarr.layout import TRIALS, format_count
from nsd_zarr.libraries import check_extra, explain_absence
from nsd_zarr.options import parse_subjects
from nsd_zarr.tasks import explain_lack_of_threads

INTERRUPTED = 130
BUG = 70
BAD_OPTION = 2


def main() -> None:
    """Run the command line; ends the process with the exit code of INTERFACE: 0 done, 1 damage, 2 bad option, ..."""
    open_missing_streams()
    arguments = sys.argv[1:]
    # Imports make many objects, none of them garbage: 0.07 s of the 0.7 until a conversion has its plan.
    gc.set_threshold(50_000, 20, 20)
    # A scheduler's or an operator's polite kill ends as Ctrl-C does: what is finished stays, the lock is given back.
    # Raised here rather than passed on as SIGINT, which a job that a script started in the background ignores.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run(arguments))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        with explain_lack_of_threads(), explain_absence(_name_command(arguments)):
            return int(commands.main(arguments, prog_name="nsd-zarr", standalone_mode=False) or 0)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return BAD_OPTION
    except (KeyboardInterrupt, click.Abort):
        _complain("interrupted. Nothing that was finished is lost: run the same command again to go on.")
        return INTERRUPTED
    except MissingLibrary as error:
        note(str(error.explain(_name_command(arguments))))
        return error.exit_code
    except NsdZarrError as error:
        _complain(str(error), "--debug" in arguments)
        return error.exit_code
    except Exception as error:  # The border: everything that we did not foresee is a bug of ours, in one line.
        _complain(
            f"unexpected {type(error).__name__}: {error}. This is a bug in nsd-zarr: run again with --debug and report "
            "what it prints.",
            "--debug" in arguments,
        )
        return BUG


def _name_command(arguments: list[str]) -> str:
    return " ".join(["nsd-zarr", *[word for word in arguments if word in commands.commands][:1]])


def _complain(text: str, debug: bool = False) -> None:
    if debug:
        traceback.print_exc()
    note(f"nsd-zarr: {text}")


@click.group(cls=GroupedCommands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH})
@click.version_option(nsd_zarr.__version__, prog_name="nsd-zarr")
def commands() -> None:
    """Turn NSD session files into one trial-chunked Zarr store, and prove it.

    Begin with: nsd-zarr demo. Each command has a --help of its own.
    """


@commands.command()
@click.argument("directory", type=click.Path(path_type=Path), default="nsd-demo")
@common
def demo(directory: Path, quiet: bool) -> None:
    """Show the whole story in DIRECTORY on synthetic data, in under a minute."""
    from nsd_zarr.cli.demo import run_demo

    check_extra("convert", "nsd-zarr demo")  # before anything is written
    run_demo(directory, (lambda text: None) if quiet else say, quiet)


@commands.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--sessions",
    default="3",
    show_default=True,
    callback=lambda context, option, value: count_sessions(value),
    help="How many session files to write, 3 or 1-3: always from session 1 on.",
)
@click.option("--shape", default="750,83,104,81", show_default=True, help="trials,z,y,x of a session.")
@click.option("--layout", default="nsd", show_default=True, help="HDF5 layout: nsd (the dataset's), contiguous, gzip.")
@click.option(
    "--forms",
    default="hdf5",
    show_default=True,
    callback=split_words,
    help="Forms to write: hdf5, nifti (.nii.gz), nativesurface, fsaverage; several with commas.",
)
@click.option(
    "--experiments",
    default="nsd",
    show_default=True,
    callback=split_words,
    help="nsd, and one session each of nsdsynthetic, nsdimagery; several with commas.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same bytes.")
@click.option("--subject", type=int, help="Subject number in names. [default: 1]")
@click.option(
    "--subjects",
    callback=lambda context, option, value: None if value is None else parse_subjects(value),
    help="Several, such as 1-8 or 1,2: --shape is that of subject 1, others differ as in the dataset.",
)
@click.option("--images", type=int, default=0, show_default=True, help="Stimulus images to write, from 73k id 1.")
@click.option("--image-size", type=int, default=425, show_default=True, help="Edge of an image in pixels.")
@click.option(
    "--mess", is_flag=True, help="Add what real disks add: dot files, half downloads, own maps, a short table."
)
@common
def simulate(
    directory: Path, shape: str, subject: int | None, subjects: tuple[int, ...] | None, quiet: bool, **recipe: Any
) -> None:
    """Write a small synthetic NSD root below DIRECTORY: sessions, trial table, design, masks, regions."""
    from nsd_zarr.cli.demo import show_steps
    from nsd_zarr.simulate import Simulation, simulate_root, simulate_subjects

    check_extra("convert", "nsd-zarr simulate")
    try:
        trials, z, y, x = (int(part) for part in shape.split(","))
    except ValueError:
        raise ConfigError(f"shape = {shape!r}", hint="Give trials,z,y,x such as 750,83,104,81.") from None
    if subject is not None and subjects is not None:
        raise ConfigError(f"subject = {subject}, and several subjects", hint="Say --subjects alone.")
    simulation = Simulation(shape=(trials, z, y, x), **recipe)
    with show_steps("simulating", quiet) as on_progress:
        if subjects is None:
            made = [simulate_root(directory, replace(simulation, subject=subject or 1), on_progress)]
        else:
            made = list(simulate_subjects(directory, simulation, subjects, on_progress).values())
    for root in made if not quiet else ():
        say(f"{format_count(len(root.session_files), 'session')} in {root.betas_folder}")


@commands.command()
@converting
def plan(source: tuple[str, ...], store: str, quiet: bool, as_json: bool, **options: Any) -> None:
    """Say what convert would do, and whether it can. Reads metadata only."""
    check_both_named(source, store)

    def show(made: Any) -> None:
        print_report(made.as_dict(), str(made), as_json, quiet)

    with printing_others(show):
        show(nsd_zarr.plan(source, store, config=options.pop("config_file"), **options))


@commands.command()
@converting
def convert(source: tuple[str, ...], store: str, quiet: bool, as_json: bool, **options: Any) -> None:
    """Convert session files (SOURCE: a folder, a glob, or files) to STORE. Run it again to go on after any stop."""
    from nsd_zarr.cli.show import format_conversion

    def show(report: nsd_zarr.ConversionReport) -> None:
        print_report(report.as_dict(), format_conversion(report), as_json, quiet)

    check_both_named(source, store)
    with printing_others(show):
        with show_progress(quiet) as on_event:
            report = nsd_zarr.convert(source, store, config=options.pop("config_file"), on_event=on_event, **options)
        show(report)


@commands.command()
@click.argument("store")
@click.argument("source", nargs=-1)
@configured
@naming_experiment
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@choosing
@reaching
@common
def attach(store: str, source: tuple[str, ...], quiet: bool, as_json: bool, **options: Any) -> None:
    """Give STORE the experiment found in SOURCE (an NSD root), or named; trials stay untouched. Again: replace it."""
    from nsd_zarr.cli.show import format_attachment

    def show(report: nsd_zarr.AttachReport) -> None:
        print_report(report.as_dict(), format_attachment(report), as_json, quiet)

    with printing_others(show):
        with show_progress(quiet) as on_event:
            report = nsd_zarr.attach(store, source, config=options.pop("config_file"), on_event=on_event, **options)
        show(report)


@commands.command()
@click.argument("store")
@click.option("--source", multiple=True, help="Compare every value with these session files, through h5py or nibabel.")
@click.option("--quick", is_flag=True, help="Presence, sizes and indexes only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@choosing
@reaching
@scratching
@common
def verify(store: str, source: tuple[str, ...], quick: bool, quiet: bool, as_json: bool, **options: Any) -> int:
    """Prove STORE: every file there, every checksum right, every trial's values what was read. Exit code 1: damage."""
    from nsd_zarr.cli.show import format_verification
    from nsd_zarr.store.root import read_kind

    def show(report: nsd_zarr.VerifyReport) -> None:
        print_report(report.as_dict(), format_verification(report), as_json, quiet and report.is_whole)

    with printing_others(show):
        with show_progress(quiet, read_kind(locate_store(store, options)) or TRIALS) as on_event:
            report = nsd_zarr.verify(store, source or None, quick=quick, on_event=on_event, **options)
        show(report)
    return 0 if report.is_whole else 1


@commands.command()
@click.argument("store")
@click.option("--source", multiple=True, required=True, help="The session files that STORE was made of.")
@click.option("--sessions", "--session", "sessions", help="Such as 3 or 1-3,5. [default: whatever is damaged]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@naming_experiment
@choosing
@reaching
@scratching
@common
def repair(store: str, source: tuple[str, ...], quiet: bool, as_json: bool, **options: Any) -> int:
    """Make what is damaged or missing in STORE again from its sources; write nothing else. Exit code 1: damage left."""
    from nsd_zarr.cli.show import format_repair
    from nsd_zarr.store.root import read_kind

    def show(report: nsd_zarr.RepairReport) -> None:
        print_report(report.as_dict(), format_repair(report), as_json, quiet and report.is_whole)

    with printing_others(show):
        with show_progress(quiet, read_kind(locate_store(store, options)) or TRIALS) as on_event:
            report = nsd_zarr.repair(store, source, on_event=on_event, **options)
        show(report)
    return 0 if report.is_whole else 1


for each in (info, report, bench, images, export):
    commands.add_command(each)
