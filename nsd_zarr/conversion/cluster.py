"""Units of work on an existing Dask cluster."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from nsd_zarr.conversion.events import Listener, SessionDone, TrialsDone
from nsd_zarr.conversion.lock import RunEnded
from nsd_zarr.conversion.memory import MemoryPlan
from nsd_zarr.conversion.unit import RunContext, Stopped, Unit, run_unit
from nsd_zarr.errors import ConfigError, DoesNotFit, NsdZarrError, StoreError
from nsd_zarr.layout import format_bytes

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 10
"""How long a scheduler may take to answer."""


def run_on_cluster(
    units: Sequence[Unit], address: str, memory: MemoryPlan, listen: Listener
) -> tuple[SessionDone, ...]:
    """Run *units* on the cluster at *address*: no worker holds two sessions, and all together stay within *memory*.

    Progress comes a session at a time. Raises ConfigError when there is no cluster, DoesNotFit when its workers are
    too small; the first error of a unit otherwise, with all others cancelled.
    """
    from distributed import Client

    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise ConfigError(
            f"no Dask scheduler answers at {address}: {error}",
            hint="Start one with dask scheduler, and workers with dask worker; or leave out --scheduler.",
        ) from error
    with _without_tracebacks(), client:
        workers = list(client.scheduler_info(n_workers=-1)["workers"].values())
        _check_workers(workers, address, memory)
        at_once = max(1, min(len(workers), memory.limit_bytes // memory.peak_bytes))
        # No more than were planned for: each takes memory.
        threads = min(memory.threads_per_session, *(worker["nthreads"] for worker in workers))
        return _run([replace(unit, threads=threads) for unit in units], client, at_once, listen)


@contextmanager
def _without_tracebacks() -> Iterator[None]:
    """Keep the client's log from saying in pages what our own error says in a paragraph; --debug shows both."""
    logger = logging.getLogger("distributed.client")
    before = logger.level
    if not logging.getLogger().isEnabledFor(logging.DEBUG):
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _check_workers(workers: Sequence[dict[str, Any]], address: str, memory: MemoryPlan) -> None:
    if not workers:
        raise ConfigError(f"the Dask cluster at {address} has no workers", hint="Start some with dask worker.")
    least = min(worker["memory_limit"] or memory.peak_bytes for worker in workers)
    if least < memory.peak_bytes:
        raise DoesNotFit(
            f"memory: a worker of the cluster has {format_bytes(least)}, and a session takes up to "
            f"{format_bytes(memory.peak_bytes)}",
            hint=f"Read sessions in more passes with --memory {least // 2**20}MiB, or start larger workers.",
            expected=memory.peak_bytes,
            found=least,
        )


def _run(units: Sequence[Unit], client: Client, at_once: int, listen: Listener) -> tuple[SessionDone, ...]:
    from distributed import as_completed

    run_ended, done = RunEnded.of_present_run(units[0].store), []

    def submit(unit: Unit) -> Any:
        key = f"nsd-zarr-{unit.source.session:02d}-{uuid4().hex}"
        return client.submit(run_for_client, unit, run_ended, pure=False, key=key)

    waiting = list(units[at_once:])
    of_future = {submit(unit): unit for unit in units[:at_once]}
    running = as_completed(of_future, loop=client.loop)
    for future in running:
        unit = of_future.pop(future)
        result = _get_result(future, unit)
        future.release()
        done.append(result)
        listen(TrialsDone(unit.source.trials))
        listen(result)
        if waiting:
            unit = waiting.pop(0)
            future = submit(unit)
            of_future[future] = unit
            running.add(future)
    return tuple(done)


def run_for_client(unit: Unit, run_ended: RunEnded) -> SessionDone | NsdZarrError:
    """Run a unit for the client that submitted it, as long as its run lasts. What it refuses is handed back.

    Not raised, or each worker would log a traceback for what the client says in one paragraph.
    """
    try:
        return run_unit(unit, RunContext(stop=run_ended))
    except NsdZarrError as error:
        return error
    except Stopped:
        return StoreError(
            "stopped: the lock of the run is gone",
            hint="Run the same command again: it goes on where it was.",
            path=unit.store,
            session=unit.source.session,
        )


def _get_result(future: Any, unit: Unit) -> SessionDone:
    """What became of a unit. Raises its error; DoesNotFit when workers died of it, ConfigError without a scheduler."""
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError

    try:
        result: SessionDone | NsdZarrError = future.result()
    except KilledWorker as error:
        raise DoesNotFit(
            f"{error.allowed_failures + 1} workers of the cluster died while they converted the session, most often "
            "killed because they took more memory than they may",
            hint="Start larger workers, or read sessions in more passes with --memory; then run the same command "
            "again: it goes on where it was. The workers' logs say more.",
            path=unit.source.path,
            session=unit.source.session,
        ) from error
    except (FutureCancelledError, OSError) as error:
        raise ConfigError(
            "the Dask scheduler went away in the middle of the run",
            hint="Start it again, or leave out --scheduler; then run the same command again: it goes on where it was.",
            session=unit.source.session,
        ) from error
    if isinstance(result, NsdZarrError):
        raise result
    return result
