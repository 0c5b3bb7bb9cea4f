"""Measuring contenders in rounds that alternate, so that a noisy neighbour troubles all of them alike."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from nsd_zarr.bench.contenders import BATCH, Contender, list_contenders
from nsd_zarr.bench.floors import list_floors
from nsd_zarr.config import make_config
from nsd_zarr.conversion.plan import find_files
from nsd_zarr.layout import DEFAULT_DATASET
from nsd_zarr.store.root import open_store

SLOW_TRIAL_SECONDS = 0.5
"""A contender that takes longer for a trial is measured on that one."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one contender did."""

    name: str
    """As in the table."""
    delivers: str
    """bytes, int16, float32 or float64."""
    threads: int
    """Threads or workers that it was given."""
    trials_per_second: float
    """Median over rounds."""
    cpu_ms_per_trial: float
    """Processor time of this process a trial, milliseconds, median over rounds."""
    percent_of_ceiling: float | None
    """Of the floor with the same dtype and threads; None where there is none."""


@dataclass(frozen=True, slots=True)
class BenchReport:
    """What a store does on this machine."""

    store: Path
    """The store's folder."""
    trial_bytes: int
    """Decoded bytes of a trial, as stored."""
    stored_bytes_per_trial: float
    """Mean bytes of a trial on disk."""
    rounds: int
    """Rounds measured."""
    rows: tuple[Measurement, ...]
    """Floors first, then ours, then the others."""

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON, for --json."""
        return asdict(self) | {"store": str(self.store)}


def bench(
    store: str | os.PathLike[str],
    source: str | os.PathLike[str] | None = None,
    *,
    rounds: int = 5,
    trials: int = 960,
    threads: int | None = None,
    more: Sequence[Contender] = (),
    on_step: Callable[[str], None] = lambda name: None,
) -> BenchReport:
    """Measure random trials of *store*, page cache warm, by every reader that is installed, beside the bare floors.

    *source*: its session files; the first is read through h5py. *trials*: for each contender and round. *threads*: of
    those that take several; None for one each core. *more*: further contenders. *on_step* is told what is measured.
    Raises StoreError, SourceError.
    """
    opened = open_store(Path(os.path.abspath(store)))
    config = make_config()
    file = find_files(source, config)[0].path if source is not None else None
    dataset = str(opened.attributes["settings"].get("dataset", DEFAULT_DATASET))
    threads = threads or config.effective_workers
    contenders = list_floors(opened, threads) + list_contenders(opened, file, dataset, threads)
    contenders += more
    count = -(-trials // BATCH) * BATCH
    wanted = np.random.default_rng(0).integers(0, opened.geometry.trials, count).tolist()
    results = _measure(contenders, wanted, rounds, on_step)
    stored = sum(record.size for record in opened.manifest.values())
    return BenchReport(
        store=opened.path,
        trial_bytes=opened.geometry.trial_bytes,
        stored_bytes_per_trial=stored / opened.geometry.trials,
        rounds=rounds,
        rows=_compare(contenders, results),
    )


def _measure(
    contenders: Sequence[Contender], wanted: list[int], rounds: int, on_step: Callable[[str], None]
) -> list[list[tuple[float, float]]]:
    """(seconds, CPU seconds) a trial, for each contender and round."""
    results: list[list[tuple[float, float]]] = [[] for _ in contenders]
    slow: set[int] = set()
    for number in range(rounds):
        for position, contender in enumerate(contenders):
            if position in slow:
                continue
            on_step(f"round {number + 1} of {rounds}: {contender.name}, {contender.delivers}")
            with contender.open() as deliver:
                first = _time(deliver, wanted[:1])
                if first[0] > SLOW_TRIAL_SECONDS:
                    slow.add(position)
                    results[position].append(first)
                    continue
                deliver(wanted)  # Warm: page cache, indexes, pools.
                results[position].append(_time(deliver, wanted))
    return results


def _time(deliver: Callable[[Sequence[int]], None], wanted: Sequence[int]) -> tuple[float, float]:
    started, cpu = time.perf_counter(), time.process_time()
    deliver(wanted)
    return (time.perf_counter() - started) / len(wanted), (time.process_time() - cpu) / len(wanted)


def _compare(contenders: Sequence[Contender], results: Sequence[list[tuple[float, float]]]) -> tuple[Measurement, ...]:
    rates = [1 / median(seconds for seconds, _ in result) for result in results]
    ceilings = {
        (contender.delivers, contender.threads): rate
        for contender, rate in zip(contenders, rates, strict=True)
        if contender.name.startswith("floor")
    }
    return tuple(
        Measurement(
            contender.name,
            contender.delivers,
            contender.threads,
            rate,
            1000 * median(cpu for _, cpu in result),
            _percent(rate, ceilings.get((contender.delivers, contender.threads))),
        )
        for contender, rate, result in zip(contenders, rates, results, strict=True)
    )


def _percent(rate: float, ceiling: float | None) -> float | None:
    return None if ceiling is None else 100 * rate / ceiling


def make_table(report: BenchReport) -> str:
    """The report as a table for people."""
    lines = [
        f"{report.store}: {report.trial_bytes / 1e6:.2f} MB a trial, {report.stored_bytes_per_trial / 1e6:.2f} MB "
        f"stored; random trials, page cache warm, median of {report.rounds} rounds",
        f"{'':36} {'delivers':9} {'threads':>7} {'trials/s':>9} {'CPU ms':>8} {'of ceiling':>10}",
    ]
    for row in report.rows:
        ceiling = "" if row.percent_of_ceiling is None else f"{row.percent_of_ceiling:.0f} %"
        rate = f"{row.trials_per_second:.0f}" if row.trials_per_second >= 10 else f"{row.trials_per_second:.3f}"
        lines.append(
            f"{row.name:36} {row.delivers:9} {row.threads:>7} {rate:>9} {row.cpu_ms_per_trial:>8.2f} {ceiling:>10}"
        )
    return "\n".join(lines)
