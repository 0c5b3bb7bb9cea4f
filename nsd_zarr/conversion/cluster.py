"""Units of work on an existing Dask cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nsd_zarr.conversion.events import Listener, SessionDone, TrialsDone
from nsd_zarr.conversion.unit import Unit, run_unit
from nsd_zarr.errors import ConfigError

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 10
"""How long a scheduler may take to answer."""


def run_on_cluster(units: Sequence[Unit], address: str, listen: Listener) -> tuple[SessionDone, ...]:
    """Run *units* on the cluster at *address*, one a worker at a time, so that no worker holds two sessions.

    Progress comes a session at a time. Raises ConfigError when there is no cluster; the first error of a unit
    otherwise, with all others cancelled.
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
        return _run(units, client, listen)


def _run(units: Sequence[Unit], client: Client, listen: Listener) -> tuple[SessionDone, ...]:
    from distributed import as_completed

    waiting, done = list(units), []
    workers = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))

    def submit(unit: Unit) -> Any:
        return client.submit(run_unit, unit, pure=False, key=f"session-{unit.source.session:02d}")

    running = as_completed([submit(waiting.pop(0)) for _ in range(min(workers, len(waiting)))])
    for future in running:
        result: SessionDone = future.result()
        done.append(result)
        listen(TrialsDone(next(unit.source.trials for unit in units if unit.source.session == result.session)))
        listen(result)
        future.release()
        if waiting:
            running.add(submit(waiting.pop(0)))
    return tuple(done)
