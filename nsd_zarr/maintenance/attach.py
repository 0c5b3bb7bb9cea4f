"""Giving a finished store its experiment, or another one, without touching its trials."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from nsd_zarr.config import Config, make_config
from nsd_zarr.conversion.contents import Contents, make_statistics_arrays
from nsd_zarr.conversion.events import Listener, ignore_event
from nsd_zarr.conversion.experiment.arrays import make_experiment_arrays
from nsd_zarr.conversion.experiment.files import Experiment, ExperimentReport
from nsd_zarr.conversion.experiment.inspection import inspect_experiment
from nsd_zarr.conversion.experiment.validity import compare_valid
from nsd_zarr.conversion.finish import make_root, remove_unlisted_arrays, write_while_held
from nsd_zarr.conversion.ledger import Ledger
from nsd_zarr.conversion.lock import HeldLock, check_free, hold_lock
from nsd_zarr.conversion.pipeline.session_statistics import write_statistics
from nsd_zarr.conversion.plan import SourceWords, as_words, make_choice, make_given_files
from nsd_zarr.conversion.root_copy import write_root
from nsd_zarr.conversion.settings import Settings, read_settings
from nsd_zarr.conversion.subjects.convert import join_experiments
from nsd_zarr.conversion.subjects.each import run_one_or_each
from nsd_zarr.errors import SourceError, StoreError
from nsd_zarr.layout import Geometry
from nsd_zarr.maintenance.provenance import check_provenance
from nsd_zarr.maintenance.recompute import compute_statistics
from nsd_zarr.options import AttachOptions, check_options
from nsd_zarr.places.choose import is_remote, make_path
from nsd_zarr.places.durable import sync_folders
from nsd_zarr.progress import draw_progress
from nsd_zarr.source.experiment import ExperimentFiles, find_experiment, find_experiment_below
from nsd_zarr.source.find import find_session_files
from nsd_zarr.store.format import (
    BETAS,
    COORDINATES,
    HEMISPHERE,
    METADATA_NAME,
    RAIL_COUNT,
    SESSION_MEAN,
    SESSION_STD,
    VERTEX_IN_HEMISPHERE,
    Json,
)
from nsd_zarr.store.root import Store, open_store
from nsd_zarr.tasks import explain_lack_of_threads

LASTING = (
    BETAS,
    *COORDINATES,
    "session_number",
    SESSION_MEAN,
    SESSION_STD,
    RAIL_COUNT,
    HEMISPHERE,
    VERTEX_IN_HEMISPHERE,
)
"""Arrays that do not come from an experiment."""


@dataclass(frozen=True, slots=True)
class AttachReport:
    """What was attached.

    >>> report = nsd_zarr.attach("subj01.zarr", "nsd", subject=1, space="func1pt8mm")
    >>> "trial table" in report.experiment.found, report.computed_statistics
    (True, False)
    """

    store: Path
    """The store's folder; complete."""
    experiment: ExperimentReport
    """What of the experiment was found and went in."""
    computed_statistics: bool
    """Whether the statistics were missing, and are there now."""
    seconds: float
    """Wall time."""
    parts: tuple[AttachReport, ...] = ()
    """Of several subjects: the report of each, whose sum this one is."""

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON, for --json."""
        parts = [part.as_dict() for part in self.parts]
        return asdict(replace(self, parts=())) | {"store": str(self.store), "parts": parts}


@explain_lack_of_threads()
def attach(
    store: str | os.PathLike[str],
    source: SourceWords = (),
    *,
    config: str | os.PathLike[str] | None = None,
    on_event: Listener = ignore_event,
    progress: bool = False,
    **options: Unpack[AttachOptions],
) -> AttachReport:
    """Give a finished store its experiment: trial table, masks, regions, noise ceiling. Its trials stay untouched.

    What was attached before is replaced. Statistics of the sessions are computed when the store has none, by decoding
    every trial. The store comes out byte for byte as if the experiment had been there when it was converted, with the
    same libraries. Killed at any moment it is a whole store: with the experiment, without one, or with the former one.
    A reader that has it open should open it again. Files of another subject, space or preparation than the store's are
    refused.

    Parameters
    ----------
    store
        The store's folder.
    source
        As for `convert`: an NSD root, or a folder of session files in one; of a root without session files name
        `subject` and `space`. Not needed when every file is named.
    config
        A YAML file of options, as for `convert`; those that concern only a conversion are passed over.
    on_event
        Called with RunStarted, TrialsDone and SessionDone while statistics are computed.
    progress
        Whether to draw a bar, in a notebook or on standard error: by tqdm where it is installed, else by rich.
    **options
        See AttachOptions. `no_experiment` takes an experiment out again.

    Returns
    -------
    AttachReport
        What was found, and went in.

    Raises
    ------
    ConfigError, SourceError, StoreError, DoesNotFit
        Before anything is written.
    DamageFound
        When a trial that statistics need is damaged.

    Examples
    --------
    >>> nsd_zarr.attach("subj01.zarr", no_experiment=True).experiment.found
    ()
    >>> report = nsd_zarr.attach("subj01.zarr", "nsd", subject=1, space="func1pt8mm")
    >>> "nsd_id" in nsd_zarr.open_dataset("subj01.zarr")
    True
    """
    check_options("attach", options, AttachOptions, others=("config", "on_event", "progress"))
    options_in_force = make_config(config, **options)
    path = make_path(store, options_in_force.access)
    with draw_progress(progress, on_event) as listen:
        return run_one_or_each(path, options_in_force, listen, partial(_attach_to, source=source), _join, source)


def _attach_to(path: Path, config: Config, listen: Listener, source: SourceWords) -> AttachReport:
    """Attach to the store of one subject."""
    started = time.perf_counter()
    check_free(path)
    opened = open_store(path)
    if not config.no_experiment:
        check_provenance(opened, source, config)
    experiment = find_and_inspect(opened.geometry, source, config)
    with hold_lock(path) as lock:
        seen, opened = opened, open_store(path)
        if opened.fingerprint != seen.fingerprint:  # Another run was here before the lock was ours.
            experiment = find_and_inspect(opened.geometry, source, config)
        has_statistics = SESSION_MEAN in opened.members
        experiment = _attach(opened, experiment, config, lock, listen)
    report = ExperimentReport() if experiment is None else experiment.make_report()
    return AttachReport(path, report, not has_statistics, time.perf_counter() - started)


def _join(tree: Path, reports: dict[int, AttachReport], seconds: float) -> AttachReport:
    """The sum of the reports of several subjects."""
    parts = tuple(reports.values())
    experiment = join_experiments({subject: report.experiment for subject, report in reports.items()})
    return AttachReport(tree, experiment, any(part.computed_statistics for part in parts), seconds, parts)


def find_and_inspect(geometry: Geometry, source: SourceWords, config: Config) -> Experiment | None:
    """The experiment of SOURCE and *config*, read and checked; None when none is wanted. Raises SourceError."""
    if config.no_experiment:
        make_given_files(config)  # refuses both at once
        return None
    files = _find(geometry, as_words(source, config), config)
    if files.is_empty:
        raise SourceError(
            "nothing of an experiment was found"
            + (f": looked for {', '.join(files.missing)}" if files.missing else ", and none of its files is named"),
            hint="Give an NSD root as SOURCE, or name files: --trial-table, --brainmask, --roi, ...",
            path=files.root,
            found=(),
        )
    return inspect_experiment(files, geometry)


def _find(geometry: Geometry, words: list[str | os.PathLike[str]], config: Config) -> ExperimentFiles:
    given = make_given_files(config)
    volumes, vertices = len(geometry.volume_shape) == 3, geometry.vertices
    if not words:
        return find_experiment(None, geometry.sessions, given, volumes=volumes, vertices=vertices)
    choice = make_choice(config)
    try:
        session_file = find_session_files(words, choice)[0].path
    except SourceError:
        below = find_experiment_below(words, choice, geometry.sessions, given, volumes=volumes, vertices=vertices)
        if below is None:
            raise
        return below
    return find_experiment(session_file, geometry.sessions, given, volumes=volumes, vertices=vertices)


def _attach(
    store: Store, experiment: Experiment | None, config: Config, lock: HeldLock, listen: Listener
) -> Experiment | None:
    """Attach *experiment*; returns it as attached, with a note where its valid voxels are not those of the betas."""
    if SESSION_STD in store.members:  # Before anything is written, where it can be.
        experiment = compare_valid(experiment, store.geometry, store.path)
    settings = read_settings(store.attributes.settings)
    assert isinstance(settings, Settings)  # The store is one of betas.
    # Of a store without `space` the subject is that of its trial table.
    of_table = () if "space" in store.attributes.origin else ("subject",)
    replaced = {"checksum", "experiment", "experiment_notes", *of_table}
    attributes = {name: value for name, value in store.attributes.document.items() if name not in replaced}
    brought = () if experiment is None else experiment.array_names
    _check_not_users(store, brought)
    contents = _keep_lasting(store, lock)
    Ledger(store.path).note_arrays({*(name for name in store.members if name not in LASTING), *brought})
    sync_folders(store.path)
    store.place.remove_partials()
    # From here to the end the store is one without an experiment. Its manifest leaves out the one file of `betas` that
    # is about to change, so that it is whole whichever of the two is there.
    write_root(store.path, make_root(attributes, contents), lock)
    if SESSION_MEAN not in store.members:
        _add_statistics(store, settings, contents, config, lock, listen)
        experiment = compare_valid(experiment, store.geometry, store.path)
    coordinates = () if experiment is None else experiment.coordinates
    contents.add_metadata(BETAS, _list_coordinates(store, coordinates))
    if experiment is not None:
        contents.add_arrays(make_experiment_arrays(experiment, store.geometry, store.path), settings.blosc)
        attributes |= experiment.make_attributes()
    write_root(store.path, make_root(attributes, contents), lock)
    remove_unlisted_arrays(store.path, contents.members)
    return experiment


def _check_not_users(store: Store, names: Iterable[str]) -> None:
    """Refuse to write over what the user added to the folder of the store. Raises StoreError."""
    known = {*store.members, *Ledger(store.path).read_arrays()}
    for name in names:
        if name not in known and _lies_there(store.path / name):
            raise StoreError(
                f"{name} is in the folder of the store, and no array of the store: attach would write over it",
                hint="Move it away, or give the file of the region another name; then run the same command again.",
                path=store.path / name,
            )


def _keep_lasting(store: Store, lock: HeldLock) -> Contents:
    """What is in the store and does not come from an experiment, but for the metadata of betas as a file."""
    contents = Contents(partial(write_while_held, store.path, lock))
    contents.members = {name: store.members[name].make_document() for name in LASTING if name in store.members}
    contents.members[BETAS] = _list_coordinates(store, ())
    for key, record in store.manifest.items():
        if key.split("/")[0] in contents.members and key != f"{BETAS}/{METADATA_NAME}":
            contents.add_files([record])
    return contents


def _list_coordinates(store: Store, names: tuple[str, ...]) -> Json:
    """The metadata of betas with coordinates *names* beside those that every store has."""
    metadata = store.members[BETAS]
    attributes = {**metadata.attributes, "coordinates": " ".join(COORDINATES + names)}
    return metadata.with_attributes(attributes).make_document()


# -- statistics --------------------------------------------------------------------------------------------------


def _add_statistics(
    store: Store, settings: Settings, contents: Contents, config: Config, lock: HeldLock, listen: Listener
) -> None:
    geometry, counts = store.geometry, []
    with ThreadPoolExecutor(config.effective_workers, "nsd-zarr attach") as executor:
        for session, statistics in zip(
            geometry.sessions, compute_statistics(store, geometry.sessions, config, executor, listen), strict=True
        ):
            lock.check_sometimes()
            contents.add_files(write_statistics(store.path, settings, session, statistics, executor))
            counts.append(statistics.rail_count)
    arrays = make_statistics_arrays(geometry.sessions, geometry.volume_shape, counts)
    contents.add_arrays(arrays, settings.blosc)


def _lies_there(path: Path) -> bool:
    return path.exists() if is_remote(path) else os.path.lexists(path)
