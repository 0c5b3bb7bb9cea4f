"""Where session files behind URLs are fetched to: memory where they fit beside the conversion, else a folder."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nsd_zarr.config import Config, is_cluster
from nsd_zarr.conversion.memory import MemoryPlan, Need, make_memory_plan
from nsd_zarr.errors import DoesNotFit, SourceError
from nsd_zarr.layout import format_bytes
from nsd_zarr.places.choose import is_remote, set_scratch
from nsd_zarr.places.free import read_free_space
from nsd_zarr.source.protocol import SourcePart

AHEAD = 1
"""Sessions that are fetched while others are in work."""


def plan_fetching(
    sources: Sequence[SourcePart], plan: MemoryPlan, need: Need, left: int, config: Config
) -> tuple[tuple[SourcePart, ...], MemoryPlan]:
    """*sources*, those behind URLs with the place to which they are fetched; and *plan*, with the memory for them.

    *left*: sessions still to do. Raises DoesNotFit where there is no room; SourceError where there is no such folder.
    """
    size = max((source.identity.size for source in sources if is_remote(source.path)), default=0)
    if not size:
        return tuple(sources), plan
    if is_cluster(config.scheduler):
        folder = "" if config.scratch is None else str(config.scratch)  # A worker's own.
        return _fetch_into(sources, folder), plan
    in_memory = plan_in_memory(need, size, left, config.effective_workers, config.effective_memory)
    if config.scratch is None and in_memory is not None and in_memory.passes == plan.passes:
        return _fetch_into(sources, None), in_memory
    folder = str(config.scratch or tempfile.gettempdir())
    check_scratch(Path(folder), size * (plan.sessions_at_once + AHEAD))
    return _fetch_into(sources, folder), plan


def fetch_to_disk(sources: Sequence[SourcePart], config: Config) -> tuple[SourcePart, ...]:
    """*sources*, those behind URLs with the folder to which they are fetched one by one. Raises as plan_fetching."""
    size = max((source.identity.size for source in sources if is_remote(source.path)), default=0)
    if size:
        check_scratch(Path(config.scratch or tempfile.gettempdir()), size)
    return _fetch_into(sources, str(config.scratch or ""))


def check_scratch(folder: Path, size: int) -> None:
    """Refuse a folder in which *size* bytes have no room. Raises DoesNotFit, SourceError."""
    if not folder.is_dir():
        raise SourceError(
            "no such folder, and session files are to be fetched into it",
            hint="Make it, or give another --scratch.",
            path=folder,
        )
    free = read_free_space(folder).bytes
    if free < size:
        raise DoesNotFit(
            f"scratch: {format_bytes(free)} free, and {format_bytes(size)} of session files are fetched at a time",
            hint="Give a folder with more room with --scratch, or allow more with --memory.",
            path=folder,
            expected=size,
            found=free,
        )


def plan_in_memory(need: Need, size: int, sessions: int, workers: int, limit_bytes: int) -> MemoryPlan | None:
    """The plan of make_memory_plan with session files of *size* bytes in memory; None where that does not fit."""
    fetched = replace(need, fetched_bytes=size, extra_bytes=need.extra_bytes + AHEAD * size)
    try:
        return make_memory_plan(fetched, sessions, workers, limit_bytes)
    except DoesNotFit:
        return None


def _fetch_into(sources: Sequence[SourcePart], folder: str | None) -> tuple[SourcePart, ...]:
    def place(source: Any) -> Any:
        return replace(source, path=set_scratch(source.path, folder)) if is_remote(source.path) else source

    return tuple(map(place, sources))
