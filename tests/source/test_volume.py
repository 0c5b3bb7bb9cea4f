"""Volumes beside the betas: transposed, checked, and where they lie."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from nsd_zarr.errors import SourceError
from nsd_zarr.source.volume import (
    Volume,
    check_shape,
    compare_affines,
    make_label_volume,
    make_mask,
    parse_volume,
)

SHAPE = (7, 5, 3)
"""(x, y, z) as NIfTI has it."""
PATH = Path("volume.nii.gz")
AFFINE = np.array([[1.8, 0, 0, -5.4], [0, 1.8, 0, -3.6], [0, 0, 1.8, -1.8], [0, 0, 0, 1]])


def write(values, affine=AFFINE, packed=True):
    data = nibabel.Nifti1Image(values, affine).to_bytes()
    return gzip.compress(data) if packed else data


def number(dtype):
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(dtype)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "<f4", "<f8"])
def test_values_are_nibabels_transposed_and_the_affine_is_kept(dtype, packed):
    values = number(dtype)
    volume = parse_volume(write(values, packed=packed), PATH)
    assert volume.values.shape == (3, 5, 7)
    assert volume.values.dtype == np.dtype(dtype).newbyteorder("=")
    assert volume.values.flags.c_contiguous
    for x, y, z in np.ndindex(SHAPE):
        assert volume.values[z, y, x] == values[x, y, z]
    assert np.allclose(volume.affine, AFFINE)


def test_scaled_values_are_what_nibabel_scales(tmp_path):
    image = nibabel.Nifti1Image(number("i2"), AFFINE)
    image.header.set_slope_inter(0.5, 3)
    nibabel.save(image, tmp_path / "scaled.nii.gz")
    volume = parse_volume((tmp_path / "scaled.nii.gz").read_bytes(), PATH)
    assert np.array_equal(volume.values, nibabel.load(tmp_path / "scaled.nii.gz").get_fdata().transpose(2, 1, 0))


def test_fourth_axis_of_length_one_is_dropped_and_a_longer_one_refused():
    assert parse_volume(write(number("i2")[..., np.newaxis]), PATH).values.shape == (3, 5, 7)
    with pytest.raises(SourceError, match=r"shape \(7, 5, 3, 2\), expected numbers of shape \(x, y, z\)"):
        parse_volume(write(np.stack([number("i2")] * 2, axis=-1)), PATH)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x1f\x8b", b"<html>", write(number("i2"))[:-30], write(number("i2"), packed=False)[:-30], bytes(400)],
    ids=["empty", "gzip alone", "markup", "cut gzip", "cut", "zeros"],
)
def test_file_that_is_no_volume_is_refused(data):
    with pytest.raises(SourceError, match="no NIfTI volume can be read from it") as caught:
        parse_volume(data, PATH)
    assert caught.value.path == PATH


def test_other_shape_is_refused_with_both():
    with pytest.raises(SourceError, match=r"shape \(3, 5, 7\) \(z, y, x\), expected \(3, 7, 5\)") as caught:
        check_shape(parse_volume(write(number("i2")), PATH), (3, 7, 5))
    assert (caught.value.found, caught.value.expected) == ((3, 5, 7), (3, 7, 5))


def _volume(affine):
    return Volume(PATH, np.zeros((3, 5, 7)), affine)


def test_affines_that_agree_say_nothing():
    assert compare_affines(_volume(AFFINE + 1e-5), _volume(AFFINE)) == ""


def test_other_origin_is_reported():
    shifted = AFFINE.copy()
    shifted[1, 3] += 0.25
    assert "origin of volume.nii.gz differs from that of volume.nii.gz by up to 0.25 mm" in compare_affines(
        _volume(shifted), _volume(AFFINE)
    )


@pytest.mark.parametrize("turn", [np.diag([-1, 1, 1, 1]), np.diag([1.01, 1, 1, 1]), np.eye(4)[[1, 0, 2, 3]]], ids=str)
def test_voxels_that_are_mirrored_turned_or_of_another_size_are_refused(turn):
    with pytest.raises(SourceError, match=r"affine .*, expected 1.8 0 0 -5.4; 0 1.8 0 -3.6; 0 0 1.8 -1.8 as in"):
        compare_affines(_volume(AFFINE @ turn), _volume(AFFINE))


@pytest.mark.parametrize("odd", [2, -1, 0.5, np.nan])
def test_mask_of_anything_but_0_and_1_is_refused(odd):
    values = np.zeros((3, 5, 7))
    values[0, 1, 2] = 1
    assert make_mask(Volume(PATH, values, AFFINE)).sum() == 1
    values[1, 1, 1] = odd
    with pytest.raises(SourceError, match=f"a mask that holds {odd}"):
        make_mask(Volume(PATH, values, AFFINE))


@pytest.mark.parametrize("odd", [0.5, np.nan, 40_000, np.inf])
def test_region_volume_of_anything_but_whole_numbers_is_refused(odd):
    values = np.full((3, 5, 7), -1.0)
    values[0, 1, 2] = 7
    assert make_label_volume(Volume(PATH, values, AFFINE)).dtype == np.int16
    values[1, 1, 1] = odd
    with pytest.raises(SourceError, match="expected whole numbers: -1 not cortex"):
        make_label_volume(Volume(PATH, values, AFFINE))
