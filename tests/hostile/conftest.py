"""Stores of a stranger who knows every checksum of ours, read through every face."""

from __future__ import annotations

import importlib.util
import os
import struct
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import builders
import google_crc32c
import numpy as np
import pytest

import nsd_zarr
from nsd_zarr.cli.main import run
from nsd_zarr.errors import NsdZarrError
from nsd_zarr.store.digest import make_digest
from nsd_zarr.store.index import make_shard_tail
from nsd_zarr.store.reader import TrialReader
from nsd_zarr.store.root import open_store

MAX_MEMORY = 64 * 2**20


@pytest.fixture
def hostile(volumes, tmp_path):
    """A copy of a small store, to be made hostile: 3 sessions of 14 trials, 7 to a shard, of 5 x 11 x 3 voxels."""
    (tmp_path / "given").mkdir()
    return volumes.copy_to(tmp_path / "given" / "subj01.zarr")


@pytest.fixture
def change_root() -> Callable[..., None]:
    """change_root(store, change): the root document after change(attributes, members), its checksum right."""
    return builders.change_root


@pytest.fixture
def change_file(change_root) -> Callable[..., None]:
    """change_file(store, key, data): a file of other bytes, and a manifest that vouches for it."""

    def rewrite(store: Path, key: str, data: bytes, trials: int = 7) -> None:
        (store / key).write_bytes(data)
        end = 16 * trials + 4
        tail = [make_shard_tail(data[-end - 4 : -end], data[-end:])] if key.startswith("betas/c/") else []
        record = [len(data), make_digest(data), *tail]
        change_root(store, lambda attributes, _: attributes["manifest"].update({key: record}))

    return rewrite


def seal(body: bytes) -> bytes:
    """*body* and its crc32c."""
    return body + struct.pack("<I", google_crc32c.value(body))


@pytest.fixture(name="seal")
def _seal() -> Callable[[bytes], bytes]:
    return seal


@pytest.fixture
def make_shard() -> Callable[..., bytes]:
    """make_shard(frames, entries=None): a shard of these Blosc frames, every checksum right."""

    def make(frames: list[bytes], entries: object = None) -> bytes:
        chunks = [seal(frame) for frame in frames]
        if entries is None:
            lengths = [len(chunk) for chunk in chunks]
            entries = np.array([np.cumsum([0, *lengths[:-1]]), lengths]).T
        return b"".join(chunks) + seal(np.asarray(entries, "<u8").tobytes())

    return make


@pytest.fixture
def split_shard() -> Callable[[bytes], tuple[list[bytes], np.ndarray]]:
    """split_shard(data): the Blosc frames of a shard of seven trials, and its index."""

    def split(data: bytes) -> tuple[list[bytes], np.ndarray]:
        entries = np.frombuffer(data[-116:-4], "<u8").reshape(7, 2).copy()
        return [data[start : start + length - 4] for start, length in entries.tolist()], entries

    return split


def _read_trials(path: Path) -> object:
    reader = TrialReader(open_store(path))
    out = np.empty((reader.store.geometry.trials, *reader.volume_shape), reader.dtype)
    for trial, values in enumerate(out):
        reader.read_into(trial, values)
    return out


def _load(path: Path) -> object:
    with nsd_zarr.open_dataset(path) as dataset:
        repr(dataset)
        return {name: variable.load().values for name, variable in dataset.variables.items()}


def _read_by_torch(path: Path) -> object:
    trials = TrialDataset(path, raw=True)
    return np.stack([trials[trial]["betas"].numpy() for trial in range(len(trials))])


def _format_value(*words: str) -> Callable[[Path], object]:
    def call(path: Path) -> object:
        code = run([words[0], str(path), *words[1:]])
        # 70 is a bug of ours, reported in one line: nothing that a stranger can write may be one.
        assert code in (0, 1, 4)
        return code

    return call


FACES: dict[str, Callable[[Path], object]] = {
    "xarray": _load,
    "raw": lambda path: nsd_zarr.open_dataset(path, raw=True).betas.isel(trial=[-1, 0, 7]).values,
    "mean": lambda path: nsd_zarr.open_dataset(path).betas.mean("trial").values,
    "reader": _read_trials,
    "quick": lambda path: nsd_zarr.verify(path, quick=True).is_whole,
    "verify": lambda path: nsd_zarr.verify(path, workers=1).is_whole,
    "info": _format_value("info"),
    "info --json": _format_value("info", "--json"),
    "verify command": _format_value("verify"),
}
if importlib.util.find_spec("torch"):
    from nsd_zarr.torch import TrialDataset

    FACES["torch"] = _read_by_torch

_opened: list[tuple[str, int]] | None = None


def _note_open(event: str, arguments: tuple) -> None:
    if event == "open" and _opened is not None and isinstance(arguments[0], (str, bytes, os.PathLike)):
        _opened.append((os.fsdecode(arguments[0]), arguments[2]))


sys.addaudithook(_note_open)


@contextmanager
def note_opened() -> Iterator[list[tuple[str, int]]]:
    """Paths and flags of everything that Python opens meanwhile."""
    global _opened
    _opened = opened = []
    try:
        yield opened
    finally:
        _opened = None


@pytest.fixture(name="note_opened")
def _note_opened() -> Callable:
    return note_opened


@pytest.fixture
def read_all_ways(capsys) -> Callable[[Path], dict[str, object]]:
    """read_all_ways(path): what each face delivers: a value, or an error of ours. Anything else fails the test.

    Memory stays bounded, nothing is written, and nothing is opened for reading that lies beside the store.
    """

    def read(path: Path) -> dict[str, object]:
        found: dict[str, object] = {}
        for name, face in FACES.items():
            tracemalloc.start()
            try:
                with note_opened() as opened:
                    found[name] = face(path)
            except NsdZarrError as error:
                found[name] = error.with_traceback(None)
            finally:
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
            assert len(str(found[name])) < 2000 or not isinstance(found[name], NsdZarrError)
            assert peak < MAX_MEMORY, (name, peak)
            written = [file for file, flags in opened if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)]
            assert [file for file in written if not file.endswith(".pyc") and "__pycache__" not in file] == []
            beside = os.path.realpath(path.parent.parent)
            reached = {os.path.realpath(file) for file, _ in opened}
            inside = os.path.join(os.path.realpath(path), "")
            assert [file for file in reached if file.startswith(beside) and not file.startswith(inside)] == []
        capsys.readouterr()
        return found

    return read
