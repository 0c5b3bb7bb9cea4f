"""Standard output and error, also where they are closed, full, or read by nobody."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
from pathlib import Path

import click

from nsd_zarr.errors import ConfigError, DoesNotFit
from nsd_zarr.words import escape_controls

FULL = (errno.ENOSPC, errno.EDQUOT)


def open_missing_streams() -> None:
    """Give closed standard streams the null device: else the next file that is opened would take their place."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - stays open as long as the process


def say(text: str) -> None:
    """Print *text* on standard output, with control characters as escapes.

    A reader that went away (`| head`) changes nothing, also not the exit code. Raises DoesNotFit where it is full.
    """
    try:
        click.echo(escape_controls(text))
    except OSError as error:
        # What is still buffered would fail once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if error.errno in FULL:
            raise DoesNotFit(f"standard output: {error.strerror}", hint="Make room for it.") from error


def note(text: str) -> None:
    """Print *text* on standard error, with control characters as escapes; never stops what is going on."""
    try:
        click.echo(escape_controls(text), err=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


class _Format(logging.Formatter):
    """Time, host and process before each line, and no control characters of file names."""

    def __init__(self) -> None:
        host = escape_controls(socket.gethostname()).replace("%", "%%")
        super().__init__(f"%(asctime)s {host} %(process)d %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return escape_controls(super().format(record))


def start_log(debug: bool, file: Path | None) -> None:
    """Log what this package does: on standard error with *debug*, and at the end of *file*. Raises ConfigError."""
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    handlers[0].setLevel(logging.DEBUG if debug else logging.WARNING)
    try:
        handlers += [] if file is None else [logging.FileHandler(file, encoding="utf-8")]
    except OSError as error:
        raise ConfigError(f"cannot write the log: {error.strerror}", path=file) from error
    logger = logging.getLogger("nsd_zarr")
    for old in list(logger.handlers):
        logger.removeHandler(old)
        old.close()
    for handler in handlers:
        handler.setFormatter(_Format())
        logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug or file is not None else logging.WARNING)
