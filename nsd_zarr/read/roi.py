"""Which voxels a region of interest has: by name, by label, or by mask.

ROI volumes are coded -1 not cortex, 0 cortex without a label, 1 and up the labels: a mask is > 0 or == label, never
!= 0. Source: data manual, "ROIs", and the authors' code.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nsd_zarr.errors import ConfigError, StoreError

PREFIX = "roi_"
"""Of the names of ROI arrays in a store."""
BRAINMASK = "brainmask"
"""The one mask that is no ROI, and may be asked for like one."""

ATLASES = ("Kastner2015", "HCP_MMP1")
"""ROIs that are an atlas of other people, fitted to the subject. The rest were mapped in the subject's own data (data
manual, "ROIs"), and win where both know a label: prf-visualrois and Kastner2015 both have V1v to hV4."""


@dataclass(frozen=True, slots=True)
class Atlas:
    """The ROIs of a store, and how to read one."""

    labels: Mapping[str, Mapping[str, int]]
    """Number of every label by name, by ROI."""
    read: Callable[[str], np.ndarray]
    """Reads an array of the store by its name there."""

    @property
    def names(self) -> list[str]:
        """All that may be asked for."""
        return sorted({*self.labels, *(label for labels in self.labels.values() for label in labels)})

    def find_mask(self, names: Sequence[str], labels: Sequence[str | int] | None = None) -> np.ndarray:
        """Voxels of any of the ROIs or labels *names*, bool, in the shape of a volume.

        *labels*: of the one ROI named, by name or number. Raises ConfigError, naming what is near, for a name that is
        unknown or a label that several ROIs have; but one of the subject's own ROIs wins over ATLASES.
        """
        chosen = [self._find(name) for name in names] if labels is None else [self._find_numbers(names, labels)]
        masks = [_make_mask(self.read(_name_array(roi)), numbers) for roi, numbers in chosen]
        if not masks:
            raise ConfigError("no ROI was named", hint=f"There are {', '.join(sorted(self.labels))}.")
        whole: np.ndarray = np.any(masks, axis=0)
        return whole

    def _find(self, name: str) -> tuple[str, list[int] | None]:
        """ROI and numbers that *name* means; None for all labels of the ROI."""
        if name in self.labels:
            return name, None
        having = [roi for roi, labels in self.labels.items() if name in labels]
        found = [roi for roi in having if roi not in ATLASES] or having
        if len(found) > 1:
            raise ConfigError(
                f"label {name!r} is one of several ROIs: {', '.join(found)}",
                hint="Say of which: " + " or ".join(f'roi("{roi}", labels=["{name}"])' for roi in found) + ".",
                found=found,
            )
        if not found:
            raise self._explain_absence(name, self.names)
        return found[0], [self.labels[found[0]][name]]

    def _find_numbers(self, names: Sequence[str], labels: Sequence[str | int]) -> tuple[str, list[int] | None]:
        if len(names) != 1:
            raise ConfigError(f"labels of {len(names)} ROIs, expected one ROI", hint="Name the ROI that has them.")
        if names[0] not in self.labels:
            raise self._explain_absence(names[0], list(self.labels))
        known = self.labels[names[0]]
        if unknown := [label for label in labels if isinstance(label, str) and label not in known]:
            raise self._explain_absence(unknown[0], list(known))
        numbers = [known[label] if isinstance(label, str) else int(label) for label in labels]
        if wrong := [number for number in numbers if number < 1]:
            raise ConfigError(f"{wrong[0]} is no label: labels are numbered from 1", hint="0 and -1 are outside.")
        return names[0], numbers

    def _explain_absence(self, name: str, among: Sequence[str]) -> Exception:
        if not self.labels:
            return StoreError(
                f"the store has no ROI volumes, so {name!r} is unknown",
                hint="Convert from an NSD root folder, which has them, or give a mask.",
            )
        near = difflib.get_close_matches(str(name), among, n=5, cutoff=0.5) or sorted(among)
        return ConfigError(f"ROI or label {name!r} is unknown", hint=f"There are {', '.join(near)}.", found=name)


def make_atlas(attributes: Mapping[str, Mapping[str, Any]], read: Callable[[str], np.ndarray]) -> Atlas:
    """The ROIs among arrays of *attributes*, by name: roi_* with their flag_values and flag_meanings, and brainmask."""
    labels: dict[str, dict[str, int]] = {}
    for name in sorted(attributes):
        if name == BRAINMASK:
            labels[name] = {}
        elif name.startswith(PREFIX):
            values = np.atleast_1d(attributes[name].get("flag_values", [])).tolist()
            meanings = str(attributes[name].get("flag_meanings", "")).split()
            labels[name.removeprefix(PREFIX)] = {
                meaning: int(value) for meaning, value in zip(meanings, values, strict=False) if value > 0
            }
    return Atlas(labels, read)


def find_voxels(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Flat C-order indices, intp, of the voxels where *mask*, of a volume's *shape*, is True or > 0.

    Raises ConfigError for another shape, or when no voxel is left.
    """
    if mask.shape != shape:
        raise ConfigError(
            f"a mask of shape {mask.shape}, expected {shape}",
            hint="NIfTI volumes are (x, y, z): transpose them to (z, y, x).",
            expected=shape,
            found=mask.shape,
        )
    voxels = np.flatnonzero(mask if mask.dtype == bool else mask > 0)
    if not voxels.size:
        raise ConfigError("no voxel is in the region asked for", hint="Look at its volume: a mask is > 0.")
    return voxels


def _make_mask(values: np.ndarray, numbers: list[int] | None) -> np.ndarray:
    mask: np.ndarray = values > 0 if numbers is None else np.isin(values, numbers)
    return mask


def _name_array(roi: str) -> str:
    return roi if roi == BRAINMASK else PREFIX + roi
