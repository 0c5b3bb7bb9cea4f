"""What every command takes, and how it gives what it found."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from typing import Any

import click


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that every command takes."""

    @click.option("--quiet", is_flag=True, help="Print errors only.")
    @click.option("--debug", is_flag=True, help="Log what is done; print a traceback with an error.")
    @functools.wraps(command)
    def wrapped(*args: Any, debug: bool, **kwargs: Any) -> Any:
        logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING)
        return command(*args, **kwargs)

    return wrapped


def print_report(values: dict[str, Any], text: str, as_json: bool, quiet: bool) -> None:
    """Print *values* as one JSON object, or *text* for people, on stdout."""
    if as_json:
        click.echo(json.dumps(values, indent=1))
    elif not quiet:
        click.echo(text)
