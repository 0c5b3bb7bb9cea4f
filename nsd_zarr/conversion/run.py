"""Carrying out a plan: lock, skeleton, one Dask task a session, finish."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from threading import Event
from typing import Any

from nsd_zarr.buffers import BufferPool
from nsd_zarr.config import Config, is_cluster
from nsd_zarr.conversion.cluster import run_on_cluster
from nsd_zarr.conversion.context import RunContext, Stopped
from nsd_zarr.conversion.events import Listener, SessionDone
from nsd_zarr.conversion.experiment.files import ExperimentReport
from nsd_zarr.conversion.experiment.inspection import read_experiment
from nsd_zarr.conversion.finish import create_skeleton, finish_store
from nsd_zarr.conversion.ledger import Ledger, SessionRecord
from nsd_zarr.conversion.lock import HeldLock, check_free, hold_lock
from nsd_zarr.conversion.memory import make_need
from nsd_zarr.conversion.memory_choice import touch_block
from nsd_zarr.conversion.pipeline.opening import Opener
from nsd_zarr.conversion.pipeline.work import Unit, announce
from nsd_zarr.conversion.plan import Plan, SourceWords, make_plan
from nsd_zarr.conversion.resume import TargetState
from nsd_zarr.conversion.root_copy import add_copy, remove_copy
from nsd_zarr.conversion.settings import Settings
from nsd_zarr.conversion.unit import run_unit
from nsd_zarr.errors import ResumeRefused, StoreError
from nsd_zarr.layout import SessionNumber
from nsd_zarr.places.choose import choose_place, is_remote, make_path, make_read_ahead
from nsd_zarr.places.durable import explain_write_error, sync_folders
from nsd_zarr.store.format import METADATA_NAME, make_shard_key
from nsd_zarr.store.root import open_store
from nsd_zarr.store.small import read_array


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What a conversion did.

    >>> report = nsd_zarr.convert("nsd", "subj01.zarr", subject=1)
    >>> report.trials, report.store.name
    (36, 'subj01.zarr')
    >>> report.experiment.missing
    ()
    """

    store: Path
    """The store's folder; complete."""
    sessions: tuple[SessionDone, ...]
    """Sessions that this run converted or read again; empty when there was nothing to do."""
    finished_before: int
    """Sessions of the source that an earlier run had finished."""
    trials: int
    """Trials in the store."""
    bytes_in: int
    """Decoded bytes of all its trials."""
    bytes_out: int
    """Bytes of its shards."""
    seconds: float
    """Wall time of this run."""
    experiment: ExperimentReport
    """What of the experiment was found and went in."""
    parts: tuple[ConversionReport, ...] = ()
    """Of several subjects: the report of each, whose sum this one is."""
    kept: tuple[SessionNumber, ...] = ()
    """Sessions of the store that the source does not have: they stay."""
    part: str = ""
    """Which part of the sessions this is of, such as 3/8; empty where it is of all."""
    completed: bool = False
    """Whether this run completed the store; it may have found all sessions converted, by parts or by a killed run."""
    left: tuple[SessionNumber, ...] = ()
    """Of a part: sessions of the whole run that are not done yet, of whichever part."""

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON, for --json."""
        parts = [part.as_dict() for part in self.parts]
        return asdict(replace(self, parts=())) | {"store": str(self.store), "parts": parts}


Finish = Callable[[Plan, Sequence[SessionRecord], HeldLock], None]
"""Writes what lies beside the shards, and completes the store."""


def finish_plan(plan: Plan, records: Sequence[SessionRecord], lock: HeldLock) -> None:
    """Complete a store of betas."""
    assert isinstance(plan.settings, Settings)
    finish_store(plan.store, plan.settings, records, plan.experiment, plan.source_attributes, lock)


def run_conversion(
    source: SourceWords,
    store: str | os.PathLike[str],
    config: Config,
    listen: Listener,
    kept: Sequence[SessionNumber] = (),
) -> ConversionReport:
    """Plan, then carry out. Everything that refuses does so before anything is written.

    *kept*: of a finished store, its sessions: of these *source* may have any.
    """
    started = time.perf_counter()
    path = make_path(store, config.access)
    check_free(path)
    read = cache(read_experiment)  # A file that changes between the two plans is refused when it is stored.
    done: tuple[SessionDone, ...] = ()
    with ExitStack() as stack:
        blocks = BufferPool()
        stack.callback(blocks.end_touching)
        plan = make_plan(source, path, config, kept, read=read, on_memory=partial(touch_block, blocks, config))
        if plan.progress.state is not TargetState.FINISHED or plan.doubtful:
            lock = stack.enter_context(hold_lock(path))
            # Once more: another run may have come between the plan and the lock.
            plan = make_plan(source, path, config, kept, read=read)
            done = carry_out(plan, lock, listen, blocks=blocks)
    return make_report(path, plan, done, started)


def make_report(path: Path, plan: Plan, done: tuple[SessionDone, ...], started: float) -> ConversionReport:
    """What was done to the store at *path*, which is finished; *started*: when, by time.perf_counter."""
    geometry, opened = plan.settings.geometry, open_store(path)
    manifest, report = opened.manifest, plan.experiment_report
    if plan.progress.state is not TargetState.FINISHED:
        report = report.add_notes(opened.attributes.experiment_notes)
    return ConversionReport(
        store=path,
        sessions=done,
        finished_before=len(plan.progress.done - plan.progress.doubtful),
        kept=tuple(number for number in geometry.sessions if number not in {info.session for info in plan.sources}),
        trials=geometry.trials,
        bytes_in=geometry.trials * geometry.trial_bytes,
        bytes_out=sum(manifest[make_shard_key(geometry, shard)].size for shard in range(geometry.shards)),
        seconds=time.perf_counter() - started,
        experiment=report,
        completed=plan.progress.state is not TargetState.FINISHED,
    )


def carry_out(
    plan: Plan, lock: HeldLock, listen: Listener, finish: Finish = finish_plan, blocks: BufferPool | None = None
) -> tuple[SessionDone, ...]:
    """Do what *plan* says, then *finish* unless the store is finished. Whoever calls holds the store's lock.

    *blocks*: where blocks of trials come from, if there is some memory for them.
    """
    ledger = Ledger(plan.store)
    lock.check()
    if plan.progress.state is TargetState.FINISHED:
        add_copy(plan.store)
    else:
        _prepare(plan, ledger)
    lock.cover_folder()
    units = make_units(plan, ledger)
    announce("converting", units, listen, len(plan.progress.done - plan.progress.doubtful))
    done = run_units(units, plan, lock, listen, blocks)
    lock.check()  # Before a record or an array beside the shards is written into what may be another run's store.
    # What was read again and found the same is known by its present looks from now on.
    ledger.update_sources({info.session: info.identity for info in plan.sources})
    if plan.progress.state is not TargetState.FINISHED:
        # Of workers that died while others went on.
        choose_place(plan.store).remove_partials()
        if plan.progress.state is TargetState.UNFINISHED:
            sync_folders(plan.store)
        finish(plan, read_records(plan, ledger), lock)
    return done


def _prepare(plan: Plan, ledger: Ledger) -> None:
    is_new = plan.progress.state is TargetState.NEW
    remove_copy(plan.store)
    if is_new and plan.fresh:
        remove_unfinished(plan.store)
    if is_new or not ledger.exists():
        ledger.begin({info.session: info.identity for info in plan.sources})
    else:
        ledger.update_sources({info.session: info.identity for info in plan.todo})
        ledger.forget_sessions(info.session for info in plan.todo)
    create_skeleton(plan.store, plan.settings)
    for folder in (plan.store, ledger.folder):
        choose_place(folder).remove_partials()


def remove_unfinished(store: Path) -> None:
    """Remove an unfinished store, if there is one. Raises StoreError.

    The root document goes last: without it, what a kill leaves would be taken for something else, and refused.
    """
    if is_remote(store):
        place = choose_place(store)
        place.remove(*(key for key in place.list_keys() if key != METADATA_NAME))
        place.remove(METADATA_NAME)
        return
    try:
        for entry in store.iterdir() if store.exists() else ():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != METADATA_NAME:
                entry.unlink()
        (store / METADATA_NAME).unlink(missing_ok=True)
    except OSError as error:
        raise explain_write_error(error, store) from error


def make_units(plan: Plan, ledger: Ledger) -> list[Unit]:
    """Units of work: first what is done and in doubt, to refuse early; then what is left to convert."""

    def make(info: Any, digests: tuple[str, ...]) -> Unit:
        memory = plan.memory
        return Unit(plan.store, plan.settings, info, memory.trials_per_pass, memory.threads_per_session, digests)

    doubtful = [make(info, _recorded_digests(plan, ledger, info.session)) for info in plan.doubtful]
    return doubtful + [make(info, ()) for info in plan.todo]


def read_records(plan: Plan, ledger: Ledger) -> list[SessionRecord]:
    """The records of all sessions, in order. Raises StoreError when one is gone."""
    records = [ledger.read_session(session) for session in plan.settings.sessions]
    if None in records:
        raise StoreError(
            "a record of a finished session is gone",
            hint="Run the same command again: it converts that session once more.",
            path=ledger.folder,
        )
    return [record for record in records if record is not None]


def run_units(
    units: Sequence[Unit], plan: Plan, lock: HeldLock, listen: Listener, blocks: BufferPool | None = None
) -> tuple[SessionDone, ...]:
    """Run units on the scheduler that the plan names: the same function in all of them.

    Raises StoreError where the lock is lost meanwhile, whatever else went wrong because of it.
    """
    if not units:
        return ()
    try:
        if is_cluster(plan.scheduler):
            need = make_need(plan.settings.geometry, (unit.source for unit in units), store=plan.store)
            return run_on_cluster(units, plan.scheduler, need, plan.worker_memory_bytes, listen)
        return _run_here(units, plan, lock, listen, blocks or BufferPool())
    except (Stopped, StoreError):
        lock.check()
        raise


def _run_here(
    units: Sequence[Unit], plan: Plan, lock: HeldLock, listen: Listener, blocks: BufferPool
) -> tuple[SessionDone, ...]:
    stop = Event()
    sources = [unit.source for unit in units]
    with (
        make_read_ahead([source.path for source in sources]) as read_ahead,
        Opener(sources if plan.memory.sessions_at_once == 1 else ()) as opener,
    ):
        return _compute(units, plan, RunContext(listen, stop, lock, blocks, read_ahead, opener), stop)


def _compute(units: Sequence[Unit], plan: Plan, context: RunContext, stop: Event) -> tuple[SessionDone, ...]:
    from dask import local, threaded
    from dask.base import compute
    from dask.delayed import delayed

    # Named so that Dask, which begins with the last name among equals, takes them in order.
    tasks = [
        delayed(run_unit, pure=False)(unit, context, dask_key_name=f"unit-{len(units) - position:04d}")
        for position, unit in enumerate(units)
    ]
    if plan.scheduler == "synchronous":
        return tuple(compute(*tasks, scheduler=local.get_sync))  # for a mere name Dask imports distributed, 0.3 s
    # A pool of our own, so that leaving it waits for the threads of a run that failed or was interrupted.
    with ThreadPoolExecutor(plan.memory.sessions_at_once, "nsd-zarr session") as pool:
        try:
            return tuple(compute(*tasks, scheduler=threaded.get, pool=pool))
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _recorded_digests(plan: Plan, ledger: Ledger, session: Any) -> tuple[str, ...]:
    if plan.progress.state is TargetState.FINISHED:
        kind = plan.settings.geometry.kind
        store = open_store(plan.store, kind=kind)
        trials = store.geometry.session_trials(session)
        return tuple(read_array(store, kind.digests)[trials.start : trials.stop].tolist())
    record = ledger.read_session(session)
    if record is None:
        raise ResumeRefused("its record is gone", path=ledger.folder, session=session)
    return record.trial_digests
