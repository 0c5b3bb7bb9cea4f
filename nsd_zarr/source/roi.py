"""Sets of regions: their volumes, of the whole brain and of each hemisphere, and the names of their labels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nsd_zarr.errors import SourceError
from nsd_zarr.nsd import (
    HEMISPHERES,
    LABELS_ENDING,
    NIFTI_ENDINGS,
    NO_LABEL,
    NOT_CORTEX,
    TEMPLATE_LABELS_ENDING,
)
from nsd_zarr.source.forms.maps import MAP_ENDINGS

WORDS = {NOT_CORTEX: "not_cortex", NO_LABEL: "unlabelled"}
"""What the codes below the labels are called where the label file does not name them."""
_SIDES = {f"{HEMISPHERES[0]}.": "left", f"{HEMISPHERES[1]}.": "right"}
_LINE = re.compile(r"\s*(-?\d{1,5})\s+(\S.*?)(?:(?:\s+\d{1,3}){4})?\s*")
"""A line of a label file: number, name; behind them four colours in files of FreeSurfer's own making.
Source: data manual, "ROIs"."""
_NO_WORD = re.compile(r"[^A-Za-z0-9_.+@-]")
"""What a word of flag_meanings may not hold. Source: CF conventions, section 3.5."""


@dataclass(frozen=True, slots=True)
class RoiFiles:
    """Where one set of regions lies. At least one volume is there."""

    name: str
    """As in the file name: "prf-visualrois"."""
    whole: Path | None
    """The whole-brain volume."""
    left: Path | None = None
    """That of the left hemisphere."""
    right: Path | None = None
    """That of the right hemisphere."""
    labels: Path | None = None
    """The file of label names (.ctab); None when there is none."""

    @property
    def volumes(self) -> tuple[Path, ...]:
        """Every volume that is there: whole brain, left, right."""
        return tuple(path for path in (self.whole, self.left, self.right) if path is not None)

    @property
    def has_sides(self) -> bool:
        """Whether a hemisphere has a volume of its own."""
        return self.left is not None or self.right is not None


def group_rois(paths: Sequence[Path], folders: Sequence[Path]) -> Iterator[RoiFiles]:
    """Sets of regions of *paths*: those of one hemisphere and of the whole brain together."""
    sets: dict[str, dict[str, Path]] = {}
    for path in paths:
        name = strip_ending(path)
        side = _SIDES.get(name[:3], "whole")
        sets.setdefault(name if side == "whole" else name[3:], {})[side] = path
    for name in sorted(sets):
        files = sets[name]
        labels = find_labels(name, folders)
        yield RoiFiles(name, files.get("whole"), files.get("left"), files.get("right"), labels)


def find_labels(name: str, folders: Sequence[Path]) -> Path | None:
    """The file of label names of set *name* in the first of *folders* that has one."""
    paths = [
        folder / (name + (TEMPLATE_LABELS_ENDING if folder.name == "templates" else LABELS_ENDING))
        for folder in folders
    ]
    return next((path for path in paths if path.is_file()), None)


def strip_ending(path: Path) -> str:
    """The name of a file of regions without its ending, NIfTI or of a surface; empty when it is none."""
    endings = (*NIFTI_ENDINGS, *MAP_ENDINGS)
    return next((path.name[: -len(end)] for end in endings if path.name.endswith(end)), "")


def parse_labels(data: bytes, path: Path) -> dict[int, str]:
    """Label number -> name, from lines of "number name". Raises SourceError."""
    names: dict[int, str] = {}
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or not -(2**15) <= int(match[1]) < 2**15 or int(match[1]) in names:
            raise SourceError(
                f"line {number} is {line[:60]!r}, expected a label number that comes once and its name",
                hint="Give the dataset's own file, or leave it out.",
                path=path,
                found=line,
            )
        names[int(match[1])] = match[2]
    return names


def make_flags(name: str, labels: dict[int, str], values: np.ndarray, path: Path | None = None) -> dict[int, str]:
    """The words of every code of a region volume, ascending: CF's flag_values and flag_meanings.

    *labels*: from the label file, at *path*, empty without one. *values*: the codes that occur. Codes below the labels,
    and labels that occur and have no name, get one. Each is one word: what CF does not allow in one becomes "_". Raises
    SourceError when two labels become the same word.
    """
    unnamed = sorted({int(value) for value in values} - set(labels) - set(WORDS))
    words = WORDS | {value: name if unnamed == [1] and not labels else f"label_{value}" for value in unnamed} | labels
    flags = {value: _NO_WORD.sub("_", words[value]) for value in sorted(words)}
    seen: dict[str, int] = {}
    for value, word in flags.items():
        if value > NO_LABEL and word in seen:
            raise SourceError(
                f"labels {seen[word]} ({words[seen[word]]}) and {value} ({words[value]}) of {name} are both called "
                f"{word} where a name must be one word",
                hint="Name them differently in the label file, or leave the set out with --skip-roi.",
                path=path,
                found=word,
            )
        seen[word] = value
    return flags


def join_hemispheres(left: np.ndarray | None, right: np.ndarray | None) -> np.ndarray:
    """The region volume of the whole brain from those of its hemispheres: the left one, and the right one outside it.

    Outside the left hemisphere is where its volume is -1. In a volume without -1 (MTL, thalamus) it is where it has no
    label. Source: the authors' code (analysis_surfaceroistovolume.m). One hemisphere alone is taken as it is.
    """
    if left is None or right is None:
        alone = right if left is None else left
        assert alone is not None
        return alone
    outside = left == NOT_CORTEX if (left == NOT_CORTEX).any() else left == NO_LABEL
    return np.where(outside, right, left)
