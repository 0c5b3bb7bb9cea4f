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

from nsd_zarr.registration import register_accessor

if TYPE_CHECKING:
    from nsd_zarr.conversion.events import (
        Event,
        Listener,
        RunStarted,
        SessionDone,
        TrialsDone,
        TrialsRead,
        WaitingForWorkers,
    )
    from nsd_zarr.conversion.experiment.files import ExperimentReport
    from nsd_zarr.conversion.images import ImagesReport, convert_images
    from nsd_zarr.conversion.plan import Plan
    from nsd_zarr.conversion.run import ConversionReport
    from nsd_zarr.conversion.subjects.plan import SubjectsPlan
    from nsd_zarr.errors import (
        ConfigError,
        DamageFound,
        DoesNotFit,
        MissingLibrary,
        NsdZarrError,
        ResumeRefused,
        SourceError,
        StoreError,
    )
    from nsd_zarr.exports.run import ExportReport, export
    from nsd_zarr.maintenance.attach import AttachReport, attach
    from nsd_zarr.maintenance.convert import convert, plan
    from nsd_zarr.maintenance.damage import Damage
    from nsd_zarr.maintenance.repair import RepairReport, repair
    from nsd_zarr.maintenance.verify import VerifyReport, verify
    from nsd_zarr.options import (
        AttachOptions,
        ConvertOptions,
        ExportOptions,
        ImagesOptions,
        RepairOptions,
        VerifyOptions,
    )
    from nsd_zarr.read.dataset import OpenOptions, open_dataset, open_tree
    from nsd_zarr.report.numbers import Report
    from nsd_zarr.report.run import make_report

__all__ = [
    "AttachOptions",
    "AttachReport",
    "ConfigError",
    "ConversionReport",
    "ConvertOptions",
    "Damage",
    "DamageFound",
    "DoesNotFit",
    "Event",
    "ExperimentReport",
    "ExportOptions",
    "ExportReport",
    "ImagesOptions",
    "ImagesReport",
    "Listener",
    "MissingLibrary",
    "NsdZarrError",
    "OpenOptions",
    "Plan",
    "RepairOptions",
    "RepairReport",
    "Report",
    "ResumeRefused",
    "RunStarted",
    "SessionDone",
    "SourceError",
    "StoreError",
    "SubjectsPlan",
    "TrialsDone",
    "TrialsRead",
    "VerifyOptions",
    "VerifyReport",
    "WaitingForWorkers",
    "__version__",
    "attach",
    "convert",
    "convert_images",
    "export",
    "make_report",
    "open_dataset",
    "open_tree",
    "plan",
    "repair",
    "verify",
]

_HOMES = {
    "convert": "nsd_zarr.maintenance.convert",
    "plan": "nsd_zarr.maintenance.convert",
    "Event": "nsd_zarr.conversion.events",
    "Listener": "nsd_zarr.conversion.events",
    "RunStarted": "nsd_zarr.conversion.events",
    "SessionDone": "nsd_zarr.conversion.events",
    "TrialsDone": "nsd_zarr.conversion.events",
    "TrialsRead": "nsd_zarr.conversion.events",
    "WaitingForWorkers": "nsd_zarr.conversion.events",
    "ExperimentReport": "nsd_zarr.conversion.experiment.files",
    "ImagesReport": "nsd_zarr.conversion.images",
    "convert_images": "nsd_zarr.conversion.images",
    "Plan": "nsd_zarr.conversion.plan",
    "SubjectsPlan": "nsd_zarr.conversion.subjects.plan",
    "ConversionReport": "nsd_zarr.conversion.run",
    "ConfigError": "nsd_zarr.errors",
    "DamageFound": "nsd_zarr.errors",
    "DoesNotFit": "nsd_zarr.errors",
    "MissingLibrary": "nsd_zarr.errors",
    "NsdZarrError": "nsd_zarr.errors",
    "ResumeRefused": "nsd_zarr.errors",
    "SourceError": "nsd_zarr.errors",
    "StoreError": "nsd_zarr.errors",
    "ExportReport": "nsd_zarr.exports.run",
    "export": "nsd_zarr.exports.run",
    "AttachReport": "nsd_zarr.maintenance.attach",
    "attach": "nsd_zarr.maintenance.attach",
    "Damage": "nsd_zarr.maintenance.damage",
    "RepairReport": "nsd_zarr.maintenance.repair",
    "repair": "nsd_zarr.maintenance.repair",
    "VerifyReport": "nsd_zarr.maintenance.verify",
    "verify": "nsd_zarr.maintenance.verify",
    "AttachOptions": "nsd_zarr.options",
    "ConvertOptions": "nsd_zarr.options",
    "ExportOptions": "nsd_zarr.options",
    "ImagesOptions": "nsd_zarr.options",
    "RepairOptions": "nsd_zarr.options",
    "VerifyOptions": "nsd_zarr.options",
    "Report": "nsd_zarr.report.numbers",
    "make_report": "nsd_zarr.report.run",
    "OpenOptions": "nsd_zarr.read.dataset",
    "open_dataset": "nsd_zarr.read.dataset",
    "open_tree": "nsd_zarr.read.dataset",
}
"""The module of each public name."""


def __getattr__(name: str) -> Any:
    # On demand, so that importing the package costs nothing and pulls in neither Dask nor xarray.
    if name in _HOMES:
        from nsd_zarr.libraries import explain_absence

        with explain_absence(f"nsd_zarr.{name}"):
            return getattr(import_module(_HOMES[name]), name)
    if name == "__version__":
        return import_module("importlib.metadata").version("nsd-zarr")
    raise AttributeError(f"module 'nsd_zarr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


register_accessor()
