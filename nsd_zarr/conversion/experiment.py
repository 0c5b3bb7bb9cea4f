"""The experiment attached to a store: its files read and checked against the betas, and turned into arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nsd_zarr.conversion.arrays import NewArray, SmallArray, VolumeArray
from nsd_zarr.errors import SourceError
from nsd_zarr.layout import Geometry, make_dims
from nsd_zarr.source.design import check_design, check_stimulus_info, parse_design
from nsd_zarr.source.experiment import ExperimentFiles
from nsd_zarr.source.roi import RoiFiles, join_hemispheres, make_flags, parse_labels
from nsd_zarr.source.trial_table import GAPPY, SHARED_IMAGES, TrialTable, parse_trial_table, select_rows
from nsd_zarr.source.volume import (
    Volume,
    check_shape,
    compare_affines,
    make_label_volume,
    make_mask,
    parse_volume,
    read_whole,
)
from nsd_zarr.store.digest import make_digest

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
TRIAL_ARRAYS = (
    *("run", "trial_in_run", "nsd_id", "image_10k", "repeat", "shared1000", "time", "isold"),
    *ABOUT_COLUMNS,
    "missingdata",
)
"""Coordinates along trial that come from the trial table, in the order in which `betas` lists them."""


@dataclass(frozen=True, slots=True)
class ExperimentReport:
    """What of the experiment goes into a store."""

    found: tuple[str, ...] = ()
    """What was found, and goes in."""
    missing: tuple[str, ...] = ()
    """What was looked for and is not there."""
    notes: tuple[str, ...] = ()
    """What is odd, and stops nothing."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file that went in."""

    path: Path
    """Where it is."""
    name: str
    """Its path below the NSD root; its name where it lies elsewhere."""
    size: int
    """Bytes."""
    digest: str
    """xxh3-128, hexadecimal."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment that was read whole and agrees with itself and with the betas. Picklable."""

    files: ExperimentFiles
    """Where everything is."""
    inputs: tuple[InputFile, ...]
    """Every file that was read, by name."""
    subject: int | None
    """Subject, from 1; None when neither folders nor trial table tell."""
    notes: tuple[str, ...]
    """What is odd, and stops nothing."""

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the coordinates along trial that it brings."""
        return TRIAL_ARRAYS if self.files.trial_table is not None else ()

    def count_files(self) -> int:
        """Files of the store that its arrays make: metadata and chunk of each, and of `valid` a chunk a session."""
        files = self.files
        singles = sum(path is not None for path in (files.brainmask, files.ncsnr, find_reference(files)))
        return 2 * (len(self.coordinates) + singles + len(files.rois)) + bool(files.valid) + len(files.valid)

    def make_attributes(self) -> dict[str, Any]:
        """Root attributes: `experiment`, the files that went in, and `subject` where it is known."""
        inputs = [{"name": file.name, "size": file.size, "digest": file.digest} for file in self.inputs]
        return {"experiment": inputs} | ({} if self.subject is None else {"subject": self.subject})

    def make_report(self) -> ExperimentReport:
        """What goes in, in words."""
        files = self.files
        words = {
            "trial table": files.trial_table,
            "design": files.expdesign,
            "stimulus table": files.stim_info,
            "brain mask": files.brainmask,
            "noise ceiling": files.ncsnr,
        }
        read = {file.path for file in self.inputs}
        found = [word for word, path in words.items() if path in read]
        found += ["valid voxels"] if files.valid else []
        found += [f"regions {roi.name}" for roi in files.rois]
        return ExperimentReport(tuple(found), files.missing, self.notes)

    def read(self, path: Path) -> bytes:
        """All bytes of one of its files. Raises SourceError when they are not those that were checked."""
        data = read_whole(path)
        expected = next(file.digest for file in self.inputs if file.path == path)
        if make_digest(data) != expected:
            raise SourceError(
                "the file changed since the run began",
                hint="Let the copy finish, then run the same command again.",
                path=path,
                expected=expected,
                found=make_digest(data),
            )
        return data


# -- reading and checking ----------------------------------------------------------------------------------------


class _Inspection:
    """Reads each file once, and keeps what is to be remembered."""

    def __init__(self, files: ExperimentFiles, geometry: Geometry) -> None:
        self.files, self.geometry = files, geometry
        self.inputs: dict[Path, InputFile] = {}
        self.notes: list[str] = []
        self.reference: Volume | None = None

    def read(self, path: Path) -> bytes:
        data, root = read_whole(path), self.files.root
        name = path.relative_to(root).as_posix() if root is not None and path.is_relative_to(root) else path.name
        self.inputs[path] = InputFile(path, name, len(data), make_digest(data))
        return data

    def inspect_table(self) -> TrialTable | None:
        """The trial table, in agreement with sessions, design and stimulus table; None when there is none."""
        files, trials = self.files, self.geometry.trials_per_session
        if files.trial_table is None:
            return None
        table = parse_trial_table(self.read(files.trial_table), files.trial_table)
        _check_subject(table, files.subject)
        select_rows(table, self.geometry.sessions, trials)
        if files.expdesign is not None:
            check_design(table, parse_design(self.read(files.expdesign), files.expdesign), trials)
        if files.stim_info is not None:
            check_stimulus_info(table, self.read(files.stim_info), files.stim_info, trials)
        return table

    def inspect_volumes(self) -> None:
        """Every volume: the shape of the betas', lying where the others lie, holding what its kind may hold."""
        files = self.files
        if files.brainmask is not None:
            make_mask(self.inspect_volume(files.brainmask))
        if files.ncsnr is not None:
            self.inspect_volume(files.ncsnr)
        for path in files.valid:
            make_mask(self.inspect_volume(path))
        for roi in files.rois:
            labels = {} if roi.labels is None else parse_labels(self.read(roi.labels), roi.labels)
            codes = np.unique(_join([make_label_volume(self.inspect_volume(path)) for path in roi.volumes]))
            unnamed = sorted(set(codes[codes > 0].tolist()) - set(labels))
            if roi.labels is None:
                self.notes.append(f"no label names for {roi.name}")
            elif unnamed:
                self.notes.append(f"{roi.labels.name} names no label {', '.join(map(str, unnamed))} of {roi.name}")

    def inspect_volume(self, path: Path) -> Volume:
        volume = parse_volume(self.read(path), path)
        check_shape(volume, self.geometry.volume_shape)
        self.reference = self.reference or volume
        note = compare_affines(volume, self.reference)
        self.notes += [note] if note else []
        return volume


def inspect_experiment(files: ExperimentFiles, geometry: Geometry) -> Experiment:
    """Read every file of an experiment, and check all of them against each other and against the betas.

    Raises SourceError where one cannot be read, or contradicts another, with both values. Cost: a second or two for
    40 sessions at 1.8 mm; memory: one volume.
    """
    inspection = _Inspection(files, geometry)
    table = inspection.inspect_table()
    inspection.inspect_volumes()
    inputs = tuple(sorted(inspection.inputs.values(), key=lambda file: file.name))
    subject = files.subject if table is None else table.subject
    return Experiment(files, inputs, subject, tuple(inspection.notes))


def _check_subject(table: TrialTable, subject: int | None) -> None:
    if subject is not None and table.subject != subject:
        raise SourceError(
            f"a trial table of subject {table.subject}, expected subject {subject} as the folders of the betas say",
            hint="Give the trial table of that subject, or leave it out.",
            path=table.path,
            expected=subject,
            found=table.subject,
        )


def _join(volumes: list[np.ndarray]) -> np.ndarray:
    return volumes[0] if len(volumes) == 1 else join_hemispheres(*volumes)


# -- arrays ------------------------------------------------------------------------------------------------------


def make_experiment_arrays(experiment: Experiment, geometry: Geometry) -> Iterator[NewArray]:
    """The arrays of an inspected experiment, read again one by one. Raises SourceError when a file changed."""
    files = experiment.files
    if files.trial_table is not None:
        table = parse_trial_table(experiment.read(files.trial_table), files.trial_table)
        yield from make_trial_arrays(table, select_rows(table, geometry.sessions, geometry.trials_per_session))
    dims = make_dims(1 + len(geometry.volume_shape))[1:]

    def make(name: str, values: np.ndarray, attributes: dict[str, Any]) -> VolumeArray:
        return VolumeArray(name, geometry.volume_shape, values.dtype.name, dims, attributes, (values,))

    if files.brainmask is not None:
        values = make_mask(parse_volume(experiment.read(files.brainmask), files.brainmask))
        yield make("brainmask", values, {"long_name": "liberal mask of the brain"})
    if files.ncsnr is not None:
        ncsnr = parse_volume(experiment.read(files.ncsnr), files.ncsnr).values.astype(np.float32)
        yield make("ncsnr", ncsnr, {"long_name": "noise ceiling signal-to-noise ratio; NaN where it is invalid"})
    for roi in files.rois:
        labels, flags = _read_roi(experiment, roi)
        yield make(f"roi_{roi.name}", labels, _make_roi_attributes(roi, flags))
    if files.valid:
        about = {"long_name": "whether a voxel has data in a session"}
        volumes = (make_mask(parse_volume(experiment.read(path), path)) for path in files.valid)
        shape = (len(geometry.sessions), *geometry.volume_shape)
        yield VolumeArray("valid", shape, "bool", ("session_number", *dims), about, volumes)
    first = find_reference(files)
    if first is not None:
        about = {"long_name": "RAS+ millimetres from NIfTI voxel indices (x, y, z, 1), counted from 0"}
        affine = parse_volume(experiment.read(first), first).affine
        yield SmallArray("affine", affine, ("ras", "ijk1"), about)


def find_reference(files: ExperimentFiles) -> Path | None:
    """The volume whose affine counts: the brain mask, else the first that there is."""
    singles = (files.brainmask, files.ncsnr, *files.valid, *(path for roi in files.rois for path in roi.volumes))
    return next((path for path in singles if path is not None), None)


def make_trial_arrays(table: TrialTable, rows: np.ndarray) -> Iterator[SmallArray]:
    """The coordinates along trial that a trial table brings, for *rows* of it."""

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
    yield make("time", columns["TIME"], np.float64, "image onset in days, 0 is midnight of the first session's day")
    yield make("isold", columns["ISOLD"], np.int8, "whether the image was shown before, 0 or 1")
    for name in GAPPY:
        yield make(name.lower(), columns[name], np.float32, ABOUT_COLUMNS[name.lower()])
    yield make("missingdata", columns["MISSINGDATA"], np.bool_, "whether the presses of its run were not recorded")


def _read_roi(experiment: Experiment, roi: RoiFiles) -> tuple[np.ndarray, dict[int, str]]:
    values = _join([make_label_volume(parse_volume(experiment.read(path), path)) for path in roi.volumes])
    labels = {} if roi.labels is None else parse_labels(experiment.read(roi.labels), roi.labels)
    return values, make_flags(roi.name, labels, np.unique(values))


def _make_roi_attributes(roi: RoiFiles, flags: dict[int, str]) -> dict[str, Any]:
    return {
        "long_name": f"regions {roi.name}; a mask is > 0",
        "flag_values": list(flags),
        "flag_meanings": " ".join(flags.values()),
    }
