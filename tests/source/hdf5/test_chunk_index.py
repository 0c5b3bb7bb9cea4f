import os
import struct

import h5py
import numpy as np
import pytest
from builders import scale_examples
from hypothesis import given, settings
from hypothesis import strategies as st

from nsd_zarr.errors import SourceError
from nsd_zarr.source.hdf5.chunk_index import NotRecognised, find_btree, read_chunk_index

NODE_HEADER = 24


def read_index(path, name="betas"):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with h5py.File(path, "r", locking=False) as file:
            return read_chunk_index(file[name], descriptor)
    finally:
        os.close(descriptor)


def list_nodes(raw):
    """Address and level of every B-tree node of chunks."""
    return [(at, raw[at + 5]) for at in range(len(raw)) if raw[at : at + 5] == b"TREE\x01"]


@st.composite
def rows(draw):
    """Keywords of make_session for files in the dataset's own layout."""
    shape = draw(
        st.one_of(
            st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
            st.tuples(st.integers(1, 300)),
        )
    )
    return {
        "trials": draw(st.integers(1, 5)),
        "shape": shape,
        "dtype": draw(st.sampled_from(["<i2", "i1", "<f4"])),
        "order": draw(st.sampled_from(["file", "random", "reverse"])),
        "missing": draw(st.sampled_from([0.0, 0.2, 0.9, "all"])),
        "fillvalue": 7,
        "userblock": draw(st.sampled_from([0, 512, 2048])),
        "odd": draw(st.booleans()),
        "seed": draw(st.integers(0, 99)),
    }


@settings(max_examples=scale_examples(80), deadline=None)
@given(rows())
def test_index_equals_the_library_s_for_any_shape(tmp_path_factory, make_session, read_plainly, odd):
    file = make_session(tmp_path_factory.getbasetemp() / "index_session03.hdf5", **odd)
    index = read_index(file.path)
    found = []
    with h5py.File(file.path) as hdf5:
        hdf5["betas"].id.chunk_iter(lambda chunk: found.append((chunk.byte_offset, chunk.chunk_offset[1:])))
    voxels = [int(np.ravel_multi_index(place, odd["shape"])) for _, place in found]
    assert list(zip(index.offsets.tolist(), index.voxels.tolist(), strict=True)) == sorted(
        (offset, voxel) for (offset, _), voxel in zip(found, voxels, strict=True)
    )
    # And whatever the library counts from: there lie the values, in the file itself.
    raw, values = file.path.read_bytes(), read_plainly(file).reshape(odd["trials"], -1)
    assert index.row_bytes == odd["trials"] * values.itemsize
    for offset, voxel in zip(index.offsets.tolist(), index.voxels.tolist(), strict=True):
        assert raw[offset : offset + index.row_bytes] == values[:, voxel].tobytes()
    absent = np.setdiff1d(np.arange(values.shape[1]), index.voxels)
    assert (values[:, absent] == 7).all()


def test_rows_may_begin_at_odd_bytes(tmp_path, make_session):
    index = read_index(make_session(tmp_path / "betas.hdf5", odd=True).path)
    assert (index.offsets % 2 == 1).all()


def test_index_is_in_the_order_of_the_file(tmp_path, make_session):
    index = read_index(make_session(tmp_path / "betas.hdf5", order="random").path)
    assert (np.diff(index.offsets) > 0).all()
    assert (np.diff(index.voxels) < 0).any()


def test_tree_of_three_levels_is_walked_whole(tmp_path, make_session):
    file = make_session(tmp_path / "betas.hdf5", trials=2, shape=(11, 23, 19), order="random")
    assert max(level for _, level in list_nodes(file.path.read_bytes())) == 2
    assert np.array_equal(np.sort(read_index(file.path).voxels), np.arange(11 * 23 * 19))


def test_node_fuller_than_usual_is_read_whole(tmp_path, make_session):
    file = make_session(tmp_path / "betas.hdf5", trials=2, shape=(331,))
    whole, tree = read_index(file.path), Tree(file.path, 3)
    entries, closing = bytearray(), b""
    top = tree.node(1)
    for number in range(tree.get(top + 6, "<H")):
        leaf = tree.get(tree.place(top, number) + tree.key)
        end = tree.place(leaf, tree.get(leaf + 6, "<H"))
        entries += tree.raw[leaf + NODE_HEADER : end]
        closing = tree.raw[end : end + tree.key]
    # One leaf for all rows, at the end of the file, in place of the root.
    root = tree.raw.index(struct.pack("<Q", top), 0, top)
    struct.pack_into("<Q", tree.raw, root, len(tree.raw))
    header = b"TREE" + struct.pack("<BBHQQ", 1, 0, 331, 2**64 - 1, 2**64 - 1)
    file.path.write_bytes(tree.raw + header + entries + closing)
    again = read_index(file.path)
    assert np.array_equal(again.offsets, whole.offsets)
    assert np.array_equal(again.voxels, whole.voxels)


def test_header_in_several_blocks_is_followed(tmp_path, make_session):
    file = make_session(tmp_path / "betas.hdf5")
    whole = read_index(file.path)
    with h5py.File(file.path, "a") as hdf5:
        for number in range(40):
            hdf5["betas"].attrs[f"note{number}"] = f"{number}" * 50
    again = read_index(file.path)
    assert np.array_equal(again.offsets, whole.offsets)
    assert np.array_equal(again.voxels, whole.voxels)


def test_file_without_any_chunk_has_an_empty_index(tmp_path, make_session):
    file = make_session(tmp_path / "betas.hdf5", missing="all")
    index = read_index(file.path)
    assert (len(index.offsets), len(index.voxels), index.row_bytes) == (0, 0, 12)
    with h5py.File(file.path) as hdf5, open(file.path, "rb") as raw:
        assert find_btree(hdf5["betas"], raw.fileno()) == (None, 5)


@pytest.mark.parametrize(
    "odd",
    [
        {"libver": "latest"},
        {"filters": {"compression": "gzip"}},
        {"filters": {"fletcher32": True}},
        {"filters": {"compression": "gzip"}, "unfiltered_chunks": True},
        {"chunks": (4, 2, 3, 2)},
        {"chunks": (3, 1, 1, 1)},
        {"layout": "contiguous"},
        {"layout": "compact"},
        {"layout": "virtual"},
    ],
    ids=str,
)
def test_other_layouts_are_not_recognised(tmp_path, make_session, odd):
    with pytest.raises(NotRecognised):
        read_index(make_session(tmp_path / "betas.hdf5", **odd).path)


# Headers that are damaged: the library has the good file open, the bytes come from the other.


def change_the_header_s_version(raw, header):
    raw[header] = 2


def claim_a_long_header(raw, header):
    struct.pack_into("<I", raw, header + 8, 1 << 20)


def let_a_message_run_past_the_end(raw, header):
    del raw[header + 24 :]


def end_before_the_header(raw, header):
    del raw[header:]


def find_layout(raw, header):
    return raw.index(struct.pack("<5I", 6, 1, 1, 1, 2), header) - 11


def hide_the_layout(raw, header):
    struct.pack_into("<H", raw, find_layout(raw, header) - 8, 0)


def change_the_layout_s_version(raw, header):
    raw[find_layout(raw, header)] = 4


def change_the_layout_s_class(raw, header):
    raw[find_layout(raw, header) + 1] = 1


def change_the_chunk_s_shape(raw, header):
    raw[find_layout(raw, header) + 11] = 3


def continue_in_a_circle(raw, header):
    hide_the_layout(raw, header)
    block, length = header + 16, struct.unpack_from("<I", raw, header + 8)[0]
    struct.pack_into("<HHIQQ", raw, block, 0x0010, length - 8, 0, block, length)


HEADER_DAMAGES = [
    change_the_header_s_version,
    claim_a_long_header,
    let_a_message_run_past_the_end,
    end_before_the_header,
    hide_the_layout,
    change_the_layout_s_version,
    change_the_layout_s_class,
    change_the_chunk_s_shape,
    continue_in_a_circle,
]


@pytest.mark.parametrize("damage", HEADER_DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_header_is_not_recognised(tmp_path, make_session, damage):
    file = make_session(tmp_path / "betas.hdf5")
    with h5py.File(file.path) as hdf5:
        raw = bytearray(file.path.read_bytes())
        damage(raw, h5py.h5g.get_objinfo(hdf5["betas"].id).objno[0])
        (tmp_path / "damaged.raw").write_bytes(raw)
        with open(tmp_path / "damaged.raw", "rb") as damaged, pytest.raises(NotRecognised):
            read_chunk_index(hdf5["betas"], damaged.fileno())


# Trees that are damaged: each is seen to be refused, and the session to be read as the library reads it.


class Tree:
    """A file's tree of chunks, node by node, to be damaged."""

    def __init__(self, path, rank):
        self.path, self.raw = path, bytearray(path.read_bytes())
        self.key, self.entry = 8 + 8 * rank, 16 + 8 * rank
        self.nodes = list_nodes(self.raw)

    def node(self, level):
        return next(at for at, found in self.nodes if found == level)

    def place(self, node, number):
        return node + NODE_HEADER + number * self.entry

    def put(self, at, form, *values):
        struct.pack_into(form, self.raw, at, *values)
        self.path.write_bytes(self.raw)

    def get(self, at, form="<Q"):
        return struct.unpack_from(form, self.raw, at)[0]

    def swap(self, one, other, length):
        first, second = bytes(self.raw[one : one + length]), bytes(self.raw[other : other + length])
        self.raw[one : one + length], self.raw[other : other + length] = second, first
        self.path.write_bytes(self.raw)


def swap_two_keys(tree):
    leaf = tree.node(0)
    tree.swap(tree.place(leaf, 1) + 8, tree.place(leaf, 2) + 8, tree.key - 8)


def name_one_voxel_twice(tree):
    leaf = tree.node(0)
    key = slice(tree.place(leaf, 1) + 8, tree.place(leaf, 1) + tree.key)
    tree.raw[tree.place(leaf, 2) + 8 : tree.place(leaf, 2) + tree.key] = tree.raw[key]
    tree.path.write_bytes(tree.raw)


def put_two_rows_in_one_place(tree):
    leaf = tree.node(0)
    tree.put(tree.place(leaf, 2) + tree.key, "<Q", tree.get(tree.place(leaf, 1) + tree.key) + 2)


def put_a_row_past_the_end(tree):
    tree.put(tree.place(tree.node(0), 2) + tree.key, "<Q", len(tree.raw) - 3)


def put_a_row_nowhere(tree):
    tree.put(tree.place(tree.node(0), 2) + tree.key, "<Q", 2**64 - 1)


def shorten_a_chunk(tree):
    tree.put(tree.place(tree.node(0), 2), "<I", 2)


def mark_a_chunk_as_unfiltered(tree):
    tree.put(tree.place(tree.node(0), 2) + 4, "<I", 1)


def place_a_chunk_outside(tree):
    leaf = tree.node(0)
    tree.put(tree.place(leaf, 2) + 16, "<Q", 1000)


def place_a_chunk_at_a_later_trial(tree):
    tree.put(tree.place(tree.node(0), 2) + 8, "<Q", 2)


def lead_in_a_circle(tree):
    top = tree.node(2)
    tree.put(tree.place(top, 0) + tree.key, "<Q", top)


def lead_past_the_end(tree):
    tree.put(tree.place(tree.node(1), 0) + tree.key, "<Q", len(tree.raw) + 8)


def lead_to_the_undefined_address(tree):
    tree.put(tree.place(tree.node(1), 0) + tree.key, "<Q", 2**64 - 1)


def lead_to_a_leaf_twice(tree):
    inner = tree.node(1)
    tree.put(tree.place(inner, 1) + tree.key, "<Q", tree.get(tree.place(inner, 0) + tree.key))


def skip_a_level(tree):
    tree.put(tree.place(tree.node(2), 0) + tree.key, "<Q", tree.node(0))


def change_a_level(tree):
    tree.put(tree.node(0) + 5, "<B", 1)


def change_the_root_s_level(tree):
    tree.put(tree.node(2) + 5, "<B", 200)


def change_the_type(tree):
    tree.put(tree.node(0) + 4, "<B", 0)


def change_the_signature(tree):
    tree.put(tree.node(0), "<B", 0)


def empty_a_leaf(tree):
    tree.put(tree.node(0) + 6, "<H", 0)


def empty_the_root(tree):
    tree.put(tree.node(2) + 6, "<H", 0)


def overfill_a_leaf(tree):
    tree.put(tree.node(0) + 6, "<H", 65_535)


def move_a_key_of_the_root(tree):
    at = tree.place(tree.node(2), 1) + 16
    tree.put(at, "<Q", tree.get(at) + 1)


def move_the_last_key(tree):
    top = tree.node(2)
    closing = tree.place(top, tree.get(top + 6, "<H")) + 8
    tree.raw[closing : closing + tree.key - 8] = bytes(tree.key - 8)
    tree.path.write_bytes(tree.raw)


DAMAGES = [
    swap_two_keys,
    name_one_voxel_twice,
    put_two_rows_in_one_place,
    put_a_row_past_the_end,
    put_a_row_nowhere,
    shorten_a_chunk,
    mark_a_chunk_as_unfiltered,
    place_a_chunk_outside,
    place_a_chunk_at_a_later_trial,
    lead_in_a_circle,
    lead_past_the_end,
    lead_to_the_undefined_address,
    lead_to_a_leaf_twice,
    skip_a_level,
    change_a_level,
    change_the_root_s_level,
    change_the_type,
    change_the_signature,
    empty_a_leaf,
    empty_the_root,
    overfill_a_leaf,
    move_a_key_of_the_root,
    move_the_last_key,
]


@pytest.fixture(scope="module")
def deep_file(tmp_path_factory, make_session):
    """A file whose tree has three levels and lacks chunks, so that a moved key can name a voxel that is free."""
    path = tmp_path_factory.mktemp("deep") / "betas_session03.hdf5"
    make_session(path, trials=3, shape=(7, 31, 23), missing=0.3, fillvalue=-7, order="random")
    return path.read_bytes()


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_tree_is_not_recognised(tmp_path, make_session, deep_file, read_session, read_plainly, damage):
    file = make_session(tmp_path / "betas_session03.hdf5")
    file.path.write_bytes(deep_file)
    read_index(file.path)
    damage(Tree(file.path, 5))
    with pytest.raises(NotRecognised):
        read_index(file.path)
    try:
        expected = read_plainly(file)
    except OSError:
        with pytest.raises(SourceError, match="session 03: "):
            read_session(file)
    else:
        values, by_offset = read_session(file)
        assert not by_offset
        assert values.tobytes() == expected.tobytes()
