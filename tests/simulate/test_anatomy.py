import numpy as np
import pytest

from nsd_zarr.simulate import ROI_LABELS, make_brain_mask, make_roi, make_valid

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
    for volume in (make_brain_mask(shape), *(make_roi(name, shape) > 0 for name in ROI_LABELS)):
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


def test_valid_voxels_hold_the_brain_and_differ_between_sessions_and_subjects():
    shape = (17, 13, 19)
    volumes = [make_valid(shape, 0, subject, session) for subject in (1, 2) for session in (1, 2)]
    assert all((volume | ~make_brain_mask(shape)).all() and not volume.all() for volume in volumes)
    assert len({volume.tobytes() for volume in volumes}) == 4


def test_visual_areas_run_forward_and_upward():
    visual = make_roi("prf-visualrois", (83, 104, 81))
    centre = {label: np.argwhere(visual == label).mean(axis=0) for label in range(1, 8)}
    v1, v2, v3 = (np.mean([centre[label], centre[label + 1]], axis=0) for label in (1, 3, 5))
    assert v1[1] < v2[1] < v3[1] < centre[7][1] + 5
    assert all(centre[ventral][0] < centre[ventral + 1][0] for ventral in (1, 3, 5))


def test_nsdgeneral_of_subject_1_is_as_large_as_the_datasets():
    assert abs((make_roi("nsdgeneral", (83, 104, 81)) > 0).sum() - 15_724) < 200
