"""The sessions of one part of a conversion, beside other parts that work at the same time."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from nsd_zarr.config import Config, is_cluster
from nsd_zarr.conversion.events import Listener, SessionDone
from nsd_zarr.conversion.experiment.files import ExperimentReport
from nsd_zarr.conversion.ledger import Ledger
from nsd_zarr.conversion.lock import check_free, hold_part_lock
from nsd_zarr.conversion.memory_choice import plan_memory
from nsd_zarr.conversion.parts.begin import begin_part, update_sources
from nsd_zarr.conversion.pipeline.work import announce
from nsd_zarr.conversion.plan import Plan, make_plan
from nsd_zarr.conversion.run import ConversionReport, make_units, run_units
from nsd_zarr.conversion.settings import Settings
from nsd_zarr.errors import ConfigError
from nsd_zarr.layout import Part
from nsd_zarr.options import SourceWords
from nsd_zarr.places.choose import is_remote


def convert_part(source: SourceWords, store: Path, config: Config, listen: Listener) -> ConversionReport:
    """Convert the sessions of the part that *config* names, those that are not done yet; the store stays unfinished.

    Safe to repeat, on any host, in any order, beside other parts. Raises ConfigError, SourceError, DoesNotFit;
    StoreError where this part is at work elsewhere, or a run that finishes; ResumeRefused where the run was divided
    otherwise, or began with other settings or sources.
    """
    part, started = config.part, time.perf_counter()
    assert part is not None  # Whoever calls has asked.
    check_part_options(store, config)
    check_free(store, part)
    make_plan(source, store, config)  # What is refused is refused before anything is written.
    with hold_part_lock(store, part) as lock:
        plan = _restrict(begin_part(source, store, config, part, lock), part, config)
        units = make_units(plan, Ledger(store))
        announce("converting", units, listen, len(plan.progress.done - plan.progress.doubtful))
        done = run_units(units, plan, lock, listen)
        lock.check()
        update_sources(plan, part)
    return _make_report(plan, part, done, time.perf_counter() - started)


def check_part_options(store: Path, config: Config) -> None:
    """Refuse what cannot be asked of one part. Raises ConfigError."""
    if is_remote(store):
        raise ConfigError(
            "part, and a store behind a URL, which one run at a time writes",
            hint="Leave out --part; a Dask cluster shares the sessions out there as well: --scheduler.",
            path=store,
        )
    if is_cluster(config.scheduler):
        raise ConfigError(
            "part, and the scheduler of a Dask cluster", hint="One shares the sessions out: leave out the other."
        )
    if config.fresh:
        raise ConfigError(
            "part, and fresh: a part does not forget what others have converted",
            hint="To begin again, remove STORE and STORE.run first; then start all parts.",
        )


def _restrict(plan: Plan, part: Part, config: Config) -> Plan:
    """*plan* for the sessions of *part* alone. The store has all of them."""
    assert isinstance(plan.settings, Settings)  # Parts are of sessions, not of images.
    mine = {*part.take(plan.settings.sessions)}
    sources = tuple(info for info in plan.sources if info.session in mine)
    progress = replace(plan.progress, done=plan.progress.done & mine, doubtful=plan.progress.doubtful & mine)
    todo = [info for info in sources if info.session not in progress.done]
    memory, _ = plan_memory(plan.settings, plan.sources, todo, config, plan.experiment is not None, plan.store)
    return replace(plan, sources=sources, progress=progress, memory=memory)


def _make_report(plan: Plan, part: Part, done: tuple[SessionDone, ...], seconds: float) -> ConversionReport:
    ledger, settings = Ledger(plan.store), plan.settings
    records = {session: ledger.read_session(session) for session in settings.sessions}
    mine = [record for info in plan.sources if (record := records[info.session]) is not None]
    trials = len(mine) * settings.geometry.trials_per_session
    return ConversionReport(
        store=plan.store,
        sessions=done,
        finished_before=len(plan.progress.done - plan.progress.doubtful),
        trials=trials,
        bytes_in=trials * settings.geometry.trial_bytes,
        bytes_out=sum(shard.size for record in mine for shard in record.shards),
        seconds=seconds,
        experiment=ExperimentReport(),
        part=str(part),
        left=tuple(session for session, record in records.items() if record is None),
    )
