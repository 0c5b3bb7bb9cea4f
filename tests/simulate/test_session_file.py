import struct

import h5py
import numpy as np
import pytest

from nsd_zarr.simulate.session_file import count_steps, create_session_file

SHAPE = (13, 5, 11, 7)


def make_betas(shape=SHAPE):
    """Values that tell their place: no two are equal."""
    return (np.arange(np.prod(shape)).reshape(shape) - 3001).astype("i2")


def create(path, betas, layout):
    steps = []
    slabs = (np.ascontiguousarray(np.moveaxis(betas[:, z], 0, 2)) for z in range(betas.shape[1]))
    create_session_file(path, betas.shape, layout, slabs, lambda: steps.append(1))
    return len(steps)


@pytest.mark.parametrize("layout", ["nsd", "contiguous", "gzip"])
def test_every_value_comes_back_at_its_place(tmp_path, layout):
    betas = make_betas()
    path = tmp_path / "betas.hdf5"
    assert create(path, betas, layout) == count_steps(layout, SHAPE)
    with h5py.File(path) as file:
        assert np.array_equal(file["betas"][...], betas)
    assert [file.name for file in tmp_path.iterdir()] == ["betas.hdf5"]


@pytest.mark.parametrize("layout", ["nsd", "contiguous", "gzip"])
def test_file_has_one_plain_dataset_in_the_earliest_format(tmp_path, layout):
    path = tmp_path / "betas.hdf5"
    create(path, make_betas(), layout)
    assert path.read_bytes()[:8] == b"\x89HDF\r\n\x1a\n"
    assert path.read_bytes()[8] == 0  # superblock version
    with h5py.File(path) as file:
        assert list(file) == ["betas"]
        betas = file["betas"]
        assert betas.dtype == np.dtype("<i2")
        assert betas.fillvalue == 0
        assert (len(file.attrs), len(betas.attrs)) == (0, 0)
        assert h5py.h5g.get_objinfo(betas.id).mtime == 0  # no time stamp: equal values give equal bytes
        assert [dimension.label for dimension in betas.dims] == [""] * 4


def test_nsd_layout_holds_every_voxel_in_one_plain_chunk(tmp_path):
    path = tmp_path / "betas.hdf5"
    create(path, make_betas(), "nsd")
    with h5py.File(path) as file:
        betas = file["betas"]
        assert betas.chunks == (13, 1, 1, 1)
        assert betas.id.get_create_plist().get_nfilters() == 0
        assert betas.id.get_num_chunks() == 5 * 11 * 7
        chunk = betas.id.get_chunk_info(0)
        assert (chunk.size, chunk.filter_mask) == (26, 0)


def test_nsd_layout_is_indexed_by_a_version_1_tree(tmp_path):
    path = tmp_path / "betas.hdf5"
    create(path, make_betas(), "nsd")
    data = path.read_bytes()
    # Node type 1: raw data chunks. Source: HDF5 file format specification, III.A.1.
    leaves = [at for at in range(len(data) - 8) if data[at : at + 5] == b"TREE\x01"]
    entries = [struct.unpack_from("<BH", data, at + 5) for at in leaves]
    assert sum(count for level, count in entries if level == 0) == 5 * 11 * 7


def test_contiguous_layout_is_one_block(tmp_path):
    path = tmp_path / "betas.hdf5"
    create(path, make_betas(), "contiguous")
    with h5py.File(path) as file:
        assert file["betas"].chunks is None
        offset = file["betas"].id.get_offset()
    assert path.read_bytes()[offset : offset + make_betas().nbytes] == make_betas().tobytes()


def test_gzip_layout_holds_one_compressed_trial_per_chunk(tmp_path):
    path = tmp_path / "betas.hdf5"
    create(path, make_betas(), "gzip")
    with h5py.File(path) as file:
        betas = file["betas"]
        assert (betas.chunks, betas.compression, betas.shuffle) == ((1, 5, 11, 7), "gzip", True)
        assert betas.id.get_num_chunks() == 13


def test_file_that_breaks_off_midway_leaves_the_older_one_whole(tmp_path):
    path = tmp_path / "betas.hdf5"
    create(path, make_betas(), "nsd")
    before = path.read_bytes()

    def break_off():
        yield np.ones((11, 7, 13), dtype="<i2")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create_session_file(path, SHAPE, "nsd", break_off(), lambda: None)
    assert path.read_bytes() == before
