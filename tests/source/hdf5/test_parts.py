import contextlib
import ctypes
import os
import sys

import h5py
import numpy as np
import pytest

from nsd_zarr.layout import SessionNumber
from nsd_zarr.source.find import SessionFile
from nsd_zarr.source.hdf5.parts import MAX_LINKS
from nsd_zarr.source.session import inspect_session

NAME = "betas_session03.hdf5"
SHAPE = (4, 5, 7, 3)
VALUES = np.arange(1, 4 * 5 * 7 * 3 + 1, dtype="<i2").reshape(SHAPE)


@pytest.fixture
def folder(tmp_path):
    """The session file's own folder; its parent is outside."""
    (tmp_path / "own").mkdir()
    return tmp_path / "own"


def create(path, name="betas", values=VALUES):
    with h5py.File(path, "a") as file:
        file[name] = values
    return path


def create_link(path, target, name="/betas"):
    with h5py.File(path, "w") as file:
        file["betas"] = h5py.ExternalLink(str(target), name)
    return SessionFile(SessionNumber(3), path)


def create_virtual(path, target, name="betas", into="betas", mode="w"):
    layout = h5py.VirtualLayout(SHAPE, "<i2")
    layout[...] = h5py.VirtualSource(str(target), name, SHAPE)
    with h5py.File(path, mode) as file:
        file.create_virtual_dataset(into, layout, fillvalue=-9)
    return SessionFile(SessionNumber(3), path)


def create_external(path, *parts, into="betas"):
    """External storage in *parts* (name, offset, size), which are not written."""
    with h5py.File(path, "w") as file:
        file.create_dataset(into, SHAPE, "<i2", external=[(str(name), *rest) for name, *rest in parts])
    return SessionFile(SessionNumber(3), path)


@contextlib.contextmanager
def watched(path):
    """Whether anything, the HDF5 library included, opens *path*: a list that holds the answer at the end."""
    if not sys.platform.startswith("linux"):
        pytest.skip("inotify is Linux's")
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    opened = []
    try:
        assert library.inotify_add_watch(descriptor, os.fsencode(path), 0x20) > 0  # IN_OPEN
        yield opened
        with contextlib.suppress(BlockingIOError):
            opened.append(os.read(descriptor, 4096))
    finally:
        os.close(descriptor)


# Parts in the own folder


@pytest.mark.parametrize("absolute", [False, True])
def test_external_link_in_the_own_folder_is_followed_and_counted(folder, read_session, absolute):
    part = create(folder / "part.h5", "values")
    file = create_link(folder / NAME, part if absolute else part.name, "/values")
    with watched(part) as opened:
        values, by_offset = read_session(file)
    assert opened
    assert not by_offset
    assert np.array_equal(values, VALUES.reshape(4, -1))
    info = inspect_session(file, "betas")
    assert info.parts == (part,)
    assert info.identity.size == part.stat().st_size + file.path.stat().st_size


def test_chain_of_links_and_groups_in_the_own_folder_is_followed(folder, read_session):
    last = create(folder / "last.h5", "deep/values")
    with h5py.File(folder / "middle.h5", "w") as middle:
        middle["group/near"] = h5py.SoftLink("far")
        middle["group/far"] = h5py.ExternalLink("last.h5", "deep")
    with h5py.File(folder / NAME, "w") as file:
        file["here"] = h5py.ExternalLink("./middle.h5", "/group")
    file = SessionFile(SessionNumber(3), folder / NAME)
    values, _ = read_session(file, "here/near/values")
    assert np.array_equal(values, VALUES.reshape(4, -1))
    assert last in inspect_session(file, "here/near/values").parts


@pytest.mark.parametrize("absolute", [False, True])
def test_virtual_part_in_the_own_folder_is_read_and_counted(folder, read_session, absolute):
    part = create(folder / "part.h5", "values")
    file = create_virtual(folder / NAME, part if absolute else part.name, "values")
    assert np.array_equal(read_session(file)[0], VALUES.reshape(4, -1))
    info = inspect_session(file, "betas")
    assert info.parts == (part,)
    assert info.identity.size == part.stat().st_size + file.path.stat().st_size


def test_virtual_part_that_is_virtual_itself_is_read_and_counted(folder, read_session):
    create(folder / "plain.h5", "values")
    create_virtual(folder / "middle.h5", "plain.h5", "values", into="inner")
    file = create_virtual(folder / NAME, "middle.h5", "inner")
    assert np.array_equal(read_session(file)[0], VALUES.reshape(4, -1))
    assert {part.name for part in inspect_session(file, "betas").parts} == {"plain.h5", "middle.h5"}


def test_virtual_part_inside_that_is_virtual_itself_is_read_and_counted(folder, read_session):
    create(folder / "plain.h5", "values")
    create_virtual(folder / NAME, "plain.h5", "values", into="inner")
    file = create_virtual(folder / NAME, ".", "inner", mode="a")
    assert np.array_equal(read_session(file)[0], VALUES.reshape(4, -1))
    assert [part.name for part in inspect_session(file, "betas").parts] == ["plain.h5"]


def test_virtual_part_behind_a_link_is_counted(folder, read_session):
    create(folder / "plain.h5", "values")
    create_link(folder / "middle.h5", "plain.h5", "/values")
    file = create_virtual(folder / NAME, "middle.h5")
    assert np.array_equal(read_session(file)[0], VALUES.reshape(4, -1))
    assert {part.name for part in inspect_session(file, "betas").parts} == {"plain.h5", "middle.h5"}


def test_external_storage_may_end_before_its_stated_size(folder, read_session):
    (folder / "a.raw").write_bytes(b"\xee" * 3 + VALUES.tobytes()[:101])
    (folder / "b.raw").write_bytes(VALUES.tobytes()[101:])
    file = create_external(folder / NAME, ("a.raw", 3, 101), ("b.raw", 0, 10**6))
    assert np.array_equal(read_session(file)[0], VALUES.reshape(4, -1))
    assert [part.name for part in inspect_session(file, "betas").parts] == ["a.raw", "b.raw"]


@pytest.mark.parametrize("make", ["link", "virtual", "external"])
def test_session_file_behind_a_symbolic_link_is_read_with_the_parts_beside_the_file(
    folder, tmp_path, read_session, make
):
    if make == "external":
        (folder / "part").write_bytes(VALUES.tobytes())
        file = create_external(folder / NAME, ("part", 0, VALUES.nbytes))
    else:
        create(folder / "part")
        file = (create_link if make == "link" else create_virtual)(folder / NAME, "part")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / NAME).symlink_to(file.path)
    linked = SessionFile(file.session, tmp_path / "links" / NAME)
    assert np.array_equal(read_session(linked)[0], VALUES.reshape(4, -1))


def test_part_of_that_name_beside_a_symbolic_link_is_not_taken_for_it(folder, tmp_path, read_session, refuse):
    create(folder / "part.h5")
    (tmp_path / "links").mkdir()
    create(tmp_path / "links" / "part.h5", values=-VALUES)
    for make in (create_link, create_virtual):
        file = make(folder / NAME, "part.h5")
        (tmp_path / "links" / NAME).unlink(missing_ok=True)
        (tmp_path / "links" / NAME).symlink_to(file.path)
        linked = SessionFile(file.session, tmp_path / "links" / NAME)
        if make is create_virtual:
            assert np.array_equal(read_session(linked)[0], VALUES.reshape(4, -1))
        else:
            # HDF5 itself prefers the other one, so it is refused.
            refuse(linked, "outside the session file's own folder", read=lambda file, _: inspect_session(file, "betas"))


def test_part_of_that_name_in_the_working_directory_is_not_taken_for_it(folder, tmp_path, read_session, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    create(tmp_path / "work" / "part.h5", values=-VALUES)
    (tmp_path / "work" / "part.raw").write_bytes((-VALUES).tobytes())
    create(folder / "part.h5")
    (folder / "part.raw").write_bytes(VALUES.tobytes())
    for file in (
        create_link(folder / "link_session03.hdf5", "part.h5"),
        create_virtual(folder / "virtual_session03.hdf5", "part.h5"),
        create_external(folder / "external_session03.hdf5", ("part.raw", 0, VALUES.nbytes)),
    ):
        assert np.array_equal(read_session(file)[0], VALUES.reshape(4, -1))


# Parts elsewhere


def name_outside(folder, how):
    outside = folder.parent / "outside.h5"
    (folder / "inner").mkdir()
    return {
        "above": "../outside.h5",
        "absolute": outside,
        "roundabout": f"inner/../../{outside.name}",
        "symbolic_link": "linked.h5",
    }[how]


@pytest.mark.parametrize("how", ["above", "absolute", "roundabout", "symbolic_link"])
@pytest.mark.parametrize("make", ["link", "virtual", "external"])
def test_part_outside_the_own_folder_is_refused_and_not_even_opened(folder, refuse, make, how):
    outside = folder.parent / "outside.h5"
    (folder / "linked.h5").symlink_to(outside)
    target = name_outside(folder, how)
    if make == "external":
        outside.write_bytes(VALUES.tobytes())
        file = create_external(folder / NAME, (target, 0, VALUES.nbytes))
        word = "external storage in"
    else:
        create(outside)
        file = (create_link if make == "link" else create_virtual)(folder / NAME, target)
        word = "/betas is a link to" if make == "link" else "a virtual part in"
    with watched(outside) as opened:
        refuse(file, f"{word} {target}, outside the session file's own folder", "Copy it beside the session file")
    assert opened == []


def test_folder_below_the_own_folder_is_outside(folder, refuse):
    (folder / "below").mkdir()
    create(folder / "below" / "part.h5")
    refuse(create_link(folder / NAME, "below/part.h5"), "outside the session file's own folder")


@pytest.mark.parametrize("steps", ["group/betas", "group/inner/betas"])
def test_group_that_is_a_link_to_outside_is_refused_and_not_even_opened(folder, refuse, steps):
    outside = create(folder.parent / "outside.h5", "inner/betas")
    create(outside, "betas")
    with h5py.File(folder / NAME, "w") as file:
        file["group"] = h5py.ExternalLink("../outside.h5", "/")
    with watched(outside) as opened:
        refuse(SessionFile(SessionNumber(3), folder / NAME), "/group is a link to ../outside.h5", dataset=steps)
    assert opened == []


def test_other_links_of_the_file_are_not_opened_to_list_them(folder, refuse):
    outside = create(folder.parent / "outside.h5")
    with h5py.File(folder / NAME, "w") as file:
        file["elsewhere"] = h5py.ExternalLink("../outside.h5", "/betas")
    with watched(outside) as opened:
        refuse(SessionFile(SessionNumber(3), folder / NAME), "no dataset /betas: found /elsewhere (a link)")
    assert opened == []


@pytest.mark.parametrize(
    "chain", ["link_to_link", "virtual_of_link", "virtual_of_virtual", "inside_link", "inside_virtual"]
)
def test_part_whose_own_part_is_outside_is_refused_and_not_even_opened(folder, refuse, chain):
    outside = create(folder.parent / "outside.h5")
    if chain.startswith("inside"):
        make = create_link if chain == "inside_link" else create_virtual
        if chain == "inside_link":
            with h5py.File(folder / NAME, "w") as file:
                file["inner"] = h5py.ExternalLink("../outside.h5", "/betas")
        else:
            create_virtual(folder / NAME, "../outside.h5", into="inner")
        file = create_virtual(folder / NAME, ".", "inner", mode="a")
    else:
        make = create_virtual if chain == "virtual_of_virtual" else create_link
        make(folder / "middle.h5", "../outside.h5")
        file = (create_link if chain == "link_to_link" else create_virtual)(folder / NAME, "middle.h5")
    with watched(outside) as opened:
        refuse(file, "../outside.h5, outside the session file's own folder")
    assert opened == []


# Parts that are not there, or not whole


@pytest.mark.parametrize("make", [create_link, create_virtual])
def test_part_that_is_not_there_is_refused(folder, refuse, make):
    refuse(make(folder / NAME, "gone.h5"), "gone.h5, which is not there. Fetch it too.")


def test_external_storage_that_is_not_there_is_refused(folder, refuse):
    refuse(create_external(folder / NAME, ("gone.raw", 0, 10**6)), "external storage in gone.raw, which is not there")


def test_part_that_is_a_folder_is_refused(folder, refuse):
    (folder / "part.h5").mkdir()
    refuse(create_link(folder / NAME, "part.h5"), "part.h5, which is not there")


@pytest.mark.parametrize("make", [create_link, create_virtual])
@pytest.mark.parametrize("content", [b"", b"<html>Access denied</html>"])
def test_part_that_is_not_hdf5_is_refused(folder, refuse, make, content):
    (folder / "part.h5").write_bytes(content)
    refuse(make(folder / NAME, "part.h5"), "part.h5, which the session file needs, cannot be opened", "signature")


@pytest.mark.parametrize("make", [create_link, create_virtual])
def test_part_that_is_cut_short_is_refused(folder, refuse, make):
    part = create(folder / "part.h5")
    os.truncate(part, part.stat().st_size - 9)
    refuse(make(folder / NAME, "part.h5"), "part.h5, which the session file needs, cannot be opened", "truncated")


def test_link_to_a_dataset_that_is_not_there_is_refused(folder, refuse):
    create(folder / "part.h5")
    refuse(create_link(folder / NAME, "part.h5", "/gone"), "no dataset /betas: found /betas (a link)")


@pytest.mark.parametrize("target", [".", "part.h5"])
@pytest.mark.parametrize("name", ["gone", "group"])
def test_virtual_part_without_its_dataset_is_refused(folder, refuse, target, name):
    for path in (folder / NAME, folder / "part.h5"):
        with h5py.File(path, "w") as file:
            file.create_group("group")
    file = create_virtual(folder / NAME, target, name, mode="a")
    where = NAME if target == "." else target
    refuse(file, f"virtual part {where}:/{name} is missing")


@pytest.mark.parametrize("size", [VALUES.nbytes, 10**6, h5py.h5f.UNLIMITED])
def test_external_storage_that_is_cut_short_is_refused(folder, refuse, size):
    (folder / "part.raw").write_bytes(VALUES.tobytes()[:-1] + b"x" * 5)
    refuse(
        create_external(folder / NAME, ("part.raw", 6, size)),
        f"external storage part.raw is cut short: {VALUES.nbytes + 4} bytes, expected {VALUES.nbytes + 6}",
    )


def test_first_of_two_external_parts_that_is_cut_short_is_refused(folder, refuse):
    (folder / "a.raw").write_bytes(VALUES.tobytes()[:100])
    (folder / "b.raw").write_bytes(VALUES.tobytes()[101:])
    file = create_external(folder / NAME, ("a.raw", 0, 101), ("b.raw", 0, h5py.h5f.UNLIMITED))
    refuse(file, "external storage a.raw is cut short: 100 bytes, expected 101")


def test_virtual_part_in_external_storage_is_refused(folder, tmp_path, refuse, monkeypatch):
    (tmp_path / "part.raw").write_bytes((-VALUES).tobytes())
    (folder / "part.raw").write_bytes(VALUES.tobytes())
    create_external(folder / "middle.h5", ("part.raw", 0, VALUES.nbytes), into="inner")
    file = create_virtual(folder / NAME, "middle.h5", "inner")
    # HDF5 reads the file of that name in the working directory.
    monkeypatch.chdir(tmp_path)
    with h5py.File(file.path) as hdf5:
        assert np.array_equal(hdf5["betas"][...], -VALUES)
    refuse(file, "virtual part middle.h5:/inner has external storage of its own")


def test_virtual_part_smaller_than_its_place_is_refused(folder, refuse):
    create(folder / "part.h5", values=VALUES[:3])
    refuse(create_virtual(folder / NAME, "part.h5"), "reading trials 0 to 3 failed")


# Circles


def test_circle_of_external_links_is_refused(folder, refuse):
    create_link(folder / "other.h5", NAME)
    refuse(create_link(folder / NAME, "other.h5"), "/betas is a circle of links")


def test_chain_of_many_links_is_followed_as_far_as_hdf5_does(folder, read_session):
    assert MAX_LINKS == 16
    create(folder / "part0.h5")
    for number in range(1, 6):
        file = create_link(folder / f"part{number}.h5", f"part{number - 1}.h5")
    assert np.array_equal(read_session(file)[0], VALUES.reshape(4, -1))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_circle_of_virtual_parts_is_refused(folder, refuse, length):
    names = [NAME, *(f"part{number}.h5" for number in range(1, length))]
    for number, name in enumerate(names):
        create_virtual(folder / name, names[(number + 1) % length])
    refuse(SessionFile(SessionNumber(3), folder / NAME), "virtual part ")


def test_endless_chain_of_virtual_parts_is_refused(folder, refuse):
    create(folder / "part0.h5")
    for number in range(1, MAX_LINKS + 3):
        file = create_virtual(folder / f"part{number}.h5", f"part{number - 1}.h5")
    refuse(file, "is a circle of virtual parts", read=inspect_session)


def test_dataset_that_is_its_own_virtual_part_is_refused(folder, refuse):
    refuse(create_virtual(folder / NAME, "."), "virtual part ")
