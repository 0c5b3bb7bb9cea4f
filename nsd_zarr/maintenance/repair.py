"""Making a damaged store whole again: what is lost or wrong is made once more from the sources, and nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from nsd_zarr.config import Config, make_config
from nsd_zarr.conversion.context import RunContext, Stopped
from nsd_zarr.conversion.events import Listener, ignore_event
from nsd_zarr.conversion.experiment.files import Experiment
from nsd_zarr.conversion.finish import write_while_held
from nsd_zarr.conversion.ledger import make_run_folder
from nsd_zarr.conversion.lock import HeldLock, check_free, hold_lock
from nsd_zarr.conversion.pipeline.work import Unit, announce
from nsd_zarr.conversion.plan import SourceWords
from nsd_zarr.conversion.root_copy import add_copy, read_copy
from nsd_zarr.conversion.subjects.each import run_one_or_each
from nsd_zarr.conversion.subjects.root import update_root
from nsd_zarr.conversion.unit import run_unit
from nsd_zarr.errors import DamageFound, StoreError
from nsd_zarr.layout import IMAGES, TRIALS
from nsd_zarr.maintenance.attach import LASTING, find_and_inspect
from nsd_zarr.maintenance.compare_sources import compare_sources, select_shards
from nsd_zarr.maintenance.damage import Damage, join_damages
from nsd_zarr.maintenance.expected import ExpectedStore, make_expected_store
from nsd_zarr.maintenance.recompute import STATISTICS, make_statistics_files
from nsd_zarr.maintenance.sources import find_ids, find_sources
from nsd_zarr.maintenance.verify import check_store, open_to_check
from nsd_zarr.maintenance.verify_files import find_file_problem
from nsd_zarr.maintenance.verify_tree import check_tree
from nsd_zarr.nsd import find_subject_name
from nsd_zarr.options import RepairOptions, SessionWords, check_options
from nsd_zarr.places.choose import choose_place, make_path
from nsd_zarr.progress import draw_progress
from nsd_zarr.store.digest import make_digest
from nsd_zarr.store.format import METADATA_NAME, make_chunk_key
from nsd_zarr.store.root import read_kind
from nsd_zarr.tasks import explain_lack_of_threads


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a repair did.

    >>> report = nsd_zarr.repair("subj01.zarr", "nsd", subject=1)
    >>> report.is_whole, report.rewritten
    (True, ())
    """

    store: Path
    """The store's folder."""
    damages: tuple[Damage, ...]
    """Everything that was found."""
    rewritten: tuple[str, ...]
    """Files made again, by their path inside the store; empty when there was nothing to do."""
    removed: int
    """Leftovers of killed writers that were removed."""
    left: tuple[Damage, ...]
    """Damage of sessions that were not asked for."""
    seconds: float
    """Wall time."""
    parts: tuple[RepairReport, ...] = ()
    """Of several subjects: the report of each, whose sum this one is."""

    @property
    def is_whole(self) -> bool:
        """Whether the store is whole now."""
        return not self.left

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON, for --json."""
        parts = [part.as_dict() for part in self.parts]
        return asdict(replace(self, parts=())) | {"store": str(self.store), "whole": self.is_whole, "parts": parts}


@explain_lack_of_threads()
def repair(
    store: str | os.PathLike[str],
    source: SourceWords,
    sessions: SessionWords | None = None,
    *,
    on_event: Listener = ignore_event,
    progress: bool = False,
    **options: Unpack[RepairOptions],
) -> RepairReport:
    """Verify a store, and make what is damaged or missing again from the sources it was made of.

    A root document that is lost or damaged comes back from its copy in the run folder. What is found is looked for
    once more under the store's lock, and that counts. Before anything is written, the trials that are needed are
    compared with the digests taken when the store was made. Each file is written whole under another name and renamed,
    and only when it is byte for byte what the manifest says; a call that was killed is repeated. A whole store is left
    as it is. Nothing else in its folder is touched.

    Parameters
    ----------
    store, source
        The store's folder; as for `convert`, what it was made of.
    sessions
        Repair shards of these alone (a number, "1-3,5", numbers); files that concern all are always repaired.
    on_event
        Called with RunStarted, TrialsRead, TrialsDone and SessionDone, from any thread.
    progress
        Whether to draw a bar, in a notebook or on standard error: by tqdm where it is installed, else by rich.
    **options
        See RepairOptions.

    Returns
    -------
    RepairReport
        What was found, what was written, and what is left.

    Raises
    ------
    StoreError, SourceError, DoesNotFit
        No finished store, in use, or its root document is lost together with the copy; sources or memory do not fit.
    ResumeRefused
        The source is not the one that was converted, or the libraries give other bytes.

    Examples
    --------
    >>> os.remove("subj01.zarr/session/c/0")
    >>> nsd_zarr.repair("subj01.zarr", "nsd", subject=1).rewritten
    ('session/c/0',)
    """
    check_options("repair", options, RepairOptions, others=("sessions", "on_event", "progress"))
    config = make_config(None, sessions=sessions, **options)
    path = make_path(store, config.access)
    with draw_progress(progress, on_event, read_kind(path) or TRIALS) as listen:
        return run_one_or_each(path, config, listen, partial(_repair, source=source), _repair_tree, source)


def _repair_tree(tree: Path, reports: dict[int, RepairReport], seconds: float) -> RepairReport:
    """The sum of the reports of several subjects; the root document above them is made again where it is wrong."""
    above = tuple(check_tree(tree))
    written = (METADATA_NAME,) if update_root(tree) else ()
    below = (f"{find_subject_name(subject)}/{key}" for subject, report in reports.items() for key in report.rewritten)
    return RepairReport(
        store=tree,
        damages=(*above, *join_damages({subject: report.damages for subject, report in reports.items()})),
        rewritten=(*written, *below),
        removed=sum(report.removed for report in reports.values()),
        left=join_damages({subject: report.left for subject, report in reports.items()}),
        seconds=seconds,
        parts=tuple(reports.values()),
    )


def _repair(path: Path, config: Config, listen: Listener, source: SourceWords) -> RepairReport:
    started = time.perf_counter()
    check_free(path)
    found, removed = _look(path, config, listen), 0
    rewritten: tuple[str, ...] = ()
    if found.asked or _count_leftovers(path):
        with hold_lock(path) as lock:
            # Once more: what another run wrote before the lock was ours must not be undone.
            found = _look(path, config, listen, "verifying again")
            planned = _prepare(found.expected, found.asked, source, config, listen)
            lock.check()
            add_copy(path)
            removed = sum(choose_place(each).remove_partials() for each in (path, make_run_folder(path)))
            rewritten = tuple(_carry_out(found.expected, planned, config, lock, listen))
    left = tuple(damage for damage in found.damages if damage not in found.asked)
    return RepairReport(path, found.damages, rewritten, removed, left, time.perf_counter() - started)


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong with a store."""

    expected: ExpectedStore
    """What it must hold."""
    damages: tuple[Damage, ...]
    """Everything that is wrong."""
    asked: tuple[Damage, ...]
    """What of it is to be repaired: all, but for shards of sessions that were not asked for."""


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """What a repair writes: nothing of it is written before all of it is known to be right."""

    units: tuple[Unit, ...]
    """Shards of sessions."""
    statistics: set[str]
    """Files of statistics, by path inside the store: counted once more when the shards are whole."""
    documents: dict[str, bytes]
    """Other files by their path inside the store, the root last."""


def _look(path: Path, config: Config, listen: Listener, step: str = "verifying") -> Findings:
    """What the store must hold, and what is wrong with it."""
    damages: tuple[Damage, ...] = ()
    try:
        expected = make_expected_store(open_to_check(path))
    except DamageFound as error:
        damages = (Damage(METADATA_NAME, error.problem),)
        expected = make_expected_store(*read_copy(path, error))
    damages += check_store(expected.store, "full", [], config, listen, step)
    sessions = expected.store.geometry.sessions if config.sessions is None else config.sessions
    asked = tuple(damage for damage in damages if damage.session is None or damage.session in sessions)
    return Findings(expected, damages, asked)


def _count_leftovers(path: Path) -> int:
    return sum(choose_place(folder).count_partials() for folder in (path, make_run_folder(path)))


# -- before anything is written ----------------------------------------------------------------------------------


def _prepare(
    expected: ExpectedStore, damages: Iterable[Damage], source: SourceWords, config: Config, listen: Listener
) -> RepairPlan:
    """Everything to be written, compared with what was recorded. Raises ResumeRefused, StoreError, SourceError."""
    keys = {damage.path for damage in damages}
    _check_known(expected, keys)
    wanted = select_shards(expected, keys)
    blind = {record.session for record in expected.records if not record.trial_digests}
    needed = [session for session, shards in wanted.items() if shards or session in blind]
    infos = find_sources(expected.store, source, config, needed) if needed else []
    expected, units = compare_sources(expected, infos, keys, config, listen)
    geometry = expected.store.geometry
    statistics = {key for key in keys if key.split("/c/")[0] in STATISTICS}
    experiment = None
    if geometry.kind == TRIALS and any("/c/" in key and key.split("/")[0] not in LASTING for key in keys):
        experiment = find_and_inspect(geometry, source, config)
    ids: Sequence[int] = ()
    if geometry.kind == IMAGES:
        ids = find_ids(expected.store, source, config)
    return RepairPlan(units, statistics, dict(_make_documents(expected, keys - statistics, experiment, ids)))


def _check_known(expected: ExpectedStore, keys: set[str]) -> None:
    unknown = sorted(keys - set(expected.store.manifest) - {METADATA_NAME})
    if unknown:
        raise StoreError(
            f"{unknown[0]} cannot be repaired: the root document leads to it, and its manifest does not list it",
            hint="Convert again, to another path.",
            path=expected.store.path,
        )


def _make_documents(
    expected: ExpectedStore, keys: set[str], experiment: Experiment | None, ids: Sequence[int]
) -> Iterator[tuple[str, bytes]]:
    made = expected.make_documents(experiment, ids)
    for key in sorted(keys - {shard.key for record in expected.records for shard in record.shards} - {METADATA_NAME}):
        expected.check_bytes(key, made.get(key))
        yield key, made[key]
    if METADATA_NAME in keys:
        yield METADATA_NAME, expected.root


# -- writing -----------------------------------------------------------------------------------------------------


def _carry_out(
    expected: ExpectedStore, planned: RepairPlan, config: Config, lock: HeldLock, listen: Listener
) -> Iterator[str]:
    """Write, and check what was written; gives its paths. Raises StoreError once the lock is lost."""
    path, context = expected.store.path, RunContext(listen, is_lost=lock)
    if planned.units:
        announce("repairing", planned.units, listen)
    for unit in planned.units:
        try:
            run_unit(unit, context)
        except Stopped:
            lock.check()
            raise
    counted, digests = {}, make_chunk_key(expected.store.geometry.kind.digests, (0,))
    if digests in planned.documents:  # First: by them trials are checked while statistics are counted.
        write_while_held(path, lock, digests, planned.documents[digests])
    if planned.statistics:
        counted = make_statistics_files(expected.store, planned.statistics, expected.settings.blosc, config, listen)
    for key, data in counted.items():
        expected.check_bytes(key, data)
    documents = counted | planned.documents
    lock.check()
    for key, data in documents.items():
        write_while_held(path, lock, key, data)
    sizes = {shard.key: (shard.size, shard.digest) for unit in planned.units for shard in unit.shards}
    sizes |= {key: (len(data), make_digest(data)) for key, data in documents.items()}
    for key, (size, digest) in sizes.items():
        if problem := find_file_problem(path, key, size, digest):
            raise StoreError(
                f"{key} was written, and is not what was written: {problem}",
                hint="See to the disk, then run the same command again.",
                path=path / key,
            )
        yield key
