"""One thing done for each subject in turn; one that fails does not hold up the others."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from nsd_zarr.config import Config
from nsd_zarr.conversion.events import Listener, name_subject
from nsd_zarr.conversion.subjects.choice import check_source_of_several, choose_one, choose_subjects
from nsd_zarr.errors import NsdZarrError
from nsd_zarr.options import SourceWords
from nsd_zarr.store.tree.groups import locate_group

_LOG = logging.getLogger(__name__)
Report = TypeVar("Report")


def run_one_or_each(
    path: Path,
    config: Config,
    listen: Listener,
    work: Callable[[Path, Config, Listener], Report],
    join: Callable[[Path, dict[int, Report], float], Report],
    source: SourceWords | None,
) -> Report:
    """Do *work* with the finished store at *path*: as a whole, or with each group that *config* chooses.

    *source*: what it is done from, an NSD root where there are several groups. Raises as run_each.
    """
    subjects = choose_subjects(path, config)
    if subjects is None:
        return work(path, config, listen)
    check_source_of_several(source, subjects)
    return run_each(path, subjects, config, listen, work, join)


def run_each(
    tree: Path,
    subjects: Sequence[int],
    config: Config,
    listen: Listener,
    work: Callable[[Path, Config, Listener], Report],
    join: Callable[[Path, dict[int, Report], float], Report],
) -> Report:
    """Do *work* with the group of each subject, in the order given; the joined report.

    *work* is given the path of the group, the options for one subject, and a listener; *join* the path of the tree, the
    reports by subject, and the seconds of wall time.

    An error of ours in one is logged at once, and raised behind the last: itself where it is the only one,
    else one of the class with the highest exit code, which names all. Its `report` is that of the others.
    """
    started = time.perf_counter()
    reports: dict[int, Report] = {}
    failures: dict[int, NsdZarrError] = {}
    for subject in subjects:
        try:
            group, one = locate_group(tree, subject), choose_one(config, subject)
            reports[subject] = work(group, one, name_subject(listen, subject))
        except NsdZarrError as error:
            error.subject, failures[subject] = subject, error
            if len(subjects) > 1:
                _LOG.warning("left, and gone on with the others: %s", error)
    report = join(tree, reports, time.perf_counter() - started)
    if failures:
        raise explain_failures(failures, report, len(subjects))
    return report


def explain_failures(failures: dict[int, NsdZarrError], report: object, count: int) -> NsdZarrError:
    """The error for those of *count* subjects that failed; *report*: of the others."""
    error = max(failures.values(), key=lambda each: each.exit_code)
    if len(failures) > 1:
        listed = "".join(f"\n  {each}" for each in failures.values())
        error = type(error)(
            f"{len(failures)} of {count} subjects failed:{listed}",
            hint="Mend what is said there, then run the same command again: finished subjects stay as they are.",
            found=failures,
        )
    error.report = report
    return error
