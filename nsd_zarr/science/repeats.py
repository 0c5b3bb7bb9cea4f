"""Repeats: which trials showed the same image, and the mean over them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nsd_zarr.errors import ConfigError

NONE = -1
"""Stands for "no further showing" in a table of repeats."""


@dataclass(frozen=True, slots=True)
class Repeats:
    """Trials sorted by image; images in the order in which they first come."""

    ids: np.ndarray
    """Id of each image, shape (image,)."""
    trials: np.ndarray
    """Position of each showing among the trials, from 0, NONE behind the last; int64, shape (image, most showings)."""
    counts: np.ndarray
    """Showings of each image, int8, shape (image,)."""

    @property
    def first(self) -> np.ndarray:
        """Position of the first showing of each image, shape (image,)."""
        first: np.ndarray = self.trials[:, 0]
        return first

    def of(self, count: int) -> np.ndarray:
        """Positions of the showings of the images that were shown *count* times, shape (image, count)."""
        chosen: np.ndarray = self.trials[self.counts == count, :count]
        return chosen


def find_repeats(ids: np.ndarray) -> Repeats:
    """Which of the trials with image ids *ids*, shape (trial,), belong together; within an image in their order.

    Raises ConfigError where there is no trial, or more showings of an image than an int8 counts.

    >>> find_repeats(np.array([46, 61, 46, 8]))
    Repeats(ids=array([46, 61,  8]), trials=array([[ 0,  2],
           [ 1, -1],
           [ 3, -1]]), counts=array([2, 1, 1], dtype=int8))
    """
    if not len(ids):
        raise ConfigError("repeats of no trial: expected at least one", hint="Widen the selection of trials.")
    _, first, inverse, counts = np.unique(ids, return_index=True, return_inverse=True, return_counts=True)
    if counts.max() > np.iinfo(np.int8).max:
        raise ConfigError(f"one image in {counts.max()} trials, expected 3 at most", hint="Are these image ids?")
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    image = rank[inverse]
    order = np.argsort(image, kind="stable")
    counts = counts[np.argsort(first, kind="stable")]
    table = np.full((len(first), counts.max()), NONE)
    table[np.arange(counts.max()) < counts[:, np.newaxis]] = order
    return Repeats(ids[table[:, 0]], table, counts.astype(np.int8))


def average_into(showings: Iterable[np.ndarray], out: np.ndarray) -> None:
    """Write the mean of the trials *showings* into *out*, in its dtype: summed in order, divided by how many there are.

    NaN stands for a showing without data, which does not count; where no showing has data the mean is NaN. The only
    place of this arithmetic. Each of *showings* is looked at before the next is asked for, so that they may come in one
    buffer.
    """
    counts = np.zeros(out.shape, np.int8)
    out[...] = 0
    for values in showings:
        known = ~np.isnan(values)
        np.add(out, values, out=out, where=known)
        counts += known
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing is known
        np.divide(out, counts.astype(out.dtype), out=out)


def average_repeats(trials: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Mean of *trials*, shape (trial, ...), over the showings of each image, shape (image, ...), float dtype kept.

    Images in the order of find_repeats; NaN as in average_into.

    >>> average_repeats(np.array([[1.0], [7.0], [2.0]]), np.array([46, 61, 46]))
    array([[1.5],
           [7. ]])
    """
    repeats = find_repeats(ids)
    out = np.empty((len(repeats.ids), *trials.shape[1:]), np.result_type(trials, np.float32))
    for row, places in zip(out, repeats.trials, strict=True):
        average_into((trials[place] for place in places if place != NONE), row)
    return out
