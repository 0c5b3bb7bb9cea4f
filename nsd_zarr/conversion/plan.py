"""What a conversion will do, found out by reading metadata only. It refuses before anything is written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nsd_zarr.config import Config
from nsd_zarr.conversion.experiment import Experiment, ExperimentReport
from nsd_zarr.conversion.finish import make_told
from nsd_zarr.conversion.inspection import inspect_experiment
from nsd_zarr.conversion.memory import (
    EXPERIMENT_BYTES,
    MemoryPlan,
    Need,
    make_memory_plan,
)
from nsd_zarr.conversion.resume import Progress, TargetState, find_progress
from nsd_zarr.conversion.settings import AnySettings, Settings
from nsd_zarr.conversion.space import SpacePlan, make_space_plan
from nsd_zarr.errors import ConfigError, SourceError
from nsd_zarr.layout import Geometry, SessionNumber, choose_trials_per_shard, divisors
from nsd_zarr.source.experiment import ExperimentFiles, GivenFiles, find_experiment
from nsd_zarr.source.find import Choice, SessionFile, check_complete, find_session_files, select_sessions
from nsd_zarr.source.images import AnySource
from nsd_zarr.source.origin import find_origin, find_unfinished
from nsd_zarr.source.session import SessionInfo, inspect_session
from nsd_zarr.store.check import MAX_SESSION
from nsd_zarr.store.format import Json

MAX_COORDINATE = 2**15 - 1
"""The coordinate trial_in_session is int16."""
STAYS = "the store is finished and stays as it is: nsd-zarr attach gives it an experiment, or another one"
SourceWords = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True, slots=True)
class Plan:
    """One conversion, decided. Frozen, picklable, printable."""

    store: Path
    """The store's folder."""
    settings: AnySettings
    """What affects values or bytes."""
    sources: tuple[AnySource, ...]
    """The session files, inspected, ascending; or blocks of the stimulus file."""
    progress: Progress
    """What an earlier run left: what is done, what has to be read again to be sure."""
    memory: MemoryPlan
    """How sessions share threads and memory."""
    space: SpacePlan
    """What the store takes on disk, and what there is."""
    scheduler: str
    """threads, synchronous, or the address of a Dask scheduler."""
    fresh: bool
    """Whether an unfinished run is forgotten first."""
    experiment: Experiment | None
    """What is attached; None where nothing was found, or the store is finished."""
    experiment_report: ExperimentReport
    """What of the experiment was found and what was not, and what else is odd."""
    told: Json = field(default_factory=dict)
    """Root attributes that the source tells."""

    @property
    def todo(self) -> tuple[AnySource, ...]:
        """Sessions that have to be converted."""
        done = self.progress.done
        return tuple(info for info in self.sources if info.session not in done)

    @property
    def doubtful(self) -> tuple[AnySource, ...]:
        """Sessions that are done, and whose files look different since."""
        return tuple(info for info in self.sources if info.session in self.progress.doubtful)

    @property
    def bytes_in(self) -> int:
        """Bytes of values in the sources."""
        return sum(info.trials * info.trial_bytes for info in self.sources)

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON, for --json."""
        geometry = self.settings.geometry
        return {
            "store": str(self.store),
            "state": self.progress.state.value,
            "settings": self.settings.make_attributes(),
            "sessions": [
                {
                    "session": int(info.session),
                    "file": str(info.path),
                    "bytes": info.identity.size,
                    "read": info.how,
                    "done": info.session in self.progress.done,
                }
                for info in self.sources
            ],
            "trials": geometry.trials,
            "shape": list(geometry.shape),
            "shards": geometry.shards,
            "bytes_in": self.bytes_in,
            "bytes_out_expected": self.space.expected_bytes,
            "files": self.space.files,
            "free_bytes": self.space.free_bytes,
            "free_inodes": self.space.free_inodes,
            "peak_memory_bytes": self.memory.peak_bytes,
            "memory_limit_bytes": self.memory.limit_bytes,
            "sessions_at_once": self.memory.sessions_at_once,
            "threads_per_session": self.memory.threads_per_session,
            "passes": self.memory.passes,
            "units_of_work": len(self.todo),
            "scheduler": self.scheduler,
            "experiment": asdict(self.experiment_report),
        }


def make_plan(source: SourceWords, store: str | os.PathLike[str], config: Config) -> Plan:
    """Plan the conversion of *source* to *store*. Reads no betas, and the experiment's small files; writes nothing.

    Raises SourceError, ConfigError, StoreError, ResumeRefused or DoesNotFit where it could not run to its end.
    """
    target = Path(os.path.abspath(store))
    files = find_files(source, config)
    sources = tuple(inspect_session(file, config.dataset) for file in files)
    check_uniform(sources)
    check_countable(sources)
    settings = make_settings(sources, config)
    progress = find_progress(target, settings, sources, fresh=config.fresh)
    left = len(sources) - len(progress.done)
    given = find_files_of_experiment(files, config, settings.geometry)
    experiment, report = None, ExperimentReport(notes=(STAYS,) if given is not None else ())
    if progress.state is not TargetState.FINISHED:
        experiment, report = read_experiment(given, settings.geometry)
    notes = find_unfinished(files[0].path.parent, settings.sessions)
    report = replace(report, notes=(*notes, *report.notes))
    return Plan(
        store=target,
        settings=settings,
        sources=sources,
        progress=progress,
        memory=_make_memory_plan(settings, sources, max(1, left), config, experiment is not None),
        space=make_space_plan(target, settings, left, 0 if experiment is None else experiment.count_files()),
        scheduler=config.scheduler,
        fresh=config.fresh,
        experiment=experiment,
        experiment_report=report,
        told=make_told(find_origin(files[0].path), notes),
    )


def find_files_of_experiment(
    files: Sequence[SessionFile], config: Config, geometry: Geometry
) -> ExperimentFiles | None:
    """The experiment's files that the configuration means; None when it means none. Raises SourceError, ConfigError."""
    given = make_given_files(config)
    if config.no_experiment:
        return None
    found = find_experiment(files[0].path, geometry.sessions, given, volumes=len(geometry.volume_shape) == 3)
    return None if found.root is None and found.is_empty else found


def make_given_files(config: Config) -> GivenFiles:
    """The experiment's files that are given by hand. Raises ConfigError when none at all are wanted."""
    given = GivenFiles(
        trial_table=config.trial_table,
        expdesign=config.expdesign,
        stim_info=config.stim_info,
        brainmask=config.brainmask,
        ncsnr=config.ncsnr,
        valid=config.valid,
        rois=config.roi,
        skipped_rois=config.skip_roi,
        no_trial_table=config.no_trial_table,
    )
    if config.no_trial_table and given.names_trials:
        raise ConfigError("no_trial_table, and a file of it", hint="Leave out one or the other.")
    if config.no_experiment and given.names_any:
        raise ConfigError("no_experiment, and a file of the experiment", hint="Leave out one or the other.")
    return given


def read_experiment(files: ExperimentFiles | None, geometry: Geometry) -> tuple[Experiment | None, ExperimentReport]:
    """The experiment read and checked, and what to say of it. Raises SourceError."""
    if files is None:
        return None, ExperimentReport()
    if files.is_empty:
        return None, ExperimentReport(missing=files.missing, notes=files.notes)
    experiment = inspect_experiment(files, geometry)
    return experiment, experiment.make_report()


def as_words(source: SourceWords) -> list[str | os.PathLike[str]]:
    """SOURCE as a list, whichever way it was given."""
    return [source] if isinstance(source, (str, os.PathLike)) else list(source)


def find_files(source: SourceWords, config: Config) -> list[SessionFile]:
    """The session files that *source* and the configuration mean, without a gap unless it was asked for."""
    words = as_words(source)
    files = find_session_files(words, Choice(config.subject, config.space, config.betas))
    if config.sessions is not None:
        return select_sessions(files, config.sessions)
    # A folder is meant whole, from session 1; who names files may begin anywhere.
    is_folder = len(words) == 1 and Path(words[0]).is_dir()
    check_complete(files, 1 if is_folder else files[0].session)
    return files


def check_uniform(sources: Sequence[SessionInfo]) -> None:
    """Refuse a session whose trial count, volume or dtype is not what most sessions have. Raises SourceError."""
    _check_same(sources, lambda info: info.shape, "shape")
    _check_same(sources, lambda info: info.dtype, "dtype")


def check_countable(sources: Sequence[SessionInfo]) -> None:
    """Refuse session numbers that readers refuse, and trial counts that int16 cannot hold. Raises SourceError."""
    for info in sources:
        checks = (("session number", info.session, MAX_SESSION), ("trial count", info.trials, MAX_COORDINATE))
        for what, number, most in checks:
            if number > most:
                raise SourceError(
                    f"{what} {number}, expected at most {most}",
                    hint="Number the files from 1, or split the session.",
                    path=info.path,
                    session=info.session,
                    expected=most,
                    found=number,
                )


def _check_same(sources: Sequence[SessionInfo], measure: Callable[[SessionInfo], Any], name: str) -> None:
    counts = Counter(measure(info) for info in sources)
    # What most have; between equals the larger, because files are cut short more often than they grow.
    expected = max(counts, key=lambda value: (counts[value], value))
    for info in sources:
        found = measure(info)
        if found == expected:
            continue
        cut_short = name == "shape" and found[1:] == expected[1:]
        raise SourceError(
            f"dataset /{info.dataset}: {name} {found}, expected {expected} as in {counts[expected]} of "
            f"{len(sources)} sessions",
            hint=("The file is probably cut short: fetch" if cut_short else "Fetch")
            + " it again, or leave it out with --sessions.",
            path=info.path,
            session=info.session,
            expected=expected,
            found=found,
        )


def make_settings(sources: Sequence[SessionInfo], config: Config) -> Settings:
    """What affects values or bytes, for *sources* of one shape and dtype. Raises ConfigError."""
    first = sources[0]
    trials_per_shard = config.trials_per_shard or choose_trials_per_shard(first.trials, first.trial_bytes)
    if first.trials % trials_per_shard:
        allowed = ", ".join(map(str, divisors(first.trials)))
        raise ConfigError(
            f"trials_per_shard = {trials_per_shard} does not divide the {first.trials} trials of a session",
            hint=f"Give one of {allowed}.",
            expected=allowed,
            found=trials_per_shard,
        )
    return Settings(
        dataset=config.dataset,
        sessions=tuple(SessionNumber(info.session) for info in sources),
        trials_per_shard=trials_per_shard,
        codec=config.codec,
        clevel=config.effective_clevel,
        shape=first.shape,
        dtype=first.dtype,
    )


def _make_memory_plan(
    settings: Settings, sources: Sequence[SessionInfo], left: int, config: Config, has_experiment: bool
) -> MemoryPlan:
    through_h5py = [info.chunk_bytes for info in sources if info.offset_refusal]
    extra = EXPERIMENT_BYTES * has_experiment
    need = Need(settings.geometry, not through_h5py, max(through_h5py, default=0), extra)
    # On a cluster a worker holds one session at a time; how many workers there are shows when the run begins.
    at_once = 1 if "://" in config.scheduler else left
    return make_memory_plan(need, at_once, config.effective_workers, config.effective_memory)
