"""Which voxels a region of interest has: by name, by label, or by mask.

ROI volumes are coded -1 not cortex, 0 cortex without a label, 1 and up the labels: a mask is > 0 or == label, never
!= 0. Source: data manual, "ROIs", and the authors' code.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nsd_zarr import nsd
from nsd_zarr.errors import ConfigError, StoreError
from nsd_zarr.store.format import HEMISPHERES, ROI

BRAINMASK = "brainmask"
"""The one mask that is no ROI, and may be asked for like one."""
BOTH, UNKNOWN = "both", ""
"""Hemisphere of a voxel that the files of both give its label, and of one that no such file gives it."""


@dataclass(frozen=True, slots=True)
class Region:
    """Labels of one ROI, as they were asked for."""

    roi: str
    """Name of the ROI, or BRAINMASK."""
    numbers: tuple[int, ...] | None
    """Its labels; None for all."""
    hemisphere: str | None
    """"lh" or "rh": what the file of that hemisphere labels. None: what the file of the whole brain labels."""

    def __str__(self) -> str:
        side = "" if self.hemisphere is None else f" {self.hemisphere}"
        return self.roi + ("" if self.numbers is None else f" {list(self.numbers)}") + side


@dataclass(frozen=True, slots=True)
class Atlas:
    """The ROIs of a store, and how to read one."""

    labels: Mapping[str, Mapping[str, int]]
    """Number of every label by name, by ROI."""
    sided: frozenset[str]
    """ROIs of which a hemisphere has labels of its own."""
    read: Callable[[str], np.ndarray]
    """Reads an array of the store by its name there, axes of the volume last."""

    @property
    def names(self) -> list[str]:
        """All that may be asked for."""
        return sorted({*self.labels, *(label for labels in self.labels.values() for label in labels)})

    def choose(
        self, names: Sequence[Any], labels: Sequence[str | int] | None = None, hemisphere: str | None = None
    ) -> list[Region]:
        """What *names* (ROIs or labels, or lists of them) mean; *labels*: of the one ROI named, by name or number.

        Raises ConfigError, naming what is near, for a name that is unknown, a label that several ROIs have, or one that
        an atlas alone has and that is named without it.
        """
        names = list(_flatten(names))
        if hemisphere not in (None, *nsd.HEMISPHERES):
            raise ConfigError(f"hemisphere = {hemisphere!r}", hint='Say "lh" or "rh".', found=hemisphere)
        chosen = [self._find(name) for name in names] if labels is None else [self._find_numbers(names, labels)]
        if not chosen:
            raise ConfigError("no ROI was named", hint=f"There are {', '.join(sorted(self.labels))}.")
        for roi, _ in chosen:
            if hemisphere is not None and roi not in self.sided:
                raise ConfigError(
                    f"the store does not know the hemispheres of {roi}",
                    hint=f"Attach the folder that holds {hemisphere}.{roi}.nii.gz.",
                    found=hemisphere,
                )
        return [Region(roi, None if numbers is None else tuple(numbers), hemisphere) for roi, numbers in chosen]

    def find_mask(
        self, names: Sequence[Any], labels: Sequence[str | int] | None = None, hemisphere: str | None = None
    ) -> np.ndarray:
        """Voxels of any of the regions that choose finds, bool, in the shape of a volume. Raises ConfigError."""
        return self.make_mask(self.choose(names, labels, hemisphere))

    def make_mask(self, regions: Sequence[Region]) -> np.ndarray:
        """Voxels of any of *regions*, bool, in the shape of a volume."""
        whole: np.ndarray = np.any([_make_mask(self.read_codes(region), region.numbers) for region in regions], axis=0)
        return whole

    def name_voxels(self, regions: Sequence[Region], voxels: np.ndarray) -> dict[str, np.ndarray]:
        """`roi`, `hemisphere` and `label` of *voxels* (flat indices), text: of the first of *regions* that has each."""
        named = {name: np.full(len(voxels), "", object) for name in ("roi", "hemisphere", "label")}
        for region in reversed(regions):
            codes = self.read_codes(region).reshape(-1)[voxels]
            inside = _make_mask(codes, region.numbers)
            words = {number: name for name, number in self.labels[region.roi].items()}
            named["roi"][inside] = region.roi
            named["hemisphere"][inside] = self.find_sides(region, codes, voxels)[inside]
            named["label"][inside] = [words.get(code, region.roi) for code in codes[inside].tolist()]
        return {name: values.astype(str) for name, values in named.items()}

    def find_sides(self, region: Region, codes: np.ndarray, voxels: np.ndarray) -> np.ndarray:
        """Which hemispheres' files give *voxels* (flat indices) the labels *codes*, text."""
        if region.hemisphere is not None or region.roi not in self.sided:
            return np.full(len(voxels), region.hemisphere or UNKNOWN, object)
        left, right = (side.reshape(-1)[voxels] == codes for side in self.read(HEMISPHERES + region.roi))
        words = np.array([UNKNOWN, *nsd.HEMISPHERES, BOTH], object)
        found: np.ndarray = words[left + 2 * right]
        return found

    def read_codes(self, region: Region) -> np.ndarray:
        """The label codes of every voxel that count for *region*; of BRAINMASK, booleans."""
        if region.hemisphere is None:
            return self.read(region.roi if region.roi == BRAINMASK else ROI + region.roi)
        codes: np.ndarray = self.read(HEMISPHERES + region.roi)[nsd.HEMISPHERES.index(region.hemisphere)]
        return codes

    def _find(self, name: str) -> tuple[str, list[int] | None]:
        """ROI and numbers that *name* means; None for all labels of the ROI."""
        if name in self.labels:
            return name, None
        having = [roi for roi, labels in self.labels.items() if name in labels]
        found = [roi for roi in having if roi not in nsd.ATLASES]
        if len(found) == 1:
            return found[0], [self.labels[found[0]][name]]
        if not having:
            raise self._explain_absence(name, self.names)
        ways = [f'roi("{roi}", labels="{name}")' for roi in found or having]
        if found:
            problem = f"label {name!r} is one of several ROIs: {', '.join(found)}"
        else:
            problem = f"{name!r} is a label of {' and '.join(having)}, an atlas, and not of the subject's own regions"
            ways += self._find_own(name)
        raise ConfigError(problem, hint=f"Say of which: {' or '.join(ways)}.", found=found or having)

    def _find_own(self, name: str) -> list[str]:
        """How to ask for the subject's own regions whose names begin with *name*: V1v and V1d for V1."""
        own = [label for roi in self.labels if roi not in nsd.ATLASES for label in self.labels[roi]]
        near = [f'"{label}"' for label in own if label.startswith(name)]
        return [f"roi({', '.join(near)})"] if near else []

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
    """The ROIs among arrays of *attributes*, by name.

    roi_* with their flag_values and flag_meanings, hemispheres_*, and brainmask.
    """
    labels: dict[str, dict[str, int]] = {}
    for name in sorted(attributes):
        if name == BRAINMASK:
            labels[name] = {}
        elif name.startswith(ROI):
            values = np.atleast_1d(attributes[name].get("flag_values", [])).tolist()
            meanings = str(attributes[name].get("flag_meanings", "")).split()
            labels[name.removeprefix(ROI)] = {
                meaning: int(value) for meaning, value in zip(meanings, values, strict=False) if value > 0
            }
    sided = frozenset(name.removeprefix(HEMISPHERES) for name in attributes if name.startswith(HEMISPHERES))
    return Atlas(labels, sided, read)


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


def _make_mask(codes: np.ndarray, numbers: Sequence[int] | None) -> np.ndarray:
    mask: np.ndarray = codes > 0 if numbers is None else np.isin(codes, numbers)
    return mask


def _flatten(names: Iterable[Any]) -> Iterable[str]:
    for name in names:
        if isinstance(name, (list, tuple)):
            yield from _flatten(name)
        else:
            yield name
