"""nsd_zarr.make_report: gather numbers, draw figures, write one page."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from nsd_zarr.conversion.events import Listener, RunStarted, TrialsDone, ignore_event
from nsd_zarr.errors import ConfigError, DamageFound
from nsd_zarr.libraries import check_library
from nsd_zarr.maintenance.verify import verify as verify_store
from nsd_zarr.places.choose import make_path
from nsd_zarr.places.durable import make_folder, write_durably
from nsd_zarr.progress import draw_progress
from nsd_zarr.read.dataset import open_dataset
from nsd_zarr.read.derive import get_betas
from nsd_zarr.read.volume import AXES, make_volume
from nsd_zarr.report.gather import Tiles, add_damages, gather_contents, gather_sessions, make_verdict, read_brain
from nsd_zarr.report.numbers import Report
from nsd_zarr.report.regions import find_region, gather_regions
from nsd_zarr.report.reliability import Showings, choose_voxels, measure_showings
from nsd_zarr.store.root import open_store

MAX_BENCH_BYTES = 2**22
"""A larger file is no output of bench."""


@dataclass(frozen=True, slots=True)
class _Scene:
    """What figures are drawn of."""

    dataset: xr.Dataset
    places: dict[str, int] | None
    tiles: Tiles
    showings: Showings | None
    ceilings: dict[str, np.ndarray]
    region: str


def make_report(
    store: str | os.PathLike[str],
    out: str | os.PathLike[str] = "report.html",
    *,
    verify: bool = False,
    bench: str | os.PathLike[str] | None = None,
    on_event: Listener = ignore_event,
    progress: bool = False,
) -> Report:
    """Write one self-contained HTML page about a store: pictures and numbers. Reads only.

    Trials of images that were shown three times are read once; memory does not grow with the number of trials.

    Parameters
    ----------
    store
        The store's folder.
    out
        The page. It loads nothing from anywhere, so that it can be mailed or archived.
    verify
        Whether to check every trial, as `nsd-zarr verify` does; otherwise files and indexes alone, as `--quick`.
    bench
        Output of `nsd-zarr bench --json`, whose figures the page shows as well.
    on_event
        Called with RunStarted and TrialsDone, from any thread.
    progress
        Whether to draw a bar, in a notebook or on standard error.

    Returns
    -------
    Report
        The same numbers.

    Raises
    ------
    StoreError
        There is no finished store.
    DamageFound
        The root document or a map is damaged; trials that are damaged are in the verdict.
    ConfigError
        *bench* is no output of bench.
    MissingLibrary
        matplotlib or jinja2 is not installed.

    Examples
    --------
    >>> report = nsd_zarr.make_report("subj01.zarr", "report.html")
    >>> report.contents.trials, report.sessions[0].missing is not None
    (36, True)
    """
    for library in ("jinja2", "matplotlib"):
        check_library(library, "a report", "report")
    started, path = time.perf_counter(), make_path(store)
    opened, figures_of_bench = open_store(path), None if bench is None else read_bench(Path(bench))
    with draw_progress(progress, on_event) as listen:
        found = verify_store(path, quick=not verify, on_event=listen)
        dataset = open_dataset(path)
        places = _choose_places(dataset)
        sessions, tiles = gather_sessions(opened, dataset, None if places is None else places["z"])
        trouble: list[str] = []
        region, showings = _measure(dataset, places, listen, trouble)
        regions, ceilings = gather_regions(dataset)
        scene = _Scene(dataset, places, tiles, showings, ceilings, region)
        report = Report(
            contents=gather_contents(opened, dataset),
            sessions=sessions,
            reliability=None if showings is None else showings.numbers,
            regions=regions,
            verdict=make_verdict(found),
            bench=figures_of_bench,
            page=os.path.abspath(out),
            seconds=0.0,
        )
        figures = _draw(report, scene, listen, trouble)
        report = replace(report, verdict=add_damages(report.verdict, trouble))
    return _write(Path(report.page), report, figures, started)


def _write(out: Path, report: Report, figures: dict[str, bytes], started: float) -> Report:
    from nsd_zarr.report.page import make_page

    done = replace(report, seconds=time.perf_counter() - started)
    make_folder(out.parent)
    write_durably(out, make_page(done, figures).encode())
    return done


def read_bench(path: Path) -> dict[str, Any]:
    """Figures of `nsd-zarr bench --json`. Raises ConfigError for anything else."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_BENCH_BYTES))
        rates = [float(row["trials_per_second"]) for row in found["rows"]]
        if min(rates) <= 0 or not all({"name", "delivers", "threads"} <= set(row) for row in found["rows"]):
            raise ValueError(rates)
        return dict(found)
    except OSError as error:
        raise ConfigError(f"cannot read the figures of bench: {error.strerror}", path=path) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            "not the output of bench", hint="Make it: nsd-zarr bench STORE --json > bench.json", path=path
        ) from error


# -- what is looked at -------------------------------------------------------------------------------------------


def _choose_places(dataset: xr.Dataset) -> dict[str, int] | None:
    """Slices where the region is widest; None for surfaces."""
    if not set(AXES) <= set(get_betas(dataset).dims):
        return None
    mask = find_region(dataset, read_brain(dataset))[1]
    counts = {axis: mask.sum(tuple(other for other in range(3) if other != place)) for place, axis in enumerate(AXES)}
    return {axis: int(np.argmax(count)) for axis, count in counts.items()}


def _measure(
    dataset: xr.Dataset, places: dict[str, int] | None, listen: Listener, trouble: list[str]
) -> tuple[str, Showings | None]:
    """Name of the region, and what its repeats say; None where that is not known, or a trial cannot be read."""
    brain = read_brain(dataset)
    name, region = find_region(dataset, brain)
    if not {"nsd_id", "session_std", "session_mean"} <= set(dataset.variables):
        return name, None
    try:
        return name, measure_showings(dataset, name, region, choose_voxels(region, brain, places), listen)
    except DamageFound as error:
        trouble.append(str(error))
        return name, None


# -- figures -----------------------------------------------------------------------------------------------------


def _draw(report: Report, scene: _Scene, listen: Listener, trouble: list[str]) -> dict[str, bytes]:
    """Every figure that these data have, by its name in the template; without those whose data are damaged."""
    todo = dict(_list_figures(report, scene))
    listen(RunStarted(0, len(todo), 1, 0, step="drawing"))
    figures = {}
    for name, draw in todo.items():
        try:
            figures[name] = draw()
        except DamageFound as error:
            trouble.append(str(error))
        listen(TrialsDone(1))
    return figures


def _list_figures(report: Report, scene: _Scene) -> Iterator[tuple[str, Callable[[], bytes]]]:
    from nsd_zarr.report import drawings

    if scene.places is not None:
        yield from _list_slices(scene)
        if scene.tiles.deviation and scene.tiles.mean:
            yield "strip", lambda: drawings.draw_strip(scene.tiles, report.sessions)
    yield "sessions", lambda: drawings.draw_sessions(report.sessions)
    if (showings := scene.showings) is not None:
        yield "scatter", lambda: drawings.draw_scatter(showings)
    if scene.ceilings:
        yield "regions", lambda: drawings.draw_regions(scene.ceilings)
    if report.bench is not None and report.bench["rows"]:
        rows = report.bench["rows"]
        yield "bench", lambda: drawings.draw_bench(rows)


def _list_slices(scene: _Scene) -> Iterator[tuple[str, Callable[[], bytes]]]:
    from nsd_zarr.read.picture import DEFAULT_ROI, draw_slices
    from nsd_zarr.report.drawings import save

    assert scene.places is not None
    at, dataset = tuple(scene.places[axis] for axis in AXES), scene.dataset
    roi = DEFAULT_ROI if scene.region == DEFAULT_ROI else None
    maps = [dataset.get("ncsnr"), None if scene.showings is None else scene.showings.ncsnr]
    known = [each.values for each in maps if each is not None]
    limit = float(np.nanpercentile(known[0], 99.5)) if known else None  # one scale for both

    def draw(values: xr.DataArray, title: str, limit: float | None = None) -> bytes:
        return save(draw_slices(dataset, values, roi=roi, at=at, limit=limit, title=title))

    yield "trial", lambda: draw(get_betas(dataset)[0], "first trial")
    if "ncsnr" in dataset.variables:
        yield "authors", lambda: draw(dataset["ncsnr"], "ncsnr of the authors", limit)
    if (showings := scene.showings) is not None:
        yield "ours", lambda: draw(make_volume(showings.ncsnr), "ncsnr of these trials", limit)
