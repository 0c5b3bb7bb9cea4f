"""Every key of the configuration, from the class that checks it and from the command line's parser."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from typing import Any

import click


def list_options() -> list[tuple[str, str, str]]:
    """Key, default and help of every option that a configuration may hold."""
    from nsd_zarr.cli.main import commands
    from nsd_zarr.config import Config

    helps = {
        str(option.name): option.help or ""
        for command in ("plan", "convert")
        for option in commands.commands[command].params
        if isinstance(option, click.Option)
    }
    abouts = _read_docstrings(Config)  # for what the command line has in another form
    return [
        (name, _format_default(field.default), helps.get(name, abouts.get(name, "")).partition(" [default")[0])
        for name, field in Config.model_fields.items()
    ]


def _read_docstrings(kind: type) -> dict[str, str]:
    """The text below each field of a class."""
    body = ast.parse(inspect.getsource(kind)).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }


def _format_default(value: Any) -> str:
    plain = {None: "", True: "true", False: "false", (): ""}
    return plain[value] if value in plain else str(value)
