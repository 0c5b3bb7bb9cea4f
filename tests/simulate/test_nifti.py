import gzip
import struct

import nibabel
import numpy as np

from nsd_zarr.simulate.nifti import write_nifti


def test_volume_comes_back_transposed_in_ras_with_its_voxel_size(tmp_path):
    volume = np.arange(5 * 11 * 7, dtype=np.int16).reshape(5, 11, 7)
    path = tmp_path / "volume.nii.gz"
    write_nifti(path, volume, 1.8, 4 / 3)
    image = nibabel.load(path)
    assert image.shape == (7, 11, 5)
    assert image.get_data_dtype() == np.int16
    assert np.array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), volume)
    assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
    assert np.allclose(image.header.get_zooms(), 1.8)
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (0, 1)
    raw = gzip.decompress(path.read_bytes())
    assert (int(image.header["xyzt_units"]), struct.unpack_from("<f", raw, 76)) == (0, (0.0,))
    assert float(image.header["pixdim"][4]) == np.float32(4 / 3)
    assert np.allclose(image.affine @ [3, 5, 2, 1], [0, 0, 0, 1], atol=1e-5)


def test_file_holds_neither_time_nor_name(tmp_path):
    first, second = tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"
    for path in (first, second):
        write_nifti(path, np.ones((2, 3, 5), dtype=np.float32), 1.0)
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes()[3:8] == bytes(5)  # no flags (no name), time 0
