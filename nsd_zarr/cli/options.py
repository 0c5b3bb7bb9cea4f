"""Options that several commands of `nsd-zarr` share."""

from __future__ import annotations

import functools
import json
import logging
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from nsd_zarr.cli.terminal import say, start_log
from nsd_zarr.errors import ConfigError, NsdZarrError
from nsd_zarr.places.choose import make_path

_LOG = logging.getLogger(__name__)


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that every command takes."""

    @click.option("--quiet", is_flag=True, help="Print errors only.")
    @click.option("--debug", is_flag=True, help="Log what is done; print a traceback with an error.")
    @click.option(
        "--log-file", type=click.Path(path_type=Path), help="Add what is done to this file, with time and host."
    )
    @functools.wraps(command)
    def wrapped(*args: Any, debug: bool, log_file: Path | None, **kwargs: Any) -> Any:
        start_log(debug, log_file)
        _LOG.info("%s", shlex.join(sys.argv))
        return command(*args, **kwargs)

    return wrapped


def print_report(values: dict[str, Any], text: str, as_json: bool, quiet: bool) -> None:
    """Print *values* as one JSON object, or *text* for people, on stdout."""
    if as_json:
        say(json.dumps(values, indent=1))
    elif not quiet:
        say(text)


@contextmanager
def printing_others(show: Callable[[Any], None]) -> Iterator[None]:
    """A call for several subjects: where one of them fails, *show* is given the report of the others first."""
    try:
        yield
    except NsdZarrError as error:
        if error.report is not None:
            show(error.report)
        raise


choosing_subjects = click.option("--subjects", help="Of a STORE with a group for each subject: such as 1-8 or 1,2,5,7.")
"""Which subjects of a store of several."""


def choosing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say which betas are meant, and what a run may take."""
    for option in reversed(
        [
            click.option("--subject", type=int, help="Subject below an NSD root, 1 to 8."),
            click.option("--space", help="Space below an NSD root, such as func1pt8mm."),
            click.option("--betas", help="Betas version below an NSD root, such as betas_fithrf_GLMdenoise_RR."),
            click.option(
                "--form", help="hdf5, nifti, nativesurface, fsaverage. [default: the first of these there is]"
            ),
            click.option("--hemisphere", help="lh or rh: that one of a surface alone. [default: both]"),
            click.option("--workers", type=int, help="Threads of this process. [default: one a core]"),
            click.option("--memory", help="For the whole run, such as 8GiB. [default: half of what is free]"),
        ]
    ):
        command = option(command)
    return choosing_subjects(command)


def reaching(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say how URLs are reached."""
    for option in reversed(
        [
            click.option("--profile", help="Of URLs: profile of ~/.aws. [default: the environment's]"),
            click.option("--anonymous", is_flag=True, default=None, help="Of URLs: without credentials."),
            click.option("--endpoint-url", help="Of URLs: a server of one's own."),
            click.option("--region", help="Of URLs: region of the bucket."),
        ]
    ):
        command = option(command)
    return command


def locate_store(store: str, options: dict[str, Any]) -> Path:
    """STORE as a path, or as a URL that is reached as *options* say. Raises ConfigError."""
    words = {"profile": "profile", "anonymous": "anon", "endpoint_url": "endpoint_url", "region": "region"}
    return make_path(store, {word: options[name] for name, word in words.items() if options.get(name) is not None})


scratching = click.option(
    "--scratch", type=click.Path(), help="Folder for session files fetched from a URL. [default: memory where they fit]"
)
"""Where sources are fetched to."""


def naming_experiment(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that name the experiment's files by hand."""
    path = click.Path()
    for option in reversed(
        [
            click.option(
                "--trial-table", type=path, help="responses.tsv. [default: found beside betas in an NSD root]"
            ),
            click.option("--expdesign", type=path, help="nsd_expdesign.mat. [default: the same]"),
            click.option("--stim-info", type=path, help="nsd_stim_info_merged.csv. [default: the same]"),
            click.option("--brainmask", type=path, help="brainmask.nii.gz. [default: the same]"),
            click.option("--ncsnr", type=path, help="ncsnr.nii.gz. [default: the same]"),
            click.option("--valid", help="Folder or glob of valid_sessionBB.nii.gz. [default: the same]"),
            # None when it is not given, so that the configuration file counts.
            click.option(
                "--roi",
                type=path,
                multiple=True,
                callback=lambda context, option, value: value or None,
                help="A region volume, beside those found; may come several times.",
            ),
            click.option(
                "--skip-roi",
                metavar="NAME",
                multiple=True,
                callback=lambda context, option, value: value or None,
                help="A set of regions to leave out, such as streams; may come several times.",
            ),
            click.option("--no-trial-table", is_flag=True, default=None, help="Attach masks and regions alone."),
            click.option("--no-experiment", is_flag=True, default=None, help="Attach none of it."),
        ]
    ):
        command = option(command)
    return command


def check_both_named(source: tuple[str, ...], store: str) -> None:
    """Refuse one argument where two are needed, and a session file in place of the store. Raises ConfigError."""
    if not source or (store.endswith((".hdf5", ".h5")) and Path(store).is_file()):
        first = shlex.join(source or (store,)) if len(source) < 2 else f"{shlex.quote(source[0])} ..."
        raise ConfigError(
            "STORE is missing: the last argument names the store that is made",
            hint=f"For example: {first} subj01.zarr",
            path=store,
        )


configured = click.option(
    "--config",
    "config_file",
    type=click.Path(),
    help="YAML file: option names with underscores. One that names a Dask scheduler is as powerful as code: use only "
    "files that you trust.",
)
"""The configuration file of a command."""


def converting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Arguments and options of plan and convert."""
    for option in reversed(
        [
            click.argument("source", nargs=-1),
            click.argument("store"),
            configured,
            click.option("--sessions", help="Such as 1-40 or 1-3,5. [default: all, without a gap]"),
            click.option("--dataset", help="Dataset in each session file. [default: betas]"),
            click.option(
                "--trials-per-shard", type=int, help="Must divide a session's trials. [default: up to 128 MiB]"
            ),
            click.option("--codec", help="lz4 (fast), zstd (small), lz4hc, blosclz, zlib. [default: lz4]"),
            click.option("--clevel", type=int, help="Compression level, 0 to 9. [default: 5; zstd 3]"),
            click.option(
                "--scheduler",
                help="Dask cluster (tcp://host:8786, FILE.json); threads; synchronous. Whoever runs a Dask scheduler "
                "can run code here: name only one that you trust.",
            ),
            click.option("--fresh", is_flag=True, default=None, help="Forget an unfinished run and start again."),
            click.option(
                "--replace-session",
                metavar="N",
                help="Take these sessions of a finished store from their files again, such as 3 or 2,5.",
            ),
            click.option(
                "--part",
                metavar="I/N",
                help="Convert part I of N of the sessions, such as 3/8, and stop: for array jobs. The same command "
                "without it finishes.",
            ),
            click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout."),
        ]
    ):
        command = option(command)
    return choosing(reaching(scratching(common(naming_experiment(command)))))


def split_words(context: click.Context, option: click.Parameter, value: str) -> tuple[str, ...]:
    """Callback of an option of several words with commas between them."""
    return tuple(value.split(","))


def count_sessions(value: str) -> int:
    """How many sessions simulate writes: of "3", or "1-3" as other commands name sessions. Raises ConfigError."""
    from nsd_zarr.config import parse_sessions

    try:
        numbers = range(1, int(value) + 1) if value.strip().isdecimal() else parse_sessions(value)
    except ValueError:
        numbers = ()
    if not numbers or list(numbers) != list(range(1, len(numbers) + 1)):
        raise ConfigError(
            f"sessions = {value!r}: simulate writes sessions from 1 on without a gap",
            hint="Give how many, such as 3, or 1-3.",
            found=value,
        )
    return len(numbers)


def count_bench_workers(workers: str | None, threads: str | None) -> int | None:
    """Threads of the readers that bench measures. Refuses what the options meant before, with the new name."""
    if threads is not None:
        raise ConfigError("--threads is now --workers, as of other commands", hint=f"Say --workers {threads}.")
    if workers is None:
        return None
    if not workers.isdecimal() or int(workers) < 1:
        raise ConfigError(
            f"workers = {workers!r}: expected a number of threads from 1",
            hint="PyTorch's DataLoader with worker processes is measured with --dataloaders.",
            found=workers,
        )
    return int(workers)
