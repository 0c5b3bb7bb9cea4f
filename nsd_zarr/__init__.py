"""Turn Natural Scenes Dataset session files into one trial-chunked Zarr store, and read single trials from it.

>>> import nsd_zarr
>>> report = nsd_zarr.convert("nsd", "subj01.zarr", subject=1)
>>> ds = nsd_zarr.open_dataset("subj01.zarr")
>>> ds.betas[0].values.dtype
dtype('float32')
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nsd_zarr.conversion.images import ImagesReport, convert_images
    from nsd_zarr.conversion.run import ConversionReport, convert
    from nsd_zarr.errors import NsdZarrError
    from nsd_zarr.maintenance.attach import AttachReport, attach
    from nsd_zarr.maintenance.repair import RepairReport, repair
    from nsd_zarr.maintenance.verify import VerifyReport, verify
    from nsd_zarr.read.dataset import open_dataset

__all__ = [
    "AttachReport",
    "ConversionReport",
    "ImagesReport",
    "NsdZarrError",
    "RepairReport",
    "VerifyReport",
    "__version__",
    "attach",
    "convert",
    "convert_images",
    "open_dataset",
    "repair",
    "verify",
]

_HOMES = {
    "convert": "nsd_zarr.conversion.run",
    "ConversionReport": "nsd_zarr.conversion.run",
    "attach": "nsd_zarr.maintenance.attach",
    "AttachReport": "nsd_zarr.maintenance.attach",
    "convert_images": "nsd_zarr.conversion.images",
    "ImagesReport": "nsd_zarr.conversion.images",
    "verify": "nsd_zarr.maintenance.verify",
    "VerifyReport": "nsd_zarr.maintenance.verify",
    "repair": "nsd_zarr.maintenance.repair",
    "RepairReport": "nsd_zarr.maintenance.repair",
    "open_dataset": "nsd_zarr.read.dataset",
    "NsdZarrError": "nsd_zarr.errors",
}


def __getattr__(name: str) -> Any:
    # On demand, so that importing the package costs nothing and pulls in neither Dask nor xarray.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "__version__":
        return import_module("importlib.metadata").version("nsd-zarr")
    raise AttributeError(f"module 'nsd_zarr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
