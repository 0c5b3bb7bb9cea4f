"""Measuring contenders in rounds that alternate, so that a noisy neighbour troubles all of them alike."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from nsd_zarr.bench.contenders import BATCH, Contender, list_contenders
from nsd_zarr.bench.floors import is_ceiling, list_floors
from nsd_zarr.bench.workers import list_data_loaders
from nsd_zarr.config import make_config
from nsd_zarr.conversion.plan import find_files
from nsd_zarr.nsd import BETAS_DATASET
from nsd_zarr.places.page_cache import drop_from_cache
from nsd_zarr.science import kernels
from nsd_zarr.store.root import open_store

SLOW_TRIAL_SECONDS = 0.5
"""A contender that takes longer for a trial is measured on that one."""
COLD_TRIALS = 192
"""Trials of a cold round, all different."""


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
    """Median over rounds, page cache warm."""
    cpu_ms_per_trial: float
    """Processor time of this process a trial, milliseconds, median over rounds."""
    percent_of_ceiling: float | None
    """Of the floor with the same dtype and threads; None where there is none."""
    stored_bytes: float
    """Bytes on disk a trial, in the form that it reads."""
    cold_trials_per_second: float | None
    """Median over rounds, the files dropped from the page cache before each; None where not measured."""


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
    scaled_by: str
    """What makes percent of counts in ours and in the floor that is their ceiling: numba or NumPy."""
    rows: tuple[Measurement, ...]
    """Floors first, then ours, then the others."""

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON, for --json."""
        return asdict(self) | {"store": str(self.store)}


@dataclass(slots=True)
class _Times:
    """What was measured of one contender: seconds a trial."""

    warm: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)


def bench(
    store: str | os.PathLike[str],
    source: str | os.PathLike[str] | None = None,
    *,
    rounds: int = 5,
    trials: int = 960,
    threads: int | None = None,
    cold: bool = False,
    workers: bool = False,
    more: Sequence[Contender] = (),
    on_step: Callable[[str], None] = lambda name: None,
) -> BenchReport:
    """Measure random trials of *store*, page cache warm, by every reader that is installed, beside the bare floors.

    *source*: its session files; the first is read through h5py. *trials*: for each contender and round. *threads*: of
    those that take several; None for one each core. *cold*: also with each contender's files dropped from this
    machine's page cache (what lies below, a disk's or a host's cache, is beyond reach). *workers*: also PyTorch's
    DataLoader over them, where PyTorch is installed. *more*: further contenders. *on_step* names what is measured.
    Raises StoreError, SourceError.
    """
    opened = open_store(Path(os.path.abspath(store)))
    config = make_config()
    file = find_files(source, config)[0].path if source is not None else None
    dataset = opened.attributes.dataset or BETAS_DATASET
    threads = threads or config.effective_workers
    kernels.load()  # As readers of many trials do: a ceiling is the best known way.
    contenders = list_floors(opened, threads) + list_contenders(opened, file, dataset, threads)
    contenders += list_data_loaders(opened, {}) if workers else []
    contenders += more
    count = -(-trials // BATCH) * BATCH
    wanted = np.random.default_rng(0).integers(0, opened.geometry.trials, count).tolist()
    times = [_Times() for _ in contenders]
    for number in range(rounds):
        for contender, taken in zip(contenders, times, strict=True):
            on_step(f"round {number + 1} of {rounds}: {contender.name}, {contender.delivers}, {contender.threads}")
            _measure(contender, wanted[: contender.most_trials], taken)
            if cold and contender.files:
                _measure_cold(contender, opened.geometry.trials, number, taken)
    stored = sum(record.size for record in opened.manifest.values()) / opened.geometry.trials
    return BenchReport(
        store=opened.path,
        trial_bytes=opened.geometry.trial_bytes,
        stored_bytes_per_trial=stored,
        rounds=rounds,
        scaled_by="numba" if kernels.load() else "NumPy",
        rows=_compare(contenders, times, stored),
    )


def _measure(contender: Contender, wanted: Sequence[int], taken: _Times) -> None:
    if taken.warm and min(taken.warm) > SLOW_TRIAL_SECONDS:
        return
    with contender.open() as deliver:
        seconds, cpu = _time(deliver, wanted[:1])
        # A DataLoader's first trial is the start of its workers.
        if seconds < SLOW_TRIAL_SECONDS or contender.name.startswith("DataLoader"):
            deliver(wanted)  # Warm: page cache, indexes, pools.
            seconds, cpu = _time(deliver, wanted)
    taken.warm.append(seconds)
    taken.cpu.append(cpu)


def _measure_cold(contender: Contender, trials: int, seed: int, taken: _Times) -> None:
    if min(taken.warm) > SLOW_TRIAL_SECONDS:
        return
    chosen = np.random.default_rng(seed).permutation(min(trials, contender.most_trials))[:COLD_TRIALS].tolist()
    for path in contender.files:
        drop_from_cache(path)
    with contender.open() as deliver:
        taken.cold.append(_time(deliver, chosen)[0])


def _time(deliver: Callable[[Sequence[int]], None], wanted: Sequence[int]) -> tuple[float, float]:
    started, cpu = time.perf_counter(), time.process_time()
    deliver(wanted)
    return (time.perf_counter() - started) / len(wanted), (time.process_time() - cpu) / len(wanted)


def _compare(contenders: Sequence[Contender], times: Sequence[_Times], stored: float) -> tuple[Measurement, ...]:
    rates = [1 / median(taken.warm) for taken in times]
    ceilings = {
        (contender.delivers, contender.threads): rate
        for contender, rate in zip(contenders, rates, strict=True)
        if is_ceiling(contender.name)
    }
    return tuple(
        Measurement(
            name=contender.name,
            delivers=contender.delivers,
            threads=contender.threads,
            trials_per_second=rate,
            cpu_ms_per_trial=1000 * median(taken.cpu),
            percent_of_ceiling=_percent(rate, ceilings.get((contender.delivers, contender.threads))),
            stored_bytes=contender.stored_bytes or stored,
            cold_trials_per_second=1 / median(taken.cold) if taken.cold else None,
        )
        for contender, rate, taken in zip(contenders, rates, times, strict=True)
    )


def _percent(rate: float, ceiling: float | None) -> float | None:
    return None if ceiling is None else 100 * rate / ceiling


def make_table(report: BenchReport) -> str:
    """The report as a table for people."""
    lines = [
        f"{report.store}: {report.trial_bytes / 1e6:.2f} MB a trial, {report.stored_bytes_per_trial / 1e6:.2f} MB "
        f"stored; random trials, median of {report.rounds} rounds; percent by {report.scaled_by}",
        f"{'':36} {'delivers':9} {'threads':>7} {'trials/s':>9} {'CPU ms':>8} {'of ceiling':>10} {'MB on disk':>10}"
        f" {'cold':>9}",
    ]
    for row in report.rows:
        # Of bytes, the stages of a floor are no ceiling of each other.
        ceiling = "" if row.percent_of_ceiling is None or row.delivers == "bytes" else f"{row.percent_of_ceiling:.0f} %"
        lines.append(
            f"{row.name:36} {row.delivers:9} {row.threads:>7} {_format_rate(row.trials_per_second):>9} "
            f"{row.cpu_ms_per_trial:>8.2f} {ceiling:>10} {row.stored_bytes / 1e6:>10.2f}"
            f" {_format_rate(row.cold_trials_per_second):>9}".rstrip()
        )
    return "\n".join(lines)


def _format_rate(rate: float | None) -> str:
    if rate is None:
        return ""
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.3f}"
