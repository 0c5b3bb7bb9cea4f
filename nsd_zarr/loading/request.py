"""What a loader asks for of each trial, resolved against a store: which trials, which voxels, in which form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nsd_zarr.errors import ConfigError, StoreError
from nsd_zarr.read.lazy import ReadsTrials
from nsd_zarr.read.missing import choose_complete, describe_counts, say_once
from nsd_zarr.read.percent import PercentReader, RoundedReader
from nsd_zarr.read.roi import BRAINMASK, find_voxels, make_atlas
from nsd_zarr.read.score import STD, check_statistics, count_lacking
from nsd_zarr.read.view import ViewReader
from nsd_zarr.science.selection import select_trials
from nsd_zarr.science.splits import select_split
from nsd_zarr.store.digest import make_digest
from nsd_zarr.store.foreign.reader import AnyReader, make_reader
from nsd_zarr.store.format import SHARED515, STIMULUS_ID
from nsd_zarr.store.root import Store
from nsd_zarr.store.small import read_array

MISSING = ("zero", "nan", "drop")
"""What voxels without data may become."""
TABLE = ("nsd_id", "image_10k", "repeat", "shared1000", STIMULUS_ID)
"""Columns of the trial table that go with each sample, where the store has them."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for of each trial. Small and picklable where regions are given by name."""

    roi: Any = None
    """Name of a ROI or label, several, {ROI: labels}, a mask (volume), flat voxel indices; None for all voxels."""
    zscore: str | None = None
    """"session", or None."""
    raw: bool = False
    """Whether stored counts are asked for."""
    form: str | None = None
    """"float32", "float16", "bfloat16"; None for what the store gives."""
    zscore_trials: np.ndarray | None = None
    """Trials of the store from which the z-score's statistics are taken; None for all of each session."""
    missing: str = "zero"
    """What a voxel without data in a session is: "zero", "nan", or "drop" (it leaves the region)."""
    hemisphere: str | None = None
    """"lh" or "rh": what the file of that hemisphere labels; None: what the file of the whole brain labels."""

    def __post_init__(self) -> None:
        if self.zscore not in (None, "session"):
            raise ConfigError(f"z-scores by {self.zscore!r}, expected 'session'", hint='Say zscore="session".')
        if self.zscore and self.raw:
            raise ConfigError("counts cannot be z-scored", hint="Leave out raw=True: percent signal change can.")
        if self.zscore_trials is not None and not self.zscore:
            raise ConfigError("zscore_trials without a z-score", hint='Say zscore="session" as well.')
        if self.missing not in MISSING:
            raise ConfigError(f"missing {self.missing!r}, expected {' or '.join(MISSING)}", hint='Say missing="zero".')
        if self.missing == "nan" and self.raw:
            raise ConfigError("counts cannot be NaN", hint="Leave out raw=True: percent signal change can.")
        if self.missing == "drop" and self.roi is None:
            raise ConfigError("voxels of a whole volume cannot be dropped", hint='Name a region: roi="nsdgeneral".')
        if self.hemisphere is not None and not _is_named(self.roi):
            raise ConfigError(
                f"hemisphere = {self.hemisphere!r} without a region that is named",
                hint='A hemisphere is one of a ROI or label: roi="nsdgeneral", hemisphere="lh".',
            )

    def resolve(self, store: Store, selection: np.ndarray | None) -> Request:
        """The same with the region as flat voxel indices where voxels are dropped; says what lacks data, once.

        *selection*: trials that will be read, None for all. Raises ConfigError, StoreError, DamageFound.
        """
        if STD not in store.members:
            if self.missing != "zero":
                check_statistics(store)
            return self
        positions = self._find_positions(store, selection)
        voxels, sessions = self.find_voxels(store), len(positions)
        if self.missing != "drop" and "://" in store.location:
            return self  # Not to fetch the statistics of every session for a sentence.
        counts = count_lacking(make_reader(store), voxels, positions).reshape(-1)
        if self.missing == "drop":
            assert voxels is not None
            return replace(self, roi=voxels[choose_complete(counts, sessions)], hemisphere=None)
        if voxels is None and BRAINMASK in store.members:
            counts = counts[read_array(store, BRAINMASK).reshape(-1)]
        if text := describe_counts(counts, sessions):
            say_once(f"{store.location}: {text}; they are {'0' if self.missing == 'zero' else 'NaN'} there")
        return self

    def _find_positions(self, store: Store, selection: np.ndarray | None) -> np.ndarray:
        """Places of the sessions that will be read; each must have a trial to take statistics from."""
        per_session = store.geometry.trials_per_session
        positions = (
            np.arange(len(store.geometry.sessions)) if selection is None else np.unique(selection // per_session)
        )
        known = positions if self.zscore_trials is None else self.zscore_trials // per_session
        if without := sorted(set(positions.tolist()) - set(known.tolist())):
            raise ConfigError(
                "none of the trials that the z-score's statistics are to be taken from is of this session",
                hint="Give zscore_trials of every session that is read.",
                session=store.geometry.sessions[without[0]],
            )
        return positions

    def find_voxels(self, store: Store) -> np.ndarray | None:
        """Flat C-order indices of the voxels that are asked for, intp; None for all. Raises ConfigError, StoreError."""
        return find_region(store, self.roi, self.hemisphere)

    def make_reader(self, store: Store) -> tuple[ReadsTrials, tuple[int, ...]]:
        """What reads trials of *store* so, and the shape of one. Raises ConfigError, StoreError, DamageFound."""
        counts = make_reader(store)
        view = ViewReader(counts, voxels=self.find_voxels(store), raw=self.raw)
        if self.zscore:
            # Shuffled trials come from any session: all statistics are kept.
            view = view.score(self.zscore_trials, zeros=self.missing == "zero", keep_bytes=None)
        elif not self.raw and STD in store.members and self.missing != "drop":
            view = view.fill_missing(0.0 if self.missing == "zero" else np.nan)
        is_plain = self.roi is None and not self.zscore and view.missing is None
        reader: AnyReader | PercentReader | ViewReader = view
        if is_plain:
            reader = counts if self.raw else PercentReader(counts)
        if self.form is None or self.form == reader.dtype.name or reader is counts:
            return reader, view.shape
        return RoundedReader(reader, self.form), view.shape

    def format_options(self) -> list[str]:
        """What of it is not as stored, as options for people: names as they are, masks and indices by their shape."""
        roi = f"array of shape {np.shape(self.roi)}" if hasattr(self.roi, "shape") else repr(self.roi)
        options = [] if self.roi is None else [f"roi={roi if len(roi) <= 80 else f'{roi[:77]}...'}"]
        options += [] if self.hemisphere is None else [f"hemisphere={self.hemisphere!r}"]
        return options + ([f"zscore={self.zscore!r}"] if self.zscore else [])

    def describe(self, store: Store) -> str:
        """What distinguishes this request's values from others of the same store; empty where all is as stored."""
        if self.roi is None and self.zscore is None and self.missing == "zero":
            return ""
        voxels, trials = self.find_voxels(store), self.zscore_trials
        chosen = ("all" if each is None else make_digest(np.ascontiguousarray(each)) for each in (voxels, trials))
        return f" {' '.join(chosen)} {self.zscore} {self.missing}"


def find_region(store: Store, roi: Any, hemisphere: str | None = None) -> np.ndarray | None:
    """Flat C-order voxel indices, intp, of a region as Request has it; None for all voxels."""
    if roi is None:
        return None
    shape = store.geometry.volume_shape
    if _is_named(roi):
        return find_voxels(_find_named(store, roi, hemisphere), shape)
    chosen = np.asarray(roi)
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu" or chosen.shape == shape:
        return find_voxels(chosen, shape)
    return select_trials(chosen, store.geometry.voxels).astype(np.intp)


def _find_named(store: Store, roi: Any, hemisphere: str | None) -> np.ndarray:
    """Voxels of a ROI or label, of several, or of {ROI: labels}; bool, in the shape of a volume."""
    attributes = {name: metadata.attributes for name, metadata in store.members.items()}
    atlas = make_atlas(attributes, lambda name: read_array(store, name))
    if not isinstance(roi, Mapping):
        return atlas.find_mask(_listed(roi), hemisphere=hemisphere)
    masks = [atlas.find_mask([name], _listed(labels), hemisphere) for name, labels in roi.items()]
    joined: np.ndarray = np.any(masks, axis=0)
    return joined


def find_trials(store: Store, trials: Any) -> np.ndarray | None:
    """Trials of *store*: a word such as "train", booleans or numbers; None for all."""
    if trials is None:
        return None
    if isinstance(trials, str):
        known = read_array(store, SHARED515) if SHARED515 in store.members else None
        return np.flatnonzero(select_split(trials, lambda name: read_column(store, name), known))
    return select_trials(trials, store.geometry.trials)


def read_column(store: Store, name: str) -> np.ndarray:
    """A column of the trial table. Raises StoreError when the store has none."""
    if name not in store.members:
        raise StoreError(
            f"the store has no {name}, a column of the trial table",
            hint="Convert from an NSD root folder, which has it, or give trials as booleans or numbers.",
            path=store.path,
        )
    return read_array(store, name)


def read_table(store: Store) -> dict[str, np.ndarray]:
    """Columns of TABLE that the store has, each of shape (trial,)."""
    return {name: read_array(store, name) for name in TABLE if name in store.members}


def _is_named(roi: Any) -> bool:
    if isinstance(roi, (str, Mapping)):
        return True
    return isinstance(roi, Sequence) and all(isinstance(name, str) for name in roi)


def _listed(words: Any) -> list[Any]:
    return [words] if isinstance(words, (str, int, np.integer)) else list(words)
