"""What a report says, as plain data: the page shows it, `--json` prints it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of voxels, wherever a distribution is told in numbers."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a store is made of."""

    name: str
    """Name of its folder."""
    origin: dict[str, str]
    """Subject, space, betas, as far as the store knows them."""
    sessions: int
    trials: int
    shape: tuple[int, ...]
    """Of a trial."""
    dtype: str
    """As stored."""
    codec: str
    """Compression, with its level."""
    trials_per_shard: int
    files: int
    stored_bytes: int
    """Of all files."""
    decoded_bytes: int
    """Of all trials."""
    format_version: str
    made_by: dict[str, str]
    """Versions of libraries."""
    experiment: dict[str, int]
    """What is known beside the betas: how many columns, regions, maps."""
    notes: tuple[str, ...]
    """What was noticed when it was made."""
    checksum: str
    """Of the root document, by which everything else is checked."""


@dataclass(frozen=True, slots=True)
class SessionNumbers:
    """One session."""

    session: int
    source: str
    """Name of its source file."""
    stored_bytes: int
    """Of its shards."""
    compression: float
    """Decoded bytes over stored ones."""
    mean: tuple[float, ...] | None
    """QUANTILES over brain voxels with data of the mean over its trials, percent signal change; None where unknown."""
    deviation: tuple[float, ...] | None
    """The same of the standard deviation."""
    at_rails: int | None
    """Voxels that reach an end of int16, -109.23 or +109.22 %, in any trial; None where that was not counted."""
    missing: int | None
    """Brain voxels without data."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """What the images that were shown three times say."""

    images: int
    """Images with three showings."""
    voxels: int
    """Voxels that were looked at: the region, and three slices through the brain."""
    region: str
    """Name of the region."""
    ncsnr_median: float
    """Over the region, computed from these trials."""
    ncsnr_median_of_authors: float | None
    """Over the same voxels, of the dataset's own map; None where the store has none."""
    correlation_with_authors: float | None
    """Between both, over all voxels that were looked at and both know."""
    largest_difference: float | None
    """Between both."""
    showing_correlation: tuple[float, ...]
    """QUANTILES over the region of the correlation, over images, between the first and the second showing."""
    showing_correlation_expected: float
    """The median that ncsnr² / (ncsnr² + 1) of these voxels promises."""


@dataclass(frozen=True, slots=True)
class RegionNumbers:
    """The noise ceiling of one label of a region."""

    roi: str
    label: str
    voxels: int
    """Voxels with a noise ceiling."""
    ceiling: tuple[float, ...]
    """QUANTILES over them of the noise ceiling of means over three trials, percent."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verify found."""

    strength: str
    """quick or full."""
    is_whole: bool
    files: int
    damages: tuple[str, ...]
    """One line each."""
    untracked_files: int


@dataclass(frozen=True, slots=True)
class Report:
    """A report, in numbers.

    >>> report = nsd_zarr.make_report("subj01.zarr", "report.html")
    >>> report.verdict.is_whole, len(report.sessions)
    (True, 3)
    """

    contents: Contents
    """What the store is made of."""
    sessions: tuple[SessionNumbers, ...]
    """Each session, in order."""
    reliability: Reliability | None
    """None where no image was shown three times, or nobody knows which images were shown."""
    regions: tuple[RegionNumbers, ...]
    """Each label, with the store's own noise ceiling; empty where it has none."""
    verdict: Verdict
    """What verify found."""
    bench: dict[str, Any] | None
    """Figures of `nsd-zarr bench --json`, as they were given."""
    page: str = field(compare=False)
    """Where the page is."""
    seconds: float = field(compare=False)
    """Wall time of the report."""

    def __str__(self) -> str:
        verdict = "whole" if self.verdict.is_whole else "DAMAGED"
        return f"{self.page}: {self.contents.trials} trials, {verdict}, made in {self.seconds:.1f} s."

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON, for --json; what is not a number is null."""
        plain = _make_plain(asdict(self))
        assert isinstance(plain, dict)
        return plain | {"quantiles": list(QUANTILES)}


def _make_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _make_plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_make_plain(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def find_quantiles(values: np.ndarray) -> tuple[float, ...] | None:
    """QUANTILES of the finite *values*; None without any."""
    known = values[np.isfinite(values)]
    return tuple(float(each) for each in np.quantile(known, QUANTILES)) if known.size else None
