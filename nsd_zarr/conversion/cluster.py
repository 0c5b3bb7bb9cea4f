"""Units of work on an existing Dask cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from nsd_zarr.conversion.events import Listener, SessionDone, TrialsDone
from nsd_zarr.conversion.memory import MemoryPlan
from nsd_zarr.conversion.unit import Unit, run_unit
from nsd_zarr.errors import ConfigError, DoesNotFit
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
    with client:
        workers = list(client.scheduler_info(n_workers=-1)["workers"].values())
        _check_workers(workers, address, memory)
        at_once = max(1, min(len(workers), memory.limit_bytes // memory.peak_bytes))
        # No more than were planned for: each takes memory.
        threads = min(memory.threads_per_session, *(worker["nthreads"] for worker in workers))
        return _run([replace(unit, threads=threads) for unit in units], client, at_once, listen)


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

    trials = {unit.source.session: unit.source.trials for unit in units}
    waiting, done = list(units), []

    def submit(unit: Unit) -> Any:
        return client.submit(run_unit, unit, pure=False, key=f"nsd-zarr-{unit.source.session:02d}-{uuid4().hex}")

    running = as_completed([submit(waiting.pop(0)) for _ in range(min(at_once, len(waiting)))], loop=client.loop)
    for future in running:
        result: SessionDone = future.result()
        future.release()
        done.append(result)
        listen(TrialsDone(trials[result.session]))
        listen(result)
        if waiting:
            running.add(submit(waiting.pop(0)))
    return tuple(done)
