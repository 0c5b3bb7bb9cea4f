"""Converting several subjects to one store, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nsd_zarr.config import Config
from nsd_zarr.conversion.events import Listener
from nsd_zarr.conversion.experiment.files import ExperimentReport
from nsd_zarr.conversion.run import ConversionReport
from nsd_zarr.conversion.subjects.each import run_each
from nsd_zarr.conversion.subjects.plan import PlanOne, check_space_before, check_subjects
from nsd_zarr.conversion.subjects.root import create_tree
from nsd_zarr.options import SourceWords

ConvertOne = Callable[[SourceWords, Path, Config, Listener], ConversionReport]
"""Converts one subject: source, path of its store, options, listener."""


def convert_subjects(
    source: SourceWords, tree: Path, config: Config, listen: Listener, plan_one: PlanOne, convert_one: ConvertOne
) -> ConversionReport:
    """Convert each subject that *config* names to its group of *tree*. Raises as run_each.

    Each group is written, locked, gone on with and finished by itself, so that other processes may convert other
    subjects of the same tree meanwhile.
    """
    subjects = check_subjects(source, tree, config)
    check_space_before(source, tree, config, plan_one)
    create_tree(tree)

    def work(group: Path, one: Config, listen_to_one: Listener) -> ConversionReport:
        return convert_one(source, group, one, listen_to_one)

    return run_each(tree, subjects, config, listen, work, join_conversions)


def join_conversions(tree: Path, reports: dict[int, ConversionReport], seconds: float) -> ConversionReport:
    """The sum of the reports of several subjects."""
    parts = tuple(reports.values())
    return ConversionReport(
        store=tree,
        sessions=tuple(
            replace(done, subject=subject) for subject, report in reports.items() for done in report.sessions
        ),
        finished_before=sum(part.finished_before for part in parts),
        trials=sum(part.trials for part in parts),
        bytes_in=sum(part.bytes_in for part in parts),
        bytes_out=sum(part.bytes_out for part in parts),
        seconds=seconds,
        experiment=join_experiments({subject: report.experiment for subject, report in reports.items()}),
        parts=parts,
        completed=any(part.completed for part in parts),
    )


def join_experiments(reports: dict[int, ExperimentReport]) -> ExperimentReport:
    """What was found for any subject; what is missing and odd with the subject before it."""
    found = dict.fromkeys(word for report in reports.values() for word in report.found)
    return ExperimentReport(
        found=tuple(found),
        missing=tuple(f"subject {subject}: {word}" for subject, report in reports.items() for word in report.missing),
        notes=tuple(f"subject {subject}: {note}" for subject, report in reports.items() for note in report.notes),
    )
