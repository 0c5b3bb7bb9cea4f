"""Whether images are those that the trials of a store showed: of the same experiment, and of the same subject."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from nsd_zarr.errors import StoreError
from nsd_zarr.image_sets import NSDIMAGERY, NSDSYNTHETIC
from nsd_zarr.loading.request import read_column
from nsd_zarr.store.format import ID_ARRAYS, STIMULUS_ID
from nsd_zarr.store.root import Store

STIMULUS_SET = "stimulus_set"
"""Array along trial that nsdimagery alone has."""
_RESTING = "restingbetas_"


class HasImages(Protocol):
    """Images, as far as it is asked here whose they are."""

    path: Path
    """Where they are."""
    experiment: str
    """The experiment that showed them."""
    subject: int | None
    """Whose colors those of nsdsynthetic have; None where it says nothing."""

    @property
    def fingerprint(self) -> str:
        """What distinguishes them from others."""


def find_image_ids(store: Store, images: HasImages) -> np.ndarray:
    """The 0-based id among *images* of the image that each trial of *store* showed, of shape (trial,).

    Raises StoreError where *store* does not say them, or where *images* are of another experiment or subject.
    """
    betas = str(store.attributes.origin.get("betas", ""))
    _check_has_images(store, betas)
    known = [name for name, array in ID_ARRAYS.items() if array in store.members]
    known += [NSDSYNTHETIC] if betas.startswith(f"{NSDSYNTHETIC}betas_") else []
    shown = known[0] if known else images.experiment
    if shown != images.experiment:
        raise StoreError(
            f"its images are of {images.experiment}, and the trials are of {shown}, which has images of its own",
            hint=f"Make a store of those: nsd-zarr images NSD_ROOT STORE --experiment {shown}, with --subject N.",
            path=images.path,
            expected=shown,
            found=images.experiment,
        )
    if shown == NSDSYNTHETIC and STIMULUS_ID not in store.members:
        raise StoreError(
            "the store does not say which image of nsdsynthetic each trial showed",
            hint="Attach the design, nsdsynthetic_expdesign.mat: nsd-zarr attach STORE NSD_ROOT.",
            path=store.path,
        )
    _check_subject(store, images)
    return read_column(store, ID_ARRAYS[shown])


def check_same_images(images: Sequence[HasImages]) -> None:
    """Refuse images that differ from subject to subject. Raises StoreError."""
    if len({each.fingerprint for each in images}) > 1:
        raise StoreError(
            f"the images of {images[0].experiment} differ from subject to subject: each saw its own colors",
            hint="Make a dataset of each subject.",
            path=images[0].path,
        )


def _check_has_images(store: Store, betas: str) -> None:
    """Refuse trials that showed no image, or of which it is not known. Raises StoreError."""
    if STIMULUS_SET in store.members or betas.startswith(f"{NSDIMAGERY}betas_"):
        raise StoreError(
            f"trials of {NSDIMAGERY} cannot be paired with images: those of imagery showed none, and no file that is "
            "read here says which image each of the others showed",
            hint="Leave out images=; `task`, `stimulus_set` and `trial_in_run` say which trial is which.",
            path=store.path,
        )
    if betas.startswith(_RESTING):
        raise StoreError("resting runs showed no images", hint="Leave out images=.", path=store.path)


def _check_subject(store: Store, images: HasImages) -> None:
    subject = store.attributes.origin.get("subject")
    if None not in (subject, images.subject) and subject != images.subject:
        raise StoreError(
            f"its images have the colors of subject {images.subject}, and the trials are of subject {subject}",
            hint=f"Make a store of that subject's: nsd-zarr images SOURCE STORE --subject {subject}.",
            path=images.path,
            expected=subject,
            found=images.subject,
        )
