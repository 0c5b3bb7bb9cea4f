"""Where each voxel's row of trials lies in a session file of the dataset's own layout.

HDF5 keeps the address of every chunk in a version-1 B-tree. The library hands these out one Python call at a time
(2 to 8 s for 699,192 chunks); the nodes themselves are a plain public format, decoded here in 0.2 s. Source: HDF5
File Format Specification 3.0, sections III.A.1 (B-trees), IV.A.1.a (object headers), IV.A.2.i (data layout).
Whatever is not exactly as expected raises NotRecognised, and the caller reads through the library instead.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import h5py
import numpy as np

from nsd_zarr.retry import read_again

_LAYOUT_MESSAGE = 0x0008
_CONTINUATION_MESSAGE = 0x0010
_CHUNKED_CLASS = 2
_RAW_DATA_NODE = 1
_UNDEFINED = 2**64 - 1
_NODE_HEADER_BYTES = 24
_KEY_PREFIX_BYTES = 8
_ADDRESS_BYTES = 8
_MAX_HEADER_BYTES = 1 << 16
_NODES_PER_BATCH = 1024
_MAX_ADDRESS = 2**62


class NotRecognised(Exception):
    """The file is not, or not exactly, what the fast path knows."""


@dataclass(frozen=True, slots=True)
class ChunkIndex:
    """Rows (one voxel, all trials) in the order in which they lie in the file."""

    offsets: np.ndarray
    """Byte offset of each stored row in the file, int64, ascending."""
    voxels: np.ndarray
    """Voxel of each stored row, C-order number in the volume, int64."""
    row_bytes: int
    """Bytes of a row."""


def read_chunk_index(data: h5py.Dataset, descriptor: int) -> ChunkIndex:
    """Read the chunk index of *data*, whose chunks are rows (T, 1, ...), from its open file *descriptor*.

    Cost: every B-tree node once, about 65 bytes a chunk; memory 50 bytes a voxel. Raises NotRecognised.
    """
    base = data.file.userblock_size
    root, rank = find_btree(data, descriptor)
    row_bytes = data.shape[0] * data.dtype.itemsize
    parts = [] if root is None else list(_read_rows(descriptor, root, base, rank, data.shape, row_bytes))
    offsets = np.concatenate([offsets for offsets, _ in parts] or [np.empty(0, np.int64)]) + base
    voxels = np.concatenate([voxels for _, voxels in parts] or [np.empty(0, np.int64)])
    parts.clear()
    # HDF5 finds a chunk by halving: in a tree out of order it would not find what stands there.
    if (voxels[1:] <= voxels[:-1]).any():
        raise NotRecognised("chunks out of order, or two for one voxel")
    order = np.argsort(offsets, kind="stable")
    index = ChunkIndex(offsets[order], voxels[order], row_bytes)
    _check_rows(index, os.fstat(descriptor).st_size)
    return index


def _check_rows(index: ChunkIndex, file_bytes: int) -> None:
    """Rows must lie apart from each other and inside the file."""
    if len(index.offsets) and (
        index.offsets[-1] + index.row_bytes > file_bytes or (np.diff(index.offsets) < index.row_bytes).any()
    ):
        raise NotRecognised("rows overlap, or lie outside the file")


def find_btree(data: h5py.Dataset, descriptor: int) -> tuple[int | None, int]:
    """Address of the B-tree's root node (None: no chunk was ever written) and its rank, from the object header.

    Raises NotRecognised, as for files of a later format, which index their chunks in other ways.
    """
    base = data.file.userblock_size
    # Not h5o.get_info, which adds up the whole chunk index on the way: 0.05 to 1.1 s.
    header = int(h5py.h5g.get_objinfo(data.id).objno[0])
    message = _find_message(descriptor, base + header, base, _LAYOUT_MESSAGE)
    rank = len(data.shape) + 1
    if len(message) < 11 + 4 * rank or tuple(message[:3]) != (3, _CHUNKED_CLASS, rank):
        raise NotRecognised("not a version-3 chunked layout")
    root, *dims = struct.unpack_from(f"<Q{rank}I", message, 3)
    if tuple(dims) != (*data.chunks, data.dtype.itemsize):
        raise NotRecognised("chunk shape in the layout message differs")
    return (None if root == _UNDEFINED else base + root), rank


def _find_message(descriptor: int, address: int, base: int, wanted: int) -> bytes:
    """Body of the first message of a type in the version-1 object header at *address*."""
    prefix = _read(descriptor, 16, address)
    version, _, _, _, length = struct.unpack_from("<BBHII", prefix)
    if version != 1:
        raise NotRecognised("not a version-1 object header")
    blocks, budget = [(address + 16, length)], _MAX_HEADER_BYTES
    while blocks:
        start, length = blocks.pop(0)
        budget -= max(length, 8)
        if budget < 0:
            raise NotRecognised("object header too long")
        block, position = _read(descriptor, length, start), 0
        while position + 8 <= length:
            kind, size = struct.unpack_from("<HH", block, position)
            body = block[position + 8 : position + 8 + size]
            if kind == wanted:
                return body
            if kind == _CONTINUATION_MESSAGE and len(body) >= 16:
                following, extent = struct.unpack_from("<QQ", body)
                blocks.append((base + following, extent))
            position += 8 + size
    raise NotRecognised("no layout message")


def _read_rows(
    descriptor: int, root: int, base: int, rank: int, shape: tuple[int, ...], row_bytes: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Offsets and voxel numbers of all leaf entries, level by level from the root, some nodes at a time.

    Levels must fall by one and entries never outnumber the voxels, so a circle of nodes ends. A node's first and last
    key must be those between which its parent's entry stands: HDF5 searches by them, and would not find what lies
    outside.
    """
    entry = np.dtype([("size", "<u4"), ("filter_mask", "<u4"), ("offset", "<u8", (rank,)), ("child", "<u8")])
    most = math.prod(shape[1:])
    header = _read(descriptor, _NODE_HEADER_BYTES, root)
    nodes, level, keys = [root], header[5], _read_outer_keys(descriptor, root, header, entry)
    for expected in range(level, 0, -1):
        entries = np.concatenate(list(_read_nodes(descriptor, nodes, keys, entry, expected, most)))
        nodes = (entries["child"] + np.uint64(base)).tolist()
        keys = [*(key.tobytes() for key in entries["offset"]), keys[-1]]
    for batch in _read_nodes(descriptor, nodes, keys, entry, 0, most):
        yield _decode_rows(batch, shape, row_bytes)
        last = batch["offset"][-1]
    chunk = np.array([shape[0], *(1 for _ in shape[1:]), row_bytes // shape[0]], "<u8")
    if tuple(np.frombuffer(keys[-1], "<u8") // chunk) <= tuple(last // chunk):
        raise NotRecognised("the last chunk lies outside its tree's keys")


def _read_outer_keys(descriptor: int, root: int, header: bytes, entry: np.dtype) -> list[bytes]:
    """First and last key (the places alone) of the root node."""
    first = root + _NODE_HEADER_BYTES + _KEY_PREFIX_BYTES
    last = first + (header[6] | header[7] << 8) * entry.itemsize
    length = entry["offset"].itemsize
    return [_read(descriptor, length, first), _read(descriptor, length, last)]


def _read_nodes(
    descriptor: int, nodes: list[int], keys: list[bytes], entry: np.dtype, level: int, most_chunks: int
) -> Iterator[np.ndarray]:
    """Entries of *nodes*, which must all be of one *level* and lie between *keys*, NODES_PER_BATCH nodes at a time."""
    key_bytes = entry.itemsize - _ADDRESS_BYTES
    # The first read guesses the node's size; a fuller node than the default (2 x 32 entries) is read again.
    guess, total = _NODE_HEADER_BYTES + 64 * entry.itemsize + key_bytes, 0
    for first in range(0, len(nodes), _NODES_PER_BATCH):
        parts = []
        for number in range(first, min(first + _NODES_PER_BATCH, len(nodes))):
            node = _read(descriptor, guess, nodes[number], short=True)
            if node[:6] != b"TREE" + bytes([_RAW_DATA_NODE, level]) or len(node) < _NODE_HEADER_BYTES:
                raise NotRecognised("not a B-tree node of chunks, or not of its level")
            end = _NODE_HEADER_BYTES + (node[6] | node[7] << 8) * entry.itemsize
            if end + key_bytes > len(node):
                node = _read(descriptor, end + key_bytes, nodes[number])
            outer = [node[place + _KEY_PREFIX_BYTES : place + key_bytes] for place in (_NODE_HEADER_BYTES, end)]
            if outer != keys[number : number + 2] or end == _NODE_HEADER_BYTES:
                raise NotRecognised("a B-tree node is empty, or its keys differ from its parent's")
            total += (end - _NODE_HEADER_BYTES) // entry.itemsize
            if total > most_chunks:
                raise NotRecognised("more chunks than voxels")
            parts.append(node[_NODE_HEADER_BYTES:end])
        yield np.frombuffer(b"".join(parts), entry)


def _decode_rows(leaves: np.ndarray, shape: tuple[int, ...], row_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and voxel numbers of leaf entries that are whole rows."""
    place = leaves["offset"]
    inside = (place[:, 1:-1] < np.array(shape[1:], "<u8")).all() and not place[:, 0].any() and not place[:, -1].any()
    if not inside or (leaves["size"] != row_bytes).any() or leaves["filter_mask"].any():
        raise NotRecognised("chunks that are not whole rows")
    if (leaves["child"] >= np.uint64(_MAX_ADDRESS)).any():
        raise NotRecognised("rows overlap, or lie outside the file")
    axes = tuple(place[:, axis].astype(np.int64) for axis in range(1, len(shape)))
    return leaves["child"].astype(np.int64), np.ravel_multi_index(axes, shape[1:]).astype(np.int64)


def _read(descriptor: int, length: int, offset: int, *, short: bool = False) -> bytes:
    if length < 0 or not 0 <= offset < _MAX_ADDRESS:
        raise NotRecognised("an address outside the file")
    data = read_again(partial(os.pread, descriptor, length, offset), f"reading the chunk index at byte {offset}")
    if len(data) < length and not short:
        raise NotRecognised("a structure runs past the end of the file")
    return data
