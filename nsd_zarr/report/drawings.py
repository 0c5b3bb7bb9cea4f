"""Each figure of the report, as a PNG. Imported when one is drawn: needs matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from nsd_zarr.read.picture import FAINT, INK, OUTSIDE
from nsd_zarr.report.gather import Tiles
from nsd_zarr.report.numbers import SessionNumbers
from nsd_zarr.report.reliability import Showings

BLUE, RED, SAND = "#1f6f8b", "#c0392b", "#d9a441"
DPI = 130
WIDTH = 10.0
"""Inches: with DPI, sharp on the widest page."""
TILES_A_ROW = 20
MAX_BARS = 40
"""Regions drawn; the table has them all."""


def save(figure: Any) -> bytes:
    """The figure as a PNG, the same bytes for the same figure."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def _start(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    panels = figure.subplots(rows, columns, squeeze=False, **options)
    for panel in panels.flat:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(colors=INK, labelsize=9)
    return figure, panels


# -- sessions ----------------------------------------------------------------------------------------------------


def draw_sessions(sessions: Sequence[SessionNumbers]) -> bytes:
    """Mean and deviation with their spread over voxels, then counts, session by session."""
    numbers = [each.session for each in sessions]
    bars: dict[str, list[Any]] = {
        "voxels at\nthe rails": [each.at_rails for each in sessions],
        "brain voxels\nwithout data": [each.missing for each in sessions],
        "MB stored": [each.stored_bytes / 1e6 for each in sessions],
    }
    shown = {name: values for name, values in bars.items() if any(value is not None for value in values)}
    spread: dict[str, list[Any]] = {
        "mean (%)": [each.mean for each in sessions],
        "deviation (%)": [each.deviation for each in sessions],
    }
    bands = {name: values for name, values in spread.items() if any(values)}
    heights = [2.0] * len(bands) + [1.0] * len(shown)
    figure, panels = _start(0.75 * sum(heights) + 0.6, len(heights), sharex=True, height_ratios=heights)
    for panel, (name, quantiles) in zip(panels[:, 0], bands.items(), strict=False):
        _draw_band(panel, numbers, quantiles, name)
    for panel, (name, values) in zip(panels[len(bands) :, 0], shown.items(), strict=True):
        panel.bar(numbers, [np.nan if value is None else value for value in values], color=BLUE, width=0.72)
        panel.set_ylabel(name, color=INK, fontsize=9, rotation=0, ha="right", va="center")
        panel.yaxis.get_major_locator().set_params(integer=True, nbins=3)
    panels[-1, 0].set_xlabel("session", color=INK)
    panels[-1, 0].set_xticks(numbers if len(numbers) <= 20 else numbers[:: max(1, len(numbers) // 20)])
    figure.align_ylabels()
    return save(figure)


def _draw_band(panel: Any, numbers: Sequence[int], quantiles: Sequence[Any], name: str) -> None:
    values = np.array([each or (np.nan,) * 5 for each in quantiles]).T
    panel.fill_between(numbers, values[0], values[4], color=BLUE, alpha=0.13, linewidth=0, label="5 to 95 % of voxels")
    panel.fill_between(numbers, values[1], values[3], color=BLUE, alpha=0.28, linewidth=0, label="25 to 75 %")
    panel.plot(numbers, values[2], "o-", color=BLUE, markersize=3.5, linewidth=1.4, label="median")
    if values[0][np.isfinite(values[0])].min(initial=0) < 0:
        panel.axhline(0, color=FAINT, linewidth=0.7, linestyle=(0, (4, 4)))
        panel.legend(fontsize=8, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    panel.set_ylabel(name, color=INK, fontsize=9, rotation=0, ha="right", va="center")


def draw_strip(tiles: Tiles, sessions: Sequence[SessionNumbers]) -> bytes:
    """One axial slice of mean and of deviation of every session, on one colour scale each."""
    columns = min(TILES_A_ROW, len(sessions))
    blocks = -(-len(sessions) // columns)
    shape = tiles.deviation[0].shape
    height = 2 * blocks * (WIDTH - 1.2) / columns * shape[0] / shape[1] + 0.35 * blocks + 0.3
    figure, panels = _start(height, 2 * blocks, columns)
    strips = (("mean", tiles.mean, "RdBu_r"), ("deviation", tiles.deviation, "magma"))
    for panel in panels.flat:
        panel.set_axis_off()
    for row, (name, strip, colours) in enumerate(strips):
        known = np.concatenate([np.abs(tile[np.isfinite(tile)]) for tile in strip])
        limit = float(np.percentile(known, 99)) if known.size else 1.0
        for place, tile in enumerate(strip):
            panel = panels[2 * (place // columns) + row, place % columns]
            panel.imshow(tile, cmap=colours, vmin=-limit if row == 0 else 0, vmax=limit, origin="lower")
            if row == 0:
                panel.set_title(str(sessions[place].session), fontsize=8, color=FAINT, pad=2)
        panels[row, 0].text(
            -0.08, 0.5, f"{name}\n± {limit:.1f} %" if row == 0 else f"{name}\nto {limit:.1f} %",
            transform=panels[row, 0].transAxes, ha="right", va="center", fontsize=8, color=INK,
        )  # fmt: skip
    return save(figure)


# -- reliability -------------------------------------------------------------------------------------------------


def draw_scatter(showings: Showings) -> bytes:
    """Recomputed ncsnr against the dataset's own, and the correlation of showings against what ncsnr promises."""
    has_authors = showings.authors is not None
    figure, panels = _start(4.3, 1, 2 if has_authors else 1)
    if showings.authors is not None:
        _draw_ncsnr(panels[0, 0], showings.ncsnr.values, showings.authors)
    _draw_correlation(panels[0, -1], showings)
    return save(figure)


def _draw_ncsnr(panel: Any, ours: np.ndarray, authors: np.ndarray) -> None:
    both = np.isfinite(ours) & np.isfinite(authors)
    end = float(max(ours[both].max(initial=0.1), authors[both].max(initial=0.1))) * 1.03
    shown = panel.hexbin(
        authors[both], ours[both], gridsize=60, extent=(0, end, 0, end), cmap="GnBu", norm=LogNorm(), mincnt=1
    )
    panel.plot([0, end], [0, end], color=RED, linewidth=0.9, linestyle=(0, (5, 3)))
    panel.set(xlim=(0, end), ylim=(0, end), aspect="equal")
    panel.set(xlabel="ncsnr of the authors", ylabel="ncsnr of these trials")
    bar = panel.figure.colorbar(shown, ax=panel, shrink=0.8, aspect=24, pad=0.02)
    bar.set_label("voxels", color=INK)
    bar.outline.set_visible(False)


def _draw_correlation(panel: Any, showings: Showings) -> None:
    ncsnr, r = showings.ncsnr.values, showings.correlation
    known = np.isfinite(ncsnr) & np.isfinite(r)
    end = float(np.quantile(ncsnr[known], 0.995)) if known.any() else 1.0
    edges = np.linspace(0, max(end, 0.05), 16)
    bins = np.digitize(ncsnr, edges[1:-1])
    groups = [(edges[n : n + 2].mean(), r[known & (bins == n)]) for n in range(len(edges) - 1)]
    groups = [(at, values) for at, values in groups if values.size >= 5]
    at = [each for each, _ in groups]
    for low, high, alpha in ((5, 95, 0.15), (25, 75, 0.3)):
        edge = [np.percentile(values, (low, high)) for _, values in groups]
        panel.fill_between(at, [e[0] for e in edge], [e[1] for e in edge], color=BLUE, alpha=alpha, linewidth=0)
    panel.plot(at, [np.median(values) for _, values in groups], "o-", color=BLUE, markersize=4, label="of these trials")
    line = np.linspace(0, edges[-1], 100)
    promised = line**2 / (line**2 + 1)
    panel.plot(line, promised, color=RED, linestyle=(0, (5, 3)), linewidth=1, label="ncsnr² / (ncsnr² + 1)")
    panel.axhline(0, color=FAINT, linewidth=0.6)
    panel.set(xlabel="ncsnr of these trials", ylabel="r, first and second showing", xlim=(0, edges[-1]))
    panel.legend(fontsize=9, frameon=False, loc="upper left")


def draw_regions(values: Mapping[str, np.ndarray]) -> bytes:
    """The noise ceiling of each label: median, quartiles, 5 to 95 % of voxels."""
    shown = [(name, each[np.isfinite(each)]) for name, each in values.items()]
    shown = [(name, each) for name, each in shown if each.size][:MAX_BARS]
    figure, panels = _start(0.23 * len(shown) + 0.9)
    panel = panels[0, 0]
    for height, (_, each) in enumerate(shown):
        low, first, middle, third, high = np.percentile(each, (5, 25, 50, 75, 95))
        panel.plot([low, high], [height, height], color=BLUE, linewidth=1, alpha=0.6)
        panel.barh(height, third - first, left=first, height=0.62, color=BLUE, alpha=0.35)
        panel.plot([middle, middle], [height - 0.31, height + 0.31], color=BLUE, linewidth=2)
    panel.set_yticks(range(len(shown)), [f"{name}  ({each.size:,})" for name, each in shown])
    panel.set(xlabel="noise ceiling of means over three trials (% of variance)", ylim=(len(shown) - 0.4, -0.6))
    panel.set_xlim(left=0)
    panel.grid(axis="x", color=OUTSIDE)
    panel.set_axisbelow(True)
    return save(figure)


# -- bench -------------------------------------------------------------------------------------------------------


def draw_bench(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Random trials a second of each reader, fastest first; floors are what the hardware allows."""
    ordered = sorted(rows, key=lambda row: -float(row["trials_per_second"]))
    figure, panels = _start(0.25 * len(ordered) + 0.9)
    panel = panels[0, 0]
    for height, row in enumerate(ordered):
        is_floor = str(row["name"]).startswith("floor")
        rate = float(row["trials_per_second"])
        panel.barh(height, rate, height=0.66, color=SAND if is_floor else BLUE, alpha=0.85)
        panel.text(rate, height, f" {rate:,.0f}" if rate >= 10 else f" {rate:.2g}", va="center", fontsize=8, color=INK)
    names = [f"{row['name']}, {row['delivers']}, {row['threads']}" for row in ordered]
    panel.set_yticks(range(len(ordered)), names)
    panel.set(xlabel="random trials a second (page cache warm)", xscale="log", ylim=(len(ordered) - 0.4, -0.6))
    return save(figure)
