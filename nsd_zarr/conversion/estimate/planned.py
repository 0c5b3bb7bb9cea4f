"""What the rest of a plan takes, on the machine where it is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from nsd_zarr.config import is_cluster
from nsd_zarr.conversion.estimate.estimate import Estimate, Machine, make_estimate
from nsd_zarr.conversion.estimate.prices import PRICES
from nsd_zarr.conversion.estimate.processor import count_processor_seconds, find_reading_cost
from nsd_zarr.conversion.estimate.rates import GB
from nsd_zarr.conversion.estimate.work import LOCAL, End, Work
from nsd_zarr.conversion.experiment.files import Experiment
from nsd_zarr.conversion.memory import MemoryPlan
from nsd_zarr.conversion.settings import AnySettings
from nsd_zarr.conversion.space import STATISTICS_PER_SESSION, SpacePlan
from nsd_zarr.layout import Part
from nsd_zarr.places.choose import find_biller, is_fetched_to_disk, is_remote
from nsd_zarr.resources import count_cores
from nsd_zarr.source.protocol import SourcePart


class Planned(Protocol):
    """What of a plan (conversion/plan.py) decides what it takes."""

    @property
    def store(self) -> Path:
        """Where the store shall be."""

    @property
    def settings(self) -> AnySettings:
        """What affects values or bytes."""

    @property
    def sources(self) -> Sequence[SourcePart]:
        """The session files."""

    @property
    def todo(self) -> Sequence[SourcePart]:
        """Those that have to be converted."""

    @property
    def part(self) -> Part | None:
        """The part of the sessions that is meant; None: all."""

    @property
    def memory(self) -> MemoryPlan:
        """How sessions share threads and memory."""

    @property
    def space(self) -> SpacePlan:
        """What the store takes on disk."""

    @property
    def experiment(self) -> Experiment | None:
        """What is attached."""

    @property
    def scheduler(self) -> Any:
        """Who runs it."""


def estimate_plan(plan: Planned) -> Estimate:
    """What the rest of *plan* takes on this machine; on a cluster, whose cores are not known, its processor seconds."""
    busy = plan.memory.sessions_at_once * plan.memory.threads_per_session
    return make_estimate(make_work(plan), Machine(None if is_cluster(plan.scheduler) else min(busy, count_cores())))


def make_work(plan: Planned) -> Work:
    """What is left to do of *plan*; of its part alone, where it is of one."""
    settings, geometry, todo = plan.settings, plan.settings.geometry, plan.todo
    mine = todo if plan.part is None else _take(plan.part, settings, todo)
    done = len(geometry.sessions) - len(todo)
    source, store = find_end([part.path for part in plan.sources]), find_end([plan.store])
    sizes = tuple(part.identity.size for part in mine)
    values = [part.trials * part.trial_bytes for part in mine]
    more = sum(size * find_reading_cost(part) for size, part in zip(values, mine, strict=True)) / GB
    bytes_out = plan.space.expected_bytes * len(mine) // max(1, len(todo))
    fetched, sent = sum(sizes) * source.is_remote, bytes_out * store.is_remote
    return Work(
        file_bytes=sizes,
        processor_seconds=more + count_processor_seconds(sum(values), settings.codec, settings.clevel, fetched, sent),
        store_bytes=bytes_out,
        store_files=plan.space.files - done * (geometry.shards_per_session + STATISTICS_PER_SESSION),
        source=source,
        store=store,
        passes=plan.memory.passes,
        is_fetched_to_disk=any(is_fetched_to_disk(part.path) for part in plan.sources if is_remote(part.path)),
        inspected=len(plan.sources),
        inputs=0 if plan.experiment is None else len(plan.experiment.inputs),
    )


def _take(part: Part, settings: AnySettings, sources: Sequence[SourcePart]) -> list[SourcePart]:
    """Those of *sources* that belong to *part* of the conversion."""
    numbers = {*part.take(settings.sessions)}
    return [source for source in sources if source.session in numbers]


def find_end(paths: Sequence[Path]) -> End:
    """Where *paths* lie, all in one place."""
    remote = [path for path in paths if is_remote(path)]
    return End(True, PRICES.get(find_biller(remote[0]))) if remote else LOCAL
