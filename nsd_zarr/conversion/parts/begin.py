"""Joining a run whose sessions are divided among processes, or beginning it: one part at a time, the first one begins.

Parts write different files: shards, statistics and records of their own sessions. What all of them share is written
here, under a lock that they hold for a moment one after the other: the run's document, which says into how many parts
the sessions are divided, and the skeleton of the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nsd_zarr.config import Config
from nsd_zarr.conversion.finish import create_skeleton
from nsd_zarr.conversion.ledger import Ledger
from nsd_zarr.conversion.lock import HeldLock, hold_part_lock
from nsd_zarr.conversion.plan import Plan, make_plan
from nsd_zarr.conversion.resume import TargetState
from nsd_zarr.conversion.root_copy import remove_copy
from nsd_zarr.conversion.turns import take_turn
from nsd_zarr.errors import ResumeRefused, StoreError
from nsd_zarr.layout import Part
from nsd_zarr.options import SourceWords

_BEGIN_LOCK = "part-begin.lock"


def begin_part(source: SourceWords, store: Path, config: Config, part: Part, lock: HeldLock) -> Plan:
    """Join the run at *store*, or begin it; its plan. Whoever calls holds the *lock* of the *part*.

    Raises ResumeRefused where the run is divided otherwise, or began with other settings or sources.
    """
    with _taking_turns(store, part):
        plan, ledger = make_plan(source, store, config), Ledger(store)
        if plan.progress.state is TargetState.FINISHED:
            return plan
        identities = {info.session: info.identity for info in plan.sources}
        if plan.progress.state is TargetState.NEW or not ledger.exists():
            remove_copy(store)
            ledger.begin(identities, part.count)
        else:
            _check_count(ledger, part)
            remove_copy(store)
            mine = {*part.take(plan.settings.sessions)}
            todo = [info for info in plan.todo if info.session in mine]
            ledger.update_sources({info.session: info.identity for info in todo}, part.count)
            ledger.forget_sessions(info.session for info in todo)
        create_skeleton(store, plan.settings)
        lock.cover_folder()
        return plan


def update_sources(plan: Plan, part: Part) -> None:
    """Note that files that looked different hold the same values. *plan*: of the sessions of *part* alone."""
    if mine := plan.doubtful:
        with _taking_turns(plan.store, part):
            Ledger(plan.store).update_sources({info.session: info.identity for info in mine}, part.count)


def _check_count(ledger: Ledger, part: Part) -> None:
    """Refuse another number of parts than that of the run: two of them would have a session in common."""
    count = ledger.read_parts()
    if count not in (None, part.count):
        raise ResumeRefused(
            f"part {part}, and the run is divided into {count} parts",
            hint=f"Say --part i/{count}, in array jobs with that number written out; or run the command without "
            "--part, which finishes.",
            path=ledger.folder,
            expected=count,
            found=part.count,
        )


@contextmanager
def _taking_turns(store: Path, part: Part) -> Iterator[None]:
    """A block that one part at a time is in. Raises StoreError where another one is in it for long."""

    def is_brief(error: StoreError) -> bool:
        return error.found is not None and "part" in error.found

    with ExitStack() as stack:
        take_turn(stack, lambda: hold_part_lock(store, part, _BEGIN_LOCK), is_brief)
        yield
