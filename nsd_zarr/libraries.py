"""Libraries that an installation may lack: which extra brings one, and what is said where it is absent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from nsd_zarr.errors import MissingLibrary

EXTRAS = {
    "h5py": "convert",
    "dask": "convert",
    "nibabel": "convert",
    "scipy": "convert",
    "pydantic": "convert",
    "yaml": "convert",
    "rich": "convert",
    "distributed": "cluster",
    "obstore": "objects",
    "fsspec": "remote",
    "torch": "torch",
    "matplotlib": "plot",
    "jinja2": "report",
    "pyarrow": "parquet",
    "numba": "speed",
}
"""The extra of pyproject.toml that brings each optional library, by the name that is imported. The one table of it."""
NAMES = {"torch": "PyTorch", "scipy": "SciPy", "yaml": "PyYAML"}
"""Names of libraries in messages, where they are not those that are imported."""


def check_library(library: str, what: str, extra: str = "") -> None:
    """Refuse *what*, such as "ds.nsd.plot", where *library* is not installed. Raises MissingLibrary with the cure.

    *extra*: the one to name, where several bring the library.
    """
    if not has_library(library):
        raise MissingLibrary(NAMES.get(library, library), what, extra or EXTRAS[library])


def check_extra(extra: str, what: str) -> None:
    """Refuse *what* where a library of *extra* is not installed. Raises MissingLibrary."""
    for library in (name for name, its_extra in EXTRAS.items() if its_extra == extra):
        check_library(library, what)


@contextmanager
def explain_absence(what: str) -> Iterator[None]:
    """Where an import inside fails for an absent library, raise MissingLibrary of *what*, such as "nsd_zarr.convert".

    Named is the first library that is absent of the same extra, so that the message does not hang on the order of
    imports.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        failed = (error.name or "").partition(".")[0]
        if failed not in EXTRAS or has_library(failed):  # A part of it may be missing: it is broken, not absent.
            raise
        check_extra(EXTRAS[failed], what)


def has_library(library: str) -> bool:
    """Whether *library* is installed. Imports nothing."""
    try:
        return find_spec(library) is not None
    except ValueError:  # imported by hand, without a specification
        return True
