"""The image that each trial showed: from a store of images, or from the stimulus HDF5 file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from nsd_zarr.errors import DamageFound, StoreError
from nsd_zarr.image_sets import ID_WORDS, is_synthetic
from nsd_zarr.layout import IMAGES
from nsd_zarr.loading.order import PADDING
from nsd_zarr.loading.pairing import check_same_images, find_image_ids
from nsd_zarr.loading.stimuli import StimulusImages, SyntheticImages
from nsd_zarr.places.choose import find_remote
from nsd_zarr.store.reader import StageSeconds, TrialReader
from nsd_zarr.store.root import Store, find_id_array, open_store
from nsd_zarr.store.small import read_array

AnyImages: TypeAlias = "StoreImages | StimulusImages | SyntheticImages"
"""What reads images by their 0-based id in their experiment."""


class StoreImages:
    """Reads images of a store of images. Thread-safe, fork-safe, as TrialReader."""

    def __init__(self, path: Path) -> None:
        """Raises StoreError: missing, something else, unfinished; DamageFound."""
        self.path = path
        self.store = open_store(path, kind=IMAGES)
        self._reader = TrialReader(self.store)
        self._ids = read_array(self.store, find_id_array(self.store))
        self.experiment = self.store.attributes.experiment
        """Whose images they are."""
        self.subject: int | None = self.store.attributes.settings.get("subject")
        """Whose colors those of nsdsynthetic have; None where it says nothing."""
        self._id_words = ID_WORDS[self.experiment]

    @property
    def fingerprint(self) -> str:
        """What distinguishes this store from others."""
        return self.store.fingerprint

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image: (row, column, channel)."""
        return self.store.geometry.volume_shape

    @property
    def count(self) -> int:
        """Images in the store."""
        return len(self._ids)

    def holds(self, ids: np.ndarray) -> np.ndarray:
        """Whether each of *ids* (0-based) is in the store, bool."""
        return np.isin(ids, self._ids)

    def read_into(self, nsd_id: int, out: np.ndarray, stages: StageSeconds | None = None) -> None:
        """Decode an image (0-based id) into *out*, uint8 (row, column, channel), C-contiguous.

        Raises StoreError when the store has it not, DamageFound when it is damaged, both naming its id.
        """
        row = int(np.searchsorted(self._ids, nsd_id))
        if row == len(self._ids) or self._ids[row] != nsd_id:
            raise StoreError(f"image {nsd_id} ({self._id_words}) is not in the store of images", path=self.path)
        try:
            self._reader.read_into(row, out, stages)
        except (DamageFound, StoreError) as error:
            error.problem = f"image {nsd_id} ({self._id_words}), {error.problem}"
            raise


def open_images(location: str | os.PathLike[str], subject: int | None = None) -> AnyImages:
    """Open a store of images (a folder), or the stimulus HDF5 file. Raises StoreError, SourceError, DamageFound.

    *subject*: whose colors are looked for beside the file of nsdsynthetic.
    """
    remote = find_remote(location)
    path = remote or Path(os.path.abspath(os.path.expanduser(os.fsdecode(location))))
    if remote is not None or not path.is_file():
        return StoreImages(path)
    return SyntheticImages(path, subject) if is_synthetic(path) else StimulusImages(path)


class PairedImages:
    """The images of a store's trials, found by their `nsd_id`; of nsdsynthetic by their `stimulus_id`."""

    def __init__(self, store: Store, location: str | os.PathLike[str], selection: np.ndarray | None) -> None:
        """*selection*: trials that will be asked for; None for all.

        Raises StoreError when the store of betas does not say its images, or has others than these, or when an image
        that a trial showed is missing.
        """
        self.images = open_images(location, store.attributes.origin.get("subject"))
        self.ids = find_image_ids(store, self.images)
        self._check(np.arange(store.geometry.trials) if selection is None else selection)

    @classmethod
    def join(cls, parts: Sequence[PairedImages]) -> PairedImages:
        """The images of several subjects' trials, numbered behind each other; *parts* are paired with one store.

        Raises StoreError where each has images of its own.
        """
        check_same_images([part.images for part in parts])
        joined = cls.__new__(cls)
        joined.images, joined.ids = parts[0].images, np.concatenate([part.ids for part in parts])
        return joined

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image: (row, column, channel)."""
        return self.images.shape

    def read_into(self, trial: int, out: np.ndarray, stages: StageSeconds | None = None) -> None:
        """The image that *trial* (0-based, in the store of betas) showed into *out*. Errors as its reader's."""
        self.images.read_into(int(self.ids[trial]), out, stages)

    def fill_row(self, out: np.ndarray, row: int, trials: np.ndarray, stages: StageSeconds | None = None) -> None:
        """Fill row *row* of a batch, and every other row that shows the same image: it is read once and copied.

        *out*: uint8 (rows, *shape). *trials*: trial of each row; PADDING rows become zeros. Nothing is done for a row
        whose image an earlier one shows: that row's call fills it. So rows may be filled in any order, by any threads.
        """
        ids: np.ndarray = np.where(trials == PADDING, PADDING, self.ids[trials])
        rows = np.flatnonzero(ids == ids[row]).tolist()
        if rows[0] != row:
            return
        if ids[row] == PADDING:
            out[row] = 0
        else:
            self.images.read_into(int(ids[row]), out[row], stages)
        for other in rows[1:]:
            out[other] = out[row]

    def describe(self) -> dict[str, Any]:
        """What has to be the same to go on with it elsewhere: path and fingerprint."""
        return {"path": str(self.images.path), "fingerprint": self.images.fingerprint}

    def _check(self, trials: np.ndarray) -> None:
        wanted = self.ids[trials]
        lacking = np.flatnonzero(~self.images.holds(wanted))
        if lacking.size:
            others, words = len(np.unique(wanted[lacking])) - 1, ID_WORDS[self.images.experiment]
            raise StoreError(
                f"image {wanted[lacking[0]]} ({words}), which trial {trials[lacking[0]]} showed, and {others} others "
                f"are not among its {self.images.count} images",
                hint="Make it of all images, or of this subject's (nsd-zarr images SOURCE STORE --subject), or select "
                "other trials.",
                path=self.images.path,
                found=int(wanted[lacking[0]]),
            )
