"""Units of work on an existing Dask cluster: one session at a time on each worker, as workers come and go.

Every unit is submitted at once, so that an adaptive cluster grows. Whoever runs one plans its memory and threads from
the worker's own limits: the client may be a small login node. A worker of many threads that is given a second session
hands it back to the scheduler, which offers it to others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from nsd_zarr.conversion.context import RunContext, RunEnded, Stopped
from nsd_zarr.conversion.events import Listener, SessionDone, TrialsDone, TrialsRead, WaitingForWorkers
from nsd_zarr.conversion.memory import Need, make_memory_plan
from nsd_zarr.conversion.pipeline.work import Unit
from nsd_zarr.conversion.unit import run_unit
from nsd_zarr.errors import ConfigError, DoesNotFit, NsdZarrError, StoreError
from nsd_zarr.layout import format_bytes
from nsd_zarr.libraries import check_library
from nsd_zarr.resources import choose_memory_limit, count_cores

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 10
"""How long a scheduler may take to answer."""
WAIT_SECONDS = 600
"""How long a cluster may be without any worker: a batch system takes its time to start one."""
LOOK_SECONDS = 2.0
"""How often the client looks whether there are workers, while no unit ends."""
BUSY_SECONDS = 0.5
"""How long a worker keeps a unit that it cannot begin before it hands it back."""
WORKER_SHARE = 0.7
"""Of a worker's own memory limit, what a session may take: Dask stops giving work at 0.8 of it, and kills at 0.95."""
MAX_TRIES = 2
"""Times that a unit is given to the cluster. Each time Dask itself tries it on four workers (allowed-failures)."""

_session_in_work = threading.Lock()
"""Held by the session that this process works on: one at a time, however many threads a worker has."""


def run_on_cluster(
    units: Sequence[Unit], scheduler: str | Client, need: Need, memory_limit_bytes: int | None, listen: Listener
) -> tuple[SessionDone, ...]:
    """Run *units* on a cluster: an address, a scheduler file, or a Client, which stays open.

    *memory_limit_bytes*: for a session, on each worker; None: by the worker's own limits. Progress comes a session at a
    time. Raises ConfigError when there is no cluster or no worker, DoesNotFit when its workers are too small or died;
    the first error of a unit otherwise, with all others cancelled.
    """
    with _without_tracebacks(), _connect(scheduler) as client:
        return _Submission(client, need, memory_limit_bytes, listen).run(units)


def _connect(scheduler: str | Client) -> AbstractContextManager[Client]:
    from distributed import Client

    if not isinstance(scheduler, str):
        return nullcontext(scheduler)
    is_file = "://" not in scheduler
    if is_file and not Path(scheduler).is_file():
        raise ConfigError(
            "no such scheduler file", hint="Start the scheduler with --scheduler-file FILE first.", path=scheduler
        )
    where = {"scheduler_file": scheduler} if is_file else {"address": scheduler}
    try:
        return Client(**where, timeout=CONNECT_SECONDS, set_as_default=False)
    except Exception as error:  # No answer, no certificates, no such protocol: each kind of connection has its own.
        raise ConfigError(
            f"no Dask scheduler answers at {scheduler}: {error or type(error).__name__}",
            hint="Start one with dask scheduler, and workers with dask worker; for tls:// configure the certificates "
            "(distributed.comm.tls); or leave out --scheduler.",
        ) from error


@contextmanager
def _without_tracebacks() -> Iterator[None]:
    """Keep the client's log from saying in pages what our own error says in a paragraph; --debug shows both."""
    check_library("distributed", "a Dask cluster")
    import distributed  # noqa: F401 - first, because it sets the levels of its loggers when it is imported

    logger = logging.getLogger("distributed.client")
    before = logger.level
    if not logging.getLogger().isEnabledFor(logging.DEBUG):
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


# -- on the client -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Try:
    """A unit that was submitted."""

    unit: Unit
    number: int = 1
    deaths: int = 0


class _Submission:
    """Units on their way through a cluster."""

    def __init__(self, client: Client, need: Need, memory_limit_bytes: int | None, listen: Listener) -> None:
        self.client = client
        self.need = need
        self.limit = memory_limit_bytes
        self.listen = listen
        self._tries: dict[Any, _Try] = {}
        self._ended: SimpleQueue[Any] = SimpleQueue()
        self._workers_seen = time.monotonic()

    def run(self, units: Sequence[Unit]) -> tuple[SessionDone, ...]:
        done: list[SessionDone] = []
        run_ended = RunEnded.of_present_run(units[0].store)
        try:
            for unit in units:
                self._submit(_Try(unit), run_ended)
            while self._tries:
                future = self._wait()
                current = self._tries.pop(future)
                result = self._get_result(future, current)
                future.release()
                if result is None:
                    self._submit(current, run_ended)
                    continue
                done.append(result)
                self.listen(TrialsRead(current.unit.source.trials))
                self.listen(TrialsDone(current.unit.source.trials))
                self.listen(result)
        finally:
            # Nobody refers to what is left: the scheduler forgets it. Asking it to cancel would fail where it is lost.
            self._tries.clear()
        return tuple(done)

    def _submit(self, current: _Try, run_ended: RunEnded) -> None:
        key = f"nsd-zarr-{current.unit.source.session:02d}-{uuid4().hex}"
        future = self.client.submit(run_for_client, current.unit, self.need, self.limit, run_ended, pure=False, key=key)
        self._tries[future] = current
        # Called from a thread of the client's own, when the unit ended in any way.
        future.add_done_callback(self._ended.put)

    def _wait(self) -> Any:
        """The next unit that ended. Raises ConfigError when there was no worker for WAIT_SECONDS."""
        while True:
            try:
                return self._ended.get(timeout=LOOK_SECONDS)
            except Empty:
                self._check_workers()

    def _check_workers(self) -> None:
        now = time.monotonic()
        try:
            has_workers = bool(self.client.scheduler_info(n_workers=1)["workers"])
        except (OSError, TimeoutError):
            has_workers = False
        if has_workers:
            self._workers_seen = now
            return
        without = now - self._workers_seen
        self.listen(WaitingForWorkers(without, WAIT_SECONDS))
        if without > WAIT_SECONDS:
            raise ConfigError(
                f"the Dask cluster has no workers, after {WAIT_SECONDS} seconds",
                hint="Start some with dask worker; then run the same command again: it goes on where it was.",
            )

    def _get_result(self, future: Any, current: _Try) -> SessionDone | None:
        """What became of a unit; None: its workers died, and it is to be tried again. Raises its error.

        DoesNotFit when workers died too often, ConfigError without a scheduler.
        """
        from distributed import KilledWorker
        from distributed.client import FutureCancelledError

        try:
            result: SessionDone | NsdZarrError = future.result()
        except KilledWorker as error:
            current.number += 1
            current.deaths += error.allowed_failures + 1
            if current.number <= MAX_TRIES:
                return None
            raise _explain_deaths(current) from error
        except (FutureCancelledError, OSError) as error:
            if isinstance(error, NsdZarrError):
                raise
            raise ConfigError(
                "the Dask scheduler went away in the middle of the run",
                hint="Start it again, or leave out --scheduler; then run the same command again: it goes on where it "
                "was.",
                session=current.unit.source.session,
            ) from error
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"a worker of the cluster cannot run nsd_zarr: {error}",
                hint="Install the same version of nsd-zarr for the workers.",
            ) from error
        if isinstance(result, NsdZarrError):
            raise result
        return result


def _explain_deaths(current: _Try) -> DoesNotFit:
    source = current.unit.source
    return DoesNotFit(
        f"{current.deaths} workers of the cluster died while they converted the session: killed because they took more "
        "memory than they may, or taken away by the batch system (preempted, out of time)",
        hint="Start larger workers, or read sessions in more passes with --memory; or start workers that live longer. "
        "Then run the same command again: it goes on where it was. The workers' logs say more.",
        path=source.path,
        session=source.session,
    )


# -- on a worker -------------------------------------------------------------------------------------------------


def run_for_client(
    unit: Unit, need: Need, memory_limit_bytes: int | None, run_ended: RunEnded
) -> SessionDone | NsdZarrError:
    """Run a unit for the client that submitted it, as long as its run lasts. What it refuses is handed back.

    Not raised, or each worker would log a traceback for what the client says in one paragraph. Hands the unit itself
    back to the scheduler when this process works on another one.
    """
    from distributed import Reschedule

    if not _session_in_work.acquire(blocking=False):
        time.sleep(BUSY_SECONDS)
        raise Reschedule
    try:
        context = RunContext(stop=run_ended, is_lost=run_ended)
        return run_unit(plan_on_worker(unit, need, memory_limit_bytes), context)
    except NsdZarrError as error:
        return error
    except Stopped:
        return StoreError(
            "stopped: the lock of the run is gone",
            hint="Run the same command again: it goes on where it was.",
            path=unit.store,
            session=unit.source.session,
        )
    finally:
        _session_in_work.release()


def plan_on_worker(unit: Unit, need: Need, memory_limit_bytes: int | None) -> Unit:
    """The same unit with as many trials a pass, and threads, as this worker's own limits allow. Raises DoesNotFit."""
    from distributed import get_worker

    worker: Any = get_worker()
    own = worker.memory_manager.memory_limit
    limits = [choose_memory_limit()] if own is None else [int(WORKER_SHARE * own)]
    limit = min([*limits, *([] if memory_limit_bytes is None else [memory_limit_bytes])])
    threads = min(worker.state.nthreads, count_cores())
    try:
        plan = make_memory_plan(need, 1, threads, limit)
    except DoesNotFit as error:
        raise DoesNotFit(
            f"memory: a worker of the cluster has {format_bytes(own or limit)}, of which a session may take "
            f"{format_bytes(limit)}, and it needs {format_bytes(error.expected)}",
            hint="Start larger workers, or make shards smaller with --trials-per-shard.",
            path=unit.source.path,
            session=unit.source.session,
            expected=error.expected,
            found=limit,
        ) from error
    return replace(unit, trials_per_pass=plan.trials_per_pass, threads=plan.threads_per_session)
