"""Opening a store as an xarray Dataset, or several subjects' as a DataTree."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict, Unpack

import xarray as xr

from nsd_zarr.libraries import check_library
from nsd_zarr.options import SubjectWords, check_options
from nsd_zarr.read.backend import NsdZarrBackendEntrypoint


class OpenOptions(TypedDict, total=False):
    """Options of nsd_zarr.open_dataset beside raw: those of xarray.open_dataset, and allow_unfinished.

    >>> lazy: nsd_zarr.OpenOptions = {"chunks": {}}
    >>> nsd_zarr.open_dataset("subj01.zarr", **lazy).betas.chunks[0]
    (12, 12, 12)
    """

    chunks: int | dict[Any, Any] | str | None
    """{} for Dask with a shard a chunk."""
    cache: bool | None
    """Keep what was read."""
    drop_variables: str | Iterable[str] | None
    """Variables to leave out."""
    mask_and_scale: bool | Mapping[str, bool] | None
    """False: as raw."""
    decode_cf: bool | None
    """False: as raw, and coordinates as data variables."""
    decode_coords: Literal["coordinates", "all"] | bool | None
    """Which variables become coordinates, as xarray says."""
    decode_times: bool | None
    """For xarray; a store has no times."""
    decode_timedelta: bool | None
    """For xarray; a store has no durations."""
    use_cftime: bool | None
    """For xarray; a store has no times."""
    concat_characters: bool | None
    """For xarray; the text of a store is text already."""
    inline_array: bool
    """With *chunks*: whether each task of Dask holds the array itself."""
    chunked_array_type: str | None
    """With *chunks*: "dask", or another that xarray knows."""
    from_array_kwargs: dict[str, Any] | None
    """With *chunks*: more for `dask.array.from_array`."""
    backend_kwargs: dict[str, Any] | None
    """Options of the engine as a dict, as xarray takes them."""
    storage_options: Mapping[str, Any] | None
    """How a URL is reached, as pandas and xarray take them: key, secret, endpoint_url, region, anon, profile."""
    allow_unfinished: bool
    """Open a store whose conversion has not finished; what is not there yet raises when it is read."""


def open_dataset(path: str | os.PathLike[str], *, raw: bool = False, **options: Unpack[OpenOptions]) -> xr.Dataset:
    """Open the store at *path*, lazily: reads its root document and the session numbers, no trial.

    `ds.betas`: percent signal change, float32, dims (trial, z, y, x), or (trial, vertex) for surfaces; bit-equal to
    np.float32(counts) / np.float32(300). Float sources stay what they are. Only trials that are asked for are read,
    each once. Coordinates along `trial`: `session` (counted from 1) and `trial_in_session` (from 0); select by them
    with `ds.sel(trial=ds.session == 3)` (under Dask `(ds.session == 3).compute()`) or
    `ds.set_xindex("session").sel(session=3)`. Source: data manual, "Functional data (NSD)".

    Parameters
    ----------
    path
        The store's folder, or a URL (s3://, gs://, az://, https://): see docs/objects.md.
    raw
        The stored counts, in the stored dtype, instead (xarray's `mask_and_scale=False`).
    **options
        As xarray.open_dataset takes them, such as `chunks={}` for Dask (a chunk is a shard); see OpenOptions.

    Returns
    -------
    xarray.Dataset
        Lazy; its regions, z-scores and trials by meaning are in `ds.nsd`.

    Raises
    ------
    ConfigError
        An option that is not taken.
    StoreError
        Missing, something else, or unfinished.
    DamageFound
        The root document is damaged; or later, naming trial and shard, when a trial that is read is lost or damaged.

    Examples
    --------
    >>> ds = nsd_zarr.open_dataset("subj01.zarr")
    >>> ds.betas.dims
    ('trial', 'z', 'y', 'x')
    >>> third = ds.sel(trial=ds.session == 3)
    >>> third.betas[0].values.dtype
    dtype('float32')
    """
    check_options("open_dataset", options, OpenOptions, others=("raw",))
    if raw:
        options["mask_and_scale"] = False
    _check_dask("open_dataset", options)
    # By class: by name, xarray would import every engine that is installed first.
    return xr.open_dataset(path, engine=NsdZarrBackendEntrypoint, **options)


def _check_dask(function: str, options: OpenOptions) -> None:
    if options.get("chunks") is not None and options.get("chunked_array_type") in (None, "dask"):
        check_library("dask", f"{function} with chunks")


def open_tree(
    path: str | os.PathLike[str],
    *,
    subjects: SubjectWords | None = None,
    raw: bool = False,
    **options: Unpack[OpenOptions],
) -> xr.DataTree:
    """Open a store with a group for each subject, lazily: a node each, "subj01" and so on, as open_dataset gives it.

    Made by `nsd_zarr.convert(..., subjects="1-8")`. Volumes of subjects have different shapes, so there is nothing at
    the root of the tree but its title. `xr.open_datatree(path)` is the same.

    Parameters
    ----------
    path
        The store's folder.
    subjects
        Which ("1-8", [1, 2, 5, 7]). Default: all that are finished.
    raw
        The stored counts, in the stored dtype, instead.
    **options
        As of open_dataset.

    Returns
    -------
    xarray.DataTree
        Lazy. `tree["subj01"].to_dataset()` is what open_dataset gives, with regions and z-scores in its `nsd`.

    Raises
    ------
    ConfigError
        An option that is not taken.
    StoreError
        Missing, something else; or a subject that was asked for is missing or not finished.
    DamageFound
        A root document is damaged; or later, when a trial that is read is lost or damaged.

    Examples
    --------
    >>> report = nsd_zarr.convert("nsd", "nsd.zarr", subjects=[1])
    >>> tree = nsd_zarr.open_tree("nsd.zarr")
    >>> list(tree.children), tree["subj01"].betas[0].dims
    (['subj01'], ('z', 'y', 'x'))
    """
    check_options("open_tree", options, OpenOptions, others=("subjects", "raw"))
    if raw:
        options["mask_and_scale"] = False
    _check_dask("open_tree", options)
    return xr.open_datatree(path, engine=NsdZarrBackendEntrypoint, subjects=subjects, **options)
