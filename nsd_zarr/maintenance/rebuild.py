"""Making the record of a run again from the sources, where it is lost together with the root document of its store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nsd_zarr.config import Config
from nsd_zarr.conversion.events import Listener, RunStarted
from nsd_zarr.conversion.ledger import Ledger
from nsd_zarr.conversion.plan import SourceWords, check_uniform, find_files, make_settings
from nsd_zarr.conversion.settings import Settings
from nsd_zarr.conversion.unit import RunContext, Unit, run_unit
from nsd_zarr.errors import DamageFound
from nsd_zarr.layout import SessionNumber
from nsd_zarr.maintenance.expected import explain_loss, recover_settings
from nsd_zarr.maintenance.sources import plan_memory
from nsd_zarr.places.files import read_file
from nsd_zarr.source.session import SessionInfo, inspect_session
from nsd_zarr.store.check import MAX_ROOT_BYTES
from nsd_zarr.store.digest import CRC_BYTES
from nsd_zarr.store.format import decode_plain, make_chunk_key, make_shard_key

_DIGESTS = make_chunk_key("trial_digest", (0,))
_SESSIONS = make_chunk_key("session_number", (0,))


def has_lost_run(path: Path) -> bool:
    """Whether the record of the run that made the store lacks a session. Raises StoreError when it is no record."""
    ledger = Ledger(path)
    sessions = ledger.read_sources()
    return not sessions or any(ledger.read_session(session) is None for session in sessions)


def find_settings(path: Path, source: SourceWords, config: Config) -> Settings:
    """With what a store was made: from the metadata of `betas`, else from its sources and *config*."""
    sessions = _read_sessions(path) or sorted(Ledger(path).read_sources())
    settings = recover_settings(path, sessions, config.dataset)
    return settings or make_settings(_inspect(path, source, config), config)


def rebuild_run(
    path: Path, settings: Settings, source: SourceWords, config: Config, listen: Listener, error: DamageFound
) -> tuple[str, ...]:
    """Convert again the sessions that have no record; gives the paths of their shards. For who holds the store's lock.

    All sources are compared with the digests of the trials before anything is written. Raises StoreError when these
    are lost too, ResumeRefused when a source is another, SourceError.
    """
    digests, infos = _read_digests(path, error), _inspect(path, source, config)
    numbers = [info.session for info in infos]
    if (settings.shape, settings.dtype) != (infos[0].shape, infos[0].dtype) or len(digests) != settings.geometry.trials:
        raise explain_loss(path, "the sources are of another shape than the store", error)
    by_offset = not any(info.offset_refusal for info in infos)
    memory = plan_memory(settings.geometry, infos, config, by_offset=by_offset)
    units = [
        Unit(
            path,
            settings,
            info,
            memory.trials_per_pass,
            memory.threads_per_session,
            _of_session(digests, place, info.trials),
        )
        for place, info in enumerate(infos)
    ]
    ledger, context = Ledger(path), RunContext(listen)
    records = {number: ledger.read_session(number) for number in numbers}
    fingerprint = settings.make_fingerprint()
    done = {number for number, record in records.items() if record is not None and record.settings == fingerprint}
    todo = [unit for unit in units if unit.source.session not in done]
    listen(RunStarted(len(units), sum(unit.source.trials for unit in units + todo), infos[0].trial_bytes, len(done)))
    for unit in units:
        run_unit(unit, context)
    ledger.update_sources({info.session: info.identity for info in infos})
    for unit in todo:
        run_unit(replace(unit, expected_digests=()), context)
    geometry = settings.geometry
    return tuple(make_shard_key(geometry, shard) for unit in todo for shard in unit.wanted)


def _inspect(path: Path, source: SourceWords, config: Config) -> list[SessionInfo]:
    sessions = _read_sessions(path)
    files = find_files(source, config if sessions is None else config.model_copy(update={"sessions": sessions}))
    infos = [inspect_session(file, config.dataset) for file in files]
    check_uniform(infos)
    return infos


def _of_session(digests: Sequence[str], place: int, trials: int) -> tuple[str, ...]:
    return tuple(digests[place * trials : (place + 1) * trials])


def _read_digests(path: Path, error: DamageFound) -> list[str]:
    try:
        data = read_file(path, _DIGESTS, MAX_ROOT_BYTES)
        shape = (int.from_bytes(data[:4], "little"),)
        return [str(digest) for digest in decode_plain(data, shape, "string")]
    except (OSError, ValueError) as second:
        problem = f"the record of its run ({Ledger(path).folder.name}) lacks a session or is lost, and {_DIGESTS} too"
        raise explain_loss(path, problem, error) from second


def _read_sessions(path: Path) -> tuple[SessionNumber, ...] | None:
    """Session numbers of the store; None where they are lost, too: then the sources tell."""
    try:
        data = read_file(path, _SESSIONS, MAX_ROOT_BYTES)
        values = decode_plain(data, ((len(data) - CRC_BYTES) // 2,), "int16")
    except (OSError, ValueError):
        return None
    return tuple(SessionNumber(int(number)) for number in values)
