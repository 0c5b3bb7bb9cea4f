import os
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest

import nsd_zarr
from nsd_zarr.errors import SourceError
from nsd_zarr.layout import SessionNumber
from nsd_zarr.source.find import SessionFile
from nsd_zarr.source.hdf5.dataset import open_dataset
from nsd_zarr.source.protocol import check_unchanged
from nsd_zarr.source.session import inspect_session

NAME = "betas_session03.hdf5"


def name_file(path):
    return SessionFile(SessionNumber(3), path)


@pytest.fixture
def odd_file(tmp_path):
    """odd_file(fill) creates a file with whatever fill(h5py.File) puts into it."""

    def create(fill):
        path = tmp_path / NAME
        with h5py.File(path, "w") as file:
            fill(file)
        return name_file(path)

    return create


# What inspection says


def test_inspection_tells_shape_dtype_and_layout(tmp_path, make_session):
    file = make_session(tmp_path / NAME)
    info = inspect_session(file, "betas")
    assert (info.session, info.path, info.dataset, info.parts) == (3, file.path, "betas", ())
    assert (info.shape, info.dtype, info.chunks) == ((6, 5, 7, 3), "int16", (6, 1, 1, 1))
    assert (info.trials, info.voxels, info.trial_bytes, info.chunk_bytes) == (6, 105, 210, 12)
    assert (info.offset_refusal, info.how) == ("", "by offset")
    assert info.identity.size == file.path.stat().st_size


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"layout": "contiguous"}, "contiguous"),
        ({"layout": "virtual"}, "virtual or external storage"),
        ({"layout": "external"}, "virtual or external storage"),
        ({"link": "external"}, "virtual or external storage"),
        ({"chunks": (1, 5, 7, 3)}, "chunks of (1, 5, 7, 3), not (6, 1, 1, 1)"),
        ({"filters": {"shuffle": True}}, "filtered (compressed or checksummed)"),
        ({"dtype": ">i2"}, "not plain little-endian numbers"),
        ({"precision": 12}, "not plain little-endian numbers"),
        ({"libver": "latest"}, "not a version-1 object header"),
    ],
    ids=str,
)
def test_inspection_says_why_rows_are_read_through_the_library(tmp_path, make_session, odd, reason):
    info = inspect_session(make_session(tmp_path / NAME, **odd), "betas")
    assert info.offset_refusal == reason
    assert info.how == f"through h5py ({reason})"


def test_chunk_bytes_are_of_decoded_values(tmp_path, make_session):
    info = inspect_session(make_session(tmp_path / NAME, dtype=">f8", chunks=(4, 2, 3, 2)), "betas")
    assert (info.dtype, info.trial_bytes, info.chunk_bytes) == ("float64", 840, 384)
    assert inspect_session(make_session(tmp_path / NAME, layout="contiguous"), "betas").chunk_bytes == 0


def test_surface_is_trials_by_vertices(tmp_path, make_session):
    info = inspect_session(make_session(tmp_path / NAME, shape=(31,)), "betas")
    assert (info.shape, info.trials, info.voxels) == ((6, 31), 6, 31)


def test_inspection_changes_nothing_and_works_on_a_read_only_file(tmp_path, make_session):
    file = make_session(tmp_path / NAME)
    file.path.chmod(0o400)
    before, status = file.path.read_bytes(), file.path.stat()
    inspect_session(file, "betas")
    assert file.path.read_bytes() == before
    assert file.path.stat().st_mtime_ns == status.st_mtime_ns


def test_unchanged_file_passes_and_touched_file_is_refused(tmp_path, make_session, refuse):
    file = make_session(tmp_path / NAME)
    info = inspect_session(file, "betas")
    check_unchanged(info)
    os.utime(file.path, ns=(1, 1))
    size = file.path.stat().st_size
    error = refuse(file, f"{size} bytes, expected {size} bytes", read=lambda *_: check_unchanged(info))
    assert error.expected == info.identity
    assert error.found.mtime_ns == 1


# Files that are no session


def test_text_file_is_refused(tmp_path, refuse):
    (tmp_path / NAME).write_text("<html>Access denied</html>" * 100)
    refuse(name_file(tmp_path / NAME), "not an HDF5 file", "Fetch it again", NAME)


def test_empty_file_is_refused(tmp_path, refuse):
    (tmp_path / NAME).touch()
    refuse(name_file(tmp_path / NAME), "not an HDF5 file")


def test_missing_file_is_refused(tmp_path, refuse):
    refuse(name_file(tmp_path / NAME), "No such file or directory", NAME)


def test_directory_in_place_of_a_file_is_refused(tmp_path, refuse):
    (tmp_path / NAME).mkdir()
    refuse(name_file(tmp_path / NAME), "Is a directory")


@pytest.mark.parametrize("odd", [{}, {"layout": "contiguous"}, {"userblock": 512}, {"libver": "latest"}], ids=str)
def test_file_cut_anywhere_is_refused(tmp_path, make_session, refuse, odd):
    file = make_session(tmp_path / NAME, trials=2, shape=(2, 3, 5), **odd)
    whole = file.path.read_bytes()
    for length in [*range(0, len(whole), 211), *range(8, 100, 13), len(whole) - 1]:
        file.path.write_bytes(whole[:length])
        error = refuse(file)
        assert "cut short" in str(error) or length < 700
    file.path.write_bytes(whole)
    assert inspect_session(file, "betas").trials == 2


def test_cut_file_is_reported_with_both_sizes(tmp_path, make_session, refuse):
    file = make_session(tmp_path / NAME)
    size = file.path.stat().st_size
    os.truncate(file.path, size - 7)
    refuse(file, "the file is cut short", f"eof = {size - 7}", f"stored_eof = {size}", "Fetch it again")


READ_AS_NOBODY = """
import os, sys
from pathlib import Path
from nsd_zarr.errors import SourceError
from nsd_zarr.source.find import SessionFile
from nsd_zarr.source.session import inspect_session

folder = Path(sys.argv[1])
def show(name):
    try:
        print(inspect_session(SessionFile(3, folder / name), "betas").shape)
    except SourceError as error:
        print(error)
show("open_session03.hdf5"), show("missing_session03.hdf5")
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)
show("open_session03.hdf5"), show("closed_session03.hdf5")
"""


def test_file_that_may_not_be_read_is_refused(make_session):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        make_session(folder / "open_session03.hdf5").path.chmod(0o644)
        make_session(folder / "closed_session03.hdf5").path.chmod(0)
        result = subprocess.run(
            [sys.executable, "-c", READ_AS_NOBODY, name],
            env={**os.environ, "PYTHONPATH": str(Path(nsd_zarr.__file__).parents[1])},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    lines = result.stdout.splitlines()
    assert lines[0] == lines[2] == "(6, 5, 7, 3)"
    assert lines[3].startswith("session 03: cannot read the file: Permission denied. ")
    assert lines[3].endswith("closed_session03.hdf5]")


# Files without the dataset


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (lambda file: None, "found nothing"),
        (lambda file: file.update({"imgBrick": [1], "other": [2]}), "found /imgBrick, /other"),
        (lambda file: file.create_group("betas/inner"), "found /betas (not a dataset)"),
        (lambda file: file.update({"betas": np.dtype("i2")}), "found /betas (not a dataset)"),
        (lambda file: file.update({"betas": h5py.SoftLink("/gone")}), "found /betas (a link)"),
    ],
    ids=["empty", "other_names", "group", "named_type", "dangling_soft_link"],
)
def test_file_without_the_dataset_is_reported_with_what_is_there(odd_file, refuse, fill, words):
    error = refuse(odd_file(fill), f"no dataset /betas: {words}. Name the dataset with --dataset.")
    assert error.expected == "betas"


@pytest.mark.parametrize("name", ["group/gone", "gone/betas", "/", "betas/inner", "..", "//gone"])
def test_name_that_leads_nowhere_is_refused(odd_file, refuse, name):
    def fill(file):
        file["betas"] = np.ones((2, 3, 5, 7), "i2")
        file.create_group("group")

    refuse(odd_file(fill), "no dataset /", "found /betas, /group (not a dataset)", dataset=name)


def test_name_with_a_leading_slash_is_the_same_dataset(tmp_path, make_session, read_session, read_plainly):
    file = make_session(tmp_path / NAME)
    values, by_offset = read_session(file, "/betas")
    assert by_offset
    assert np.array_equal(values, read_plainly(file).reshape(6, -1))


@pytest.mark.parametrize("links", [1, 2, 5])
def test_circle_of_soft_links_is_refused(odd_file, refuse, links):
    def fill(file):
        for number in range(links):
            file["betas" if number == 0 else f"link{number}"] = h5py.SoftLink(
                "/betas" if number == links - 1 else f"/link{number + 1}"
            )

    refuse(odd_file(fill), "is a circle of links")


def test_chain_of_soft_links_is_followed(odd_file, read_session):
    def fill(file):
        file["group/real"] = np.arange(1, 2 * 3 * 5 * 7 + 1, dtype="i2").reshape(2, 3, 5, 7)
        file["way"] = h5py.SoftLink("group")
        file["group/near"] = h5py.SoftLink("real")
        file["betas"] = h5py.SoftLink("/way/near")

    values, _ = read_session(odd_file(fill))
    assert np.array_equal(values.ravel(), np.arange(1, 211))


# Datasets that are no betas


@pytest.mark.parametrize("shape", [(6,), (6, 5, 7), (6, 5, 7, 3, 2), ()], ids=str)
def test_dataset_of_other_dimensions_is_refused(odd_file, refuse, shape):
    file = odd_file(lambda file: file.create_dataset("betas", shape, "<i2"))
    refuse(file, f"dataset /betas: shape {shape}, expected (trial, z, y, x) or (trial, vertex)")


def test_dataset_without_values_is_refused(odd_file, refuse):
    refuse(odd_file(lambda file: file.update({"betas": h5py.Empty("<i2")})), "shape None, expected (trial, z, y, x)")


@pytest.mark.parametrize("shape", [(0, 5, 7, 3), (6, 5, 0, 3), (6, 0)], ids=str)
def test_dataset_of_size_zero_is_refused(odd_file, refuse, shape):
    refuse(odd_file(lambda file: file.create_dataset("betas", shape, "<i2")), f"shape {shape} holds no value")


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        ("complex64", "complex64"),
        ([("real", "<i2"), ("imaginary", "<i2")], "void32"),
        ("S5", "bytes40"),
        (h5py.string_dtype(), "object"),
        (bool, "bool"),
        (h5py.enum_dtype({"low": 1, "high": 2}, "i2"), "enum"),
        (h5py.ref_dtype, "object"),
        (h5py.regionref_dtype, "object"),
        (h5py.vlen_dtype("i2"), "object"),
        (np.dtype(("<i2", (3,))), "void48"),
        ("V3", "void24"),
        (h5py.opaque_dtype("M8[s]"), "datetime64[s]"),
    ],
    ids=["complex", "compound", "bytes", "string", "bool", "enum", "ref", "region", "vlen", "array", "opaque", "time"],
)
def test_dataset_of_other_values_is_refused(odd_file, refuse, dtype, name):
    file = odd_file(lambda file: file.create_dataset("betas", (2, 3, 5, 7), dtype))
    refuse(file, f"dataset /betas: dtype {name}, expected integers or floats")


def test_dataset_of_a_type_that_numpy_lacks_is_refused(odd_file, refuse):
    def fill(file):
        h5py.h5d.create(file.id, b"betas", h5py.h5t.UNIX_D32LE, h5py.h5s.create_simple((2, 3, 5, 7)))

    refuse(odd_file(fill), "No NumPy equivalent")


def test_trial_too_large_for_a_blosc_frame_is_refused(odd_file, refuse):
    def fill(file):
        file.create_dataset("betas", (2, 1024, 1024, 1024), "<i2", chunks=(2, 1, 1, 1))

    refuse(odd_file(fill), "one trial of shape (1024, 1024, 1024) is more than the 2147483631 bytes that Blosc takes")


def test_filter_that_nobody_has_is_refused_before_anything_is_read(odd_file, refuse):
    def fill(file):
        file.create_dataset("betas", data=np.full((6, 5, 7, 3), 9, "i2"), compression="lzf")

    file = odd_file(fill)
    raw = file.path.read_bytes()
    # Number 32000 (lzf) in the filter message becomes one that nobody has.
    place = raw.index(b"lzf\x00") - 8
    assert raw[place : place + 2] == (32000).to_bytes(2, "little")
    file.path.write_bytes(raw[:place] + (32123).to_bytes(2, "little") + raw[place + 2 :])
    words = "dataset /betas: filter 32123 (lzf), which this HDF5 does not have", "HDF5_PLUGIN_PATH"
    refuse(file, *words, read=lambda *_: inspect_session(file, "betas"))


def test_errors_of_the_caller_pass_an_open_dataset_unchanged(tmp_path, make_session):
    file = make_session(tmp_path / NAME)
    with pytest.raises(KeyError, match="mine"), open_dataset(file.path, "betas", 3):
        raise KeyError("mine")


def test_inspection_reads_no_value(tmp_path, make_session, monkeypatch):
    taken = []
    for name in ("__getitem__", "read_direct", "__array__", "astype"):
        monkeypatch.setattr(h5py.Dataset, name, lambda *args: taken.append(args))
    for odd in ({}, {"layout": "virtual"}, {"layout": "contiguous"}):
        inspect_session(make_session(tmp_path / NAME, **odd), "betas")
    assert taken == []


@pytest.mark.parametrize("locking", [None, False, True])
def test_file_that_is_open_in_the_same_process_is_inspected_and_can_be_opened_after(locking, tmp_path, make_session):
    file = make_session(tmp_path / NAME)
    with h5py.File(file.path, "r", locking=locking) as mine:
        held = mine["betas"]
        assert inspect_session(file, "betas").shape == held.shape
    with open_dataset(file.path, "betas") as data, h5py.File(file.path, "r") as mine:
        assert data.shape == mine["betas"].shape


def test_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "betas_session01.hdf5")
    with pytest.raises(SourceError, match="session 01: a pipe or a device, expected a file"):
        inspect_session(SessionFile(SessionNumber(1), tmp_path / "betas_session01.hdf5"), "betas")
