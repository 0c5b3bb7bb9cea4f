"""What a dataset holds of a store: variables that xarray compares without reading them, and of which store each is."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from xarray.core.duck_array_ops import array_equiv, lazy_array_equiv
from xarray.core.indexing import ExplicitlyIndexed

from nsd_zarr.errors import ConfigError
from nsd_zarr.read.lazy import Key, SmallArray, are_equal_keys, find_lazy
from nsd_zarr.store.root import Store

STORE = "store"
"""Coordinate along trial, and attribute of every volume: a number made of the content of the store that it is of."""
ROWS = ("trial", "image")
"""Axes of which each entry is a row of a table."""


class StoredVariable(xr.Variable):
    """A variable of a store, unread or read, of which nothing was changed: selected, ordered, copied, at most.

    What xarray computes is a plain Variable. Two of these are compared by what they are of where that says enough: so
    neither `concat` nor arithmetic reads volumes to see whether they are the same. Columns of the trial table are never
    chunked: they are small, and xarray does not group by a chunked array.
    """

    __slots__ = ("_is_changed", "_origin")

    @property
    def is_changed(self) -> bool:
        """Whether somebody set values in place."""
        return bool(getattr(self, "_is_changed", False))

    def find_origin(self) -> tuple[Any, Key] | None:
        """The array of the store and the key by which it is this variable, also once it is read; None if not known."""
        return find_lazy(self) or getattr(self, "_origin", None)

    def load(self, **options: Any) -> Any:
        """As xarray's."""
        self._origin = self.find_origin()
        return super().load(**options)

    def _replace(self, *arguments: Any, **options: Any) -> Any:
        made = super()._replace(*arguments, **options)
        made._is_changed = self.is_changed
        # Of a selection the origin is another; whoever reads by a wrong one finds other values than are here.
        is_same = made.dims == self.dims and made.shape == self.shape
        made._origin = getattr(self, "_origin", None) if is_same else None
        return made

    def equals(self, other: Any, equiv: Any = array_equiv) -> Any:
        """As xarray's; True unread for the same of the same store.

        Where no values may be read (`concat` and `merge` ask so first) volumes of two stores count as shared:
        else `concat` would repeat both for each trial. Whose they are is in their attributes; see check_origin.
        """
        known = self._compare(other)
        if known is False and equiv is lazy_array_equiv:
            return True
        return True if known else super().equals(other, equiv=equiv)  # type: ignore[no-untyped-call]

    def broadcast_equals(self, other: Any, equiv: Any = array_equiv) -> Any:
        """As xarray's; unread where that is known. Arithmetic asks so, and drops coordinates of another store."""
        known = self._compare(other)
        if known is False and equiv is lazy_array_equiv:
            return False
        return True if known else super().broadcast_equals(other, equiv=equiv)  # type: ignore[no-untyped-call]

    def no_conflicts(self, other: Any, equiv: Any = array_equiv) -> Any:
        """As xarray's; True unread for the same of the same store."""
        return True if self._compare(other) else super().no_conflicts(other, equiv=equiv)  # type: ignore[no-untyped-call]

    def fillna(self, value: Any) -> Any:
        """As xarray's; itself, unread, where *value* is the same of the same store."""
        return self if self._compare(value) else super().fillna(value)  # type: ignore[no-untyped-call]

    def set_dims(self, dim: Any, shape: Any = None) -> Any:
        """As xarray's; itself where nothing is to be added."""
        asked = (dim,) if isinstance(dim, str) else tuple(dim)
        return self if asked == self.dims else super().set_dims(dim, shape)  # type: ignore[no-untyped-call]

    def chunk(self, *arguments: Any, **options: Any) -> Any:
        """As xarray's; a column of the trial table stays what it is."""
        is_column = len(self.dims) == 1 and self.dims[0] in ROWS
        if is_column:
            return self.copy(deep=False)
        made = super().chunk(*arguments, **options)
        made._origin = self.find_origin()
        return made

    def _compare(self, other: Any) -> bool | None:
        """Whether *other* is the same of the same store; None where only values can show it."""
        other = getattr(other, "variable", other)
        if not isinstance(other, StoredVariable) or self.dims != other.dims or self.shape != other.shape:
            return None
        if _is_same_view(self, other):
            return True
        mine, others = self._attrs or {}, other._attrs or {}
        are_told = STORE in mine and STORE in others
        return False if are_told and mine[STORE] != others[STORE] else None

    def to_base_variable(self) -> Any:
        """Itself, copied: it is no index. `concat` makes all coordinates such."""
        return self.copy(deep=False)

    to_variable = to_base_variable

    # -- what changes values ---------------------------------------------------------------------------------------

    def _copy(self, deep: bool = True, data: Any = None, memo: Any = None) -> Any:
        if data is not None:
            return self._make_plain()._copy(deep=deep, data=data, memo=memo)
        return super()._copy(deep=deep, memo=memo)

    def _make_plain(self) -> xr.Variable:
        return xr.Variable(self.dims, self._data, self._attrs, self._encoding, fastpath=True)

    def shift(self, *arguments: Any, **options: Any) -> Any:
        """As xarray's; a plain Variable."""
        return self._make_plain().shift(*arguments, **options)  # type: ignore[no-untyped-call]

    def roll(self, *arguments: Any, **options: Any) -> Any:
        """As xarray's; a plain Variable."""
        return self._make_plain().roll(*arguments, **options)  # type: ignore[no-untyped-call]

    def pad(self, *arguments: Any, **options: Any) -> Any:
        """As xarray's; a plain Variable."""
        return self._make_plain().pad(*arguments, **options)

    def coarsen(self, *arguments: Any, **options: Any) -> Any:
        """As xarray's; a plain Variable."""
        return self._make_plain().coarsen(*arguments, **options)  # type: ignore[no-untyped-call]

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)  # type: ignore[no-untyped-call]
        self._is_changed = True

    @property
    def data(self) -> Any:
        """The values, as xarray gives them."""
        return xr.Variable.data.fget(self)  # type: ignore[attr-defined]

    @data.setter
    def data(self, values: Any) -> None:
        # xarray sets what it opened, wrapped, and what Dask computed; other values are set by who changes them.
        was_dask = not isinstance(self._data, (np.ndarray, ExplicitlyIndexed))
        is_changed = not was_dask and not isinstance(values, ExplicitlyIndexed)
        xr.Variable.data.fset(self, values)  # type: ignore[attr-defined]
        self._is_changed = self.is_changed or is_changed


def _is_same_view(one: xr.Variable, other: xr.Variable) -> bool:
    """Whether both are the same selection of the same array of one store, unread."""
    found, others = find_lazy(one), find_lazy(other)
    if found is None or others is None:
        return False
    (array, key), (their_array, their_key) = found, others
    if not isinstance(array, SmallArray) or not isinstance(their_array, SmallArray) or array.name != their_array.name:
        return False
    is_one_store = array.store is their_array.store or (
        array.store.location == their_array.store.location
        and make_store_number(array.store) == make_store_number(their_array.store)
    )
    mine, theirs = array.voxels, their_array.voxels
    are_same_voxels = mine is theirs or (mine is not None and theirs is not None and np.array_equal(mine, theirs))
    return is_one_store and are_same_voxels and are_equal_keys(key, their_key)


# -- of which store ----------------------------------------------------------------------------------------------


def make_store_number(store: Store) -> int:
    """A number made of the content of *store*, 31 bits: any format that xarray saves to can hold it."""
    return zlib.crc32((store.fingerprint or store.location).encode()) & 0x7FFFFFFF


def make_store_column(store: Store, trials: int) -> StoredVariable:
    """Coordinate `store`: of which store each trial is. Takes no memory."""
    about = {"long_name": "which store the trial is of: a number made of its content"}
    return StoredVariable(("trial",), np.broadcast_to(np.int32(make_store_number(store)), trials), about)


def find_stores(dataset: xr.Dataset) -> list[int]:
    """Of which stores the trials of *dataset* are, their numbers ascending; empty where that is not known."""
    if STORE not in dataset.variables:
        return []
    values = np.unique(dataset[STORE].values)
    return [int(value) for value in values if np.isfinite(value)]


def find_foreign(dataset: xr.Dataset) -> list[str]:
    """Volumes that are of another store than some of the trials of *dataset*."""
    stores = find_stores(dataset)
    marked = {str(name): each.attrs[STORE] for name, each in dataset.variables.items() if STORE in each.attrs}
    return [name for name, number in marked.items() if stores and stores != [number]]


def check_origin(dataset: xr.Dataset) -> None:
    """Refuse trials of several stores, and trials beside volumes of another store. Raises ConfigError."""
    stores = find_stores(dataset)
    if len(stores) > 1:
        raise ConfigError(
            f"these trials are of {len(stores)} stores: regions, statistics and repeats are of one",
            hint=f"Ask each store before you join them, or take one's trials: ds.isel(trial=ds.store == {stores[0]}).",
            found=stores,
        )
    if foreign := find_foreign(dataset):
        names = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        raise ConfigError(
            f"{names} of this dataset are of another store than its trials: xarray.concat keeps those of the first",
            hint="Ask the store that the trials are of, before stores are joined.",
            found=foreign,
        )


def drop_foreign(dataset: xr.Dataset) -> xr.Dataset:
    """*dataset* without the volumes that are not of the store of all its trials."""
    return dataset.drop_vars(find_foreign(dataset))


def add_store(attributes: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """*attributes* of a volume, and of which store it is."""
    return {**attributes, STORE: make_store_number(store)}
