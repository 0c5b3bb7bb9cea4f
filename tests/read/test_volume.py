import nibabel
import numpy as np
import pytest
import xarray as xr

import nsd_zarr
from nsd_zarr.errors import ConfigError, StoreError

SHAPE = (5, 11, 3)


@pytest.fixture
def ds(experiment):
    return nsd_zarr.open_dataset(experiment.path)


def read_back(image, path):
    image.to_filename(path)
    return nibabel.load(path)


def test_trial_goes_to_nifti_and_back_in_the_right_place(ds, experiment, tmp_path, reads):
    image = read_back(ds.nsd.to_nifti(17), tmp_path / "trial.nii.gz")
    assert reads.trials == [17]
    assert image.shape == SHAPE[::-1]
    assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
    np.testing.assert_allclose(image.affine, experiment.arrays["affine"], atol=1e-6)
    assert image.get_data_dtype() == np.float32
    assert np.array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), experiment.percent[17])
    assert image.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize(("name", "dtype"), [("ncsnr", "float32"), ("roi_nsdgeneral", "int16"), ("brainmask", "uint8")])
def test_volume_goes_to_nifti_in_a_dtype_that_nifti_has(ds, experiment, tmp_path, name, dtype):
    image = read_back(ds.nsd.to_nifti(ds[name]), tmp_path / "volume.nii")
    assert image.get_data_dtype() == dtype
    found = np.asarray(image.dataobj).transpose(2, 1, 0)
    assert np.array_equal(found, experiment.arrays[name], equal_nan=dtype == "float32")


def test_array_without_coordinates_or_of_another_order_lands_in_place(ds, experiment):
    values = np.arange(165).reshape(SHAPE)
    plain = ds.nsd.to_nifti(xr.DataArray(values, dims=("z", "y", "x")))
    turned = ds.nsd.to_nifti(xr.DataArray(values, dims=("z", "y", "x")).transpose("y", "x", "z"))
    assert plain.get_data_dtype() == np.int32
    assert np.array_equal(np.asarray(plain.dataobj), np.asarray(turned.dataobj))
    assert np.array_equal(np.asarray(plain.dataobj).transpose(2, 1, 0), values)


def test_several_trials_become_a_fourth_axis(ds, experiment):
    image = ds.nsd.to_nifti(ds.betas[3:5])
    assert image.shape == (3, 11, 5, 2)
    assert np.array_equal(np.asarray(image.dataobj)[..., 1].transpose(2, 1, 0), experiment.percent[4])


@pytest.mark.parametrize("box", [{"z": slice(2, 5), "y": slice(3, 11, 2)}, {"x": slice(None, None, -1)}], ids=str)
def test_every_voxel_of_a_box_keeps_its_millimetres(ds, experiment, box):
    part = ds.betas[9].isel(box)
    image = ds.nsd.to_nifti(part)
    for place in np.ndindex(image.shape):
        x, y, z = (int(part[axis].values[index]) for axis, index in zip("xyz", place, strict=True))
        assert np.asarray(image.dataobj)[place] == experiment.percent[9, z, y, x]
        expected = experiment.arrays["affine"] @ [x, y, z, 1]
        np.testing.assert_allclose(image.affine @ [*place, 1], expected, atol=1e-6)


def test_voxels_of_a_roi_go_back_to_their_volume(ds, experiment, tmp_path):
    roi = ds.nsd.roi("V2d")
    mask = experiment.arrays["roi_prf-visualrois"] == 4
    image = read_back(roi.nsd.to_nifti(7), tmp_path / "roi.nii.gz")
    found = np.asarray(image.dataobj).transpose(2, 1, 0)
    assert np.array_equal(found, np.where(mask, experiment.percent[7], np.nan), equal_nan=True)
    volume = roi.nsd.to_volume(roi["roi_prf-visualrois"])
    assert np.array_equal(volume.values, np.where(mask, 4, 0))
    stack = roi.nsd.to_volume(roi.betas[:2])
    assert stack.dims == ("trial", "z", "y", "x")
    assert np.array_equal(stack.values[:, mask], experiment.percent[:2, mask])
    assert "nsd_id" in stack.coords


def test_voxels_of_a_part_go_back_to_the_whole_volume(ds, experiment):
    roi = ds.isel(z=slice(2, 4)).nsd.roi("nsdgeneral")
    volume = roi.nsd.to_volume(roi.betas[0])
    mask = np.zeros(SHAPE, bool)
    mask[2:4] = experiment.arrays["roi_nsdgeneral"][2:4] > 0
    assert np.array_equal(volume.values, np.where(mask, experiment.percent[0], np.nan), equal_nan=True)


def test_volume_passes_through(ds):
    assert ds.nsd.to_volume(ds.ncsnr) is ds.ncsnr or ds.nsd.to_volume(ds.ncsnr).identical(ds.ncsnr)


def test_surface_vertices_go_back(surfaces):
    ds = nsd_zarr.open_dataset(surfaces.path)
    roi = ds.nsd.roi(mask=np.arange(23) % 3 == 1)
    back = roi.nsd.to_volume(roi.betas[5])
    assert (back.dims, back.shape) == (("vertex",), (23,))
    assert np.array_equal(back.values[1::3], surfaces.percent[5][1::3])


REFUSED = {
    "too many axes": lambda ds: ds.nsd.to_nifti(ds.betas.expand_dims("subject")),
    "a plane": lambda ds: ds.nsd.to_nifti(ds.betas[0, 2]),
    "uneven": lambda ds: ds.nsd.to_nifti(ds.betas[0].isel(y=[0, 1, 5])),
    "voxels without places": lambda ds: ds.nsd.to_volume(ds.nsd.roi("V2d").betas.drop_vars(["z", "y", "x"])),
}


@pytest.mark.parametrize("name", REFUSED)
def test_array_without_a_place_is_refused(ds, name):
    with pytest.raises(ConfigError):
        REFUSED[name](ds)


def test_store_without_affine_is_refused(volumes):
    with pytest.raises(StoreError, match="no affine"):
        nsd_zarr.open_dataset(volumes.path).nsd.to_nifti(0)


def test_trial_outside_is_an_index_error(ds):
    with pytest.raises(IndexError):
        ds.nsd.to_nifti(42)
