"""The public functions plan and convert: of one subject's sessions, or of several subjects to one store.

Whatever stands at STORE, they do what is left to do there: make it, go on with it, extend it, or nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Unpack, overload

from nsd_zarr.config import Config, make_config
from nsd_zarr.conversion.events import Listener, ignore_event
from nsd_zarr.conversion.lock import check_free
from nsd_zarr.conversion.parts.convert import convert_part
from nsd_zarr.conversion.plan import Plan, make_plan
from nsd_zarr.conversion.run import ConversionReport, run_conversion
from nsd_zarr.conversion.subjects.convert import convert_subjects
from nsd_zarr.conversion.subjects.plan import SubjectsPlan, plan_subjects
from nsd_zarr.conversion.subjects.root import looks_like_tree
from nsd_zarr.errors import StoreError
from nsd_zarr.maintenance.extension.extend import extend, is_extensible, make_growth
from nsd_zarr.options import ConvertOptions, SourceWords, SubjectWords, check_options
from nsd_zarr.places.choose import make_path
from nsd_zarr.progress import draw_progress
from nsd_zarr.source.find import format_sessions
from nsd_zarr.store.tree.groups import find_subjects
from nsd_zarr.tasks import explain_lack_of_threads


@overload
def plan(
    source: SourceWords,
    store: str | os.PathLike[str],
    *,
    subjects: None = None,
    config: str | os.PathLike[str] | None = None,
    **options: Unpack[ConvertOptions],
) -> Plan: ...


@overload
def plan(
    source: SourceWords,
    store: str | os.PathLike[str],
    *,
    subjects: SubjectWords,
    config: str | os.PathLike[str] | None = None,
    **options: Unpack[ConvertOptions],
) -> SubjectsPlan: ...


def plan(
    source: SourceWords,
    store: str | os.PathLike[str],
    *,
    subjects: SubjectWords | None = None,
    config: str | os.PathLike[str] | None = None,
    **options: Unpack[ConvertOptions],
) -> Plan | SubjectsPlan:
    """Say what `convert` would do, and whether it can. Reads metadata and the experiment's small files; writes nothing.

    Parameters
    ----------
    source, store, subjects, config, **options
        As for `convert`.

    Returns
    -------
    Plan
        Sessions found and left to do, bytes, files, memory, disk space, time; `print` shows it as the command does.
    SubjectsPlan
        The plan of each, where *subjects* are named.

    Raises
    ------
    ConfigError, SourceError, StoreError, ResumeRefused, DoesNotFit
        Where the conversion could not run to its end.

    Examples
    --------
    >>> plan = nsd_zarr.plan("nsd", "new.zarr", subject=1)
    >>> [info.session for info in plan.todo]
    [1, 2, 3]
    >>> print(str(plan).splitlines()[1])
    sessions    1-3: 3 found, none missing; 0 done, 3 to convert
    """
    check_options("plan", options, ConvertOptions, others=("subjects", "config"))
    chosen = make_config(config, subjects=subjects, **options)
    path = make_path(store, chosen.access)
    if chosen.subjects is not None:
        return plan_subjects(source, path, chosen, plan_store)
    _check_no_tree(path)
    return plan_store(source, path, chosen)


@explain_lack_of_threads()
def convert(
    source: SourceWords,
    store: str | os.PathLike[str],
    *,
    subjects: SubjectWords | None = None,
    config: str | os.PathLike[str] | None = None,
    on_event: Listener = ignore_event,
    progress: bool = False,
    **options: Unpack[ConvertOptions],
) -> ConversionReport:
    """Convert session files to one trial-chunked Zarr store; go on where an interrupted run was; extend a finished one.

    Trial table, design, masks and regions go in as well when they lie in the dataset's own tree around the session
    files, or are named (`trial_table`, `brainmask`, `roi`, ...; `no_experiment` leaves them out).

    A finished store is left as it is, unless the source has more sessions, or `replace_session` names some: then it is
    extended with its own settings, to the bytes of a conversion of all sessions at once. Readers see the former store
    until the new one takes its place as a whole. Sessions that the source no longer has stay.

    Parameters
    ----------
    source
        A folder with session files, an NSD root, a glob, or a list of files.
    store
        The store's folder, made here.
    subjects
        Convert these subjects of an NSD root ("1-8", [1, 2, 5, 7]) to one store with a group for each, subj01 and so
        on; see open_tree. Each group is a store by itself. One that fails does not hold up the others.
    config
        A YAML file of options; those that are given here win over it.
    on_event
        Called with RunStarted, TrialsRead, TrialsDone and SessionDone, from any thread.
    progress
        Whether to draw a bar, in a notebook or on standard error: by tqdm where it is installed, else by rich.
    **options
        As on the command line, with underscores; see ConvertOptions.

    Returns
    -------
    ConversionReport
        What this call did; no sessions where the store was finished. Of several subjects their sum, and in `parts` the
        report of each.

    Raises
    ------
    ConfigError, SourceError, StoreError, ResumeRefused, DoesNotFit
        After any of them, and after a kill, the same call goes on. Of several subjects it comes behind the last; its
        `report` is that of the others.

    Examples
    --------
    >>> report = nsd_zarr.convert("nsd", "subj01.zarr", subject=1, space="func1pt8mm", memory="2GiB")
    >>> [session.session for session in report.sessions]
    [1, 2, 3]
    >>> nsd_zarr.convert("nsd", "subj01.zarr", subject=1).sessions  # finished: nothing to do
    ()
    """
    check_options("convert", options, ConvertOptions, others=("subjects", "config", "on_event", "progress"))
    chosen = make_config(config, subjects=subjects, **options)
    path = make_path(store, chosen.access)
    with draw_progress(progress, on_event) as listen:
        if chosen.subjects is not None:
            return convert_subjects(source, path, chosen, listen, plan_store, convert_store)
        _check_no_tree(path)
        return convert_store(source, path, chosen, listen)


def _check_no_tree(path: Path) -> None:
    """Refuse to make the store of one subject where there are several. Raises StoreError."""
    if looks_like_tree(path):
        there = format_sessions(find_subjects(path))
        raise StoreError(
            "a store with a group for each subject stands there",
            hint=f"Say which subjects: --subjects {there or '1-8'}.",
            path=path,
            found=there,
        )


def convert_store(source: SourceWords, path: Path, config: Config, listen: Listener) -> ConversionReport:
    """Make the store of one subject at *path*, go on with it, extend it, or leave it. Raises what `convert` raises."""
    check_free(path, config.part)
    if is_extensible(path, config):
        return extend(source, path, config, listen)
    _check_replaces_nothing(path, config)
    return (run_conversion if config.part is None else convert_part)(source, path, config, listen)


def plan_store(source: SourceWords, path: Path, config: Config) -> Plan:
    """What convert_store would do. Raises what `plan` raises."""
    check_free(path, config.part)
    if is_extensible(path, config):
        return make_growth(source, path, config).plan
    _check_replaces_nothing(path, config)
    return make_plan(source, path, config)


def _check_replaces_nothing(store: Path, config: Config) -> None:
    """Refuse to replace sessions of what is no finished store. Raises StoreError."""
    if config.replace_session is not None:
        raise StoreError(
            "replace_session, and no finished store is there",
            hint="Leave it out: what is not converted yet is converted from the files that are there now. An "
            "unfinished run that began with other files is forgotten with --fresh.",
            path=store,
        )
