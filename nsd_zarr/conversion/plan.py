"""What a conversion will do, found out by reading metadata only. It refuses before anything is written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from nsd_zarr.config import Config
from nsd_zarr.conversion.estimate.estimate import Estimate
from nsd_zarr.conversion.estimate.planned import estimate_plan
from nsd_zarr.conversion.experiment.files import Experiment, ExperimentReport
from nsd_zarr.conversion.experiment.inspection import ReadExperiment, find_files_of_experiment, read_experiment
from nsd_zarr.conversion.experiment.inspection import make_given_files as make_given_files
from nsd_zarr.conversion.finish import make_source_attributes
from nsd_zarr.conversion.memory import MemoryPlan
from nsd_zarr.conversion.memory_choice import OnMemory, ignore_memory, plan_memory
from nsd_zarr.conversion.remote.fetching import plan_fetching
from nsd_zarr.conversion.resume import Progress, TargetState, find_progress
from nsd_zarr.conversion.settings import AnySettings, Settings
from nsd_zarr.conversion.space import SpacePlan, make_space_plan
from nsd_zarr.errors import ConfigError
from nsd_zarr.layout import Part, SessionNumber, choose_trials_per_shard, divisors, format_bytes, format_count
from nsd_zarr.options import SourceWords as SourceWords
from nsd_zarr.places.choose import as_path, find_remote, make_path
from nsd_zarr.source.find import (
    Choice,
    SessionFile,
    check_complete,
    find_session_files,
    format_sessions,
    select_sessions,
)
from nsd_zarr.source.forms.files import find_twin_notes
from nsd_zarr.source.inspect import inspect_file
from nsd_zarr.source.origin import find_origin, find_unfinished
from nsd_zarr.source.other_experiments import find_first_session
from nsd_zarr.source.protocol import SourcePart
from nsd_zarr.source.uniform import check_countable, check_uniform
from nsd_zarr.store.check import MAX_SESSION
from nsd_zarr.store.format import Json
from nsd_zarr.words import escape_line

STAYS = "the store is finished and stays as it is: nsd-zarr attach gives it an experiment, or another one"


@dataclass(frozen=True, slots=True)
class Plan:
    """One conversion, decided. Frozen, picklable; `print` shows it as the command does.

    >>> plan = nsd_zarr.plan("nsd", "new.zarr", subject=1)
    >>> len(plan.todo), plan.settings.geometry.trials
    (3, 36)
    """

    store: Path
    """The store's folder."""
    settings: AnySettings
    """What affects values or bytes."""
    sources: tuple[SourcePart, ...]
    """The session files, inspected, ascending; or blocks of the stimulus file."""
    progress: Progress
    """What an earlier run left: what is done, what has to be read again to be sure."""
    memory: MemoryPlan
    """How sessions share threads and memory."""
    space: SpacePlan
    """What the store takes on disk, and what there is."""
    scheduler: Any
    """threads, synchronous, the address or the scheduler file of a Dask cluster; or a Client of one."""
    fresh: bool
    """Whether an unfinished run is forgotten first."""
    worker_memory_bytes: int | None
    """What a session may take on each worker of a cluster; None: by the worker's own limits."""
    experiment: Experiment | None
    """What is attached; None where nothing was found, or the store is finished."""
    experiment_report: ExperimentReport
    """What of the experiment was found and what was not, and what else is odd."""
    source_attributes: Json = field(default_factory=dict)
    """Root attributes that come from the source: whose betas these are, and notes."""
    image_ids: Sequence[int] = ()
    """Of a store of images: 0-based 73k ids, ascending."""
    part: Part | None = None
    """The part of the sessions that is to be converted; None: all."""

    def __str__(self) -> str:
        return "\n".join(map(escape_line, _format_lines(self)))

    @property
    def todo(self) -> tuple[SourcePart, ...]:
        """Sessions that have to be converted."""
        done = self.progress.done
        return tuple(info for info in self.sources if info.session not in done)

    @property
    def doubtful(self) -> tuple[SourcePart, ...]:
        """Sessions that are done, and whose files look different since."""
        return tuple(info for info in self.sources if info.session in self.progress.doubtful)

    @property
    def bytes_in(self) -> int:
        """Bytes of values in the sources."""
        return sum(info.trials * info.trial_bytes for info in self.sources)

    @property
    def estimate(self) -> Estimate:
        """How long it takes, and by how many requests, as far as metadata tell; of the part, where it is of one."""
        return estimate_plan(self)

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
            "inodes": self.space.inodes,
            "free_bytes": self.space.free_bytes,
            "free_inodes": self.space.free_inodes,
            "peak_memory_bytes": self.memory.peak_bytes,
            "memory_limit_bytes": self.memory.limit_bytes,
            "sessions_at_once": self.memory.sessions_at_once,
            "threads_per_session": self.memory.threads_per_session,
            "passes": self.memory.passes,
            "units_of_work": len(self.todo),
            "scheduler": str(self.scheduler),
            "estimate": self.estimate.as_dict(),
            "experiment": asdict(self.experiment_report),
        }


class FindProgress(Protocol):
    """Looks at what stands where the store shall be: resume.find_progress, or another one for a store that grows."""

    def __call__(self, store: Path, settings: Settings, sources: Sequence[SourcePart], *, fresh: bool) -> Progress:
        """How far it is. Reads only."""


def make_plan(
    source: SourceWords,
    store: str | os.PathLike[str],
    config: Config,
    kept: Sequence[SessionNumber] = (),
    find: FindProgress = find_progress,
    read: ReadExperiment = read_experiment,
    on_memory: OnMemory = ignore_memory,
) -> Plan:
    """Plan the conversion of *source* to *store*. Reads no betas, and the experiment's small files; writes nothing.

    *kept*: sessions that the store has beside those of *source*. *on_memory* is called before the experiment is read,
    unless there is nothing to convert. Raises SourceError, ConfigError, StoreError,
    ResumeRefused or DoesNotFit where it could not run to its end.
    """
    target = make_path(store, config.access)
    files = find_files(source, config, kept)
    sources = tuple(inspect_file(file, config.dataset) for file in files)
    check_uniform(sources)
    check_countable(sources, MAX_SESSION)
    settings = make_settings(sources, config, kept)
    progress = find(target, settings, sources, fresh=config.fresh)
    todo = [info for info in sources if info.session not in progress.done]
    given = find_files_of_experiment(files, config, settings.geometry)
    experiment, report = None, ExperimentReport(notes=(STAYS,) if given is not None else ())
    is_finished = progress.state is TargetState.FINISHED
    has_experiment = given is not None and not is_finished
    memory, need = plan_memory(settings, sources, todo, config, has_experiment, target)
    sources, memory = plan_fetching(sources, memory, need, max(1, len(todo)), config)
    if todo:
        on_memory(settings, memory)
    if not is_finished:
        experiment, report = read(given, settings.geometry)
    notes = find_unfinished(files[0].path.parent, settings.sessions)
    report = replace(report, notes=(*notes, *find_twin_notes(files), *report.notes))
    return Plan(
        store=target,
        settings=settings,
        sources=sources,
        progress=progress,
        memory=memory,
        space=make_space_plan(target, settings, len(todo), 0 if experiment is None else experiment.count_files()),
        scheduler=config.scheduler,
        fresh=config.fresh,
        worker_memory_bytes=config.memory,
        experiment=experiment,
        experiment_report=report,
        source_attributes=make_source_attributes(find_origin(files[0].path), notes),
        part=config.part,
    )


def as_words(source: SourceWords, config: Config) -> list[str | os.PathLike[str]]:
    """SOURCE as a list, whichever way it was given; URLs as paths that know how they are reached."""
    words = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    return [find_remote(word, config.access) or word for word in words]


def make_choice(config: Config) -> Choice:
    """Which betas are meant, and which files of them."""
    return Choice(config.subject, config.space, config.betas, config.form, config.hemisphere)


def find_files(source: SourceWords, config: Config, kept: Sequence[SessionNumber] = ()) -> list[SessionFile]:
    """The session files that *source* and the configuration mean, without a gap unless it was asked for.

    *kept*: sessions that a finished store has; of these *source* may have any.
    """
    words = as_words(source, config)
    files = find_session_files(words, make_choice(config))
    if config.sessions is not None:
        there = {file.session for file in files}
        wanted = [number for number in config.sessions if number in there or number not in kept]
        return select_sessions(files, wanted or config.sessions)
    # A folder is meant whole, from session 1; who names files may begin anywhere.
    is_folder = len(words) == 1 and as_path(words[0]).is_dir()
    expected = find_first_session(files[0].path.parent)
    first = (expected if files[0].session >= expected else 1) if is_folder else files[0].session
    check_complete(files, first, kept)
    return files


def make_settings(sources: Sequence[SourcePart], config: Config, kept: Sequence[SessionNumber] = ()) -> Settings:
    """What affects values or bytes, for *sources* of one shape and dtype, and *kept* sessions. Raises ConfigError."""
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
        sessions=tuple(sorted({*kept, *(SessionNumber(info.session) for info in sources)})),
        trials_per_shard=trials_per_shard,
        codec=config.codec,
        clevel=config.effective_clevel,
        shape=first.shape,
        dtype=first.dtype,
        vertices=first.vertices,
    )


def _format_lines(plan: Plan) -> Iterator[str]:
    """What a conversion would do, for people."""
    geometry, memory, space, settings = plan.settings.geometry, plan.memory, plan.space, plan.settings
    todo, passes = len(plan.todo), memory.passes
    yield f"store       {plan.store} ({plan.progress.state.value})"
    yield (
        f"sessions    {format_sessions(geometry.sessions)}: {len(plan.sources)} found, none missing; "
        f"{len(plan.progress.done)} done, {todo} to convert"
    )
    for how, count in Counter(info.how for info in plan.sources).items():
        yield f"            {count} read {how}"
    yield (
        f"trials      {geometry.trials} of {geometry.volume_shape} {geometry.dtype}, "
        f"{format_bytes(geometry.trial_bytes)} each"
    )
    yield f"in          {format_bytes(plan.bytes_in)} of values"
    yield (
        f"out         about {format_bytes(space.expected_bytes)} to write ({settings.codec} level {settings.clevel}), "
        f"{space.files} files: {geometry.shards} shards of {geometry.trials_per_shard} trials"
    )
    inodes = "" if space.free_inodes is None else f"; {space.free_inodes} inodes free, at most {space.inodes} needed"
    if space.free_bytes is not None:
        yield f"disk        {format_bytes(space.free_bytes)} free{inodes}"
    yield f"memory      {format_bytes(memory.peak_bytes)} at most, of {format_bytes(memory.limit_bytes)} allowed"
    yield (
        f"work        {format_count(todo, 'unit')}; {memory.sessions_at_once} at once, "
        f"{format_count(memory.threads_per_session, 'thread')} each, {passes} pass{'es' if passes > 1 else ''} over "
        "each file"
    )
    yield from plan.estimate.format_lines("" if plan.part is None else f"part {plan.part}: ")
    yield from plan.experiment_report.format_lines()
    if plan.doubtful:
        again = format_sessions(info.session for info in plan.doubtful)
        yield f"again       sessions {again}: their files look different since; they will be read and compared"
