"""Batches of nsdsynthetic with their images: an epoch by any loader, again after a pickle, and what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from builders import create_session, create_synthetic, make_values  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

import nsd_zarr  # noqa: E402
from nsd_zarr.errors import StoreError  # noqa: E402
from nsd_zarr.torch import TrialDataset, TrialLoader  # noqa: E402

SHAPE = (2, 3, 5)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    top = tmp_path_factory.mktemp("synthetic")
    made = create_synthetic(top / "nsd")
    betas = top / "nsd/nsddata_betas/ppdata/subj01/func1pt8mm/nsdsyntheticbetas_fithrf/betas_nsdsynthetic.hdf5"
    create_session(betas, trials=744, shape=SHAPE, session=4)
    nsd_zarr.convert(betas.parent, top / "betas.zarr", workers=1)
    nsd_zarr.convert_images(top / "nsd", top / "images.zarr", experiment="nsdsynthetic", subject=1, workers=1)
    return made


def locate(made, kind):
    return made.root.parent / "images.zarr" if kind == "store" else made.shared


@pytest.mark.parametrize("kind", ["store", "hdf5"])
def test_every_batch_has_the_images_of_its_trials(kind, made):
    dataset = TrialDataset(made.root.parent / "betas.zarr", raw=True, images=locate(made, kind))
    shown, betas, seen = made.find_shown(1), make_values(4, 744, SHAPE), []
    for loader in (TrialLoader(dataset, 32, shuffle=True, seed=5), DataLoader(pickle.loads(pickle.dumps(dataset)), 32)):
        seen = []
        for batch in loader:
            rows = batch["valid"] if "valid" in batch else slice(None)
            trials = batch["trial"][rows].numpy()
            assert np.array_equal(batch["image"][rows], shown[trials])
            assert np.array_equal(batch["betas"][rows], betas[trials])
            assert np.array_equal(batch["stimulus_id"][rows], made.ordering[trials] - 1)
            seen += trials.tolist()
        assert sorted(seen) == list(range(744))


def test_image_that_is_not_there_is_refused_when_the_dataset_is_made(made, tmp_path):
    nsd_zarr.convert_images(made.shared, tmp_path / "shared.zarr", workers=1)
    with pytest.raises(StoreError, match=r"image \d+ \(0-based id of nsdsynthetic\), which trial"):
        TrialDataset(made.root.parent / "betas.zarr", images=tmp_path / "shared.zarr")
