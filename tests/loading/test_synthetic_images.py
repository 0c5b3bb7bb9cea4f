"""Images of nsdsynthetic and nsdimagery: trials are paired by the ids of their own experiment, or refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from builders import create_session, create_source, create_synthetic

import nsd_zarr
from nsd_zarr.errors import SourceError, StoreError
from nsd_zarr.loading.images import PairedImages, open_images
from nsd_zarr.store.root import open_store

SHAPE = (2, 3, 5)
PLACE = "nsddata_betas/ppdata/subj{:02d}/func1pt8mm/{}"
KINDS = ["store", "hdf5"]


def create_betas(root, betas, name, trials, subject=1):
    folder = root / PLACE.format(subject, betas)
    create_session(folder / name, trials=trials, shape=SHAPE, session=4)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An NSD root with the images of nsdsynthetic and its betas of two subjects; their stores."""
    top = tmp_path_factory.mktemp("synthetic")
    made = create_synthetic(top / "nsd")
    for subject in (1, 2):
        betas = create_betas(made.root, "nsdsyntheticbetas_fithrf", "betas_nsdsynthetic.hdf5", 744, subject)
        nsd_zarr.convert(betas, top / f"subj{subject:02d}.zarr", workers=1)
        nsd_zarr.convert_images(made.shared, top / f"images{subject}.zarr", subject=subject, workers=1)
    nsd_zarr.convert_images(made.shared, top / "shared.zarr", workers=1)
    return made


def locate(made, kind, subject):
    return made.root.parent / f"images{subject}.zarr" if kind == "store" else made.shared


def pair(made, images, subject=1, selection=None):
    return PairedImages(open_store(made.root.parent / f"subj{subject:02d}.zarr"), images, selection)


def read_all(paired, trials=range(744)):
    out = np.empty((len(trials), *paired.shape), np.uint8)
    for row, trial in enumerate(trials):
        paired.read_into(trial, out[row])
    return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("subject", [1, 2])
def test_trial_of_nsdsynthetic_has_the_image_of_its_design(kind, subject, made):
    paired = pair(made, locate(made, kind, subject), subject)
    assert paired.images.count == 284
    assert np.array_equal(read_all(paired), made.find_shown(subject))


@pytest.mark.parametrize("kind", KINDS)
def test_images_without_colors_are_enough_for_trials_that_showed_none(kind, made, tmp_path):
    images = made.root.parent / "shared.zarr"
    if kind == "hdf5":
        images = shutil.copy(made.shared, tmp_path)
    first = int(np.flatnonzero(made.ordering > 220)[0])
    with pytest.raises(
        StoreError, match=rf"image {made.ordering[first] - 1} \(0-based id of nsdsynthetic\), which trial {first} "
    ):
        pair(made, images)
    plain = np.flatnonzero(made.ordering <= 220)
    assert np.array_equal(read_all(pair(made, images, selection=plain), plain), made.find_shown(1)[plain])


def test_colors_of_another_subject_are_refused(made):
    with pytest.raises(StoreError, match="have the colors of subject 2, and the trials are of subject 1"):
        pair(made, locate(made, "store", 2))
    parts = [pair(made, made.shared, subject) for subject in (1, 2)]
    with pytest.raises(StoreError, match="differ from subject to subject"):
        PairedImages.join(parts)


def test_images_of_another_experiment_are_refused(made, experiment, stimulus_images):
    for kind in ("hdf5", "every"):
        with pytest.raises(StoreError, match=r"of nsd, and the trials are of nsdsynthetic.*--experiment nsdsynthetic"):
            pair(made, stimulus_images.locate(kind))
    for kind in KINDS:
        with pytest.raises(StoreError, match="its images are of nsdsynthetic, and the trials are of nsd, which has"):
            PairedImages(open_store(experiment.path), locate(made, kind, 1), None)


def test_store_of_nsdsynthetic_without_its_design_is_refused(made, tmp_path):
    betas = create_betas(tmp_path, "nsdsyntheticbetas_fithrf", "betas_nsdsynthetic.hdf5", 744)
    nsd_zarr.convert(betas, tmp_path / "s.zarr", workers=1)
    for kind in KINDS:
        with pytest.raises(StoreError, match=r"which image of nsdsynthetic each trial showed\. Attach the design"):
            PairedImages(open_store(tmp_path / "s.zarr"), locate(made, kind, 1), None)


def test_trials_of_nsdimagery_and_of_rest_are_refused(made, tmp_path, stimulus_images):
    betas = create_betas(tmp_path, "nsdimagerybetas_fithrf", "betas_nsdimagery.hdf5", 720)
    nsd_zarr.convert(betas, tmp_path / "imagery.zarr", workers=1)
    rest = create_source(tmp_path / PLACE.format(1, "restingbetas_fithrf"), (21, 22), trials=125, shape=SHAPE)
    nsd_zarr.convert(rest, tmp_path / "rest.zarr", workers=1)
    for images in (stimulus_images.every, locate(made, "store", 1), made.shared):
        with pytest.raises(StoreError, match=r"trials of nsdimagery cannot be paired.*Leave out images="):
            PairedImages(open_store(tmp_path / "imagery.zarr"), images, None)
        with pytest.raises(StoreError, match="resting runs showed no images"):
            PairedImages(open_store(tmp_path / "rest.zarr"), images, None)


def test_files_that_do_not_belong_together_are_refused(made, tmp_path):
    shutil.copy(made.shared, tmp_path)
    shutil.copy(made.shared, tmp_path / "nsdsynthetic_colorstimuli_subj01.hdf5")
    colors = made.shared.with_name("nsdsynthetic_colorstimuli_subj01.hdf5")
    with pytest.raises(SourceError, match=r"64 images, .*expected 220"):
        open_images(colors, 1)
    shutil.copy(colors, tmp_path / "nsdsynthetic_stimuli.hdf5")
    with pytest.raises(SourceError, match=r"64 images, .*expected 220"):
        open_images(tmp_path / "nsdsynthetic_stimuli.hdf5", 1)
