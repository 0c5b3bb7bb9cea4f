"""Proving a store: that every file is there, every checksum right, every value what was read from its source."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from nsd_zarr.config import Config, make_config
from nsd_zarr.conversion.events import Listener, RunStarted, ignore_event
from nsd_zarr.conversion.plan import SourceWords, as_words
from nsd_zarr.conversion.subjects.each import run_one_or_each
from nsd_zarr.errors import ConfigError, DamageFound, StoreError
from nsd_zarr.layout import TRIALS
from nsd_zarr.maintenance.damage import Damage, join_damages
from nsd_zarr.maintenance.sources import find_sources, plan_memory
from nsd_zarr.maintenance.verify_files import check_files, find_untracked_files
from nsd_zarr.maintenance.verify_shards import check_shards
from nsd_zarr.maintenance.verify_tree import check_tree, find_untracked_in_tree
from nsd_zarr.maintenance.verify_values import compare_source
from nsd_zarr.options import VerifyOptions, check_options
from nsd_zarr.places.choose import choose_place, make_path
from nsd_zarr.progress import draw_progress
from nsd_zarr.source.find import format_sessions
from nsd_zarr.source.protocol import SourcePart
from nsd_zarr.store.format import FORMATS, METADATA_NAME
from nsd_zarr.store.root import Store, is_store, open_store, read_kind
from nsd_zarr.tasks import explain_lack_of_threads


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a verification found.

    >>> report = nsd_zarr.verify("subj01.zarr")
    >>> for damage in report.damages:
    ...     print(damage)
    >>> report.trials
    36
    """

    store: Path
    """The store's folder."""
    strength: str
    """quick, full or source."""
    files: int
    """Files compared with the manifest."""
    trials: int
    """Trials whose values were checked."""
    damages: tuple[Damage, ...]
    """Everything found; empty when the store is whole."""
    untracked_files: tuple[str, ...]
    """Files in the store's folder that are not of the store, leftovers of killed writers among them."""
    source: tuple[str, ...]
    """The sources that were named, from the root of the file system; empty where none were."""
    choice: tuple[str, ...]
    """The words that chose among them, such as --subject 1."""
    seconds: float
    """Wall time."""
    item: str = TRIALS.item
    """What is counted as a trial: a trial, or an image."""
    parts: tuple[VerifyReport, ...] = ()
    """Of several subjects: the report of each, whose sum this one is."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing was found."""
        return not self.damages

    @property
    def repair_command(self) -> str:
        """The command line that repairs what was found; empty when nothing was."""
        if self.is_whole:
            return ""
        sessions = {damage.session for damage in self.damages}
        numbers = [session for session in sessions if session is not None]
        words = ["nsd-zarr", "repair", str(self.store)]
        words += [word for source in self.source or ("SOURCE",) for word in ("--source", source)]
        words += self.choice
        subjects = {damage.subject for damage in self.damages if damage.subject is not None}
        words += ["--subjects", format_sessions(subjects)] if subjects else []
        # Others need not be at hand then.
        words += ["--sessions", format_sessions(numbers)] if None not in sessions else []
        return shlex.join(words)

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON, for --json."""
        plain = {"store": str(self.store), "whole": self.is_whole, "repair": self.repair_command}
        parts = [part.as_dict() for part in self.parts]
        return asdict(replace(self, parts=())) | plain | {"parts": parts}


@explain_lack_of_threads()
def verify(
    store: str | os.PathLike[str],
    source: SourceWords | None = None,
    *,
    quick: bool = False,
    on_event: Listener = ignore_event,
    progress: bool = False,
    **options: Unpack[VerifyOptions],
) -> VerifyReport:
    """Prove a store. Reads only.

    Every byte is compared with the manifest, and every trial is decoded and its values compared with the digest that
    was taken from the source while converting. Files that are not of the store are reported apart from damage: no
    reader looks at one, since every file to which the root document leads is in the manifest, which is checked.

    Parameters
    ----------
    store
        The store's folder; one with a group for each subject is proved group by group.
    source
        As for `convert`: every value is also compared with the session files. These are read through h5py or nibabel,
        and the store through zarr-python, so by no code of this package.
    quick
        Only: every file present, of its size, and the index of every shard right. Not together with *source*.
    on_event
        Called with RunStarted, TrialsRead, TrialsDone and SessionDone, from any thread.
    progress
        Whether to draw a bar, in a notebook or on standard error: by tqdm where it is installed, else by rich.
    **options
        See VerifyOptions.

    Returns
    -------
    VerifyReport
        Damage is in it, and not raised.

    Raises
    ------
    ConfigError
        An option that is not taken, or *quick* together with *source*.
    StoreError
        There is no finished store.
    SourceError
        A session file is missing or unfit.

    Examples
    --------
    >>> nsd_zarr.verify("subj01.zarr").is_whole
    True
    >>> nsd_zarr.verify("subj01.zarr", "nsd", subject=1).strength
    'source'
    """
    check_options("verify", options, VerifyOptions, others=("source", "quick", "on_event", "progress"))
    if quick and source is not None:
        raise ConfigError(
            "quick, and a source to compare with",
            hint="Leave out quick to compare every value with the source, or leave out the source.",
        )
    config = make_config(None, **options)
    path = make_path(store, config.access)
    prove = partial(_verify, source=source, quick=quick)
    with draw_progress(progress, on_event, read_kind(path) or TRIALS) as listen:
        report: VerifyReport = run_one_or_each(path, config, listen, prove, partial(_join, config=config), source)
    return report


def _verify(path: Path, config: Config, listen: Listener, source: SourceWords | None, quick: bool) -> VerifyReport:
    """Prove the store of one subject, or of images."""
    started = time.perf_counter()
    strength = "quick" if quick else "full" if source is None else "source"
    words = () if source is None else tuple(str(make_path(word)) for word in as_words(source, config))
    choice = tuple(_list_choice(config))
    try:
        opened = open_to_check(path)
    except DamageFound as error:
        damage = Damage(METADATA_NAME, error.problem)
        return VerifyReport(path, strength, 0, 0, (damage,), (), words, choice, time.perf_counter() - started)
    sources = [] if source is None else find_sources(opened, source, config)
    damages = check_store(opened, strength, sources, config, listen)
    if damages and (changed := _open_changed(opened)) is not None:
        # An attach went on meanwhile: what it replaced is no damage of the store that is there now.
        opened, damages = changed, check_store(changed, strength, sources, config, listen)
    return VerifyReport(
        store=path,
        strength=strength,
        files=len(opened.manifest) + 1,
        trials=0 if strength == "quick" else opened.geometry.trials,
        damages=damages,
        untracked_files=tuple(find_untracked_files(opened)),
        source=words,
        choice=choice,
        seconds=time.perf_counter() - started,
        item=opened.geometry.kind.item,
    )


def _join(tree: Path, reports: dict[int, VerifyReport], seconds: float, config: Config) -> VerifyReport:
    """The sum of the reports of several subjects, and what is wrong above them."""
    parts = tuple(reports.values())
    first = parts[0] if parts else VerifyReport(tree, "", 0, 0, (), (), (), (), seconds)
    below = {subject: report.untracked_files for subject, report in reports.items()}
    return VerifyReport(
        store=tree,
        strength=first.strength,
        files=sum(part.files for part in parts) + 1,
        trials=sum(part.trials for part in parts),
        damages=(*check_tree(tree), *join_damages({subject: each.damages for subject, each in reports.items()})),
        untracked_files=tuple(find_untracked_in_tree(tree, below)),
        source=first.source,
        choice=tuple(_list_choice(config)),
        seconds=seconds,
        parts=parts,
    )


def _list_choice(config: Config) -> Iterator[str]:
    for option in ("subject", "space", "betas"):
        if (value := getattr(config, option)) is not None:
            yield from (f"--{option}", str(value))


def _open_changed(store: Store) -> Store | None:
    """The store that is there now, where its root document is another one; None where it is the same."""
    try:
        now = open_to_check(store.path)
    except (DamageFound, StoreError):
        return None
    return None if now.fingerprint == store.fingerprint else now


def open_to_check(path: Path) -> Store:
    """Open a finished store. Raises as open_store, but DamageFound where the root document of a store of ours is gone.

    A store of ours shows by the arrays that no other has.
    """
    try:
        return open_store(path, kind=None)
    except StoreError as error:
        if not _has_lost_root(path):
            raise
        raise DamageFound(
            f"the root document is lost or damaged: {error.problem}", path=path / METADATA_NAME
        ) from error


def _has_lost_root(path: Path) -> bool:
    """Whether a store of ours is at *path*, without a root document that says so."""
    try:
        names = (f"{kind.digests}/{name}" for kind in FORMATS for name in (METADATA_NAME, "c/0"))
        if not any((path / name).exists() for name in names):
            return False
        choose_place(path).open(METADATA_NAME)
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    except ValueError:
        return True
    return not is_store(path, kind=None)


def check_store(
    store: Store,
    strength: str,
    sources: Sequence[SourcePart],
    config: Config,
    listen: Listener,
    step: str = "verifying",
) -> tuple[Damage, ...]:
    """Everything that is wrong with the files and values of an opened store."""
    damages = list(check_files(store, strength == "quick"))
    if strength == "quick":
        return tuple(damages)
    geometry = store.geometry
    listen(RunStarted(len(geometry.sessions), geometry.trials, geometry.trial_bytes, 0, step=step))
    with ThreadPoolExecutor(config.effective_workers, "nsd-zarr verify") as executor:
        _add(damages, check_shards(store, executor, listen))
        if sources:
            trials = sum(info.trials for info in sources)
            listen(RunStarted(len(sources), trials, geometry.trial_bytes, 0, trials, "comparing"))
        for info in sources:
            at_once = plan_memory(geometry, [info], config, by_offset=False).trials_per_pass
            _add(damages, compare_source(store, info, at_once, executor, listen))
    return tuple(damages)


def _add(damages: list[Damage], more: Iterable[Damage]) -> None:
    """Add what is not reported yet, of the same trial or of its whole file."""
    known = {(damage.path, trials) for damage in damages for trials in (damage.trials, None)}
    whole = {damage.path for damage in damages if damage.offset is None}
    damages += [each for each in more if each.path not in whole and (each.path, each.trials) not in known]
