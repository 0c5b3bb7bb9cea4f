"""Registers `ds.nsd` with xarray as soon as both packages are imported, in either order, without importing xarray."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

NAME = "nsd"
"""Of the accessor."""


def register_accessor() -> None:
    """Have every xarray.Dataset of this process offer `.nsd`, now or when xarray is imported.

    xarray has no entry point for accessors. Without this, a dataset that another process unpickles would have no `.nsd`
    there: unpickling imports this package, but opens nothing.
    """
    xarray = sys.modules.get("xarray")
    if xarray is None:
        sys.meta_path.insert(0, _XarrayFinder())
    else:
        _register(xarray)


def make_accessor(dataset: Any) -> Any:
    """`ds.nsd`: imports what it needs when it is asked for."""
    from nsd_zarr.read.accessor import NsdAccessor

    return NsdAccessor(dataset)


def _register(xarray: ModuleType) -> None:
    register = getattr(xarray, "register_dataset_accessor", None)
    # None: something else took the name, or xarray is only half imported.
    if register is not None and not hasattr(xarray.Dataset, NAME):
        register(NAME)(make_accessor)


class _XarrayFinder:
    """Finds xarray by the finders behind it, and registers the accessor after xarray has been imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of xarray, for the import system; None for every other module."""
        if name != "xarray":
            return None
        others = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        spec = next((spec for finder in others if (spec := finder.find_spec(name, path, target)) is not None), None)
        if spec is not None and spec.loader is not None:
            self._follow(spec.loader)
        return spec

    def _follow(self, loader: Any) -> None:
        execute = loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            del loader.exec_module
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            _register(module)

        loader.exec_module = execute_and_register
