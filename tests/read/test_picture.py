import subprocess
import sys

import numpy as np
import pytest

import nsd_zarr
from nsd_zarr.errors import ConfigError

pytest.importorskip("matplotlib")


@pytest.fixture
def ds(experiment):
    return nsd_zarr.open_dataset(experiment.path)


def find_texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_picture_of_a_trial_shows_three_slices_of_it(ds, experiment, reads, tmp_path):
    figure = ds.nsd.plot(7, at=(2, 4, 1))
    assert reads.trials == [7]
    brain = np.where(experiment.arrays["brainmask"], experiment.percent[7], np.nan)
    shown = [axes.images[0].get_array().filled(np.nan) for axes in figure.axes[:3]]
    for found, expected in zip(shown, (brain[:, :, 1], brain[:, 4], brain[2]), strict=True):
        np.testing.assert_allclose(found, expected)
    assert all(axes.images[0].origin == "lower" for axes in figure.axes[:3])
    figure.savefig(tmp_path / "trial.png")
    assert (tmp_path / "trial.png").stat().st_size > 10_000


def test_picture_says_which_side_is_which(ds):
    figure = ds.nsd.plot(7)
    assert find_texts(figure) == list("PAIS") + list("LRIS") + list("LRPA")
    at = {text.get_text(): text.get_position() for text in figure.axes[2].texts}
    assert at["L"][0] < 0.5 < at["R"][0]
    assert at["P"][1] < 0.5 < at["A"][1]
    assert figure.axes[3].get_ylabel() == "percent signal change"
    assert "session 2, trial 7" in figure.get_suptitle()


def test_colours_are_the_same_on_either_side_of_zero(ds):
    image = ds.nsd.plot(7, limit=2.5).axes[0].images[0]
    assert (image.norm.vmin, image.norm.vmax, image.cmap.name) == (-2.5, 2.5, "RdBu_r")
    image = ds.nsd.plot(7).axes[0].images[0]
    assert image.norm.vmin == -image.norm.vmax < 0
    image = ds.nsd.plot(ds.ncsnr).axes[0].images[0]
    assert image.norm.vmin == 0


def find_outline_length(axes):
    return sum(len(collection.get_segments()) for collection in axes.collections)


def test_outline_follows_the_pixels_of_the_region(ds, experiment):
    figure = ds.nsd.plot(0, roi="V2d", at=(2, 4, 1))
    mask = experiment.arrays["roi_prf-visualrois"][2] == 4
    padded = np.pad(mask, 1).astype(int)
    assert find_outline_length(figure.axes[2]) == np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded)).sum()
    assert find_outline_length(ds.nsd.plot(0, roi=None).axes[2]) == 0
    assert figure.get_supxlabel() == "outline: V2d"


def test_slices_go_where_the_region_is_widest(ds, experiment):
    figure = ds.nsd.plot(0, roi=["V2d", "V3v"])
    mask = np.isin(experiment.arrays["roi_prf-visualrois"], [4, 5])
    z = int(figure.axes[2].get_title().split("z = ")[1].split(" ")[0])
    assert mask.sum((1, 2))[z] == mask.sum((1, 2)).max()


def test_voxels_of_a_roi_and_zscores_are_drawn_in_their_volume(ds):
    scored = ds.nsd.roi("nsdgeneral").nsd.zscore()
    figure = scored.nsd.plot(3)
    assert figure.axes[3].get_ylabel() == "z-score within session"
    assert find_outline_length(figure.axes[0]) > 0
    averaged = ds.nsd.average_repeats().nsd.plot(2, title="mean")
    assert averaged.get_suptitle() == "mean"


def test_store_without_an_experiment_is_drawn_without_sides(volumes):
    figure = nsd_zarr.open_dataset(volumes.path).nsd.plot(3)
    assert find_texts(figure) == []


def test_slice_outside_or_surface_is_refused(ds, surfaces):
    with pytest.raises(IndexError, match="slice y = 11"):
        ds.nsd.plot(0, at=(0, 11, 0))
    with pytest.raises(ConfigError, match="expected z, y, x"):
        nsd_zarr.open_dataset(surfaces.path).nsd.plot(0)


def test_matplotlib_is_asked_for_with_the_cure_where_it_is_missing(experiment):
    code = (
        "import sys; sys.modules['matplotlib'] = sys.modules['matplotlib.figure'] = None\n"
        f"import nsd_zarr; nsd_zarr.open_dataset({str(experiment.path)!r}).nsd.plot(0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stderr.endswith('MissingLibrary: ds.nsd.plot needs matplotlib: pip install "nsd-zarr[plot]"\n')
