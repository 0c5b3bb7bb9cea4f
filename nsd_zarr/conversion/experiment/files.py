"""The files of an experiment, once they are known to be right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nsd_zarr.errors import SourceError
from nsd_zarr.nsd import COLUMNS_WITH_NAN
from nsd_zarr.source.bounded import MAX_VOLUME_BYTES, read_whole
from nsd_zarr.source.experiment import ExperimentFiles
from nsd_zarr.source.forms.maps import is_map
from nsd_zarr.source.other_experiments import list_columns
from nsd_zarr.store.digest import make_digest
from nsd_zarr.store.format import HEMISPHERES, ROI, SHARED515
from nsd_zarr.words import escape_line

TRIAL_ARRAYS = (
    *("run", "trial_in_run", "nsd_id", "image_10k", "repeat", "shared1000", SHARED515, "time", "isold"),
    *(name.lower() for name in COLUMNS_WITH_NAN),
    "missingdata",
    *("task", "stimulus_set", "stimulus_id"),
)
"""Coordinates along trial that come from the trial table, in the order in which `betas` lists them; and behind them
those that other experiments have."""


_REGIONS = "regions "
"""What precedes the name of a set of regions in ExperimentReport.found."""


@dataclass(frozen=True, slots=True)
class ExperimentReport:
    """What of the experiment goes into a store.

    >>> report = nsd_zarr.plan("nsd", "new.zarr", subject=1).experiment_report
    >>> "trial table" in report.found, report.missing
    (True, ())
    """

    found: tuple[str, ...] = ()
    """What was found, and goes in."""
    missing: tuple[str, ...] = ()
    """What was looked for and is not there."""
    notes: tuple[str, ...] = ()
    """What is odd, and stops nothing."""

    def __str__(self) -> str:
        return "\n".join(self.format_lines())

    def add_notes(self, notes: Iterable[str]) -> ExperimentReport:
        """The same with those of *notes* that it does not have: what only a finished store knows."""
        return replace(self, notes=(*self.notes, *(note for note in notes if note not in self.notes)))

    def format_lines(self) -> list[str]:
        """What was found and what was not, a line each, and a line for each note; none where nothing was looked for."""
        words = [("experiment", self._join_found()), ("not found", ", ".join(self.missing))]
        words += [("note", note) for note in self.notes]
        return [escape_line(f"{word:11} {values}") for word, values in words if values]

    def _join_found(self) -> str:
        """What was found, the names of sets of regions behind each other."""
        sets = [word for word in self.found if word.startswith(_REGIONS)]
        others = [word for word in self.found if word not in sets]
        return ", ".join([*others, *sets[:1], *(word.removeprefix(_REGIONS) for word in sets[1:])])


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
    """Subject, from 1; None when neither folders nor trial table name it."""
    notes: tuple[str, ...]
    """What is odd, and stops nothing."""
    shared515: tuple[int, ...] | None = None
    """10k ids of the shared images that all subjects saw three times; None where no design lists them."""

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the coordinates along trial that it brings."""
        if self.files.other is not None:
            return list_columns(self.files.other, self.files.expdesign is not None)
        if self.files.trial_table is None:
            return ()
        others = {"task", "stimulus_set", "stimulus_id", *([SHARED515] if self.shared515 is None else [])}
        return tuple(name for name in TRIAL_ARRAYS if name not in others)

    @property
    def array_names(self) -> tuple[str, ...]:
        """Names of all arrays that it brings, in no particular order."""
        files = self.files
        singles = {
            "brainmask": files.brainmask,
            "ncsnr": files.ncsnr,
            "valid": files.valid or None,
            "affine": find_reference(files),
        }
        found = [name for name, path in singles.items() if path is not None]
        found += [f"{ROI}{roi.name}" for roi in files.rois]
        found += [f"{HEMISPHERES}{roi.name}" for roi in files.rois if roi.has_sides]
        return (*self.coordinates, *found)

    def count_files(self) -> int:
        """Files of the store that its arrays make: metadata and chunk of each, and of `valid` a chunk a session."""
        files = self.files
        singles = sum(path is not None for path in (files.brainmask, files.ncsnr, find_reference(files)))
        sets = len(files.rois) + sum(roi.has_sides for roi in files.rois)
        return 2 * (len(self.coordinates) + singles + sets) + bool(files.valid) + len(files.valid)

    def make_attributes(self) -> dict[str, Any]:
        """Root attributes: `experiment`, the files that went in; where there are any, `subject`, `experiment_notes`."""
        inputs = [{"name": file.name, "size": file.size, "digest": file.digest} for file in self.inputs]
        subject = {} if self.subject is None else {"subject": self.subject}
        return {"experiment": inputs} | subject | ({"experiment_notes": list(self.notes)} if self.notes else {})

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
        found += [] if files.other is None else [f"runs of {files.other.words}"]
        found += ["valid voxels"] if files.valid else []
        found += [f"{_REGIONS}{roi.name}" for roi in files.rois]
        return ExperimentReport(tuple(found), files.missing, self.notes)

    def read(self, path: Path) -> bytes:
        """All bytes of one of its files. Raises SourceError when they are not those that were checked."""
        file = next(file for file in self.inputs if file.path == path)
        expected = file.digest
        data = read_whole(path, MAX_VOLUME_BYTES)
        if make_digest(data) != expected:
            raise SourceError(
                "the file changed since the run began",
                hint="Let the copy finish, then run the same command again.",
                path=path,
                expected=expected,
                found=make_digest(data),
            )
        return data


def find_reference(files: ExperimentFiles) -> Path | None:
    """The volume whose affine counts: the brain mask, else the first that there is. A surface has none."""
    singles = (files.brainmask, files.ncsnr, *files.valid, *(path for roi in files.rois for path in roi.volumes))
    return next((path for path in singles if path is not None and not is_map(path)), None)
