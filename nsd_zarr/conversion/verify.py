"""Proving a store: that every file is there, every checksum right, every value what was read from its source."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nsd_zarr.buffers import BufferPool
from nsd_zarr.config import Config, make_config
from nsd_zarr.conversion.compare import compare_source
from nsd_zarr.conversion.damage import Damage, make_file_damage, make_shard_damage
from nsd_zarr.conversion.events import Listener, RunStarted, TrialsDone, ignore_event
from nsd_zarr.conversion.memory import MemoryPlan, Need, make_memory_plan, read_available_memory
from nsd_zarr.conversion.plan import SourceWords, as_words, find_files
from nsd_zarr.conversion.proof import check_shard
from nsd_zarr.errors import DamageFound, SourceError, StoreError
from nsd_zarr.layout import Geometry, SessionNumber
from nsd_zarr.source.find import format_sessions, select_sessions
from nsd_zarr.source.session import SessionInfo, inspect_session
from nsd_zarr.store.digest import digest_file, join_digests, make_digest
from nsd_zarr.store.files import open_file
from nsd_zarr.store.format import BETAS, METADATA_NAME, encode_json, make_chunk_key, make_shard_key
from nsd_zarr.store.reader import TrialReader
from nsd_zarr.store.root import Store, is_store, open_store
from nsd_zarr.store.small import count_chunks, read_array
from nsd_zarr.tasks import map_all


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a verification found."""

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
    strangers: tuple[str, ...]
    """Files in the store's folder that are not of the store, leftovers of killed writers among them."""
    source: tuple[str, ...]
    """The sources that were named, from the root of the file system; empty where none were."""
    choice: tuple[str, ...]
    """The words that chose among them, such as --subject 1."""
    seconds: float
    """Wall time."""

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
        # Others need not be at hand then.
        words += ["--session", format_sessions(numbers)] if None not in sessions else []
        return shlex.join(words)

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON, for --json."""
        plain = {"store": str(self.store), "whole": self.is_whole, "repair": self.repair_command}
        return asdict(self) | plain


def verify(
    store: str | os.PathLike[str],
    source: SourceWords | None = None,
    *,
    quick: bool = False,
    on_event: Listener = ignore_event,
    **options: Any,
) -> VerifyReport:
    """Prove a store. Reads only.

    *quick*: every file present, of its size, and the index of every shard right. Otherwise every byte is compared with
    the manifest, and every trial is decoded and its values compared with the digest that was taken from the source
    while converting. With *source* (as for convert), every value is also compared with the session files: these read
    through h5py, the store through zarr-python, so by no code of ours. *options*: workers, memory, subject, space,
    betas, as for convert.

    Returns a report; damage is in it, and not raised. Files that are not of the store are told apart from damage: no
    reader looks at one, since every file to which the root document leads is in the manifest, which is checked.
    Raises StoreError when there is no finished store, SourceError when a session file is missing or unfit.
    """
    started, path, config = time.perf_counter(), Path(os.path.abspath(store)), make_config(None, **options)
    strength = "quick" if quick and source is None else "full" if source is None else "source"
    words = () if source is None else tuple(os.path.abspath(word) for word in as_words(source))
    choice = tuple(_list_choice(config))
    try:
        opened = open_to_check(path)
    except DamageFound as error:
        damage = Damage(METADATA_NAME, error.problem)
        return VerifyReport(path, strength, 0, 0, (damage,), (), words, choice, time.perf_counter() - started)
    sources = [] if source is None else find_sources(opened, source, config)
    damages = check_store(opened, strength, sources, config, on_event)
    return VerifyReport(
        store=path,
        strength=strength,
        files=len(opened.manifest) + 1,
        trials=0 if strength == "quick" else opened.geometry.trials,
        damages=damages,
        strangers=tuple(find_strangers(opened)),
        source=words,
        choice=choice,
        seconds=time.perf_counter() - started,
    )


def _list_choice(config: Config) -> Iterator[str]:
    for option in ("subject", "space", "betas"):
        if (value := getattr(config, option)) is not None:
            yield from (f"--{option}", str(value))


def open_to_check(path: Path) -> Store:
    """Open a finished store. Raises as open_store, but DamageFound where the root document of a store of ours is gone.

    A store of ours shows by the arrays that no other has.
    """
    try:
        return open_store(path)
    except StoreError as error:
        if not _has_lost_root(path):
            raise
        raise DamageFound(
            f"the root document is lost or damaged: {error.problem}", path=path / METADATA_NAME
        ) from error


def _has_lost_root(path: Path) -> bool:
    """Whether a store of ours is at *path*, without a root document that tells it."""
    try:
        if not any((path / "trial_digest" / name).exists() for name in (METADATA_NAME, "c/0")):
            return False
        os.close(open_file(path, METADATA_NAME))
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    except ValueError:
        return True
    return not is_store(path)


def check_store(
    store: Store, strength: str, sources: Sequence[SessionInfo], config: Config, listen: Listener
) -> tuple[Damage, ...]:
    """Everything that is wrong with the files and values of an opened store."""
    damages = list(_check_files(store, strength == "quick"))
    if strength == "quick":
        return tuple(damages)
    sessions = len(store.geometry.sessions)
    rounds = 1 + len(sources) // max(1, sessions)
    listen(RunStarted(sessions, store.geometry.trials * rounds, store.geometry.trial_bytes, 0))
    with ThreadPoolExecutor(config.effective_workers, "nsd-zarr verify") as executor:
        _add(damages, _check_shards(store, executor, listen))
        for info in sources:
            at_once = plan_memory(store.geometry, [info], config, by_offset=False).trials_per_pass
            _add(damages, compare_source(store, info, at_once, executor, listen))
    return tuple(damages)


def _add(damages: list[Damage], more: Iterable[Damage]) -> None:
    """Add what is not told yet, of the same trial or of its whole file."""
    known = {(damage.path, trials) for damage in damages for trials in (damage.trials, None)}
    whole = {damage.path for damage in damages if damage.offset is None}
    damages += [each for each in more if each.path not in whole and (each.path, each.trials) not in known]


def _check_shards(store: Store, executor: Executor, listen: Listener) -> list[Damage]:
    try:
        digests = read_array(store, "trial_digest").tolist()
    except DamageFound:
        digests = None
    buffers = BufferPool()

    def check(shard: int) -> list[Damage]:
        return check_shard(store, shard, digests, buffers, lambda: listen(TrialsDone(1)))

    return [damage for found in map_all(executor, check, range(store.geometry.shards)) for damage in found]


def find_sources(
    store: Store, source: SourceWords, config: Config, sessions: Sequence[SessionNumber] | None = None
) -> list[SessionInfo]:
    """The session files of *store*, or of *sessions* of it, inspected. Raises SourceError where one is unfit."""
    sessions = store.geometry.sessions if sessions is None else tuple(sessions)
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
    return infos


# -- files -------------------------------------------------------------------------------------------------------


def _check_files(store: Store, quick: bool) -> Iterator[Damage]:
    """Presence and size of every file, digest of small ones; when *quick*, index of every shard, else left to proof."""
    shards = {make_shard_key(store.geometry, number): number for number in range(store.geometry.shards)}
    # Left out of the manifest while an experiment is attached, which changes it: it is right before and after.
    known = {*store.manifest, f"{BETAS}/{METADATA_NAME}"}
    for key in sorted({*shards, *_list_documents(store)} - known):
        yield Damage(key, "the manifest does not know it")
    reader = TrialReader(store)
    for key, record in store.manifest.items():
        problem = find_file_problem(store.path, key, record.size, None if key in shards else record.digest)
        if quick and not problem and key in shards:
            problem = reader.find_index_problem(shards[key])
        if problem and key in shards:
            yield make_shard_damage(store, shards[key], problem)
        elif problem:
            yield make_file_damage(store, key, problem)
    for name, member in store.members.items():
        told = store.manifest.get(f"{name}/{METADATA_NAME}")
        if told is not None and told.digest != make_digest(encode_json(member)):
            yield Damage(f"{name}/{METADATA_NAME}", "differs from its copy in the root document")
    yield from _check_digests(store)


def _list_documents(store: Store) -> Iterator[str]:
    """Every file but shards to which the root document leads."""
    for name, member in store.members.items():
        yield f"{name}/{METADATA_NAME}"
        if name != BETAS:
            zeros = tuple(0 for _ in member["shape"][1:])
            for row in range(count_chunks(store, name)):
                yield make_chunk_key(name, (row, *zeros)[: len(member["shape"])])


def find_strangers(store: Store) -> Iterator[str]:
    """Files in the store's folder that are not of the store, by their path inside it. Follows no links."""
    for folder, _, names in sorted(os.walk(store.path)):
        keys = (Path(folder, name).relative_to(store.path).as_posix() for name in sorted(names))
        yield from (key for key in keys if key not in store.manifest and key != METADATA_NAME)


def find_file_problem(store: Path, key: str, size: int, digest: str | None) -> str:
    """What is wrong with file *key* of *size* bytes and *digest* (None: not looked at); empty when nothing is."""
    try:
        with open(open_file(store, key), "rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                return f"{found} bytes, expected {size}"
            if digest is not None and digest_file(file) != digest:
                return "its content changed: its digest is not the manifest's"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError as error:
        return str(error)
    return ""


def _check_digests(store: Store) -> Iterator[Damage]:
    """Whether the trials' digests add up to the sessions' in the root document."""
    try:
        digests = read_array(store, "trial_digest").tolist()
    except (DamageFound, KeyError):
        return  # Told as a file already.
    count = store.geometry.trials_per_session
    for position, source in enumerate(store.attributes["sources"]):
        if join_digests(digests[position * count : (position + 1) * count]) != source["digest"]:
            yield Damage("trial_digest/c/0", "does not add up to the digest of its session", source["session"])


def plan_memory(geometry: Geometry, infos: Sequence[SessionInfo], config: Config, *, by_offset: bool) -> MemoryPlan:
    """How sessions are read again, one at a time. Raises DoesNotFit."""
    limit = int(config.memory) if config.memory is not None else read_available_memory() // 2
    need = Need(geometry, by_offset=by_offset, chunk_bytes=max(info.chunk_bytes for info in infos))
    return make_memory_plan(need, 1, config.effective_workers, limit)
