"""Which files describe the experiment behind some betas: at the dataset's own places, or given by hand."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nsd_zarr.errors import SourceError
from nsd_zarr.forms import FSAVERAGE
from nsd_zarr.layout import SessionNumber
from nsd_zarr.nsd import HEMISPHERES, NIFTI_ENDINGS, VALID_FILE, NsdPaths, locate_session_file
from nsd_zarr.places.choose import as_path
from nsd_zarr.source.find import Choice, name_sessions
from nsd_zarr.source.forms.maps import Vertices, list_sides
from nsd_zarr.source.other_experiments import OtherExperiment, find_other, locate_design
from nsd_zarr.source.roi import RoiFiles, find_labels, group_rois, strip_ending


@dataclass(frozen=True, slots=True)
class GivenFiles:
    """What is given by hand; None or empty: look for it at the dataset's own place."""

    trial_table: Path | None = None
    """responses.tsv."""
    expdesign: Path | None = None
    """nsd_expdesign.mat."""
    stim_info: Path | None = None
    """nsd_stim_info_merged.csv."""
    brainmask: Path | None = None
    """brainmask.nii.gz."""
    ncsnr: Path | None = None
    """ncsnr.nii.gz."""
    valid: str | None = None
    """Folder or glob of valid_sessionBB.nii.gz."""
    rois: tuple[Path, ...] = ()
    """Region volumes; the set of their name wins over one that is found."""
    skipped_rois: tuple[str, ...] = ()
    """Names of sets of regions that are not looked for."""
    no_trial_table: bool = False
    """Whether trial table, design and stimulus table are not looked for."""

    @property
    def paths(self) -> frozenset[Path]:
        """Every file that is named."""
        singles = (self.trial_table, self.expdesign, self.stim_info, self.brainmask, self.ncsnr, *self.rois)
        return frozenset(path for path in singles if path is not None)

    @property
    def names_any(self) -> bool:
        """Whether a file is named at all."""
        return bool(self.paths) or self.valid is not None

    @property
    def names_trials(self) -> bool:
        """Whether trial table, design or stimulus table are named."""
        return any(path is not None for path in (self.trial_table, self.expdesign, self.stim_info))


@dataclass(frozen=True, slots=True)
class ExperimentFiles:
    """The files of one experiment. Names alone: nothing has been read."""

    root: Path | None = None
    """The NSD root in whose layout the betas lie; None when they lie elsewhere."""
    subject: int | None = None
    """Subject, from 1, as the folders name it."""
    trial_table: Path | None = None
    """responses.tsv."""
    expdesign: Path | None = None
    """nsd_expdesign.mat."""
    stim_info: Path | None = None
    """nsd_stim_info_merged.csv."""
    brainmask: Path | None = None
    """brainmask.nii.gz."""
    ncsnr: Path | None = None
    """ncsnr.nii.gz."""
    valid: tuple[Path | None, ...] = ()
    """Valid voxels of each session in the store, in their order, None for one that has none; empty where none has."""
    rois: tuple[RoiFiles, ...] = ()
    """Sets of regions, by name."""
    other: OtherExperiment | None = None
    """The experiment that the betas are of, where it is not the core one and its trials are wanted."""
    missing: tuple[str, ...] = ()
    """What was looked for and is not there, in words."""
    notes: tuple[str, ...] = ()
    """What is odd about the names alone, in words."""
    given: frozenset[Path] = frozenset()
    """Those of the files that were named by hand: one that is unfit is refused, and not left out."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to attach."""
        singles = (self.trial_table, self.brainmask, self.ncsnr)
        return not (self.rois or self.valid or self.other or any(path is not None for path in singles))


def find_experiment(
    session_file: Path | None,
    sessions: Sequence[SessionNumber],
    given: GivenFiles,
    *,
    volumes: bool = True,
    vertices: Vertices | None = None,
) -> ExperimentFiles:
    """The experiment's files for *sessions*, ascending, of which one lies in *session_file*. Touches names only.

    Looked for at the dataset's own places when the session file lies at its own
    (ROOT/nsddata_betas/ppdata/subjAA/SPACE/BETAS/); what is *given* wins. *volumes* False (surfaces): none are looked
    for, but for noise ceiling and labels of a surface of *vertices*. Raises SourceError when what is given is not
    there.
    """
    return _find(
        None if session_file is None else locate_session_file(session_file), sessions, given, volumes, vertices
    )


def find_experiment_below(
    words: Sequence[str | os.PathLike[str]],
    choice: Choice,
    sessions: Sequence[SessionNumber],
    given: GivenFiles,
    *,
    volumes: bool = True,
    vertices: Vertices | None = None,
) -> ExperimentFiles | None:
    """The experiment's files below an NSD root that holds no session files; None where *words* are no such root.

    *choice* must name subject and space; the noise ceiling is found when it names the betas, too. Raises SourceError.
    """
    root = as_path(words[0]).absolute() if len(words) == 1 else None
    if root is None or choice.subject is None or choice.space is None or not (root / "nsddata").is_dir():
        return None
    return _find(NsdPaths(root, choice.subject, choice.space, choice.betas or ""), sessions, given, volumes, vertices)


def _find(
    places: NsdPaths | None,
    sessions: Sequence[SessionNumber],
    given: GivenFiles,
    volumes: bool,
    vertices: Vertices | None,
) -> ExperimentFiles:
    _check_given(given)
    valid = _given_valid(given.valid, sessions)
    found = ExperimentFiles(
        trial_table=given.trial_table,
        expdesign=given.expdesign,
        stim_info=given.stim_info,
        brainmask=given.brainmask,
        ncsnr=given.ncsnr,
        valid=valid,
        given=given.paths | frozenset(valid),
    )
    if places is not None:
        found = _look_up(found, places, sessions, given, volumes)
        found = _look_up_surface(found, places, vertices) if vertices is not None else found
    rois = {roi.name: roi for roi in found.rois} | {roi.name: roi for roi in _given_rois(given.rois, places)}
    absent = [name for name in given.skipped_rois if name not in rois]
    notes = (f"no regions {', '.join(absent)} are there to be skipped",) if absent and (volumes or vertices) else ()
    rois = {name: roi for name, roi in rois.items() if name not in given.skipped_rois}
    return replace(found, rois=tuple(rois[name] for name in sorted(rois)), notes=(*found.notes, *notes))


def _look_up(
    found: ExperimentFiles, places: NsdPaths, sessions: Sequence[SessionNumber], given: GivenFiles, volumes: bool
) -> ExperimentFiles:
    missing: list[str] = []

    def look(given: Path | None, path: Path) -> Path | None:
        if given is not None or path.is_file():
            return given or path
        kind = " (no file)" if path.exists() else ""
        missing.append(path.relative_to(places.root).as_posix() + kind)
        return None

    found = replace(found, root=places.root, subject=places.subject)
    other, design = find_other(places.betas), locate_design(places)
    if other is not None:
        found = replace(found, notes=(f"{places.betas} are of {other.words}: the trial table is not of their trials",))
        if not given.no_trial_table and found.trial_table is None:
            expdesign = found.expdesign if design is None else look(found.expdesign, design)
            found = replace(found, other=other, expdesign=expdesign)
    elif not given.no_trial_table:
        found = replace(
            found,
            trial_table=look(found.trial_table, places.trial_table),
            expdesign=look(found.expdesign, places.expdesign),
            stim_info=look(found.stim_info, places.stim_info),
        )
    if volumes:
        found = replace(
            found,
            brainmask=look(found.brainmask, places.brainmask),
            ncsnr=found.ncsnr if other else look(found.ncsnr, places.ncsnr),
            valid=found.valid or _find_valid(places, sessions, missing.append),
            rois=tuple(_find_rois(places)),
        )
        if not found.rois:
            missing.append(f"{places.rois.relative_to(places.root).as_posix()}/*.nii.gz")
    return replace(found, missing=tuple(missing))


def _look_up_surface(found: ExperimentFiles, places: NsdPaths, vertices: Vertices) -> ExperimentFiles:
    """*found*, with noise ceiling and labels of a surface; each is there with all hemispheres that are in the store."""
    missing = list(found.missing)
    ncsnr = list_sides(places.betas_folder / f"{HEMISPHERES[0]}.ncsnr.mgh", vertices)
    if found.ncsnr is None and not find_other(places.betas):
        found = replace(found, ncsnr=ncsnr[0] if all(path.is_file() for path in ncsnr) else None)
        missing += [path.relative_to(places.root).as_posix() for path in ncsnr if not path.is_file()]
    own, common = places.label_folders
    folder = common if places.space == FSAVERAGE.space else own
    sides = [side for side, count in zip(HEMISPHERES, vertices, strict=True) if count]
    paths = [path for side in sides for path in sorted(folder.glob(f"{side}.*.mgz")) if path.is_file()]
    folders = _list_label_folders(places)
    # Maps of other kinds lie there as well: a set of regions is known by the file of its label names.
    named = [path for path in paths if find_labels(strip_ending(path)[3:], folders) is not None]
    rois = tuple(group_rois(named, folders))
    missing += [] if rois else [f"{folder.relative_to(places.root).as_posix()}/?h.*.mgz"]
    return replace(found, rois=rois, missing=tuple(missing))


def _find_valid(
    places: NsdPaths, sessions: Sequence[SessionNumber], miss: Callable[[str], None]
) -> tuple[Path | None, ...]:
    paths = {session: _locate_valid(places, session) for session in sessions}
    absent = [session for session in sessions if not paths[session].is_file()]
    if absent:
        miss(f"valid_sessionBB.nii.gz of {name_sessions(absent)}")
    found = tuple(None if session in absent else path for session, path in paths.items())
    return found if any(found) else ()


def _locate_valid(places: NsdPaths, session: SessionNumber) -> Path:
    """Valid voxels of a session; of nsdsynthetic and nsdimagery under their own names."""
    path, other = places.valid(session), find_other(places.betas)
    if other is None or other.has_sessions:
        return path
    return path.with_name(f"valid_{other.start.removesuffix('betas_')}.nii.gz")


def _find_rois(places: NsdPaths) -> Iterator[RoiFiles]:
    """Sets of regions in the dataset's folder. Names that begin with a dot are of the system that copied them."""
    paths = [path for path in sorted(places.rois.glob("[!.]*.nii*")) if strip_ending(path) and path.is_file()]
    yield from group_rois(paths, _list_label_folders(places))


def _list_label_folders(places: NsdPaths) -> tuple[Path, ...]:
    return (*places.label_folders, places.templates)


# -- by hand -----------------------------------------------------------------------------------------------------


def _check_given(given: GivenFiles) -> None:
    singles = (given.trial_table, given.expdesign, given.stim_info, given.brainmask, given.ncsnr)
    for path in (*(path for path in singles if path is not None), *given.rois):
        if not path.is_file():
            raise SourceError("no such file", hint="Check the path.", path=path)


def _given_rois(paths: Sequence[Path], places: NsdPaths | None) -> Iterator[RoiFiles]:
    names: set[str] = set()
    for path in paths:
        name = strip_ending(path)
        if not name or name in names:
            problem = (
                f"a second region volume of the name {name}" if name else "the name of a region volume ends otherwise"
            )
            raise SourceError(problem, hint="Give NAME.nii.gz, each name once.", path=path, expected=NIFTI_ENDINGS)
        names.add(name)
    folders = list(dict.fromkeys(path.parent for path in paths))
    yield from group_rois(paths, (*folders, *(_list_label_folders(places) if places else ())))


def _given_valid(word: str | None, sessions: Sequence[SessionNumber]) -> tuple[Path, ...]:
    if word is None:
        return ()
    names = sorted(os.listdir(word)) if os.path.isdir(word) else ()
    paths = [Path(word) / name for name in names] or [Path(name) for name in sorted(glob.glob(word, recursive=True))]
    found = {int(match[1]): path for path in paths if (match := VALID_FILE.fullmatch(path.name))}
    absent = [session for session in sessions if session not in found]
    if absent:
        raise SourceError(
            f"no valid_sessionBB.nii.gz of {name_sessions(absent)}, expected one of each session",
            hint="Name the folder that holds them, or a glob.",
            path=word,
            expected=list(sessions),
            found=sorted(found),
        )
    return tuple(found[session] for session in sessions)
