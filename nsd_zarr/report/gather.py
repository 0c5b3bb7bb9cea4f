"""Numbers that the root document and the statistics of sessions hold: no trial is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import xarray as xr

from nsd_zarr.layout import format_count
from nsd_zarr.maintenance.verify import VerifyReport
from nsd_zarr.read.derive import get_betas, get_volume_dims
from nsd_zarr.read.missing import find_missing_variable
from nsd_zarr.read.region import read_atlas
from nsd_zarr.read.roi import BRAINMASK
from nsd_zarr.read.score import MEAN, STD
from nsd_zarr.report.numbers import Contents, SessionNumbers, Verdict, find_quantiles
from nsd_zarr.store.root import Store

MAX_DAMAGES = 50
"""Damages that are listed; the rest is counted."""


def gather_contents(store: Store, dataset: xr.Dataset) -> Contents:
    """What *store* is made of."""
    attributes, geometry = store.attributes, store.geometry
    settings = attributes.settings
    sizes = [record.size for record in store.manifest.values()]
    return Contents(
        name=store.path.name,
        origin={name: str(value) for name, value in attributes.origin.items()},
        sessions=len(geometry.sessions),
        trials=geometry.trials,
        shape=tuple(geometry.volume_shape),
        dtype=geometry.dtype,
        codec=f"{settings.get('codec', '')} {settings.get('clevel', '')}".strip(),
        trials_per_shard=geometry.trials_per_shard,
        files=len(sizes) + 1,
        stored_bytes=sum(sizes),
        decoded_bytes=geometry.trials * geometry.trial_bytes,
        format_version=f"{attributes.format_version}.{attributes.format_minor}",
        made_by={name: str(version) for name, version in attributes.libraries.items()},
        experiment=_count_experiment(dataset),
        notes=(*attributes.notes, *attributes.experiment_notes),
        checksum=store.fingerprint,
    )


def _count_experiment(dataset: xr.Dataset) -> dict[str, int]:
    along = [name for name, each in dataset.variables.items() if each.dims == ("trial",)]
    labels = read_atlas(dataset).labels
    counts = {
        "columns of the trial table": len(along) if "nsd_id" in along else 0,
        "sets of regions": len(set(labels) - {BRAINMASK}),
        "labels": sum(len(each) for roi, each in labels.items() if roi != BRAINMASK),
    }
    return {name: count for name, count in counts.items() if count}


# -- sessions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tiles:
    """Small pictures of each session, for the strip."""

    mean: list[np.ndarray] = field(default_factory=list)
    """One axial slice of the mean, NaN outside of the brain."""
    deviation: list[np.ndarray] = field(default_factory=list)
    """The same of the standard deviation."""


def gather_sessions(store: Store, dataset: xr.Dataset, level: int | None) -> tuple[tuple[SessionNumbers, ...], Tiles]:
    """Numbers and tiles of each session, one in memory at a time. *level*: axial slice of the tiles, or None."""
    tiles, brain = Tiles(), read_brain(dataset)
    return tuple(_gather_sessions(store, dataset, brain, level, tiles)), tiles


def read_brain(dataset: xr.Dataset) -> np.ndarray:
    """Brain voxels by the mask; all where there is none."""
    dims = get_volume_dims(get_betas(dataset))
    if BRAINMASK in dataset and dataset[BRAINMASK].dims == dims:
        brain: np.ndarray = dataset[BRAINMASK].values > 0
        return brain
    return np.ones([dataset.sizes[dim] for dim in dims], bool)


def _gather_sessions(
    store: Store, dataset: xr.Dataset, brain: np.ndarray, level: int | None, tiles: Tiles
) -> Iterator[SessionNumbers]:
    geometry, missing = store.geometry, find_missing_variable(dataset)
    rails = dataset["rail_count"].values if "rail_count" in dataset.variables else None
    sources = [source.name for source in store.attributes.sources]
    for place, session in enumerate(geometry.sessions):
        stored = _count_bytes(store, place)
        known = brain if missing is None else brain & ~missing[place].values
        statistics = {}
        for name, strip in ((MEAN, tiles.mean), (STD, tiles.deviation)):
            if name in dataset.variables:
                values = dataset[name].variable[place].values
                statistics[name] = find_quantiles(values[known])
                if level is not None:
                    strip.append(np.where(known[level], values[level], np.nan))
        yield SessionNumbers(
            session=int(session),
            source=sources[place] if place < len(sources) else "",
            stored_bytes=stored,
            compression=geometry.trials_per_session * geometry.trial_bytes / max(1, stored),
            mean=statistics.get(MEAN),
            deviation=statistics.get(STD),
            at_rails=None if rails is None or rails[place] < 0 else int(rails[place]),
            missing=None if missing is None else int(np.count_nonzero(brain & ~known)),
        )


def _count_bytes(store: Store, place: int) -> int:
    shards = {f"betas/c/{shard}/" for shard in store.geometry.session_shards(store.geometry.sessions[place])}
    return sum(record.size for key, record in store.manifest.items() if key[: key.find("/", 8) + 1] in shards)


# -- verify ------------------------------------------------------------------------------------------------------


def make_verdict(found: VerifyReport) -> Verdict:
    """What verify found, in lines."""
    lines = [str(damage) for damage in found.damages[:MAX_DAMAGES]]
    if len(found.damages) > MAX_DAMAGES:
        lines.append(f"and {format_count(len(found.damages) - MAX_DAMAGES, 'damage')} more")
    return Verdict(found.strength, found.is_whole, found.files, tuple(lines), len(found.untracked_files))


def add_damages(verdict: Verdict, lines: list[str]) -> Verdict:
    """*verdict*, with what could not be read while the report was made."""
    return replace(verdict, is_whole=False, damages=(*verdict.damages, *dict.fromkeys(lines))) if lines else verdict
