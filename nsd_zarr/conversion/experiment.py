"""The experiment that goes into a store: its files, read and checked against the betas and each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nsd_zarr.errors import SourceError
from nsd_zarr.layout import Geometry
from nsd_zarr.nsd import COLUMNS_WITH_NAN
from nsd_zarr.source.design import check_design, check_stimulus_info, parse_design
from nsd_zarr.source.experiment import ExperimentFiles
from nsd_zarr.source.roi import join_hemispheres, parse_labels
from nsd_zarr.source.trial_table import TrialTable, parse_trial_table, select_rows
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

TRIAL_ARRAYS = (
    *("run", "trial_in_run", "nsd_id", "image_10k", "repeat", "shared1000", "time", "isold"),
    *(name.lower() for name in COLUMNS_WITH_NAN),
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
            codes = np.unique(join_volumes([make_label_volume(self.inspect_volume(path)) for path in roi.volumes]))
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


def find_reference(files: ExperimentFiles) -> Path | None:
    """The volume whose affine counts: the brain mask, else the first that there is."""
    singles = (files.brainmask, files.ncsnr, *files.valid, *(path for roi in files.rois for path in roi.volumes))
    return next((path for path in singles if path is not None), None)


def join_volumes(volumes: list[np.ndarray]) -> np.ndarray:
    """One region volume: of the whole brain, or of left and right hemisphere joined."""
    return volumes[0] if len(volumes) == 1 else join_hemispheres(*volumes)
