"""Images that several subjects saw, joined by their number: which of whose trials showed each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NONE = -1
"""Stands where a subject has fewer showings of an image than another."""


@dataclass(frozen=True, slots=True)
class SharedImages:
    """Images of which every subject has trials."""

    nsd_id: np.ndarray
    """0-based 73k ids, ascending, int64 (image,)."""
    subjects: tuple[int, ...]
    """Subjects, ascending."""
    samples: np.ndarray
    """Which samples show the image, int64 (image, subject, showing), in the order of the samples; -1 where there are
    fewer."""

    def __len__(self) -> int:
        return len(self.nsd_id)


def join_images(ids: np.ndarray, subjects: np.ndarray) -> SharedImages:
    """The images that each subject was shown. *ids*: 0-based 73k id of each sample; *subjects*: whose sample it is."""
    numbers = np.unique(subjects)
    shared = np.unique(ids)
    for number in numbers:
        shared = np.intersect1d(shared, ids[subjects == number], assume_unique=False)
    row = np.searchsorted(shared, ids)
    row[row == len(shared)] = 0
    kept = np.flatnonzero(shared[row] == ids) if len(shared) else np.array([], np.intp)
    place = row[kept], np.searchsorted(numbers, subjects[kept])
    # Numbers each showing of a pair of image and subject, in the order of the samples.
    pair = place[0] * len(numbers) + place[1]
    order = np.argsort(pair, kind="stable")
    begins = np.searchsorted(pair[order], pair[order], "left")
    showing = np.empty(len(kept), np.intp)
    showing[order] = np.arange(len(kept)) - begins
    samples = np.full((len(shared), len(numbers), int(showing.max(initial=-1)) + 1), NONE)
    samples[(*place, showing)] = kept
    return SharedImages(shared.astype(np.int64), tuple(numbers.tolist()), samples)
