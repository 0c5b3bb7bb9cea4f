"""Fuzzes the decode engine: chunks, shard indexes and root documents of a stranger, every checksum right.

    python -m tests.fuzz.decode --seconds 600 --seed 0

An input is a letter and what it is: c a Blosc frame, i a shard, r a root document. A frame lies right before a page
that may not be read, what it is decoded into right before one that may not be written. Decoding twice over different
bytes must give the same: nothing is left as it was.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import shutil
import struct
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import h5py
import numpy as np

import nsd_zarr
from nsd_zarr.cli.show import describe_store, format_store
from nsd_zarr.errors import NsdZarrError
from nsd_zarr.store.codec import BloscCodec, ChunkError, decode_chunk, decode_unchecked
from nsd_zarr.store.digest import make_digest
from nsd_zarr.store.format import make_root_metadata
from nsd_zarr.store.index import make_shard_tail
from nsd_zarr.store.reader import TrialReader
from nsd_zarr.store.root import open_store
from tests.fuzz.child import Try, main

NUMBERS = [0, 1, 2, 4, 16, 127, 128, 255, 256, 2**15, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 4, 2**32 - 1]
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    2,
    7,
    42,
    1.5,
    2**31,
    2**63,
    1e308,
    "",
    "..",
    "/",
    "a/b",
    "int8",
    "string",
    [],
    {},
    [[]],
]
SHARD = "betas/c/1/0/0/0"
SIZES = [(64, "int16"), (1000, "int16"), (40_000, "int16"), (9000, "float32"), (3000, "float64"), (5000, "int8")]
FEW = 24


def seal(body: bytes) -> bytes:
    """*body* and its crc32c."""
    return body + struct.pack("<I", google_crc32c.value(body))


# -- inputs ------------------------------------------------------------------------------------------------------


def make_inputs(random: np.random.Generator) -> Iterator[bytes]:
    """Endless: of each kind, from whole ones with something changed."""
    frames = list(_make_frames(random))
    shard, root = _make_store_bytes()
    while True:
        for _ in range(40):
            size, frame = frames[int(random.integers(len(frames)))]
            yield b"c" + bytes([size]) + _change_frame(bytearray(frame), random)
        yield b"i" + _change_index(bytearray(shard), random)
        yield b"r" + _change_document(json.loads(root), random)


def _make_frames(random: np.random.Generator) -> Iterator[tuple[int, bytes]]:
    for size, (count, dtype) in enumerate(SIZES):
        for cname in ("lz4", "zstd", "blosclz", "zlib", "lz4hc"):
            for shuffle in ("shuffle", "noshuffle", "bitshuffle"):
                for spread in (3, 3000):
                    values = random.integers(0, min(spread, 100 if dtype == "int8" else spread), count).astype(dtype)
                    codec = BloscCodec(
                        cname, int(random.integers(10)), values.itemsize, shuffle, int(random.choice([0, 512]))
                    )
                    yield size, codec.encode(values)[0]


def _change_frame(frame: bytearray, random: np.random.Generator) -> bytes:
    if random.random() < 0.1:
        del frame[int(random.integers(16, len(frame))) :]
    for _ in range(int(random.integers(1, 5))):
        way = random.integers(5)
        if way == 0:
            frame[2] ^= 1 << int(random.integers(8))
        elif way == 1:
            _put(frame, 8, random)
        elif way == 2:
            # Where blocks start, and the lengths of the first streams.
            _put(frame, 16 + 4 * int(random.integers(FEW)), random)
        elif way == 3:
            _put(frame, int(random.integers(16, len(frame) + 1)), random)
        else:
            frame[int(random.integers(len(frame)))] ^= 1 << int(random.integers(8))
    if random.random() < 0.9:
        struct.pack_into("<I", frame, 12, len(frame))
    return bytes(frame)


def _put(data: bytearray, place: int, random: np.random.Generator) -> None:
    number = (
        NUMBERS[int(random.integers(len(NUMBERS)))] if random.random() < 0.5 else int(random.integers(len(data) + 8))
    )
    if place + 4 <= len(data):
        struct.pack_into("<I", data, place, number)


def _change_index(shard: bytearray, random: np.random.Generator) -> bytes:
    first = len(shard) - 16 * 3 - 4
    for _ in range(int(random.integers(1, 4))):
        number = int(random.choice(NUMBERS)) if random.random() < 0.7 else int(random.integers(2**63))
        struct.pack_into("<Q", shard, first + 8 * int(random.integers(6)), number)
    if random.random() < 0.2:
        del shard[: int(random.integers(first))]
    return bytes(shard[:-4])


def _change_document(document: dict[str, Any], random: np.random.Generator) -> bytes:
    for _ in range(int(random.integers(1, 4))):
        parent: Any = document["attributes"] if random.random() < 0.5 else document["consolidated_metadata"]["metadata"]
        while True:
            keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
            if not keys:
                break
            key = keys[int(random.integers(len(keys)))]
            if isinstance(parent[key], (dict, list)) and random.random() < 0.8:
                parent = parent[key]
                continue
            if random.random() < 0.15:
                del parent[key]
            else:
                parent[key] = VALUES[int(random.integers(len(VALUES)))]
            break
    return json.dumps(document).encode()


# -- trying one --------------------------------------------------------------------------------------------------


class _Guarded:
    """Memory that ends right before a page which may be neither read nor written."""

    def __init__(self, most: int) -> None:
        pages = -(-most // mmap.PAGESIZE) + 1
        self._memory = mmap.mmap(-1, pages * mmap.PAGESIZE)
        self._bytes = np.frombuffer(self._memory, np.uint8)
        self._end = (pages - 1) * mmap.PAGESIZE
        guard = ctypes.c_void_p(self._bytes.ctypes.data + self._end)
        assert ctypes.CDLL(None, use_errno=True).mprotect(guard, mmap.PAGESIZE, 0) == 0

    def take(self, length: int) -> np.ndarray:
        """The last *length* bytes before that page."""
        return self._bytes[self._end - length : self._end]


def make_try() -> Try:
    """What tries an input; keeps a small store for those that need one."""
    source, target = _Guarded(2**20), _Guarded(2**20)
    store = Path(tempfile.mkdtemp()) / "subj01.zarr"
    shutil.copytree(_make_store(), store)
    whole = {key: (store / key).read_bytes() for key in ("zarr.json", SHARD)}
    ways = {
        b"c": lambda data: _try_frame(data, source, target),
        b"i": lambda data: _try_shard(data, store, whole),
        b"r": lambda data: _try_document(data, store, whole),
    }
    turns = [0]

    def attempt(data: bytes) -> str:
        # Blosc takes its pool of threads on the main thread, and a context of its own elsewhere.
        turns[0] += 1
        if turns[0] % 2:
            return ways[data[:1]](data[1:])
        outcome: list[Any] = []
        thread = threading.Thread(target=lambda: outcome.append(_catch(ways[data[:1]], data[1:])))
        thread.start()
        thread.join()
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return str(outcome[0])

    return attempt


def _catch(work: Any, data: bytes) -> Any:
    try:
        return work(data)
    except Exception as error:
        return error


def _try_frame(data: bytes, source: _Guarded, target: _Guarded) -> str:
    count, dtype = SIZES[data[0]]
    chunk = source.take(len(data) + 3)
    chunk[:] = np.frombuffer(seal(data[1:]), np.uint8)
    out = target.take(count * np.dtype(dtype).itemsize).view(dtype)
    found, refused = [], 0
    for filling, decode in ((0x5A, decode_chunk), (0xA5, decode_unchecked)):
        out.view(np.uint8)[:] = filling
        try:
            # Readers leave the crc32c aside, so that it is wrong the second time: the same must come out.
            decode(chunk, out)
        except ChunkError:
            refused += 1
        chunk[-1] ^= 1
        found.append(out.tobytes())
    if refused:
        if refused == 1:
            raise AssertionError("refused with a look at the crc32c, or without, alone")
        return "chunk refused"
    if found[0] != found[1]:
        raise AssertionError("decoding left bytes as they were")
    return "chunk decoded"


def _try_shard(data: bytes, store: Path, whole: dict[str, bytes]) -> str:
    index = seal(data[-48:])
    shard = data[:-48] + index
    document = json.loads(whole["zarr.json"])
    document["attributes"]["manifest"][SHARD] = [len(shard), make_digest(shard), make_shard_tail(data[-52:-48], index)]
    (store / SHARD).write_bytes(shard)
    (store / "zarr.json").write_bytes(
        make_root_metadata(document["attributes"], document["consolidated_metadata"]["metadata"])
    )
    try:
        reader = TrialReader(open_store(store))
        out = np.empty(reader.volume_shape, reader.dtype)
        for trial in (3, 4, 5):
            reader.read_into(trial, out)
    except NsdZarrError:
        return "shard refused"
    finally:
        (store / SHARD).write_bytes(whole[SHARD])
        (store / "zarr.json").write_bytes(whole["zarr.json"])
    return "shard read"


def _try_document(data: bytes, store: Path, whole: dict[str, bytes]) -> str:
    document = json.loads(data)
    try:
        sealed = make_root_metadata(document["attributes"], document["consolidated_metadata"]["metadata"])
    except ValueError:
        return "root that is no JSON"
    (store / "zarr.json").write_bytes(sealed)
    try:
        opened = open_store(store)
        describe_store(opened)
        format_store(opened)
        with nsd_zarr.open_dataset(store) as dataset:
            dataset.load()
    except NsdZarrError:
        return "root refused"
    finally:
        (store / "zarr.json").write_bytes(whole["zarr.json"])
    return "root read"


def _make_store() -> Path:
    folder = Path(tempfile.mkdtemp())
    (folder / "source").mkdir()
    for session in (1, 2):
        values = np.random.default_rng(session).integers(-99, 99, (6, 3, 7, 5), "int16")
        with h5py.File(folder / f"source/betas_session{session:02d}.hdf5", "w", libver="earliest") as file:
            file.create_dataset("betas", data=values, chunks=(6, 1, 1, 1))
    nsd_zarr.convert(folder / "source", folder / "subj01.zarr", trials_per_shard=3, workers=1)
    return folder / "subj01.zarr"


def _make_store_bytes() -> tuple[bytes, bytes]:
    store = _make_store()
    shard, root = (store / SHARD).read_bytes(), (store / "zarr.json").read_bytes()
    shutil.rmtree(store.parent)
    return shard, root


if __name__ == "__main__":
    main("decode", make_inputs, make_try)
