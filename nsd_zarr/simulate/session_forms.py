"""One session in every form that a recipe asks for: the same trials in each, made once."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nsd_zarr.forms import FSAVERAGE, HDF5, NATIVESURFACE, NIFTI, get_form
from nsd_zarr.layout import COUNTS_PER_PERCENT
from nsd_zarr.nsd import NsdPaths
from nsd_zarr.places.durable import replace_file
from nsd_zarr.simulate.nifti import make_session_header
from nsd_zarr.simulate.recipe import Simulation
from nsd_zarr.simulate.session import STORED
from nsd_zarr.simulate.session_file import (
    OnStep,
    Slabs,
    count_steps,
    create_dataset,
    create_scratch,
    create_session_file,
)
from nsd_zarr.simulate.surfaces import make_mgh_header, make_vertices

GZIP_LEVEL = 6
"""Of sessions that are written as .nii.gz: gzip's own default, which the authors' files have by their size."""

TakeSlab = Callable[[int, NDArray[np.int16]], None]
"""Takes the number of a z slab and its values, shape (y, x, trial)."""


def locate_forms(paths: NsdPaths, simulation: Simulation, session: int) -> dict[str, tuple[Path, ...]]:
    """The files of *session* in each form of the recipe."""
    return {name: get_form(name).locate(paths, session) for name in simulation.forms}


def count_form_steps(simulation: Simulation) -> int:
    """Steps that writing one session takes: its z slabs, and its trials once for each form that needs them whole."""
    slabs = count_steps(simulation.layout, simulation.shape) if HDF5.name in simulation.forms else simulation.shape[1]
    return slabs + simulation.trials_per_session * sum(form.name in simulation.forms for form in (NIFTI, FSAVERAGE))


def create_forms(
    files: dict[str, tuple[Path, ...]], simulation: Simulation, slabs: Slabs, valid: NDArray[np.bool_], on_step: OnStep
) -> None:
    """Create the session *files*, by form, from *slabs*, shape (y, x, trial), z ascending.

    *valid*: voxels with data in the session, shape (z, y, x). Each file replaces an existing one once it is whole;
    *on_step* is called count_form_steps times. Peak memory: one slab and one trial.
    """
    shape, folder = simulation.shape, next(iter(files.values()))[0].parent
    with ExitStack() as stack:
        takers: list[TakeSlab] = []
        trials = None
        if {NIFTI.name, FSAVERAGE.name} & files.keys():
            trials = stack.enter_context(create_scratch(folder, shape))
            takers.append(_keep_trials(trials))
        if NATIVESURFACE.name in files:
            takers += stack.enter_context(_open_surface(files[NATIVESURFACE.name], simulation))
        shown = _show(slabs, takers)
        if HDF5.name in files:
            create_session_file(files[HDF5.name][0], shape, simulation.layout, shown, on_step)
        else:
            for _ in shown:
                on_step()
        if NIFTI.name in files:
            create_nifti(files[NIFTI.name][0], trials, simulation, on_step)
        if FSAVERAGE.name in files:
            create_mgh(files[FSAVERAGE.name], trials, simulation, valid, on_step)


def _show(slabs: Slabs, takers: Sequence[TakeSlab]) -> Iterator[NDArray[np.int16]]:
    """The same slabs, each shown to *takers* before it is handed on."""
    for z, slab in enumerate(slabs):
        for take in takers:
            take(z, slab)
        yield slab


def _keep_trials(trials: Any) -> TakeSlab:
    def take(z: int, slab: NDArray[np.int16]) -> None:
        trials[:, z] = np.moveaxis(slab, 2, 0)

    return take


@contextmanager
def _open_surface(files: Sequence[Path], simulation: Simulation) -> Iterator[list[TakeSlab]]:
    """What writes both hemispheres of the native surface, whose vertices come in the order of their voxels."""
    shape, vertices = simulation.shape, make_vertices(NATIVESURFACE, simulation.volume_shape)
    with ExitStack() as stack:
        takers = []
        for path, voxels in zip(files, vertices, strict=True):
            whole = (shape[0], len(voxels))
            dataset = stack.enter_context(create_dataset(path, whole, chunks=(shape[0], 1)))
            takers.append(_write_vertices(dataset, voxels, shape[2] * shape[3]))
        yield takers


def _write_vertices(dataset: Any, voxels: NDArray[np.intp], slab_voxels: int) -> TakeSlab:
    def take(z: int, slab: NDArray[np.int16]) -> None:
        first, last = np.searchsorted(voxels, (z * slab_voxels, (z + 1) * slab_voxels)).tolist()
        rows = slab.reshape(slab_voxels, -1)
        for vertex in range(first, last):
            dataset.id.write_direct_chunk((0, vertex), rows[voxels[vertex] - z * slab_voxels])

    return take


def create_nifti(path: Path, trials: Any, simulation: Simulation, on_step: OnStep) -> None:
    """Create the NIfTI file of a session from *trials*, shape (trial, z, y, x); packed where its name ends in .gz."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file, ExitStack() as stack:
        out: Any = file
        if path.suffix == ".gz":
            out = stack.enter_context(gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0))
        out.write(make_session_header(simulation.shape, simulation.voxel_mm, simulation.seconds_per_volume))
        for trial in range(len(trials)):
            out.write(trials[trial].astype(STORED, copy=False).tobytes())
            on_step()
    replace_file(partial, path)


def create_mgh(
    files: Sequence[Path], trials: Any, simulation: Simulation, valid: NDArray[np.bool_], on_step: OnStep
) -> None:
    """Create both hemispheres on fsaverage: big-endian float32, percent, NaN where there are no data.

    Source: analysis_transformfsaverage.m.
    """
    partials = [path.with_name(path.name + ".partial") for path in files]
    vertices, missing = make_vertices(FSAVERAGE, simulation.volume_shape), ~valid.ravel()
    with ExitStack() as stack:
        outs = [stack.enter_context(partial.open("wb")) for partial in partials]
        for out, voxels in zip(outs, vertices, strict=True):
            out.write(make_mgh_header(len(voxels), len(trials)))
        for trial in range(len(trials)):
            percent = trials[trial].ravel().astype(np.float32) / np.float32(COUNTS_PER_PERCENT)
            percent[missing] = np.nan
            for out, voxels in zip(outs, vertices, strict=True):
                out.write(percent[voxels].astype(">f4").tobytes())
            on_step()
    for partial, path in zip(partials, files, strict=True):
        replace_file(partial, path)
