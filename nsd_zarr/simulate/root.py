"""A synthetic root: where its files lie below a directory, and how they are written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from nsd_zarr.errors import ConfigError
from nsd_zarr.image_sets import NSD
from nsd_zarr.nsd import HEMISPHERES, ROI_SETS, NsdPaths, find_subject_name
from nsd_zarr.simulate.anatomy import make_brain_mask
from nsd_zarr.simulate.design import format_expdesign, format_stim_info
from nsd_zarr.simulate.images import make_image_features
from nsd_zarr.simulate.mess import add_mess
from nsd_zarr.simulate.nifti import write_nifti
from nsd_zarr.simulate.other_experiments import (
    count_other_steps,
    is_other_synthetic,
    list_others,
    locate_betas,
    write_other_sessions,
    write_synthetic_design,
)
from nsd_zarr.simulate.recipe import Simulation
from nsd_zarr.simulate.regions import ROI_LABELS, make_hemisphere, make_roi
from nsd_zarr.simulate.session import make_slabs
from nsd_zarr.simulate.session_forms import count_form_steps, create_forms, locate_forms
from nsd_zarr.simulate.stimuli import create_stimulus_file
from nsd_zarr.simulate.surfaces import check_common_labels, write_surface_files
from nsd_zarr.simulate.trial_table import make_trial_table, write_trial_table
from nsd_zarr.simulate.voxels import make_ncsnr, make_planted_ncsnr, make_valid_sessions, make_voxel_truth

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class SimulatedRoot:
    """Where the files of a synthetic root lie: at the dataset's own places, but for `simulation/`."""

    root: Path
    """The directory that stands for the dataset's bucket."""
    betas_folder: Path
    """Folder of the session files."""
    session_files: tuple[Path, ...]
    """Session files in HDF5, session 1 first; written where the recipe asks for that form."""
    forms: dict[str, tuple[tuple[Path, ...], ...]]
    """By form: of each session its files, those of surfaces with the left hemisphere first."""
    other_betas: dict[str, Path]
    """Folder of the session of each other experiment, by its name."""
    trial_table: Path
    """responses.tsv."""
    brainmask: Path
    """brainmask.nii.gz."""
    rois: dict[str, Path]
    """Region volumes of the whole brain by name."""
    hemispheres: dict[str, tuple[Path, Path]]
    """Region volumes of the left and the right hemisphere by name."""
    roi_names: dict[str, Path]
    """Label names (.ctab) of the region volumes by name."""
    valid: tuple[Path, ...]
    """valid_sessionBB.nii.gz, session 1 first."""
    valid_fraction: Path
    """valid.nii.gz: in which part of the sessions a voxel is valid."""
    ncsnr: Path
    """ncsnr.nii.gz in the betas folder: the planted one, NaN where the authors' rule has no image to count."""
    expdesign: Path
    """nsd_expdesign.mat, of all subjects."""
    stim_info: Path
    """nsd_stim_info_merged.csv, of all subjects."""
    stimuli: Path
    """nsd_stimuli.hdf5, of all subjects; written when the recipe asks for images."""
    planted_ncsnr: Path
    """Planted ncsnr, which the dataset has not; NaN outside the brain."""
    recipe: Path
    """The recipe as JSON."""


def locate_root(directory: Path, simulation: Simulation) -> SimulatedRoot:
    """Where *simulation* lies below *directory*; touches nothing."""
    paths = NsdPaths(directory, simulation.subject, simulation.space, simulation.betas)
    own = directory / "simulation" / find_subject_name(simulation.subject)
    sessions = range(1, simulation.sessions + 1)
    sets = [roi for roi in ROI_SETS if roi.name in simulation.rois]
    return SimulatedRoot(
        root=directory,
        betas_folder=paths.betas_folder,
        session_files=tuple(paths.session_file(session) for session in sessions),
        forms={
            name: tuple(locate_forms(paths, simulation, session)[name] for session in sessions)
            for name in simulation.forms
        },
        other_betas={name: locate_betas(paths, name).betas_folder for name in list_others(simulation)},
        trial_table=paths.trial_table,
        brainmask=paths.brainmask,
        rois={roi.name: paths.roi(roi.name) for roi in sets},
        hemispheres={
            roi.name: (paths.roi(roi.name, "lh"), paths.roi(roi.name, "rh")) for roi in sets if simulation.hemispheres
        },
        roi_names={roi.name: paths.labels(roi) for roi in sets},
        valid=tuple(paths.valid(session) for session in sessions),
        valid_fraction=paths.valid_fraction,
        ncsnr=paths.ncsnr,
        expdesign=paths.expdesign,
        stim_info=paths.stim_info,
        stimuli=paths.stimuli,
        planted_ncsnr=own / "planted_ncsnr.nii.gz",
        recipe=own / "simulation.json",
    )


def simulate_root(directory: Path, simulation: Simulation, on_progress: OnProgress | None = None) -> SimulatedRoot:
    """Write the synthetic root that *simulation* describes below *directory*.

    Equal recipes give equal bytes, with the same libraries and kind of processor (BLAS rounds the last bit as it
    likes); run again after an interruption, it begins anew. Another subject may go beside the first, with another
    volume; seed, sessions and trials must be the same, because all subjects share one design. *on_progress* is called
    with the steps done and all steps, a step being one z slab of one session (or one trial, in forms that are written
    trial by trial). Raises
    ConfigError if *directory* holds data of this subject, or a design, that are not this simulation. Peak memory: one
    slab twice and about 60 bytes per voxel of the volume.
    """
    root = locate_root(Path(directory), simulation)
    check_place(root, simulation)
    check_design(root, simulation)
    check_common_labels(locate_paths(root, simulation), simulation)
    write_recipe(root, simulation)
    create_folders(root)
    write_volumes(root, simulation)
    write_label_names(root)
    write_surface_files(locate_paths(root, simulation), simulation)
    write_design(root, simulation)
    write_sessions(root, simulation, on_progress or (lambda done, total: None))
    if simulation.mess:
        rois = NsdPaths(root.root, simulation.subject, simulation.space).rois
        add_mess(root.betas_folder, root.trial_table, rois, simulation)
    return root


def locate_paths(root: SimulatedRoot, simulation: Simulation) -> NsdPaths:
    """The dataset's paths around the betas of *simulation*."""
    return NsdPaths(root.root, simulation.subject, simulation.space, simulation.betas)


def format_recipe(simulation: Simulation) -> str:
    """*simulation* as JSON, and a word that this is no measurement."""
    about = "synthetic values in the layout of the Natural Scenes Dataset, made by nsd-zarr simulate; not a measurement"
    recipe = asdict(simulation)
    if simulation.experiments == (NSD,):
        del recipe["experiments"]  # Roots that were made before there were others stay what they are.
    return json.dumps({"about": about, **recipe}, indent=2) + "\n"


def write_recipe(root: SimulatedRoot, simulation: Simulation) -> None:
    """Write the recipe, before anything else: it is what allows an interrupted simulation to be run again."""
    root.recipe.parent.mkdir(parents=True, exist_ok=True)
    root.recipe.write_text(format_recipe(simulation), encoding="ascii", newline="\n")


def check_place(root: SimulatedRoot, simulation: Simulation) -> None:
    """Refuse to write among data that were not made from this very recipe: they might be the dataset itself."""
    if root.root.is_file():
        raise ConfigError("the place for a synthetic root is a file", hint="Name a directory.", path=root.root)
    if root.recipe.exists() and root.recipe.read_text(encoding="ascii") == format_recipe(simulation):
        return
    subject, paths = root.recipe.parent.name, NsdPaths(root.root, simulation.subject)
    for place in (root.recipe, paths.betas_folder.parents[1], paths.subject_folder):
        if place.exists():
            raise ConfigError(
                f"there are already data of {subject}, but not this simulation",
                hint="Choose another directory, or delete it if it holds an older simulation.",
                path=place,
                expected="no data",
                found=place.name,
            )


def check_design(root: SimulatedRoot, simulation: Simulation) -> None:
    """Refuse a root whose design is another one: that of another simulation, or the dataset's own."""
    design = format_expdesign(simulation.sessions, simulation.trials_per_session, simulation.seed)
    others = (root.stim_info, root.stimuli)  # written after it, so without it they are not ours
    if not root.expdesign.exists():
        is_other = any(path.exists() for path in others)
    else:
        is_other = root.expdesign.read_bytes() != design
    if is_other or is_other_synthetic(root.root, simulation):
        raise ConfigError(
            "there is already another experiment's design",
            hint="Choose another directory, or give the seed, sessions and trials of the subject that is there.",
            path=root.expdesign,
        )


def write_design(root: SimulatedRoot, simulation: Simulation) -> None:
    """Write what all subjects share: design, stimulus table and, when asked for, images."""
    recipe = (simulation.sessions, simulation.trials_per_session, simulation.seed)
    root.expdesign.write_bytes(format_expdesign(*recipe))
    root.stim_info.write_bytes(format_stim_info(*recipe))
    if simulation.images:
        create_stimulus_file(root.stimuli, simulation.images, simulation.image_size, simulation.seed)
    write_synthetic_design(root.root, simulation)


def create_folders(root: SimulatedRoot) -> None:
    """Create every folder that a file will lie in."""
    sessions = [path for sessions in root.forms.values() for session in sessions for path in session]
    files = [*sessions, root.session_files[0], root.trial_table, root.brainmask, root.planted_ncsnr, root.expdesign]
    for file in [*files, *root.rois.values(), *root.roi_names.values()]:
        file.parent.mkdir(parents=True, exist_ok=True)


def write_volumes(root: SimulatedRoot, simulation: Simulation) -> None:
    """Write brain mask, valid voxels, region volumes, and the planted ncsnr twice: in its place, and as itself.

    Masks and regions are int16, as in the dataset; fractions and ncsnr float32.
    """
    shape, voxel_mm, seconds = simulation.volume_shape, simulation.voxel_mm, simulation.seconds_per_volume
    write_nifti(root.brainmask, make_brain_mask(shape).astype("i2"), voxel_mm, seconds)
    for name, path in root.rois.items():
        write_nifti(path, make_roi(name, shape), voxel_mm)
        for hemisphere, half in zip(HEMISPHERES, root.hemispheres.get(name, ()), strict=False):
            write_nifti(half, make_hemisphere(name, shape, hemisphere), voxel_mm)
    valid = make_valid_sessions(simulation)
    for path, volume in zip(root.valid, valid, strict=True):
        write_nifti(path, volume.astype("i2"), voxel_mm, seconds)
    write_nifti(root.valid_fraction, np.mean(valid, axis=0, dtype=np.float32), voxel_mm, seconds)
    write_nifti(root.ncsnr, make_ncsnr(simulation), voxel_mm, seconds)
    planted = make_planted_ncsnr(shape, simulation.seed, simulation.subject)
    write_nifti(root.planted_ncsnr, planted, voxel_mm, seconds)


def write_label_names(root: SimulatedRoot) -> None:
    """Write the label names of each region volume, one "number name" a line."""
    for name, path in root.roi_names.items():
        lines = [f"{number} {label}\n" for number, label in enumerate(("Unknown", *ROI_LABELS[name]))]
        path.write_text("".join(lines), encoding="ascii", newline="\n")


def write_sessions(root: SimulatedRoot, simulation: Simulation, on_progress: OnProgress) -> None:
    """Write trial table and session files."""
    trials = simulation.trials_per_session
    table = make_trial_table(simulation.sessions, trials, simulation.seed, simulation.subject)
    write_trial_table(root.trial_table, table)
    features = make_image_features(table["73KID"].astype(int) - 1, simulation.seed)
    truth = make_voxel_truth(simulation)
    total = simulation.sessions * count_form_steps(simulation) + count_other_steps(simulation)
    steps = Steps(total, on_progress)
    for number, valid in enumerate(make_valid_sessions(simulation)):
        slabs = make_slabs(truth, features[number * trials : (number + 1) * trials], simulation, number + 1)
        files = {name: sessions[number] for name, sessions in root.forms.items()}
        create_forms(files, simulation, slabs, valid, steps.advance)
    write_other_sessions(locate_paths(root, simulation), simulation, truth, steps.advance)


class Steps:
    """Counts the steps of a run and reports them."""

    def __init__(self, total: int, on_progress: OnProgress) -> None:
        self._done, self._total, self._on_progress = 0, total, on_progress

    def advance(self) -> None:
        """One step more is done."""
        self._done += 1
        self._on_progress(self._done, self._total)
