"""Surfaces: which voxel each vertex takes its values from, and the files that lie beside betas of vertices."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nsd_zarr.errors import ConfigError
from nsd_zarr.forms import FSAVERAGE, NATIVESURFACE, Form
from nsd_zarr.nsd import HEMISPHERES, ORIGIN_SUBJECT, ORIGIN_VOLUME, ROI_SETS, NsdPaths
from nsd_zarr.simulate.anatomy import VolumeShape, make_cortex_mask
from nsd_zarr.simulate.recipe import Simulation
from nsd_zarr.simulate.regions import is_left, make_roi
from nsd_zarr.simulate.voxels import make_ncsnr

FSAVERAGE_EXTRA = 3
"""Vertices that a hemisphere of fsaverage has more than the larger native one; our choice."""
MGH_HEADER_BYTES = 284
"""Before the values of an MGH file. Source: FreeSurfer, "MghFormat"."""
SURFACES = (NATIVESURFACE, FSAVERAGE)

Voxels = NDArray[np.intp]


def make_vertices(form: Form, volume_shape: VolumeShape) -> tuple[Voxels, Voxels]:
    """The voxel (flat, C order) of every vertex of the left and of the right hemisphere of surface *form*.

    Native surface: a vertex for each voxel of cortex, in C order. fsaverage: the nearest vertex of the native surface,
    as many in both hemispheres.
    """
    cortex, left = make_cortex_mask(volume_shape), is_left(volume_shape)
    native = np.flatnonzero(cortex & left), np.flatnonzero(cortex & ~left)
    if form is NATIVESURFACE:
        return native
    count = max(map(len, native)) + FSAVERAGE_EXTRA
    one, other = (side[np.arange(count) * len(side) // count] for side in native)
    return one, other


def locate_labels(paths: NsdPaths, form: Form, names: tuple[str, ...]) -> dict[str, tuple[Path, Path]]:
    """Label files, left and right, of those sets of *names* that surface *form* has.

    On fsaverage there are those alone that were drawn there, or come from atlases. Source: data manual, "ROIs".
    """
    own, common = paths.label_folders
    found = {}
    for roi in ROI_SETS:
        is_there = form is NATIVESURFACE or roi.origin != ORIGIN_SUBJECT
        if roi.name in names and roi.origin != ORIGIN_VOLUME and is_there:
            folder = own if form is NATIVESURFACE else common
            left, right = (folder / f"{side}.{roi.name}.mgz" for side in HEMISPHERES)
            found[roi.name] = (left, right)
    return found


def locate_ncsnr(paths: NsdPaths, form: Form) -> tuple[Path, Path]:
    """The ncsnr of the left and of the right hemisphere."""
    left, right = (form.locate_folder(paths) / f"{side}.ncsnr.mgh" for side in HEMISPHERES)
    return left, right


def check_common_labels(paths: NsdPaths, simulation: Simulation) -> None:
    """Refuse labels on fsaverage, which all subjects share, of a subject of another volume. Raises ConfigError."""
    if FSAVERAGE.name not in simulation.forms:
        return
    vertices = make_vertices(FSAVERAGE, simulation.volume_shape)
    for name, files in locate_labels(paths, FSAVERAGE, simulation.rois).items():
        codes = _make_codes(name, simulation.volume_shape)
        for path, voxels in zip(files, vertices, strict=True):
            if path.exists() and read_mgz(path) != encode_mgh(codes[voxels]):
                raise ConfigError(
                    "there are already labels on fsaverage of a subject of another volume",
                    hint="Choose another directory, or the shape of the subject that is there; or leave out fsaverage.",
                    path=path,
                )


def _make_codes(name: str, volume_shape: VolumeShape) -> NDArray[np.int16]:
    codes: NDArray[np.int16] = np.maximum(make_roi(name, volume_shape), 0).ravel()
    return codes


def write_surface_files(paths: NsdPaths, simulation: Simulation) -> None:
    """Write ncsnr and labels of each surface that the recipe asks for, coded from 0 on without -1."""
    shape = simulation.volume_shape
    for form in SURFACES:
        if form.name not in simulation.forms:
            continue
        vertices = make_vertices(form, shape)
        ncsnr = make_ncsnr(simulation).ravel()
        for path, voxels in zip(locate_ncsnr(paths, form), vertices, strict=True):
            write_mgh(path, ncsnr[voxels])
        for name, files in locate_labels(paths, form, simulation.rois).items():
            codes = _make_codes(name, shape)
            for path, voxels in zip(files, vertices, strict=True):
                write_mgh(path, codes[voxels])


def write_mgh(path: Path, values: NDArray[np.generic]) -> None:
    """Write one value a vertex as float32 in MGH, packed where the name ends in .mgz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = encode_mgh(values)
    with path.open("wb") as file:
        if path.suffix == ".mgh":
            file.write(data)
            return
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            packed.write(data)


def encode_mgh(values: NDArray[np.generic]) -> bytes:
    """One value a vertex as float32 in MGH."""
    return make_mgh_header(len(values), 1) + values.astype(">f4").tobytes()


def read_mgz(path: Path) -> bytes:
    """What write_mgh packed."""
    with gzip.open(path, "rb") as file:
        return file.read()


def make_mgh_header(vertices: int, frames: int) -> bytes:
    """Everything before the values of an MGH file of float32, shape (vertices, 1, 1, frames)."""
    from nibabel.freesurfer.mghformat import MGHHeader

    header: Any = MGHHeader()  # type: ignore[no-untyped-call]
    header.set_data_dtype(np.float32)
    header.set_data_shape((vertices, 1, 1, frames))
    file = io.BytesIO()
    header.writehdr_to(file)
    return file.getvalue().ljust(MGH_HEADER_BYTES, b"\0")
