"""Small stores, converted from session files, and what may be done to a finished one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xxhash

import nsd_zarr
from builders.sessions import create_source, make_values
from nsd_zarr.store.codec import BloscCodec
from nsd_zarr.store.digest import make_digest
from nsd_zarr.store.format import (
    encode_json,
    encode_small,
    make_chunk_key,
    make_root_metadata,
    make_small_metadata,
)

SESSIONS = (2, 3, 5)
TRIALS_PER_SESSION = 14
TRIALS_PER_SHARD = 7


@dataclass(frozen=True)
class MadeStore:
    """A store, and what its sources hold: the oracle."""

    path: Path
    """The store's folder."""
    stored: np.ndarray = field(repr=False)
    """Values of all trials as the session files hold them."""
    sessions: tuple[int, ...]
    """Session numbers."""
    trials_per_shard: int
    """Trials in a shard."""

    @property
    def percent(self) -> np.ndarray:
        """What readers deliver."""
        return self.stored if self.stored.dtype.kind == "f" else np.float32(self.stored) / np.float32(300)

    @property
    def trials(self) -> int:
        """Trials in the store."""
        return len(self.stored)

    def locate(self, trial: int) -> tuple[int, int]:
        """Session number and trial in session of *trial*."""
        position, inside = divmod(trial, self.trials // len(self.sessions))
        return self.sessions[position], inside

    def shard_path(self, trial: int) -> Path:
        """The file in which *trial* lies."""
        place = [trial // self.trials_per_shard] + [0] * (self.stored.ndim - 1)
        return self.path.joinpath("betas", "c", *map(str, place))

    def copy_to(self, folder: Path) -> MadeStore:
        """A copy of the store, to be damaged."""
        shutil.copytree(self.path, folder)
        return MadeStore(folder, self.stored, self.sessions, self.trials_per_shard)


def make_store(
    folder: Path,
    values: np.ndarray | None = None,
    *,
    sessions: Sequence[int] = SESSIONS,
    trials_per_shard: int = TRIALS_PER_SHARD,
    **options: object,
) -> MadeStore:
    """Create session files (chunk: all trials of one voxel, earliest format) in a folder, and convert them there.

    The default has sizes that no two axes share: 3 sessions of 14 trials, 7 to a shard, of 5 x 11 x 3 voxels.
    """
    if values is None:
        values = make_values(0, len(sessions) * TRIALS_PER_SESSION, (5, 11, 3))
    parts = np.split(values, len(sessions))
    source = create_source(folder / "source", dict(zip(sessions, parts, strict=True)))
    options = {"sessions": list(sessions), "trials_per_shard": trials_per_shard, "workers": 1} | options
    nsd_zarr.convert(source, folder / "subj01.zarr", **options)
    return MadeStore(folder / "subj01.zarr", values, tuple(sessions), trials_per_shard)


def digest_tree(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder, and its folders; that is, all that byte-identical means."""

    def digest(path: Path) -> str:
        if path.is_symlink():
            return f"link to {path.readlink()}"
        return "folder" if path.is_dir() else xxhash.xxh3_128_hexdigest(path.read_bytes())

    return {path.relative_to(folder).as_posix(): digest(path) for path in sorted(folder.rglob("*"))}


# -- finished stores that are changed ----------------------------------------------------------------------------


def change_root(store: Path, change: Callable[[dict, dict], object]) -> None:
    """Write the root document again after change(attributes, members), with a checksum that is right."""
    document = json.loads((store / "zarr.json").read_bytes())
    attributes, members = document["attributes"], document["consolidated_metadata"]["metadata"]
    attributes.pop("checksum")
    change(attributes, members)
    (store / "zarr.json").write_bytes(make_root_metadata(attributes, members))


Arrays = dict[str, tuple[np.ndarray, tuple[str, ...], dict]]
"""Values, dims and attributes of arrays, by name."""


def add_arrays(store: Path, arrays: Arrays) -> None:
    """Put arrays into a finished store; those along (session_number, z, ...) have a chunk for each session."""

    def change(attributes: dict, members: dict) -> None:
        for name, (values, dims, own) in arrays.items():
            metadata, chunks = _encode_array(values, dims, own)
            members[name] = metadata
            files = {f"{name}/zarr.json": encode_json(metadata)}
            files |= {make_chunk_key(name, place): data for place, data in chunks.items()}
            for key, data in files.items():
                _write(store, attributes, key, data)
        along_trial = [name for name, member in members.items() if member["dimension_names"] == ["trial"]]
        members["betas"]["attributes"]["coordinates"] = " ".join(along_trial)
        _write(store, attributes, "betas/zarr.json", encode_json(members["betas"]))

    change_root(store, change)


def _write(store: Path, attributes: dict, key: str, data: bytes) -> None:
    """Write a file that the manifest lists."""
    (store / key).parent.mkdir(parents=True, exist_ok=True)
    (store / key).write_bytes(data)
    attributes["manifest"][key] = [len(data), make_digest(data)]


def _encode_array(values, dims, own):
    metadata = make_small_metadata(values, dims, own)
    if dims[0] != "session_number" or values.ndim == 1:
        return metadata, {tuple(0 for _ in dims): encode_small(values)}
    codec = BloscCodec("lz4", 5, values.itemsize)
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [1, *values.shape[1:]]
    blosc = {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": values.itemsize, "blocksize": 0}
    metadata["codecs"].insert(1, {"name": "blosc", "configuration": blosc})
    rest = tuple(0 for _ in values.shape[1:])
    return metadata, {(row, *rest): b"".join(codec.encode(values[[row]])) for row in range(len(values))}
