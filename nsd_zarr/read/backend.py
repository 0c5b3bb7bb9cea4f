"""The xarray engine `nsd_zarr`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from nsd_zarr.errors import NsdZarrError
from nsd_zarr.nsd import HEMISPHERES, SESSIONS_OF_ALL, find_subject_name
from nsd_zarr.options import SubjectWords, parse_subjects
from nsd_zarr.read.derive import TRIALS
from nsd_zarr.read.lazy import SmallArray, TrialArray
from nsd_zarr.read.percent import PercentReader
from nsd_zarr.read.score import STD
from nsd_zarr.read.stored import STORE, StoredVariable, add_store, make_store_column
from nsd_zarr.read.table import DIGESTS
from nsd_zarr.read.volume import AFFINE, make_place
from nsd_zarr.science.splits import find_shared515
from nsd_zarr.store.foreign.open import find_path, open_any
from nsd_zarr.store.foreign.reader import AnyReader, make_reader
from nsd_zarr.store.format import ABOUT_SHARED515, BETAS, CONVENTIONS, HEMISPHERE, SHARED515
from nsd_zarr.store.root import Store, is_store
from nsd_zarr.store.small import read_array
from nsd_zarr.store.tree.document import TREE_TITLE, read_listed_subjects
from nsd_zarr.store.tree.groups import is_tree, locate_group
from nsd_zarr.words import escape_controls

OF_THE_FORMAT = {"format", "format_version", "format_minor", "status", "checksum"}
"""Root attributes that a dataset has not: what one makes of it and saves would pass for a store of ours."""


class NsdZarrBackendEntrypoint(BackendEntrypoint):
    """Opens stores made by this package, and claims no others."""

    supports_groups = True
    description = "Trial-chunked stores of Natural Scenes Dataset betas, as float32 percent signal change"
    url = "https://cvnlab.slite.page/p/CT9Fwl4_hc/NSD-Data-Manual"

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether *filename_or_obj* is the path of a store made by this package. Never raises."""
        if not isinstance(filename_or_obj, (str, os.PathLike)):
            return False
        try:
            path = find_path(filename_or_obj)
            return is_store(path) or is_tree(path)
        except (OSError, ValueError):  # no working directory, a NUL in a user's name
            return False

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        mask_and_scale: bool | Mapping[str, bool] | None = None,
        allow_unfinished: bool = False,
        group: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        # There is nothing of these in a store; accepted so that code which sets them for every engine runs.
        concat_characters: bool | None = None,
        decode_times: bool | None = None,
        decode_coords: bool | str | None = None,
        use_cftime: bool | None = None,
        decode_timedelta: bool | None = None,
        # Options of the engine "zarr": how it finds metadata, which a store of ours says itself.
        consolidated: bool | None = None,
        mode: str = "r",
        synchronizer: Any = None,
        chunk_store: Any = None,
        zarr_version: int | None = None,
        zarr_format: int | None = None,
        use_zarr_fill_value_as_mask: bool | None = None,
        cache_members: bool = True,
    ) -> xr.Dataset:
        """Open a store lazily; see nsd_zarr.open_dataset. *group*: a store inside the folder, such as "subj01".

        *storage_options*: how a URL is reached, as xarray's engine "zarr" takes them.
        """
        location = _join(filename_or_obj, group)
        store = open_any(location, allow_unfinished=allow_unfinished, storage_options=storage_options)
        dropped = {drop_variables} if isinstance(drop_variables, str) else set(drop_variables or ())
        reader = make_reader(store)
        scaled = mask_and_scale.get(BETAS, True) if isinstance(mask_and_scale, Mapping) else mask_and_scale
        variables = {BETAS: _make_betas(store, reader, scaled is not False)}
        variables |= {name: _make_small(store, name) for name in store.members if name not in (BETAS, DIGESTS)}
        variables |= _make_hemisphere(store)
        variables |= _make_affine(store)
        variables |= _make_places(store, AFFINE in variables) | _make_shared515(store)
        variables.setdefault(STORE, make_store_column(store, store.geometry.trials))
        dataset = xr.Dataset(
            {name: variable for name, variable in variables.items() if name not in dropped},
            attrs=_escape(_choose_attributes(store)),
        ).set_coords(sorted(set(variables) - {BETAS} - dropped))
        dataset.encoding["source"] = store.location
        dataset.set_close(reader.close)
        return dataset

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,
        *,
        subjects: SubjectWords | None = None,
        group: str | None = None,
        **options: Any,
    ) -> dict[str, xr.Dataset]:
        """The dataset of each subject by the path of its node, and at "/" what the root document says.

        *subjects*: which; None for all that are finished. Of the store of one subject: its dataset, at "/".
        """
        path = find_path(_join(filename_or_obj, group))
        if not is_tree(path) and subjects is None:
            return {"/": self.open_dataset(filename_or_obj, group=group, **options)}
        chosen = read_listed_subjects(path) if subjects is None else parse_subjects(subjects)
        nodes = {"/": xr.Dataset(attrs={"title": TREE_TITLE, "Conventions": CONVENTIONS})}
        try:
            for subject in chosen:
                nodes[f"/{find_subject_name(subject)}"] = self._open_subject(path, subject, options)
        except BaseException:
            for node in nodes.values():
                node.close()
            raise
        return nodes

    def _open_subject(self, tree: Path, subject: int, options: Mapping[str, Any]) -> xr.Dataset:
        try:
            return self.open_dataset(locate_group(tree, subject), **options)
        except NsdZarrError as error:
            error.subject = subject
            raise

    def open_datatree(self, filename_or_obj: Any, **options: Any) -> xr.DataTree:
        """Open a store with a group for each subject; see nsd_zarr.open_tree."""
        nodes = self.open_groups_as_dict(filename_or_obj, **options)
        tree = xr.DataTree.from_dict(nodes)
        for path, dataset in nodes.items():
            tree[path].set_close(dataset._close)
        return tree


def _join(location: Any, group: str | None) -> Any:
    """The location of *group*, a path inside *location*."""
    inside = (group or "").strip("/")
    return f"{os.fsdecode(location).rstrip('/')}/{inside}" if inside else location


def _choose_attributes(store: Store) -> dict[str, Any]:
    """What the root attributes say of the data, not of the store."""
    return {
        name: value
        for name, value in store.attributes.document.items()
        if isinstance(value, (str, int, float)) and name not in OF_THE_FORMAT
    }


def _escape(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """*attributes* with control characters of text as escapes: xarray prints them as they are."""
    return {name: escape_controls(value) if isinstance(value, str) else value for name, value in attributes.items()}


def _make_betas(store: Store, reader: AnyReader, scaled: bool) -> xr.Variable:
    metadata, geometry = store.members[BETAS], store.geometry
    attributes = _escape(metadata.attributes)
    # A Dask chunk is a shard: one of a trial each would be 30,000 tasks. Nothing else of how the store encodes betas:
    # xarray would save what was made of them as int16 with a scale.
    chunks = dict(zip(metadata.dims, (geometry.trials_per_shard, *geometry.volume_shape), strict=True))
    attributes.pop("coordinates", None)
    if scaled:
        attributes.pop("scale_factor", None)
    array = TrialArray(PercentReader(reader) if scaled else reader, geometry.shape)
    return StoredVariable(metadata.dims, indexing.LazilyIndexedArray(array), attributes, {"preferred_chunks": chunks})


class HemisphereArray(BackendArray):
    """Hemisphere of each vertex as text, lazily."""

    def __init__(self, vertices: tuple[int, int]) -> None:
        self.vertices = vertices
        self.shape, self.dtype = (sum(vertices),), np.dtype("<U2")

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: Any) -> np.ndarray:
        is_right = np.arange(self.shape[0])[key[0]] >= self.vertices[0]
        return np.where(is_right, *reversed(HEMISPHERES))


def _make_hemisphere(store: Store) -> dict[str, xr.Variable]:
    """Coordinate hemisphere, which the store has as codes, as text: "lh" or "rh"."""
    vertices = store.geometry.vertices
    if vertices is None:
        return {}
    array = indexing.LazilyIndexedArray(HemisphereArray(vertices))
    about = add_store({"long_name": "hemisphere of the vertex"}, store)
    return {HEMISPHERE: StoredVariable(("vertex",), array, about)}


def _make_affine(store: Store) -> dict[str, xr.Variable]:
    """Where voxels lie by the sources themselves (NIfTI has it), where no volume beside the betas says it."""
    affines = [source.affine for source in store.attributes.sources if source.affine is not None]
    if AFFINE in store.members or not affines:
        return {}
    about = {"long_name": "RAS+ millimetres from NIfTI voxel indices (x, y, z, 1), counted from 0"}
    return {AFFINE: xr.Variable(("ras", "ijk1"), np.array(affines[0], np.float64), add_store(about, store))}


def _make_places(store: Store, has_affine: bool) -> dict[str, xr.Variable]:
    """Where voxels lie along z, y and x, so that a part of a volume still knows its place; where there is an affine."""
    if not has_affine:
        return {}
    sizes = dict(zip(store.members[BETAS].dims[1:], store.geometry.volume_shape, strict=True))
    return {dim: make_place(dim, np.arange(size), size) for dim, size in sizes.items()}


class Shared515Array(BackendArray):
    """Which trials are of the 515 images that all subjects saw three times: lazily, from the whole trial table."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.shape, self.dtype = (store.geometry.trials,), np.dtype(bool)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: Any) -> np.ndarray:
        found = find_shared515(lambda name: read_array(self.store, name))
        return np.asarray(found[key[0]])


def _make_shared515(store: Store) -> dict[str, xr.Variable]:
    """Column shared515, where the store has it not, and it follows from its whole trial table."""
    has_table = {"nsd_id", "shared1000", "repeat", "session"} <= set(store.members)
    has_sessions = set(range(1, SESSIONS_OF_ALL + 1)) <= set(store.geometry.sessions)
    if SHARED515 in store.members or not has_table or not has_sessions:
        return {}
    about = {"long_name": ABOUT_SHARED515}
    encoding = {"preferred_chunks": {"trial": store.geometry.trials_per_shard}}
    array = indexing.LazilyIndexedArray(Shared515Array(store))
    return {SHARED515: StoredVariable(("trial",), array, about, encoding)}


def _make_small(store: Store, name: str) -> xr.Variable:
    metadata = store.members[name]
    array = indexing.LazilyIndexedArray(SmallArray(store, name))
    attributes = _escape(metadata.attributes)
    if "trial" in metadata.dims:
        # Along trial as betas: a Dataset whose variables disagree refuses to show its chunks.
        chunks = {"preferred_chunks": {"trial": store.geometry.trials_per_shard}}
        return StoredVariable(metadata.dims, array, attributes, chunks)
    # Of how many trials a standard deviation is: ddof 1 needs it.
    own = {TRIALS: store.geometry.trials_per_session} if name == STD else {}
    # What was saved of a dataset says itself of which store it is.
    attributes = attributes | own if STORE in store.members else add_store(attributes | own, store)
    return StoredVariable(metadata.dims, array, attributes)
