import numpy as np
import pytest

from nsd_zarr.simulate import ROI_LABELS, make_brain_mask, make_hemisphere, make_roi, make_valid

ASYMMETRIC = ("nsdgeneral", "prf-visualrois", "streams", "floc-faces")
"""Sets large enough to be another one mirrored, in every volume."""
SHAPES = [(5, 7, 3), (5, 11, 7), (17, 13, 19), (83, 104, 81)]


@pytest.mark.parametrize("shape", [*SHAPES, (81, 95, 78), (150, 150, 100)])
def test_mask_covers_40_to_50_percent(shape):
    assert 0.4 <= make_brain_mask(shape).mean() <= 0.5


@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 3, 5), (5, 7, 3), (3, 2, 29)])
def test_tiny_mask_has_voxels_inside_and_outside(shape):
    mask = make_brain_mask(shape)
    assert mask.any()
    assert not mask.all()
    assert (make_roi("nsdgeneral", shape) == 1).any()
    assert (make_roi("prf-visualrois", shape) > 0).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_flip_along_any_axis_changes_every_volume(shape):
    for volume in (make_brain_mask(shape), *(make_roi(name, shape) > 0 for name in ASYMMETRIC)):
        for axis in range(3):
            assert not np.array_equal(volume, np.flip(volume, axis)), axis


@pytest.mark.parametrize("shape", SHAPES)
def test_rois_lie_inside_each_other_and_carry_all_labels(shape):
    mask, general, visual = make_brain_mask(shape), make_roi("nsdgeneral", shape), make_roi("prf-visualrois", shape)
    assert set(np.unique(general)) == {-1, 0, 1}
    assert set(np.unique(visual)) == {-1, 0, *range(1, 8)}
    assert np.array_equal(general == -1, visual == -1)
    assert not ((general >= 0) & ~mask).any()
    assert not ((visual > 0) & (general < 1)).any()


@pytest.mark.parametrize("name", ["streams", "floc-faces"])
@pytest.mark.parametrize("shape", SHAPES)
def test_other_rois_lie_inside_nsdgeneral_and_carry_all_labels(name, shape):
    general, roi = make_roi("nsdgeneral", shape), make_roi(name, shape)
    assert set(np.unique(roi)) == {-1, 0, *range(1, 1 + len(ROI_LABELS[name]))} - ({0} if (roi != 0).all() else set())
    assert np.array_equal(general == -1, roi == -1)
    assert not ((roi > 0) & (general < 1)).any()


def test_valid_voxels_lack_a_few_of_the_brain_and_differ_between_sessions_and_subjects():
    shape = (17, 13, 19)
    mask = make_brain_mask(shape)
    volumes = [make_valid(shape, 0, subject, session) for subject in (1, 2) for session in (1, 2)]
    assert all(0.01 < np.mean(~volume[mask]) < 0.05 for volume in volumes)
    assert len({volume.tobytes() for volume in volumes}) == 4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ROI_LABELS)
def test_hemispheres_hold_one_half_each_and_join_by_the_datasets_rule(name, shape):
    whole = make_roi(name, shape)
    left, right = (make_hemisphere(name, shape, side) for side in ("lh", "rh"))
    outside = 0 if name in ("MTL", "thalamus") else -1
    assert whole.min() == outside
    middle = (shape[2] + 1) // 2
    assert (left[:, :, middle:] == outside).all()
    assert (right[:, :, :middle] == outside).all()
    # Source: analysis_surfaceroistovolume.m: the left one, and the right one where the left one is not cortex.
    assert np.array_equal(np.where(left == outside, right, left), whole)


def test_large_volume_has_every_label_in_both_hemispheres():
    shape = (33, 40, 32)
    counts = {"HCP_MMP1": 180, "Kastner2015": 25, "corticalsulc": 28, "MTL": 10, "thalamus": 5, "streams": 7}
    counts |= {"floc-faces": 5, "floc-words": 5, "floc-places": 3, "floc-bodies": 4, "nsdgeneral": 1}
    for name, labels in counts.items():
        for side in ("lh", "rh"):
            volume = make_hemisphere(name, shape, side)
            assert set(np.unique(volume[volume > 0])) == set(range(1, labels + 1)), (name, side)


@pytest.mark.parametrize("shape", SHAPES)
def test_eccentricities_cover_what_the_visual_areas_cover(shape):
    assert np.array_equal(make_roi("prf-eccrois", shape) > 0, make_roi("prf-visualrois", shape) > 0)


@pytest.mark.parametrize("name", ["MTL", "thalamus"])
def test_sets_drawn_in_the_volume_lie_below_cortex(name):
    shape = (17, 13, 19)
    cortex = make_roi("nsdgeneral", shape) >= 0
    assert not ((make_roi(name, shape) > 0) & cortex).any()


def test_visual_areas_run_forward_and_upward():
    visual = make_roi("prf-visualrois", (83, 104, 81))
    centre = {label: np.argwhere(visual == label).mean(axis=0) for label in range(1, 8)}
    v1, v2, v3 = (np.mean([centre[label], centre[label + 1]], axis=0) for label in (1, 3, 5))
    assert v1[1] < v2[1] < v3[1] < centre[7][1] + 5
    assert all(centre[ventral][0] < centre[ventral + 1][0] for ventral in (1, 3, 5))


def test_nsdgeneral_of_subject_1_is_as_large_as_the_datasets():
    assert abs((make_roi("nsdgeneral", (83, 104, 81)) > 0).sum() - 15_724) < 200
