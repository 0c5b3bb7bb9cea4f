"""The page: figures and numbers put into page.html. Loads nothing, and everything from files is escaped."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nsd_zarr.layout import format_bytes, format_count
from nsd_zarr.report.numbers import Contents, Report
from nsd_zarr.words import escape_line

TEMPLATE = Path(__file__).with_name("page.html")


def make_page(report: Report, figures: Mapping[str, bytes]) -> str:
    """The page of *report*, HTML. *figures*: PNGs by the names that the template has."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, finalize=_clean)
    environment.filters |= {"bytes": format_bytes, "decimal": format_decimal, "words": _join_origin}
    contents = report.contents
    text: str = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=_make_title(contents),
        contents=contents,
        sessions=report.sessions,
        reliability=report.reliability,
        regions=report.regions,
        verdict=report.verdict,
        region=report.reliability.region if report.reliability else "the region",
        seconds=report.seconds,
        cards=_list_cards(report),
        facts=_list_facts(contents),
        figures={name: base64.b64encode(data).decode() for name, data in figures.items()},
    )
    return text


def format_decimal(value: float, digits: int) -> str:
    """A number with *digits* digits behind the point; a dash for none."""
    return f"{value:,.{digits}f}" if np.isfinite(value) else "-"


def _clean(value: Any) -> Any:
    """Text without control characters; None as nothing."""
    return "" if value is None else escape_line(value) if type(value) is str and len(value) < 10_000 else value


def _make_title(contents: Contents) -> str:
    subject = contents.origin.get("subject")
    return f"Subject {subject}: {contents.name}" if subject else contents.name


def _join_origin(origin: Mapping[str, str]) -> str:
    return " · ".join(value for name, value in origin.items() if name != "subject" and value)


def _list_cards(report: Report) -> list[tuple[str, str]]:
    contents = report.contents
    cards = [
        (f"{contents.trials:,}", f"trials in {format_count(contents.sessions, 'session')}"),
        (_join_shape(contents), f"{int(np.prod(contents.shape)):,} voxels, {contents.dtype}"),
        (format_bytes(contents.stored_bytes), f"stored, {_find_ratio(contents):.2f} times smaller"),
    ]
    if report.reliability is not None:
        cards.append((f"{report.reliability.ncsnr_median:.3f}", f"median ncsnr, {report.reliability.region}"))
    whole = [each for each in report.regions if each.label == "nsdgeneral"]
    if whole:
        cards.append((f"{whole[0].ceiling[2]:.1f} %", "median noise ceiling, nsdgeneral"))
    missing = [each.missing for each in report.sessions if each.missing is not None]
    if missing:
        cards.append((f"{max(missing):,}", "brain voxels without data in the worst session"))
    return cards


def _join_shape(contents: Contents) -> str:
    return " \N{MULTIPLICATION SIGN} ".join(map(str, contents.shape))


def _find_ratio(contents: Contents) -> float:
    return contents.decoded_bytes / max(1, contents.stored_bytes)


def _list_facts(contents: Contents) -> list[tuple[str, str]]:
    made_by = ", ".join(f"{name} {version}" for name, version in contents.made_by.items())
    known = ", ".join(f"{count:,} {name}" for name, count in contents.experiment.items())
    decoded, shard = format_bytes(contents.decoded_bytes), format_count(contents.trials_per_shard, "trial")
    facts = [
        ("store", contents.name),
        *((name, value) for name, value in contents.origin.items()),
        ("trials", f"{contents.trials:,} of {_join_shape(contents)} {contents.dtype}"),
        ("size", f"{format_bytes(contents.stored_bytes)} in {contents.files:,} files, {decoded} decoded"),
        ("compression", f"{contents.codec}, a trial a chunk, {shard} a shard"),
        ("experiment", known or "none attached"),
        ("format version", contents.format_version),
        ("made by", made_by),
    ]
    return [(name, value) for name, value in facts if value]
