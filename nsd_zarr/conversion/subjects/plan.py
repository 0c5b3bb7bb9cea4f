"""What a conversion of several subjects will do, and whether all of it fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsd_zarr.config import Config
from nsd_zarr.conversion.estimate.estimate import Estimate, join_estimates
from nsd_zarr.conversion.events import Listener, ignore_event
from nsd_zarr.conversion.plan import Plan
from nsd_zarr.conversion.space import INODES_PER_FILE
from nsd_zarr.conversion.subjects.choice import check_options_of_several, check_source_of_several, choose_one
from nsd_zarr.conversion.subjects.each import run_each
from nsd_zarr.conversion.subjects.root import check_place
from nsd_zarr.errors import DoesNotFit, NsdZarrError
from nsd_zarr.layout import format_bytes, format_count
from nsd_zarr.options import SourceWords
from nsd_zarr.store.tree.groups import locate_group


@dataclass(frozen=True, slots=True)
class SubjectsPlan:
    """The conversions of several subjects to one store. Frozen, picklable; `print` shows it as the command does.

    >>> plan = nsd_zarr.plan("nsd", "nsd.zarr", subjects=[1])
    >>> plan.plans[1].settings.geometry.trials, plan.todo
    (36, 3)
    """

    store: Path
    """The store's folder, above the groups."""
    plans: dict[int, Plan]
    """The plan of each subject's group, by subject, ascending."""

    def __str__(self) -> str:
        return "\n".join(_format_lines(self))

    @property
    def todo(self) -> int:
        """Sessions that have to be converted, of all subjects."""
        return sum(len(plan.todo) for plan in self.plans.values())

    @property
    def expected_bytes(self) -> int:
        """Bytes that sessions still to do will take, of all subjects."""
        return sum(plan.space.expected_bytes for plan in self.plans.values())

    @property
    def estimate(self) -> Estimate:
        """What all of them take, one after the other. Of one subject at least."""
        return join_estimates(plan.estimate for plan in self.plans.values())

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON, for --json."""
        return {
            "store": str(self.store),
            "subjects": {str(subject): plan.as_dict() for subject, plan in self.plans.items()},
            "bytes_out_expected": self.expected_bytes,
            "units_of_work": self.todo,
            "estimate": self.estimate.as_dict(),
        }


PlanOne = Callable[[SourceWords, Path, Config], Plan]
"""Plans the conversion of one subject: source, path of its store, options. Writes nothing."""


def plan_subjects(source: SourceWords, tree: Path, config: Config, plan_one: PlanOne) -> SubjectsPlan:
    """Plan the conversion of each subject that *config* names. Reads metadata only; writes nothing.

    Raises as make_plan, and behind the last subject what one of them raised; DoesNotFit where one fits and all do not.
    """
    subjects = check_subjects(source, tree, config)

    def work(group: Path, one: Config, listen: Listener) -> SubjectsPlan:
        return SubjectsPlan(group, {one.subject or 0: plan_one(source, group, one)})

    def join(path: Path, plans: dict[int, SubjectsPlan], seconds: float) -> SubjectsPlan:
        return SubjectsPlan(path, {subject: plan for each in plans.values() for subject, plan in each.plans.items()})

    planned = run_each(tree, subjects, config, ignore_event, work, join)
    check_space_of_all(planned)
    return planned


def check_space_before(source: SourceWords, tree: Path, config: Config, plan_one: PlanOne) -> None:
    """Refuse before anything is written what fits for one subject and not for all. Raises DoesNotFit.

    Subjects that cannot be converted are passed over: their own conversion says why.
    """
    plans: dict[int, Plan] = {}
    for subject in config.subjects or ():
        with suppress(NsdZarrError):
            plans[subject] = plan_one(source, locate_group(tree, subject), choose_one(config, subject))
    check_space_of_all(SubjectsPlan(tree, plans))


def check_subjects(source: SourceWords, tree: Path, config: Config) -> tuple[int, ...]:
    """The subjects that *config* names, once options, source and the place of the store suit them.

    Raises ConfigError, StoreError.
    """
    subjects = config.subjects or ()
    check_options_of_several(config)
    check_source_of_several(source, subjects)
    check_place(tree)
    return subjects


def check_space_of_all(planned: SubjectsPlan) -> None:
    """Compare what all subjects take together with what is free. Raises DoesNotFit."""
    for plan in list(planned.plans.values())[:1]:
        space, needed = plan.space, planned.expected_bytes
        if space.free_bytes is not None and space.free_bytes < needed:
            raise DoesNotFit(
                f"disk: {format_bytes(space.free_bytes)} free, and about {format_bytes(needed)} are needed for all "
                f"{len(planned.plans)} subjects",
                hint="Make room, put the store elsewhere, or convert fewer at once with --subjects.",
                path=planned.store,
                expected=needed,
                found=space.free_bytes,
            )
        inodes = sum(INODES_PER_FILE * plan.space.files for plan in planned.plans.values() if plan.todo)
        if space.free_inodes is not None and space.free_inodes < inodes:
            raise DoesNotFit(
                f"inodes: {space.free_inodes} free, and up to {inodes} are needed for all {len(planned.plans)} "
                "subjects",
                hint="Remove files, or make fewer and larger shards with --trials-per-shard.",
                path=planned.store,
                expected=inodes,
                found=space.free_inodes,
            )


def _format_lines(planned: SubjectsPlan) -> Iterator[str]:
    for subject, plan in planned.plans.items():
        yield f"subject {subject}"
        yield from (f"  {line}" for line in str(plan).splitlines())
    yield (
        f"all         {format_count(planned.todo, 'session')} to convert, about {format_bytes(planned.expected_bytes)} "
        "to write"
    )
    for line in planned.estimate.format_lines():
        yield f"all {line[:12].strip():7} {line[12:]}"
