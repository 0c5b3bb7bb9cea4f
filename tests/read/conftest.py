"""Counting what is read of a store, and stores whose root document says something else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders import change_root


class Reads:
    """What was opened and read of the shards of any store since the start, or since `clear`."""

    def __init__(self) -> None:
        self._paths: dict[int, Path] = {}
        self.clear()

    def clear(self) -> None:
        """Forget what was read."""
        self.opened: list[int] = []
        self.trials: list[int] = []
        self.chunk_bytes = 0
        self.index_bytes = 0

    def note_open(self, path, descriptor: int) -> None:
        """Called for each os.open."""
        path = Path(os.fsdecode(path))
        self._paths.pop(descriptor, None)
        if "/betas/c/" not in path.as_posix():
            return
        self._paths[descriptor] = path
        self.opened.append(self._shard(path))

    def note_range(self, descriptor: int, length: int, offset: int) -> None:
        """Called for each os.preadv: of a shard it must be its end with the index, or one whole chunk."""
        if descriptor not in self._paths:
            return
        path = self._paths[descriptor]
        entries = self._read_index(path)
        if offset + length == path.stat().st_size:
            self.index_bytes += length
            return
        position = entries.index((offset, length))
        self.trials.append(self._shard(path) * len(entries) + position)
        self.chunk_bytes += length

    def note_index(self, descriptor: int, length: int) -> None:
        """Called for each os.pread."""
        if descriptor in self._paths:
            self.index_bytes += length

    @staticmethod
    def _shard(path: Path) -> int:
        return int(path.parts[path.parts.index("betas") + 2])

    @staticmethod
    def _read_index(path: Path) -> list[tuple[int, int]]:
        store = path.parents[len(path.parts) - 1 - path.parts.index("betas")]
        trials = json.loads((store / "betas/zarr.json").read_bytes())["chunk_grid"]["configuration"]["chunk_shape"][0]
        return [tuple(entry) for entry in np.frombuffer(path.read_bytes()[:-4][-16 * trials :], "<u8").reshape(-1, 2)]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Watches os.open, os.preadv and os.pread."""
    reads = Reads()
    real_open, real_preadv, real_pread = os.open, os.preadv, os.pread

    def watched_open(path, *arguments, **options):
        descriptor = real_open(path, *arguments, **options)
        reads.note_open(path, descriptor)
        return descriptor

    def watched_preadv(descriptor, buffers, offset, *arguments):
        reads.note_range(descriptor, sum(len(buffer) for buffer in buffers), offset)
        return real_preadv(descriptor, buffers, offset, *arguments)

    def watched_pread(descriptor, length, offset):
        reads.note_index(descriptor, length)
        return real_pread(descriptor, length, offset)

    monkeypatch.setattr(os, "open", watched_open)
    monkeypatch.setattr(os, "preadv", watched_preadv)
    monkeypatch.setattr(os, "pread", watched_pread)
    return reads


@pytest.fixture
def rewrite_root() -> Callable[..., None]:
    """Change root attributes of a store, under a valid checksum."""

    def rewrite(store: Path, **changes) -> None:
        change_root(store, lambda attributes, _: attributes.update(changes))

    return rewrite
