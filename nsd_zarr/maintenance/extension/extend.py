"""More sessions, or other ones, for a finished store: the bytes of a conversion of all of them at once.

The next generation is made beside the store, by a conversion that finds the sessions that stay done already, and takes
the store's place as a whole (generation.py). docs/design/0008-extending.md says why.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nsd_zarr.config import Config
from nsd_zarr.conversion.events import Listener, SessionDone
from nsd_zarr.conversion.ledger import Ledger
from nsd_zarr.conversion.lock import HeldLock, hold_lock
from nsd_zarr.conversion.plan import Plan, SourceWords, find_files, make_plan
from nsd_zarr.conversion.resume import Progress, TargetState, has_files, refuse_other_settings
from nsd_zarr.conversion.run import ConversionReport, carry_out, make_report, run_conversion
from nsd_zarr.conversion.settings import Settings, read_settings
from nsd_zarr.errors import StoreError
from nsd_zarr.layout import SessionNumber
from nsd_zarr.maintenance.extension.allowed import (
    adopt_settings,
    check_experiment,
    check_extensible,
    check_replaced,
    find_attributes,
    refuse_part,
)
from nsd_zarr.maintenance.extension.generation import Extension, Generation
from nsd_zarr.maintenance.extension.kept import find_identities, make_kept_sessions
from nsd_zarr.places.choose import is_remote
from nsd_zarr.source.protocol import SourcePart
from nsd_zarr.store.format import METADATA_NAME
from nsd_zarr.store.root import Store, is_store, open_store


def is_extensible(store: Path, config: Config) -> bool:
    """Whether a finished store of betas is there, or one that an extension of it was about to put there.

    Raises DamageFound, StoreError where a store is there and cannot be opened.
    """
    generation = Generation(store)
    if generation.is_cut:
        return True
    # Of a finished store there is nothing to forget but an extension that is not over.
    may = not config.fresh or generation.is_there
    is_there = may and (is_remote(store) or os.path.exists(store / METADATA_NAME)) and is_store(store)
    return is_there and open_store(store, allow_unfinished=True).is_complete


def extend(source: SourceWords, store: Path, config: Config, listen: Listener) -> ConversionReport:
    """Extend the finished *store* by what *source* has and it has not; leave it as it is where that is nothing.

    Killed at any moment, the same call goes on; readers see the former store or the new one. Raises StoreError
    (settings that are asked for and are not the store's, or something in it that would be lost), SourceError,
    ConfigError, ResumeRefused, DoesNotFit before the store is touched.
    """
    started, generation = time.perf_counter(), Generation(store)
    if generation.is_there:
        with hold_lock(store) as lock:
            generation.recover(lock)
            if config.fresh:
                generation.discard()
    config = config.model_copy(update={"fresh": False})
    growth = make_growth(source, store, config)
    if growth.plan.progress.state is TargetState.EXTENDED:
        refuse_part(store, config)
        with hold_lock(store) as lock:
            # Once more: another run may have come between the plan and the lock.
            generation.recover(lock)
            growth = make_growth(source, store, config)
            if growth.plan.progress.state is TargetState.EXTENDED:
                plan, done = _carry_out(growth, generation, source, lock, listen)
                return make_report(store, plan, done, started)
    return run_conversion(source, store, growth.config, listen, growth.store.geometry.sessions)


@dataclass(frozen=True, slots=True)
class Growth:
    """What a finished store is extended to."""

    store: Store
    """The store as it is."""
    config: Config
    """The store's own settings, and the other options that were asked for."""
    plan: Plan
    """What is left to do; its state is EXTENDED, or FINISHED where that is nothing."""
    replaced: tuple[SessionNumber, ...]
    """Sessions whose other files take the place of those that the store was made of."""

    @property
    def extension(self) -> Extension:
        """As it is recorded."""
        return Extension(self.store.fingerprint, self.replaced)


def make_growth(source: SourceWords, store: Path, config: Config) -> Growth:
    """What *store* is extended to by *source*. Reads metadata and small files; writes nothing. Raises as extend."""
    if Generation(store).is_cut:
        raise StoreError(
            "an extension of the store was stopped at its last step",
            hint="Run nsd-zarr convert with the same arguments: it ends that step.",
            path=store,
        )
    opened = open_store(store)
    sessions = opened.geometry.sessions
    own = adopt_settings(opened, config)
    files = find_files(source, own, sessions)
    check_replaced(opened, files, own.replace_session or ())
    if {file.session for file in files} <= set(sessions) and not own.replace_session:
        return Growth(opened, own, make_plan(source, store, own, sessions), ())
    own = check_extensible(opened, own)
    find = _Finder(opened, own.replace_session or ())
    plan = make_plan(source, store, own, sessions, find.find_progress)
    if plan.progress.state is TargetState.EXTENDED:
        plan = replace(plan, source_attributes=find_attributes(opened, plan, files[0].path))
        report = check_experiment(opened, plan, files, config)
        plan = replace(plan, experiment_report=report)
    return Growth(opened, own, plan, find.find_replaced(plan.sources))


@dataclass(frozen=True, slots=True)
class _Finder:
    """Looks how far an extension of *store* is."""

    store: Store
    asked: tuple[int, ...]
    """Sessions that were asked to be replaced."""

    def find_replaced(self, sources: Sequence[SourcePart]) -> tuple[SessionNumber, ...]:
        """Those that were asked for, and whose files are not known as the store's."""
        known = Ledger(self.store.path).read_sources()
        asked = (info for info in sources if info.session in self.asked)
        return tuple(info.session for info in asked if known.get(info.session) != info.identity)

    def find_progress(self, store: Path, settings: Settings, sources: Sequence[SourcePart], *, fresh: bool) -> Progress:
        """As resume.find_progress. Raises StoreError where the sources do not fit the store."""
        document = self.store.attributes.settings
        own = read_settings(document)
        refuse_other_settings(self.store, replace(settings, sessions=own.sessions).list_differences(document))
        replaced = self.find_replaced(sources)
        kept = {*own.sessions} - {*replaced}
        identities = find_identities(self.store)
        done = {info.session for info in sources if info.session in kept}
        doubtful = {
            info.session for info in sources if info.session in kept and identities[info.session] != info.identity
        }
        if done == {info.session for info in sources}:
            return Progress(TargetState.FINISHED, frozenset(done), frozenset(doubtful))
        generation = Generation(store)
        if not is_remote(store) and generation.is_of(Extension(self.store.fingerprint, replaced)):
            records = (generation.ledger.read_session(info.session) for info in sources)
            done |= {record.session for record in records if record is not None and has_files(generation.path, record)}
        return Progress(TargetState.EXTENDED, frozenset(done), frozenset(doubtful))


def _carry_out(
    growth: Growth, generation: Generation, source: SourceWords, lock: HeldLock, listen: Listener
) -> tuple[Plan, tuple[SessionDone, ...]]:
    """Make the next generation, and put it in the store's place. Whoever calls holds the store's *lock*."""
    store, settings = growth.store, growth.plan.settings
    assert isinstance(settings, Settings)  # The store is one of betas.
    sources = find_identities(store) | {info.session: info.identity for info in growth.plan.sources}
    generation.begin(growth.extension, settings, make_kept_sessions(store, settings, growth.replaced), sources)
    plan = make_plan(source, generation.path, growth.config, store.geometry.sessions)
    plan = replace(
        plan,
        source_attributes=growth.plan.source_attributes,
        experiment_report=growth.plan.experiment_report,
    )
    with hold_lock(generation.path) as lock_of_next:
        done = carry_out(plan, lock_of_next, listen)
    generation.take_place(lock)
    return plan, done
