"""One set of regions: its volume, from one file or one of each hemisphere, and the names of its labels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nsd_zarr.errors import SourceError
from nsd_zarr.nsd import NO_LABEL, NOT_CORTEX

WORDS = {NOT_CORTEX: "not_cortex", NO_LABEL: "unlabelled"}
"""What the codes below the labels are called where the label file does not name them."""
_LINE = re.compile(r"\s*(-?\d{1,5})\s+(\S.*?)(?:(?:\s+\d{1,3}){4})?\s*")
"""A line of a label file: number, name; behind them four colours in files of FreeSurfer's own making.
Source: data manual, "ROIs"."""
_NO_WORD = re.compile(r"[^A-Za-z0-9_.+@-]")
"""What a word of flag_meanings may not hold. Source: CF conventions, section 3.5."""


@dataclass(frozen=True, slots=True)
class RoiFiles:
    """Where one set of regions lies."""

    name: str
    """As in the file name: "prf-visualrois"."""
    volumes: tuple[Path, ...]
    """The whole-brain volume; or those of left and right hemisphere, in this order."""
    labels: Path | None
    """The file of label names (.mgz.ctab); None when there is none."""


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


def make_flags(name: str, labels: dict[int, str], values: np.ndarray) -> dict[int, str]:
    """The words of every code of a region volume, ascending: CF's flag_values and flag_meanings.

    *labels*: from the label file, empty without one. *values*: the codes that occur. Codes below the labels, and
    labels that occur and have no name, get one. Each is one word: what CF does not allow in one becomes "_".
    """
    unnamed = sorted({int(value) for value in values} - set(labels) - set(WORDS))
    words = WORDS | {value: name if unnamed == [1] and not labels else f"label_{value}" for value in unnamed} | labels
    return {value: _NO_WORD.sub("_", words[value]) for value in sorted(words)}


def join_hemispheres(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """One region volume from those of both hemispheres: the left one's label, else the right one's, else the larger.

    So a voxel is cortex when it is in either.
    """
    return np.where(left > NO_LABEL, left, np.maximum(left, right))
