"""Reading an experiment for the first time: what is fit goes in, what is unfit is refused or left out with a note."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from nsd_zarr.config import Config
from nsd_zarr.conversion.experiment.arrays import make_roi_volumes
from nsd_zarr.conversion.experiment.files import Experiment, ExperimentReport, InputFile
from nsd_zarr.errors import ConfigError, SourceError
from nsd_zarr.layout import Geometry
from nsd_zarr.nsd import NO_LABEL
from nsd_zarr.source.bounded import MAX_LABELS_BYTES, MAX_TABLE_BYTES, MAX_VOLUME_BYTES, read_whole
from nsd_zarr.source.design import check_design, check_stimulus_info, complete_table, find_shared515, parse_design
from nsd_zarr.source.experiment import ExperimentFiles, GivenFiles, find_experiment
from nsd_zarr.source.find import SessionFile, name_sessions
from nsd_zarr.source.forms.maps import is_map, list_sides, parse_map
from nsd_zarr.source.other_experiments import OtherExperiment, parse_ordering
from nsd_zarr.source.roi import RoiFiles, make_flags, parse_labels
from nsd_zarr.source.trial_table import TrialTable, parse_trial_table, select_rows
from nsd_zarr.source.volume import Volume, check_shape, compare_affines, make_label_volume, make_mask, parse_volume
from nsd_zarr.store.check import is_array_name
from nsd_zarr.store.digest import make_digest

ReadExperiment = Callable[[ExperimentFiles | None, Geometry], tuple[Experiment | None, ExperimentReport]]
"""Reads and checks an experiment: read_experiment, or what knows already what that found."""


def inspect_experiment(files: ExperimentFiles, geometry: Geometry) -> Experiment:
    """Read every file of an experiment, and check all of them against each other and against the betas.

    A mask, map, region volume, file of label names, design or stimulus table that was found, and cannot be read or
    does not fit, is left out with a note. Raises SourceError for one that was named by hand; for a trial table that
    cannot be read; and where images or subject contradict each other, with both values. Cost: a second or two for 40
    sessions at 1.8 mm; memory: three volumes.
    """
    inspection = _Inspection(files, geometry)
    table = inspection.inspect_table()
    inspection.inspect_volumes()
    inputs = tuple(sorted(inspection.inputs.values(), key=lambda file: file.name))
    subject = files.subject if table is None else table.subject
    notes = (*files.notes, *inspection.notes)
    return Experiment(inspection.files, inputs, subject, notes, inspection.shared515)


_Found = TypeVar("_Found")


class _Inspection:
    """Reads each file once, and keeps what is to be remembered: *files* holds what is fit so far."""

    def __init__(self, files: ExperimentFiles, geometry: Geometry) -> None:
        self.files, self.geometry = files, geometry
        self.inputs: dict[Path, InputFile] = {}
        self.notes: list[str] = []
        self.reference: Volume | None = None
        self.shared515: tuple[int, ...] | None = None

    def read(self, path: Path, max_bytes: int = MAX_VOLUME_BYTES) -> bytes:
        data = read_whole(path, max_bytes)
        self.inputs[path] = InputFile(path, self.name(path), len(data), make_digest(data))
        return data

    def name(self, path: Path) -> str:
        root = self.files.root
        return path.relative_to(root).as_posix() if root is not None and path.is_relative_to(root) else path.name

    def attempt(self, path: Path, inspect: Callable[[], _Found]) -> _Found | None:
        """What *inspect* returns; None, with a note, where it refuses a file that was found."""
        try:
            return inspect()
        except SourceError as error:
            if path in self.files.given:
                raise
            self.inputs.pop(path, None)
            self.notes.append(f"{self.name(path)} is left out: {error.problem}")
            return None

    # -- the trial table -----------------------------------------------------------------------------------------

    def inspect_table(self) -> TrialTable | None:
        """The trial table, in agreement with sessions, design and stimulus table; None when there is none."""
        files, trials = self.files, self.geometry.trials_per_session
        if files.other is not None:
            self.inspect_other(files.other)
        if files.trial_table is None:
            return None
        table = parse_trial_table(self.read(files.trial_table, MAX_TABLE_BYTES), files.trial_table)
        _check_subject(table, files.subject)
        design = None
        if (path := files.expdesign) is not None:
            design = self.attempt(path, lambda: parse_design(self.read(path, MAX_TABLE_BYTES), path))
            self.files = replace(self.files, expdesign=None if design is None else path)
        self.compare_sessions(table)
        table = complete_table(table, design, self.geometry.sessions, trials)
        select_rows(table, self.geometry.sessions, trials)
        if design is not None:
            check_design(table, design, trials)
            ids = find_shared515(design, trials)
            self.shared515 = None if ids is None else tuple(ids.tolist())
        if (info := files.stim_info) is not None:
            self.inspect_stimulus_info(table, info)
        return table

    def inspect_other(self, other: OtherExperiment) -> None:
        """Of another experiment: whether its runs are known to be those of the betas, and its design."""
        path, trials = self.files.expdesign, self.geometry.trials_per_session
        if trials != other.trials:
            self.notes.append(
                f"{trials} trials a session, expected {other.trials} of {other.words}: runs are not known"
            )
            self.files = replace(self.files, other=None, expdesign=None)
        elif path is not None:
            ordering = self.attempt(path, lambda: parse_ordering(other, self.read(path, MAX_TABLE_BYTES), path))
            self.files = replace(self.files, expdesign=None if ordering is None else path)

    def inspect_stimulus_info(self, table: TrialTable, path: Path) -> None:
        data = self.attempt(path, lambda: self.read(path, MAX_TABLE_BYTES))
        if data is None:
            self.files = replace(self.files, stim_info=None)
        else:
            check_stimulus_info(table, data, path, self.geometry.trials_per_session)

    def compare_sessions(self, table: TrialTable) -> None:
        here, known = set(self.geometry.sessions), set(table.count("SESSION").tolist())
        if known - here:
            self.notes.append(f"the trial table has {len(known)} sessions, {len(here & known)} are here")
        if here - known:
            self.notes.append(
                f"{table.path.name} has no rows of {name_sessions(here - known)}: their images are those of "
                "the design, their responses are missing"
            )

    # -- volumes -------------------------------------------------------------------------------------------------

    def inspect_volumes(self) -> None:
        """Every volume: the shape of the betas', lying where the others lie, holding what its kind may hold."""
        files = self.files
        unfit = {path for path in (files.brainmask,) if path is not None and not self.is_fit_mask(path)}
        if files.ncsnr is not None and not self.is_fit_ncsnr(files.ncsnr):
            unfit.add(files.ncsnr)
        valid = tuple(path if path is not None and self.is_fit_mask(path) else None for path in files.valid)
        self.files = replace(
            files,
            brainmask=None if files.brainmask in unfit else files.brainmask,
            ncsnr=None if files.ncsnr in unfit else files.ncsnr,
            valid=valid if any(valid) else (),
        )
        self.note_sessions_without_valid()
        rois = [self.inspect_roi(roi) for roi in files.rois]
        self.files = replace(self.files, rois=tuple(roi for roi in rois if roi is not None))

    def note_sessions_without_valid(self) -> None:
        pairs = zip(self.geometry.sessions, self.files.valid, strict=False)
        if lacking := [session for session, path in pairs if path is None]:
            self.notes.append(
                f"valid_sessionBB.nii.gz of {name_sessions(lacking)} cannot be used or is not there: valid "
                "there are the voxels whose betas vary over the session"
            )

    def is_fit_mask(self, path: Path) -> bool:
        return self.attempt(path, lambda: make_mask(self.parse(path))) is not None

    def is_fit_ncsnr(self, path: Path) -> bool:
        """Whether it is fit, of a surface with every hemisphere."""
        sides = list_sides(path, self.geometry.vertices or (0, 0)) if is_map(path) else (path,)
        for side in sides or (path,):
            if self.attempt(path, lambda side=side: self.parse(side)) is None:  # type: ignore[misc]
                for other in sides:
                    self.inputs.pop(other, None)
                return False
        return True

    def parse(self, path: Path) -> Volume:
        if is_map(path):
            return Volume(path, parse_map(self.read(path), path, self.geometry.vertices), np.eye(4))
        volume = parse_volume(self.read(path), path)
        check_shape(volume, self.geometry.volume_shape)
        note = "" if self.reference is None else compare_affines(volume, self.reference)
        self.reference = self.reference or volume
        self.notes += [note] if note else []
        return volume

    def inspect_roi(self, roi: RoiFiles) -> RoiFiles | None:
        """What of a set of regions is fit; None where no volume is, or where its names cannot be stored."""
        volumes = {}
        for path in roi.volumes:
            values = self.attempt(path, lambda path=path: make_label_volume(self.parse(path)))  # type: ignore[misc]
            if values is not None:
                volumes[path] = values
        fit = replace(
            roi,
            whole=roi.whole if roi.whole in volumes else None,
            left=roi.left if roi.left in volumes else None,
            right=roi.right if roi.right in volumes else None,
        )
        if not volumes:
            return None
        labels = self.inspect_labels(fit)
        fit = replace(fit, labels=None if labels is None else fit.labels)
        codes = make_roi_volumes(fit, list(volumes.values()), self.geometry.vertices).codes
        named = self.attempt(fit.volumes[0], lambda: self.check_names(fit, labels or {}, codes))
        if named is None:
            for path in (*fit.volumes, *([] if fit.labels is None else [fit.labels])):
                self.inputs.pop(path, None)
            return None
        self.note_oddities(fit, labels, codes)
        return fit

    def inspect_labels(self, roi: RoiFiles) -> dict[int, str] | None:
        path = roi.labels
        if path is None:
            return None
        return self.attempt(path, lambda: parse_labels(self.read(path, MAX_LABELS_BYTES), path))

    def check_names(self, roi: RoiFiles, labels: dict[int, str], codes: np.ndarray) -> dict[int, str]:
        """The words of all codes. Raises SourceError where readers would refuse them."""
        if not is_array_name(f"hemispheres_{roi.name}"):
            raise SourceError(
                f"{roi.name!r} cannot be the name of an array", hint="Rename the file.", path=roi.volumes[0]
            )
        return make_flags(roi.name, labels, codes, roi.labels)

    def note_oddities(self, roi: RoiFiles, labels: dict[int, str] | None, codes: np.ndarray) -> None:
        unnamed = sorted(set(codes[codes > NO_LABEL].tolist()) - set(labels or ()))
        if labels is None:
            self.notes.append(f"no label names for {roi.name}")
        elif unnamed and roi.labels is not None:
            self.notes.append(f"{roi.labels.name} names no label {', '.join(map(str, unnamed))} of {roi.name}")
        if roi.has_sides and None in (roi.left, roi.right):
            there, gone = ("left", "right") if roi.right is None else ("right", "left")
            self.notes.append(f"{roi.name} has a volume of the {there} hemisphere and none of the {gone} one")


def _check_subject(table: TrialTable, subject: int | None) -> None:
    if subject is not None and table.subject != subject:
        raise SourceError(
            f"a trial table of subject {table.subject}, expected subject {subject} as the folders of the betas say",
            hint="Give the trial table of that subject, or leave it out with --no-trial-table.",
            path=table.path,
            expected=subject,
            found=table.subject,
        )


# -- which files are meant -------------------------------------------------------------------------------------------


def find_files_of_experiment(
    files: Sequence[SessionFile], config: Config, geometry: Geometry
) -> ExperimentFiles | None:
    """The experiment's files that the configuration means; None when it means none. Raises SourceError, ConfigError."""
    given = make_given_files(config)
    if config.no_experiment:
        return None
    volumes = len(geometry.volume_shape) == 3
    found = find_experiment(files[0].path, geometry.sessions, given, volumes=volumes, vertices=geometry.vertices)
    return None if found.root is None and found.is_empty else found


def make_given_files(config: Config) -> GivenFiles:
    """The experiment's files that are given by hand. Raises ConfigError when none at all are wanted."""
    given = GivenFiles(
        trial_table=config.trial_table,
        expdesign=config.expdesign,
        stim_info=config.stim_info,
        brainmask=config.brainmask,
        ncsnr=config.ncsnr,
        valid=config.valid,
        rois=config.roi,
        skipped_rois=config.skip_roi,
        no_trial_table=config.no_trial_table,
    )
    if config.no_trial_table and given.names_trials:
        raise ConfigError("no_trial_table, and a file of it", hint="Leave out one or the other.")
    if config.no_experiment and given.names_any:
        raise ConfigError("no_experiment, and a file of the experiment", hint="Leave out one or the other.")
    return given


def read_experiment(files: ExperimentFiles | None, geometry: Geometry) -> tuple[Experiment | None, ExperimentReport]:
    """The experiment read and checked, and what to say of it. Raises SourceError."""
    if files is None:
        return None, ExperimentReport()
    if files.is_empty:
        return None, ExperimentReport(missing=files.missing, notes=files.notes)
    experiment = inspect_experiment(files, geometry)
    return experiment, experiment.make_report()
