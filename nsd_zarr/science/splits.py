"""Splits into training and test trials, by image: no image is in both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nsd_zarr.errors import ConfigError, StoreError
from nsd_zarr.nsd import SESSIONS_OF_ALL, SHOWINGS

SPLITS = ("shared1000", "shared515")
"""Splits by name."""
LAST_SHOWING = SHOWINGS - 1
"""`repeat` of the third showing of an image."""


@dataclass(frozen=True, slots=True)
class Split:
    """Which trials to train on and which to test on."""

    train: np.ndarray
    """bool, shape (trial,)."""
    test: np.ndarray
    """bool, shape (trial,)."""


Column = Callable[[str], np.ndarray]
"""Reads a column of the trial table by its name in the store."""


def make_split(name: str, column: Column, images: Any = None, shared515: np.ndarray | None = None) -> Split:
    """Trials of split *name*, by the trial table that *column* reads.

    "shared1000": test on the images that all subjects were to see (10KID <= 1000). "shared515": test on those of them
    that all eight subjects saw three times. Either trains on the trials of all images that are not shared, so that
    models trained for one may be tested by the other; the other 485 shared images of "shared515" are in neither.
    *images*: 0-based 73k ids to test on instead of the rule. *shared515*: which trials are of the 515 images, where
    it is known; None where *column* reads a whole trial table, from which it follows. Raises ConfigError for another
    name.
    """
    if name not in SPLITS:
        raise ConfigError(f"split {name!r} is unknown", hint=f"Choose one of {', '.join(SPLITS)}.", found=name)
    shared = column("shared1000").astype(bool)
    if images is not None:
        chosen = np.isin(column("nsd_id"), np.asarray(images))
        return Split(~shared & ~chosen, chosen)
    known = find_shared515(column) if name == "shared515" and shared515 is None else shared515
    chosen515 = known if name == "shared515" else None
    return Split(~shared, shared if chosen515 is None else chosen515.astype(bool))


def find_shared515(column: Column) -> np.ndarray:
    """Trials of the 515 images that all eight subjects saw three times, bool of shape (trial,).

    All subjects saw their images in one order (masterordering of nsd_expdesign.mat), in which shared images have the
    same places. So what all saw three times is what came three times in the sessions that all took part in, the first
    30, and it follows from any one subject's table. Source: Allen et al. 2022 for 515; data manual, "Experiments", for
    the order. Raises StoreError where the table lacks one of those sessions.
    """
    session = column("session")
    missing = sorted(set(range(1, SESSIONS_OF_ALL + 1)) - set(np.unique(session).tolist()))
    if missing:
        raise StoreError(
            f"which 515 images all subjects saw three times follows from sessions 1 to {SESSIONS_OF_ALL}, and "
            f"{len(missing)} of them are not here, session {missing[0]} first",
            hint="Give the store the design (nsd-zarr attach STORE NSD_ROOT), take all sessions, or say which images: "
            "images=[...], 0-based 73k ids.",
            expected=SESSIONS_OF_ALL,
            found=SESSIONS_OF_ALL - len(missing),
        )
    last = column("shared1000").astype(bool) & (column("repeat") == LAST_SHOWING) & (session <= SESSIONS_OF_ALL)
    ids = column("nsd_id")
    return np.isin(ids, ids[last])


def select_split(words: str, column: Column, shared515: np.ndarray | None = None) -> np.ndarray:
    """Trials that one of the words "train", "test", "shared1000", "shared515" names, bool of shape (trial,).

    "train" and "test" are those of the split "shared1000". *shared515*: as make_split takes it. Raises
    ConfigError for another word.
    """
    named: Mapping[str, tuple[str, str]] = {
        "train": ("shared1000", "train"),
        "test": ("shared1000", "test"),
        "shared1000": ("shared1000", "test"),
        "shared515": ("shared515", "test"),
    }
    if words not in named:
        raise ConfigError(f"trials {words!r} are unknown", hint=f"Choose one of {', '.join(named)}.", found=words)
    split, side = named[words]
    chosen: np.ndarray = getattr(make_split(split, column, shared515=shared515), side)
    return chosen
