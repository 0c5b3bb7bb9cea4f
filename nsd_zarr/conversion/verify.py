"""Proving a store: that every file is there, every checksum right, every value what was read from its source."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nsd_zarr.config import Config, make_config
from nsd_zarr.conversion.events import Listener, RunStarted, TrialsDone, ignore_event
from nsd_zarr.conversion.images import find_blocks, find_ids
from nsd_zarr.conversion.memory import Need, make_memory_plan, read_available_memory
from nsd_zarr.conversion.plan import SourceWords, find_files
from nsd_zarr.errors import DamageFound, SourceError, StoreError
from nsd_zarr.layout import IMAGES, TRIALS, SessionNumber
from nsd_zarr.source.find import select_sessions
from nsd_zarr.source.images import AnySource, open_source
from nsd_zarr.source.session import SessionInfo, inspect_session
from nsd_zarr.store.digest import join_digests, make_digest
from nsd_zarr.store.format import make_shard_key
from nsd_zarr.store.reader import TrialReader
from nsd_zarr.store.root import Store, open_store, read_small_array


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is not as it was written."""

    path: str
    """File inside the store."""
    problem: str
    """What was found."""
    session: int | None = None
    """Session that it concerns, from 1; None for files that concern all."""
    trials: tuple[int, int] | None = None
    """First and last trial concerned, inclusive, in the store from 0."""
    images: tuple[int, int] | None = None
    """First and last image concerned, inclusive, 0-based 73k ids; of a store of images."""

    def __str__(self) -> str:
        if self.images is not None:
            return f"images {self.images[0]} to {self.images[1]} (0-based 73k ids), {self.path}: {self.problem}"
        session = "" if self.session is None else f"session {self.session:02d}, "
        trials = "" if self.trials is None else f"trials {self.trials[0]} to {self.trials[1]}, "
        return f"{session}{trials}{self.path}: {self.problem}"


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
    seconds: float
    """Wall time."""
    item: str = TRIALS.item
    """What is counted as a trial: a trial, or an image."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing was found."""
        return not self.damages

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON, for --json."""
        return asdict(self) | {"store": str(self.store), "whole": self.is_whole}


def verify(
    store: str | os.PathLike[str],
    source: SourceWords | None = None,
    *,
    quick: bool = False,
    on_event: Listener = ignore_event,
    **options: Any,
) -> VerifyReport:
    """Prove a store. Reads only.

    *quick*: every file present, of its size, and the index of every shard right. Otherwise every trial is decoded and
    its values compared with the digest that was taken from the source while converting. With *source* (as for
    convert), every value is also compared with the session files, read through h5py alone. *options*: workers, memory,
    subject, space, betas, as for convert.

    Returns a report; damage is in it, and not raised. Raises StoreError when there is no finished store, SourceError
    when a session file is missing or unfit.

    >>> nsd_zarr.verify("subj01.zarr").is_whole
    True
    >>> nsd_zarr.verify("subj01.zarr", "nsd", subject=1).strength
    'source'
    """
    started, path, config = time.perf_counter(), Path(os.path.abspath(store)), make_config(None, **options)
    strength = "quick" if quick and source is None else "full" if source is None else "source"
    try:
        opened = open_store(path, kind=None)
    except DamageFound as error:
        damage = Damage("zarr.json", error.problem)
        return VerifyReport(path, strength, 0, 0, (damage,), time.perf_counter() - started)
    sources = [] if source is None else _find_sources(opened, source, config)
    damages, values, checked = list(_check_files(opened)), [], 0
    if strength != "quick":
        checked = opened.geometry.trials
        rounds = 1 + len(sources) // max(1, len(opened.geometry.sessions))
        sessions = len(opened.geometry.sessions)
        on_event(RunStarted(sessions, checked * rounds, opened.geometry.trial_bytes, 0))
        with ThreadPoolExecutor(config.effective_workers, "nsd-zarr verify") as executor:
            values += _check_trials(opened, executor, on_event)
            for info in sources:
                values += _compare_source(opened, info, config, executor, on_event)
    seconds = time.perf_counter() - started
    # What is damaged as a whole is not told again for each of its trials.
    whole = {damage.path for damage in damages}
    damages += [damage for damage in dict.fromkeys(values) if damage.path not in whole]
    return VerifyReport(
        path, strength, len(opened.manifest) + 1, checked, tuple(damages), seconds, opened.geometry.kind.item
    )


def _find_sources(store: Store, source: SourceWords, config: Config) -> list[AnySource]:
    if store.geometry.kind == IMAGES:
        return find_blocks(store, source)
    sessions = store.geometry.sessions
    files = select_sessions(find_files(source, config.model_copy(update={"sessions": sessions})), sessions)
    infos = [inspect_session(file, store.attributes["settings"]["dataset"]) for file in files]
    expected = (store.geometry.trials_per_session, *store.geometry.volume_shape)
    for info in infos:
        if info.shape != expected or info.dtype != store.geometry.dtype:
            raise SourceError(
                f"{info.dtype} of shape {info.shape}, expected {store.geometry.dtype} of shape {expected} as stored",
                hint="Give the sources from which this store was made.",
                path=info.path,
                session=info.session,
            )
    return list(infos)


# -- files -------------------------------------------------------------------------------------------------------


def _check_files(store: Store) -> Iterator[Damage]:
    """Presence and size of every file, digest of small ones, index of every shard."""
    shards = {make_shard_key(store.geometry, number): number for number in range(store.geometry.shards)}
    for key in sorted(set(shards) - set(store.manifest)):
        yield _damage_shard(store, shards[key], "the manifest does not know it")
    reader = TrialReader(store)
    for key, record in store.manifest.items():
        problem = _find_file_problem(store.path / key, record.size, None if key in shards else record.digest)
        if not problem and key in shards:
            problem = reader.find_index_problem(shards[key])
        if problem and key in shards:
            yield _damage_shard(store, shards[key], problem)
        elif problem:
            yield Damage(key, problem)
    yield from _check_digests(store)


def _find_file_problem(path: Path, size: int, digest: str | None) -> str:
    try:
        found = path.stat().st_size
        if found != size:
            return f"{found} bytes, expected {size}"
        if digest is not None and make_digest(path.read_bytes()) != digest:
            return "its content changed: its digest is not the manifest's"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return ""


def _check_digests(store: Store) -> Iterator[Damage]:
    """Whether the trials' digests add up to the sessions' in the root document."""
    try:
        digests = read_small_array(store, store.geometry.kind.digests).tolist()
    except (DamageFound, KeyError):
        return  # Told as a file already.
    sources = store.attributes["sources"]
    # Each is one session, or the stimulus file with all images.
    count = store.geometry.trials // max(1, len(sources))
    for position, source in enumerate(sources):
        if join_digests(digests[position * count : (position + 1) * count]) != source["digest"]:
            about = "does not add up to the digest of its source"
            yield Damage(store.geometry.kind.digests, about, source.get("session"))


def _damage_shard(store: Store, shard: int, problem: str) -> Damage:
    trials = store.geometry.shard_trials(shard)
    return _make_damage(store, make_shard_key(store.geometry, shard), problem, (trials.start, trials.stop - 1))


def _make_damage(store: Store, key: str, problem: str, trials: tuple[int, int]) -> Damage:
    """Damage of some trials, with the session to which they belong; or of images, with their ids."""
    if store.geometry.kind == IMAGES:
        return Damage(key, problem, trials=trials, images=find_ids(store, trials))
    session, _ = store.geometry.locate_trial(trials[0])
    return Damage(key, problem, int(session), trials)


# -- values ------------------------------------------------------------------------------------------------------


def _check_trials(store: Store, executor: Executor, listen: Listener) -> list[Damage]:
    """Decode every trial, checksums included, and compare its values with the digest taken from the source."""
    reader = TrialReader(store)
    try:
        digests = read_small_array(store, store.geometry.kind.digests).tolist()
    except DamageFound:
        digests = [None] * store.geometry.trials

    def check(shard: int) -> list[Damage]:
        values, found = np.empty(reader.volume_shape, reader.dtype), []
        for trial in store.geometry.shard_trials(shard):
            listen(TrialsDone(1))
            try:
                reader.read_into(trial, values)
            except (DamageFound, StoreError) as error:
                # A disk that cannot read it back has lost it, as far as a proof goes.
                found.append(_damage_trial(store, trial, error.problem))
                continue
            if digests[trial] is not None and make_digest(values) != digests[trial]:
                found.append(_damage_trial(store, trial, "its values are not those that were read from the source"))
        return found

    return [damage for part in executor.map(check, range(store.geometry.shards)) for damage in part]


def _damage_trial(store: Store, trial: int, problem: str) -> Damage:
    key = make_shard_key(store.geometry, trial // store.geometry.trials_per_shard)
    return _make_damage(store, key, problem, (trial, trial))


def _compare_source(
    store: Store, info: AnySource, config: Config, executor: Executor, listen: Listener
) -> list[Damage]:
    """Compare every value of one session with its file, read through h5py alone."""
    step, reader = _plan_step(store, info, config), TrialReader(store)
    block = np.empty((step, info.voxels), info.dtype)
    damages: list[Damage] = []
    with open_source(info, trust_offsets=False) as session:
        for start in range(0, info.trials, step):
            trials = range(start, min(start + step, info.trials))
            session.read_into(trials, block[: len(trials)], executor)

            def compare(trial: int, expected: np.ndarray, session: SessionNumber = info.session) -> Damage | None:
                listen(TrialsDone(1))
                number = store.geometry.first_trial(session) + trial
                found = np.empty_like(expected)
                try:
                    reader.read_into(number, found)
                except (DamageFound, StoreError):
                    return None  # Told by _check_trials.
                # As bytes, so that NaN equals itself and -0.0 does not equal 0.0.
                if found.tobytes() == expected.tobytes():
                    return None
                return _damage_trial(store, number, f"its values differ from {info.path.name}")

            damages += [damage for damage in executor.map(compare, trials, block) if damage is not None]
    return damages


def _plan_step(store: Store, info: AnySource, config: Config) -> int:
    """Trials of a session held at a time."""
    if not isinstance(info, SessionInfo):
        return info.trials
    limit = int(config.memory) if config.memory is not None else read_available_memory() // 2
    need = Need(store.geometry, by_offset=False, chunk_bytes=info.chunk_bytes)
    return make_memory_plan(need, 1, config.effective_workers, limit).trials_per_pass
