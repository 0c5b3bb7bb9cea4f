import os

import pytest

from nsd_zarr.errors import SourceError
from nsd_zarr.source.identity import FileIdentity, read_identity


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "betas_session07.hdf5"
    path.write_bytes(b"x" * 101)
    os.utime(path, ns=(5, 1_000_000_007))
    return path


def test_identity_is_name_size_and_time(file):
    assert read_identity(file) == FileIdentity("betas_session07.hdf5", 101, 1_000_000_007)


def test_parts_count_with_their_bytes_and_the_latest_time(file):
    part = file.with_name("part.h5")
    part.write_bytes(b"y" * 13)
    os.utime(part, ns=(5, 2_000_000_011))
    assert read_identity(file, (part,)) == FileIdentity("betas_session07.hdf5", 114, 2_000_000_011)


def test_identity_stays_when_the_folder_moves(file, tmp_path):
    before = read_identity(file)
    (tmp_path / "elsewhere").mkdir()
    assert read_identity(file.rename(tmp_path / "elsewhere" / file.name)) == before


def test_identity_changes_with_one_byte_or_one_nanosecond(file):
    before = read_identity(file)
    os.utime(file, ns=(5, 1_000_000_008))
    touched = read_identity(file)
    file.write_bytes(b"x" * 102)
    os.utime(file, ns=(5, 1_000_000_008))
    assert len({before, touched, read_identity(file)}) == 3


def test_missing_part_is_named_with_its_session(file):
    with pytest.raises(SourceError, match=r"session 07: cannot read part\.h5: No such file.*\[.*session07\.hdf5\]"):
        read_identity(file, (file.with_name("part.h5"),), session=7)
