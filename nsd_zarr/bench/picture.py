"""A picture of what was measured: trials a second against bytes on disk, the floors drawn in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nsd_zarr.bench.floors import is_ceiling
from nsd_zarr.bench.run import BenchReport, Measurement

OURS, OTHERS, FLOOR = "#1f6f8b", "#a6a6a6", "#c0392b"


def draw_reports(reports: Sequence[BenchReport], path: Path) -> None:
    """Write a PNG with two columns for each report: rates, and beside them bytes on disk. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    most = max(len(_choose_rows(report)) for report in reports)
    figure, panels = plt.subplots(
        1,
        2 * len(reports),
        figsize=(8.6 * len(reports), 0.3 * most + 1.8),
        width_ratios=[3.4, 1] * len(reports),
        layout="constrained",
        squeeze=False,
    )
    for number, report in enumerate(reports):
        _draw_rates(panels[0, 2 * number], report)
        _draw_bytes(panels[0, 2 * number + 1], report)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _choose_rows(report: BenchReport) -> list[Measurement]:
    """All but the floors, slowest first: it is drawn at the bottom."""
    rows = [row for row in report.rows if not row.name.startswith("floor")]
    return sorted(rows, key=lambda row: row.trials_per_second)


def _draw_rates(axes: Any, report: BenchReport) -> None:
    rows = _choose_rows(report)
    floors = {(row.delivers, row.threads): row.trials_per_second for row in report.rows if is_ceiling(row.name)}
    for height, row in enumerate(rows):
        reads_store = row.stored_bytes == report.stored_bytes_per_trial
        _draw_row(axes, height, row, floors.get((row.delivers, row.threads)) if reads_store else None)
    axes.plot([], [], "o", color=OURS, label="this package")
    axes.plot([], [], "o", color=OTHERS, label="others")
    axes.plot([], [], "o", markerfacecolor="white", color=OTHERS, label="page cache dropped")
    axes.plot([], [], "|", color=FLOOR, markersize=12, markeredgewidth=2, label="floor: pread + crc + decode (+ cast)")
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.set_xlim(right=2.2 * max(row.trials_per_second for row in rows))
    axes.set_yticks(range(len(rows)), [_format_value(row) for row in rows], fontsize=8)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel("random trials a second")
    axes.set_title(f"{report.trial_bytes / 1e6:.2f} MB a trial (int16)", fontsize=10, loc="left")
    axes.grid(axis="x", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_row(axes: Any, height: int, row: Measurement, floor: float | None) -> None:
    colour = OURS if row.name.startswith(("nsd_zarr", "ds.betas", "DataLoader over TrialDataset")) else OTHERS
    if row.cold_trials_per_second:
        axes.plot(
            [row.cold_trials_per_second, row.trials_per_second], [height] * 2, color=colour, linewidth=1, alpha=0.5
        )
        axes.plot(row.cold_trials_per_second, height, "o", color=colour, markerfacecolor="white", markersize=5)
    axes.plot(row.trials_per_second, height, "o", color=colour, markersize=6)
    if floor:
        axes.plot(floor, height, "|", color=FLOOR, markersize=12, markeredgewidth=2)
    # The number stands behind the point, and behind the floor where that is near.
    is_near = floor is not None and row.trials_per_second < floor < 1.5 * row.trials_per_second
    rightmost = floor if floor is not None and is_near else row.trials_per_second
    label = f"  {row.trials_per_second:,.0f}" if row.trials_per_second >= 10 else f"  {row.trials_per_second:.2g}"
    axes.annotate(label, (rightmost, height), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7.5)


def _draw_bytes(axes: Any, report: BenchReport) -> None:
    rows = _choose_rows(report)
    axes.barh(range(len(rows)), [row.stored_bytes / 1e6 for row in rows], height=0.55, color="#d9d9d9")
    for height, row in enumerate(rows):
        axes.annotate(
            f"{row.stored_bytes / 1e6:.2f}",
            (row.stored_bytes / 1e6, height),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
        )
    axes.set_yticks([])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlim(0, 1.35 * max(row.stored_bytes for row in rows) / 1e6)
    axes.set_xlabel("MB on disk a trial")
    axes.spines[["top", "right"]].set_visible(False)


def _format_value(row: Measurement) -> str:
    several = "" if row.threads == 1 else f", {row.threads} {'workers' if 'DataLoader' in row.name else 'threads'}"
    return f"{row.name}, {row.delivers}{several}"
