"""The arrays of a store that are made of the experiment's files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nsd_zarr.conversion.contents import NewArray, SmallArray, VolumeArray
from nsd_zarr.conversion.experiment.files import Experiment, find_reference
from nsd_zarr.conversion.experiment.validity import make_valid_volumes
from nsd_zarr.layout import Geometry, make_dims
from nsd_zarr.nsd import COLUMNS_WITH_NAN, NO_LABEL, NOT_CORTEX, SHARED_IMAGES
from nsd_zarr.source.design import complete_table, parse_design
from nsd_zarr.source.forms.maps import is_map, list_sides, parse_map
from nsd_zarr.source.other_experiments import OtherExperiment, make_columns, parse_ordering
from nsd_zarr.source.roi import RoiFiles, join_hemispheres, make_flags, parse_labels
from nsd_zarr.source.trial_table import TrialTable, parse_trial_table, select_rows
from nsd_zarr.source.volume import Volume, make_label_volume, make_mask, parse_volume
from nsd_zarr.store.format import ABOUT_SHARED515, HEMISPHERES, ROI, SHARED515


def read_table(experiment: Experiment, geometry: Geometry) -> TrialTable | None:
    """The trial table with rows for every session of the store; None when there is none. Raises SourceError."""
    files = experiment.files
    if files.trial_table is None:
        return None
    table = parse_trial_table(experiment.read(files.trial_table), files.trial_table)
    design = None if files.expdesign is None else parse_design(experiment.read(files.expdesign), files.expdesign)
    return complete_table(table, design, geometry.sessions, geometry.trials_per_session)


def read_roi(experiment: Experiment, roi: RoiFiles, geometry: Geometry) -> RoiVolumes:
    """The label volumes of a set of regions. Raises SourceError."""
    volumes = [make_label_volume(_read(experiment, path, geometry)) for path in roi.volumes]
    return make_roi_volumes(roi, volumes, geometry.vertices)


def _read(experiment: Experiment, path: Path, geometry: Geometry) -> Volume:
    data = experiment.read(path)
    if is_map(path):
        return Volume(path, parse_map(data, path, geometry.vertices), np.eye(4))
    return parse_volume(data, path)


def _read_ncsnr(experiment: Experiment, path: Path, geometry: Geometry) -> np.ndarray:
    """float32, of a surface all hemispheres behind each other."""
    paths = list_sides(path, geometry.vertices or (0, 0)) if is_map(path) else (path,)
    parts = [_read(experiment, each, geometry).values.astype(np.float32) for each in paths]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class RoiVolumes:
    """The labels of one set of regions, int16."""

    whole: np.ndarray
    """Of the whole brain, (z, y, x)."""
    sides: np.ndarray | None
    """Of the left and of the right hemisphere, (side, z, y, x); None where neither has a volume of its own."""

    @property
    def codes(self) -> np.ndarray:
        """The codes that occur, ascending."""
        occurs = np.zeros(2**16, bool)  # Ten times as fast as np.unique.
        for values in (self.whole,) if self.sides is None else (self.whole, self.sides):
            occurs[values.view(np.uint16)] = True
        return np.sort(np.flatnonzero(occurs).astype(np.uint16).view(np.int16))


def make_roi_volumes(
    roi: RoiFiles, volumes: Sequence[np.ndarray], vertices: tuple[int, int] | None = None
) -> RoiVolumes:
    """Whole brain and sides from *volumes*, those of roi.volumes. A hemisphere without one has no label anywhere.

    *vertices*: of a surface, those of each hemisphere, which then lie behind each other.
    """
    if vertices is not None:
        return _join_surface(roi, volumes, vertices)
    by_path = dict(zip(roi.volumes, volumes, strict=True))
    whole, left, right = (None if path is None else by_path[path] for path in (roi.whole, roi.left, roi.right))
    if not roi.has_sides:
        assert whole is not None
        return RoiVolumes(whole, None)
    nothing = np.full(volumes[0].shape, NOT_CORTEX, np.int16)
    sides = np.stack([nothing if side is None else side for side in (left, right)])
    return RoiVolumes(join_hemispheres(left, right) if whole is None else whole, sides)


def _join_surface(roi: RoiFiles, volumes: Sequence[np.ndarray], vertices: tuple[int, int]) -> RoiVolumes:
    by_path = dict(zip(roi.volumes, volumes, strict=True))
    nothing = [np.full(count, NO_LABEL, np.int16) for count in vertices]
    files = zip((roi.left, roi.right), nothing, strict=True)
    sides = [empty if path is None else by_path[path] for path, empty in files]
    alone = [np.concatenate([sides[0], nothing[1]]), np.concatenate([nothing[0], sides[1]])]
    return RoiVolumes(np.concatenate(sides), np.stack(alone))


ABOUT_COLUMNS = {
    "iscorrect": "whether the response was correct, 0 or 1; NaN without a press",
    "rt": "reaction time in milliseconds; NaN without a press",
    "changemind": "whether the subject pressed more than one button, 0 or 1; NaN without a press",
    "memoryrecent": "stimulus trials since the latest earlier showing of the image; NaN where there is none",
    "memoryfirst": "stimulus trials since the second latest earlier showing of the image; NaN where there is none",
    "isoldcurrent": "whether the image is old when this session alone counts, 0 or 1; NaN without a press",
    "iscorrectcurrent": "whether the response was correct when this session alone counts, 0 or 1; NaN without a press",
    "total1": "presses of the button for new; NaN where presses are missing",
    "total2": "presses of the button for old; NaN where presses are missing",
    "button": "button that is scored, 1 new, 2 old; NaN without a press",
}
"""Columns that are float32 in the store. Source: data manual, "Behavioral data"."""


def make_experiment_arrays(experiment: Experiment, geometry: Geometry, store: Path) -> Iterator[NewArray]:
    """The arrays of an inspected experiment, read again one by one.

    *store*: the folder that holds the statistics of every session, which show the valid voxels of a session without a
    volume of them. Raises SourceError when a file changed, DamageFound when such statistics are lost.
    """
    files = experiment.files
    yield from _make_arrays_along_trial(experiment, geometry)
    dims = make_dims(1 + len(geometry.volume_shape))[1:]

    def make(name: str, values: np.ndarray, attributes: dict[str, Any]) -> VolumeArray:
        return VolumeArray(name, geometry.volume_shape, values.dtype.name, dims, attributes, (values,))

    if files.brainmask is not None:
        values = make_mask(parse_volume(experiment.read(files.brainmask), files.brainmask))
        yield make("brainmask", values, {"long_name": "liberal mask of the brain"})
    if files.ncsnr is not None:
        ncsnr = _read_ncsnr(experiment, files.ncsnr, geometry)
        yield make("ncsnr", ncsnr, {"long_name": "noise ceiling signal-to-noise ratio; NaN where it is invalid"})
    for roi in files.rois:
        regions, labels = read_roi(experiment, roi, geometry), {}
        if roi.labels is not None:
            labels = parse_labels(experiment.read(roi.labels), roi.labels)
        flags = _make_flag_attributes(make_flags(roi.name, labels, regions.codes))
        yield make(f"{ROI}{roi.name}", regions.whole, {"long_name": f"regions {roi.name}; a mask is > 0"} | flags)
        if regions.sides is not None:
            about = {"long_name": f"regions {roi.name} of the left and of the right hemisphere; a mask is > 0"} | flags
            shape = (2, *geometry.volume_shape)
            yield VolumeArray(f"{HEMISPHERES}{roi.name}", shape, "int16", ("side", *dims), about, (regions.sides,))
    if files.valid:
        about = {"long_name": "whether a voxel has data in a session"}
        shape, volumes = (
            (len(geometry.sessions), *geometry.volume_shape),
            make_valid_volumes(experiment, geometry, store),
        )
        yield VolumeArray("valid", shape, "bool", ("session_number", *dims), about, volumes)
    first = find_reference(files)
    if first is not None:
        about = {"long_name": "RAS+ millimetres from NIfTI voxel indices (x, y, z, 1), counted from 0"}
        affine = parse_volume(experiment.read(first), first).affine
        yield SmallArray("affine", affine, ("ras", "ijk1"), about)


def _make_arrays_along_trial(experiment: Experiment, geometry: Geometry) -> Iterator[SmallArray]:
    table = read_table(experiment, geometry)
    if table is not None:
        rows = select_rows(table, geometry.sessions, geometry.trials_per_session)
        yield from make_trial_arrays(table, rows, experiment.shared515)
    if experiment.files.other is not None:
        yield from make_other_arrays(experiment, experiment.files.other, geometry)


def make_other_arrays(experiment: Experiment, other: OtherExperiment, geometry: Geometry) -> Iterator[SmallArray]:
    """The coordinates along trial of betas of another experiment than the core one."""
    path = experiment.files.expdesign
    ordering = None if path is None else parse_ordering(other, experiment.read(path), path)
    for name, (values, attributes) in make_columns(other, ordering, len(geometry.sessions)).items():
        yield SmallArray(name, values, ("trial",), attributes)


def make_trial_arrays(
    table: TrialTable, rows: np.ndarray, shared515: Sequence[int] | None = None
) -> Iterator[SmallArray]:
    """The coordinates along trial that a trial table brings, for *rows* of it.

    *shared515*: 10k ids of the images that all subjects saw three times; None: there is no such coordinate.
    """

    def make(name: str, values: np.ndarray, dtype: Any, about: str) -> SmallArray:
        return SmallArray(name, values[rows].astype(dtype), ("trial",), {"long_name": about})

    columns, ids_10k = table.columns, table.count("10KID")
    yield make("run", columns["RUN"], np.int8, "run of its session, counted from 1")
    yield make("trial_in_run", columns["TRIAL"], np.int8, "stimulus trial in its run, counted from 1")
    yield make("nsd_id", table.count("73KID") - 1, np.int32, "image among all 73,000, counted from 0: row of imgBrick")
    yield make("image_10k", ids_10k, np.int16, "image among the subject's 10,000, counted from 1; up to 1000 shared")
    yield make(
        "repeat", table.number_showings(), np.int8, "which showing of its image, counted from 0 over the experiment"
    )
    yield make("shared1000", ids_10k <= SHARED_IMAGES, np.bool_, "whether the image is one of the 1,000 that all see")
    if shared515 is not None:
        yield make(SHARED515, np.isin(ids_10k, shared515), np.bool_, ABOUT_SHARED515)
    yield make("time", columns["TIME"], np.float64, "image onset in days, 0 is midnight of the first session's day")
    yield make("isold", columns["ISOLD"], np.int8, "whether the image was shown before, 0 or 1")
    for name in COLUMNS_WITH_NAN:
        yield make(name.lower(), columns[name], np.float32, ABOUT_COLUMNS[name.lower()])
    yield make("missingdata", columns["MISSINGDATA"], np.bool_, "whether the presses of its run were not recorded")


def _make_flag_attributes(flags: dict[int, str]) -> dict[str, Any]:
    return {"flag_values": list(flags), "flag_meanings": " ".join(flags.values())}
