"""The example that users copy reaches the planted signal: its score is the noise ceiling, within sampling error."""

import re
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

import nsd_zarr
from nsd_zarr.simulate import (
    Simulation,
    make_brain_mask,
    make_image_features,
    make_images,
    make_roi,
    make_valid,
    make_voxel_truth,
    simulate_root,
)
from nsd_zarr.simulate.stimuli import create_stimulus_file

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

pytestmark = pytest.mark.xdist_group("train_encoder")

HERE = Path(__file__).parent.parent
PIPELINE, CONFIG = HERE / "pipelines/train_encoder.py", HERE / "configs/train_encoder.yaml"
RECIPE = Simulation(sessions=8, shape=(750, 13, 19, 17), seed=7, images=73_000, image_size=16)
PLANTED_FEATURES = 8
STANDARD_ERRORS = 4
"""Beyond which nothing is sampling error: once in 16,000 seeds."""


@dataclass(frozen=True)
class Encoder:
    """What the pipeline left behind."""

    scores: np.ndarray
    """Explained variance of each voxel in percent, with the sign of r."""
    ceiling: np.ndarray
    """Noise ceiling of each voxel in percent."""
    responses: np.ndarray
    """What it was tested on: means over repeats, (image, voxel)."""
    nsd_id: np.ndarray
    """0-based 73k id of each test image."""

    @property
    def r(self) -> np.ndarray:
        """Correlation of each voxel."""
        return np.sign(self.scores) * np.sqrt(np.abs(self.scores) / 100)

    @property
    def errors(self) -> np.ndarray:
        """How far each voxel is from its ceiling, in standard errors: Fisher's z has 1 / sqrt(images - 3)."""
        distance = np.arctanh(self.r) - np.arctanh(np.sqrt(self.ceiling / 100))
        return distance * np.sqrt(len(self.responses) - 3)

    @property
    def mean_error(self) -> float:
        """How far the mean voxel is from its ceiling, in standard errors of the mean.

        Noise is independent between voxels, whose part falls with their number; which images are tested is not. A voxel
        shares it with others by how alike their weights are: directions drawn evenly from all in eight dimensions have
        a mean squared cosine of 1 / 8. Taking either part for the whole variance bounds it.
        """
        return self.errors.mean() / np.sqrt(1 / len(self.scores) + 1 / PLANTED_FEATURES)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return simulate_root(tmp_path_factory.mktemp("encoder"), RECIPE)


@pytest.fixture(scope="module")
def store(root):
    nsd_zarr.convert(root.root, root.root / "subj01.zarr", subject=1)
    return root.root / "subj01.zarr"


def run_pipeline(store, images, out):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [PIPELINE.name, *map(str, (store, images, "--out", out))])
        runpy.run_path(str(PIPELINE), run_name="__main__")
    made = torch.load(out / "encoder.pt")
    test = nsd_zarr.open_dataset(store).nsd.roi("nsdgeneral", complete=True).nsd.zscore()
    test = test.nsd.split("shared1000").test.nsd.average_repeats()
    return Encoder(made["scores"].numpy(), made["ceiling"].numpy(), test.betas.values, test.nsd_id.values)


@pytest.fixture(scope="module")
def encoder(store, root, tmp_path_factory):
    out = tmp_path_factory.mktemp("encoder") / "out"
    made = run_pipeline(store, root.stimuli, out)
    assert {path.name for path in out.iterdir()} == {"encoder.pt", "encoder.png", "score.nii.gz"}
    return made


def make_whole_region():
    """Voxels of nsdgeneral that have data in all eight sessions, bool (z, y, x)."""
    valid = [make_valid(RECIPE.volume_shape, RECIPE.seed, session=session) for session in range(1, 9)]
    return (make_roi("nsdgeneral", RECIPE.volume_shape) > 0) & np.all(valid, axis=0)


def correlate(a, b):
    a, b = a - a.mean(0), b - b.mean(0)
    return (a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0))


@pytest.mark.slow
def test_encoder_scores_the_noise_ceiling_within_sampling_error(encoder):
    assert len(encoder.responses) > 200
    assert len(encoder.scores) == make_whole_region().sum()
    assert abs(encoder.mean_error) < STANDARD_ERRORS
    assert 0.7 < encoder.errors.std() < 1.3


@pytest.mark.slow
def test_encoder_comes_as_near_to_the_planted_weights_as_its_trials_allow(encoder, store):
    """On the very same responses; what is left is the error of the weights, features / trials of the noise variance."""
    region = make_whole_region()[make_brain_mask(RECIPE.volume_shape)]
    truth = make_voxel_truth(RECIPE)
    best = correlate(make_image_features(encoder.nsd_id, RECIPE.seed) @ truth.weights[region].T, encoder.responses)
    trials = int((~nsd_zarr.open_dataset(store).shared1000).sum())
    features = 3 * yaml.safe_load(CONFIG.read_text())["grid"] ** 2
    allowed = best / np.sqrt(1 + features / (trials * truth.ncsnr[region] ** 2))
    assert allowed.mean() < encoder.r.mean() < best.mean() + 0.001  # wrong weights may fit the noise, by less than that


@pytest.mark.slow
def test_encoder_of_other_images_is_seen_to_fail(store, tmp_path):
    create_stimulus_file(tmp_path / "other.hdf5", RECIPE.images, RECIPE.image_size, seed=8)
    encoder = run_pipeline(store, tmp_path / "other.hdf5", tmp_path)
    assert encoder.mean_error < -10 * STANDARD_ERRORS


@pytest.mark.slow
def test_encoder_of_a_store_without_ncsnr_computes_it(root, tmp_path):
    hidden = root.ncsnr.rename(tmp_path / root.ncsnr.name)
    nsd_zarr.convert(root.root, tmp_path / "subj01.zarr", subject=1)
    hidden.rename(root.ncsnr)
    encoder = run_pipeline(tmp_path / "subj01.zarr", root.stimuli, tmp_path)
    assert abs(encoder.mean_error) < STANDARD_ERRORS


def test_features_of_the_example_hold_the_planted_ones_up_to_rounding():
    """Linear, to half a grey level; beyond 3.5 standard deviations, once in 2,000, uint8 ends."""
    pipeline = runpy.run_path(str(PIPELINE))
    images, planted = make_images(0, 3000, 16, seed=3), make_image_features(np.arange(3000), seed=3)
    features = pipeline["describe"](torch.from_numpy(images), 4).numpy().astype(np.float64)
    design = np.column_stack([features, np.ones(len(features))])
    weights, *_ = np.linalg.lstsq(design, planted, rcond=None)
    far = (np.abs(planted) > 3.5).any(axis=1)
    assert np.abs(design @ weights - planted)[~far].max() < 1 / 36
    assert far.mean() < 0.01


def test_config_has_every_key_that_the_pipeline_asks_for_and_no_other():
    asked = set(re.findall(r"settings\.(\w+)", PIPELINE.read_text()))
    assert set(yaml.safe_load(CONFIG.read_text())) == asked


def test_pipeline_is_short_enough_to_copy():
    assert len(PIPELINE.read_text().splitlines()) < 100
