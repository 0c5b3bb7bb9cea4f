"""A synthetic root: where its files lie below a directory, and how they are written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from nsd_zarr.errors import ConfigError
from nsd_zarr.simulate.anatomy import ROI_LABELS, make_brain_mask, make_roi
from nsd_zarr.simulate.images import make_image_features
from nsd_zarr.simulate.nifti import write_nifti
from nsd_zarr.simulate.recipe import Simulation
from nsd_zarr.simulate.session import make_slabs
from nsd_zarr.simulate.session_file import count_steps, create_session_file
from nsd_zarr.simulate.trial_table import make_trial_table, write_trial_table
from nsd_zarr.simulate.voxels import make_planted_ncsnr, make_voxel_truth

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class SimulatedRoot:
    """Where the files of a synthetic root lie: at the dataset's own places, but for `simulation/`."""

    root: Path
    """The directory that stands for the dataset's bucket."""
    betas_folder: Path
    """Folder of the session files."""
    session_files: tuple[Path, ...]
    """Session files, session 1 first."""
    trial_table: Path
    """responses.tsv."""
    brainmask: Path
    """brainmask.nii.gz."""
    rois: dict[str, Path]
    """Region volumes by name."""
    roi_names: dict[str, Path]
    """Label names (.mgz.ctab) of the region volumes by name."""
    planted_ncsnr: Path
    """Planted ncsnr, which the dataset has not; NaN outside the brain."""
    recipe: Path
    """The recipe as JSON."""


def locate_root(directory: Path, simulation: Simulation) -> SimulatedRoot:
    """Where *simulation* lies below *directory*; touches nothing. The only place of these paths."""
    subject = f"subj{simulation.subject:02d}"
    betas = directory / "nsddata_betas/ppdata" / subject / simulation.space / simulation.betas
    prepared = directory / "nsddata/ppdata" / subject
    labels = directory / "nsddata/freesurfer" / subject / "label"
    own = directory / "simulation" / subject
    sessions = range(1, simulation.sessions + 1)
    return SimulatedRoot(
        root=directory,
        betas_folder=betas,
        session_files=tuple(betas / f"betas_session{session:02d}.hdf5" for session in sessions),
        trial_table=prepared / "behav/responses.tsv",
        brainmask=prepared / simulation.space / "brainmask.nii.gz",
        rois={name: prepared / simulation.space / "roi" / f"{name}.nii.gz" for name in ROI_LABELS},
        roi_names={name: labels / f"{name}.mgz.ctab" for name in ROI_LABELS},
        planted_ncsnr=own / "planted_ncsnr.nii.gz",
        recipe=own / "simulation.json",
    )


def simulate_root(directory: Path, simulation: Simulation, on_progress: OnProgress | None = None) -> SimulatedRoot:
    """Write the synthetic root that *simulation* describes below *directory*.

    Equal recipes give equal bytes, with the same libraries and kind of processor (BLAS rounds the last bit as it
    likes); run again after an interruption, it begins anew. *on_progress* is called with the steps done and all
    steps, a step being one z slab of one session (and one trial when compressed). Raises ConfigError if *directory*
    holds data of this subject that are not this simulation. Peak memory: one slab twice and about 60 bytes per voxel
    of the volume.
    """
    root = locate_root(Path(directory), simulation)
    check_place(root, simulation)
    write_recipe(root, simulation)
    create_folders(root)
    write_volumes(root, simulation)
    write_label_names(root)
    write_sessions(root, simulation, on_progress or (lambda done, total: None))
    return root


def format_recipe(simulation: Simulation) -> str:
    """*simulation* as JSON, and a word that this is no measurement."""
    about = "synthetic values in the layout of the Natural Scenes Dataset, made by nsd-zarr simulate; not a measurement"
    return json.dumps({"about": about, **asdict(simulation)}, indent=2) + "\n"


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
    subject = root.recipe.parent.name
    for place in (root.recipe, root.root / "nsddata_betas/ppdata" / subject, root.root / "nsddata/ppdata" / subject):
        if place.exists():
            raise ConfigError(
                f"there are already data of {subject}, but not this simulation",
                hint="Choose another directory, or delete it if it holds an older simulation.",
                path=place,
                expected="no data",
                found=place.name,
            )


def create_folders(root: SimulatedRoot) -> None:
    """Create every folder that a file will lie in."""
    files = [*root.session_files, root.trial_table, root.brainmask, root.planted_ncsnr]
    for file in [*files, *root.rois.values(), *root.roi_names.values()]:
        file.parent.mkdir(parents=True, exist_ok=True)


def write_volumes(root: SimulatedRoot, simulation: Simulation) -> None:
    """Write brain mask, region volumes and planted ncsnr."""
    shape, voxel_mm = simulation.volume_shape, simulation.voxel_mm
    write_nifti(root.brainmask, make_brain_mask(shape).astype("u1"), voxel_mm)
    for name, path in root.rois.items():
        write_nifti(path, make_roi(name, shape), voxel_mm)
    write_nifti(root.planted_ncsnr, make_planted_ncsnr(shape, simulation.seed, simulation.subject), voxel_mm)


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
    steps = Steps(simulation.sessions * count_steps(simulation.layout, simulation.shape), on_progress)
    for number, path in enumerate(root.session_files):
        slabs = make_slabs(truth, features[number * trials : (number + 1) * trials], simulation, number + 1)
        create_session_file(path, simulation.shape, simulation.layout, slabs, steps.advance)


class Steps:
    """Counts the steps of a run and tells them."""

    def __init__(self, total: int, on_progress: OnProgress) -> None:
        self._done, self._total, self._on_progress = 0, total, on_progress

    def advance(self) -> None:
        """One step more is done."""
        self._done += 1
        self._on_progress(self._done, self._total)
