"""Images of nsdsynthetic become a store: 220 that all subjects saw, then 64 in the colors of one, by their own ids."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from builders import create_synthetic

import nsd_zarr
from nsd_zarr.errors import ConfigError, SourceError, StoreError

LAYOUTS = ["contiguous", "one image a chunk", "odd chunks", "large chunks"]


@pytest.fixture
def synthetic(tmp_path):
    return create_synthetic(tmp_path / "nsd")


def convert(source, store, **options):
    """The report, images and ids of a store, the latter two through zarr-python, the oracle."""
    report = nsd_zarr.convert_images(source, store, workers=2, **options)
    group = zarr.open_group(store, mode="r")
    assert "nsd_id" not in group
    return report, group["images"][...], group["stimulus_id"][...]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("per_shard", [None, 11, 44])
def test_all_284_images_of_a_subject_come_by_their_ids(layout, per_shard, tmp_path):
    made = create_synthetic(tmp_path / "nsd", layout=layout)
    for subject in (1, 2):
        store = tmp_path / f"{subject}.zarr"
        report, images, ids = convert(made.shared, store, subject=subject, images_per_shard=per_shard)
        assert (report.images, report.shape) == (284, (7, 5, 3))
        assert np.array_equal(images, made.values[subject])
        assert np.array_equal(ids, np.arange(284))
        assert nsd_zarr.verify(store, made.shared).is_whole
        assert nsd_zarr.verify(store, made.root).is_whole


def test_without_a_subject_come_the_images_that_all_saw(synthetic, tmp_path):
    report, images, ids = convert(synthetic.root, tmp_path / "s.zarr", experiment="nsdsynthetic")
    assert report.images == 220
    assert np.array_equal(images, synthetic.values[1][:220])
    assert np.array_equal(ids, np.arange(220))


@pytest.mark.parametrize("source", ["file", "folder", "root"])
def test_same_store_whatever_names_the_files(source, synthetic, tmp_path, digest_tree, run_cli):
    place = {"file": synthetic.shared, "folder": synthetic.shared.parent, "root": synthetic.root}[source]
    words = ("--experiment", "nsdsynthetic") if source == "root" else ()
    assert run_cli("images", place, tmp_path / "s.zarr", "--subject", 2, *words).code == 0
    convert(synthetic.shared, tmp_path / "t.zarr", subject=2, experiment="nsdsynthetic")
    assert digest_tree(tmp_path / "s.zarr") == digest_tree(tmp_path / "t.zarr")
    assert nsd_zarr.convert_images(place, tmp_path / "s.zarr", subject=2, experiment="nsdsynthetic").blocks == 0


def test_damage_is_named_by_the_id_of_nsdsynthetic_and_repaired(synthetic, tmp_path, digest_tree):
    store = tmp_path / "s.zarr"
    convert(synthetic.shared, store, subject=1, images_per_shard=110)
    before = digest_tree(store)
    for key in ("images/c/2/0/0/0", "stimulus_id/c/0"):
        (store / key).unlink()
    damages = nsd_zarr.verify(store).damages
    assert {damage.path for damage in damages} == {"images/c/2/0/0/0", "stimulus_id/c/0"}
    assert nsd_zarr.repair(store, synthetic.root).is_whole
    assert digest_tree(store) == before
    (store / "images/c/2/0/0/0").unlink()
    (damage,) = nsd_zarr.verify(store).damages
    assert str(damage).startswith("images 220 to 283 (0-based id of nsdsynthetic), images/c/2/0/0/0: ")


def test_what_is_not_the_files_of_nsdsynthetic_is_refused(synthetic, tmp_path, make_stimuli, check_refused):
    colors = synthetic.shared.with_name("nsdsynthetic_colorstimuli_subj01.hdf5")
    with pytest.raises(SourceError, match="it has 64 images, expected 220"):
        nsd_zarr.convert_images(colors, tmp_path / "s.zarr", subject=1)
    with pytest.raises(SourceError, match=r"no such file: images 220 and up.*subject 3.*colorstimuli_subj03.hdf5"):
        nsd_zarr.convert_images(synthetic.shared, tmp_path / "s.zarr", subject=3)
    with pytest.raises(ConfigError, match="images_per_shard = 50, and image 220 begins another file"):
        nsd_zarr.convert_images(synthetic.shared, tmp_path / "s.zarr", subject=1, images_per_shard=50)
    for words in ({"subjects": [1, 2]}, {"trial_table": tmp_path / "responses.tsv"}):
        with pytest.raises(ConfigError, match="each subject saw all images, some of them in its own colors"):
            nsd_zarr.convert_images(synthetic.shared, tmp_path / "s.zarr", **words)
    make_stimuli(tmp_path / "nsd_stimuli.hdf5")
    refusal = check_refused(
        3, "images", tmp_path / "nsd_stimuli.hdf5", tmp_path / "s.zarr", "--experiment=nsdsynthetic"
    )
    assert "it has 101 images, expected 220" in refusal
    refusal = check_refused(2, "images", synthetic.root, tmp_path / "s.zarr", "--experiment", "nsdimagery")
    assert "no file that is read here says which image a trial showed" in refusal
    assert "expected nsd or nsdsynthetic" in check_refused(
        2, "images", synthetic.root, tmp_path / "s.zarr", "--experiment", "prf"
    )


def test_colors_of_another_subject_are_not_taken_for_the_same(synthetic, tmp_path):
    convert(synthetic.shared, tmp_path / "s.zarr", subject=1)
    with pytest.raises(StoreError, match="subject 1, now 2"):
        nsd_zarr.convert_images(synthetic.shared, tmp_path / "s.zarr", subject=2)
    assert not nsd_zarr.verify(tmp_path / "s.zarr").damages
