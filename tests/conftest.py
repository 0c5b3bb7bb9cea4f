"""Small stores, made from session files in the dataset's own layout, for the tests of everything that reads."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pytest

import nsd_zarr
from nsd_zarr.store.codec import BloscCodec
from nsd_zarr.store.digest import make_digest
from nsd_zarr.store.format import (
    encode_json,
    encode_small,
    make_chunk_key,
    make_root_metadata,
    make_small_metadata,
)

pytest_plugins = ["run_fixtures"]

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


def make_values(trials: int, shape: Sequence[int], dtype: str = "int16") -> np.ndarray:
    """Values that tell their place: no two are equal, none is zero."""
    places = np.arange(trials * math.prod(shape)).reshape(trials, *shape)
    if np.dtype(dtype).kind == "f":
        return (places * 0.25 - 431.125).astype(dtype)
    return (places * 9 - 31_000).astype(dtype)


MakeStore = Callable[..., MadeStore]


@pytest.fixture(scope="session")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> MakeStore:
    """Write session files (chunk: all trials of one voxel, earliest format), convert them; the odd store is a keyword.

    The default has sizes that no two axes share: 3 sessions of 14 trials, 7 to a shard, of 5 x 11 x 3 voxels.
    """

    def make(values=None, *, sessions=SESSIONS, trials_per_shard=TRIALS_PER_SHARD, **options) -> MadeStore:
        if values is None:
            values = make_values(len(sessions) * TRIALS_PER_SESSION, (5, 11, 3))
        folder = tmp_path_factory.mktemp("store")
        (folder / "source").mkdir()
        for number, betas in zip(sessions, np.split(values, len(sessions)), strict=True):
            chunk = (len(betas), *(1 for _ in betas.shape[1:]))
            with h5py.File(folder / f"source/betas_session{number:02d}.hdf5", "w", libver="earliest") as file:
                file.create_dataset("betas", data=betas, chunks=chunk)
        options = {"sessions": list(sessions), "trials_per_shard": trials_per_shard, "workers": 1} | options
        nsd_zarr.convert(folder / "source", folder / "subj01.zarr", **options)
        return MadeStore(folder / "subj01.zarr", values, tuple(sessions), trials_per_shard)

    return make


@pytest.fixture(scope="session")
def volumes(make_store: MakeStore) -> MadeStore:
    """int16 volumes: what NSD delivers. Never to be changed: copy it."""
    return make_store()


@pytest.fixture(scope="session")
def surfaces(make_store: MakeStore) -> MadeStore:
    """int16 surfaces, (trial, vertex)."""
    return make_store(make_values(3 * TRIALS_PER_SESSION, (23,)))


@pytest.fixture(scope="session")
def floats(make_store: MakeStore) -> MadeStore:
    """float32 volumes with NaN and infinity: percent signal change already."""
    values = make_values(2 * TRIALS_PER_SESSION, (5, 3, 11), "float32")
    values.reshape(-1)[::13] = np.nan
    values.reshape(-1)[5:8] = np.inf, -np.inf, -0.0
    return make_store(values, sessions=(1, 2))


@pytest.fixture(scope="session")
def every_code(make_store: MakeStore) -> MadeStore:
    """A store in which each of the 65,536 int16 codes occurs."""
    values = (np.arange(263 * 5 * 17 * 3) % 65_536 - 32_768).astype("int16").reshape(263, 5, 17, 3)
    return make_store(values, sessions=(1,), trials_per_shard=263)


# -- images ------------------------------------------------------------------------------------------------------

IMAGE_SHAPE = (7, 5, 3)
IMAGE_LAYOUTS = {
    "contiguous": {},
    "one image a chunk": {"chunks": (1, *IMAGE_SHAPE)},
    "gzip": {"chunks": (1, 4, 5, 3), "compression": "gzip", "shuffle": True},
    "odd chunks": {"chunks": (6, 3, 4, 1), "compression": "gzip"},
    "large chunks": {"chunks": (29, *IMAGE_SHAPE)},
}


def make_image_values(count: int) -> np.ndarray:
    """Images, uint8 of shape (count, 7, 5, 3), that tell their id, row, column and channel; never zero."""
    ids = np.arange(count)[:, np.newaxis, np.newaxis, np.newaxis]
    row, column, channel = np.ogrid[:7, :5, :3]
    return ((ids * 89 + row * 31 + column * 5 + channel) % 251 + 1 + (ids // 251 + row) % 4).astype(np.uint8)


@pytest.fixture(scope="session")
def make_stimuli() -> Callable[..., np.ndarray]:
    """Write a stimulus file with ids 0 .. count - 1 at a path, in a layout of IMAGE_LAYOUTS; returns its values."""

    def make(path: Path, count: int = 101, layout: str = "contiguous", name: str = "imgBrick") -> np.ndarray:
        values = make_image_values(count)
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            file.create_dataset(name, data=values, **IMAGE_LAYOUTS[layout])
        return values

    return make


@pytest.fixture(scope="session")
def make_trial_table_of() -> Callable[..., None]:
    """Write a trial table at a path whose rows show these 73k ids, 1-based as there."""
    from nsd_zarr.simulate import make_trial_table
    from nsd_zarr.simulate.trial_table import write_trial_table

    def make(path: Path, ids_73k: Sequence[int], subject: int = 1) -> None:
        table = make_trial_table(1, len(ids_73k), 0, subject)
        table["73KID"] = np.asarray(ids_73k, np.float64)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_trial_table(path, table)

    return make


@dataclass(frozen=True)
class MadeImages:
    """Stimulus images of all 73k ids in a file, and as stores of all and of what the experiment shows."""

    hdf5: Path
    """The stimulus file."""
    every: Path
    """A store of all images."""
    seen: Path
    """A store of what the trials of `experiment` show."""
    values: np.ndarray = field(repr=False)
    """Images, (73000, 7, 5, 3): the oracle."""

    def locate(self, kind: str) -> Path:
        """The source of a kind: hdf5, every, seen."""
        return {"hdf5": self.hdf5, "every": self.every, "seen": self.seen}[kind]


@pytest.fixture(scope="session")
def stimulus_images(tmp_path_factory, experiment, make_stimuli, make_trial_table_of) -> MadeImages:
    """The images that the trials of `experiment` show, and all others. Never to be changed."""
    folder = tmp_path_factory.mktemp("images")
    values = make_stimuli(folder / "nsd_stimuli.hdf5", 73_000)
    make_trial_table_of(folder / "responses.tsv", experiment.arrays["nsd_id"] + 1)
    table = folder / "responses.tsv"
    nsd_zarr.convert_images(folder / "nsd_stimuli.hdf5", folder / "all.zarr", images_per_shard=9_973)
    nsd_zarr.convert_images(folder / "nsd_stimuli.hdf5", folder / "seen.zarr", trial_table=table, images_per_shard=5)
    return MadeImages(folder / "nsd_stimuli.hdf5", folder / "all.zarr", folder / "seen.zarr", values)


# -- a store that knows its experiment ---------------------------------------------------------------------------


def add_arrays(store: Path, arrays: dict[str, tuple[np.ndarray, tuple[str, ...], dict]]) -> None:
    """Put arrays into a finished store, and seal it again; those along (session_number, z, ...) a chunk a session."""
    document = json.loads((store / "zarr.json").read_bytes())
    attributes, members = document["attributes"], document["consolidated_metadata"]["metadata"]
    attributes.pop("checksum")
    for name, (values, dims, own) in arrays.items():
        metadata, chunks = _encode_array(values, dims, own)
        members[name] = metadata
        files = {f"{name}/zarr.json": encode_json(metadata)}
        files |= {make_chunk_key(name, place): data for place, data in chunks.items()}
        for key, data in files.items():
            (store / key).parent.mkdir(parents=True, exist_ok=True)
            (store / key).write_bytes(data)
            attributes["manifest"][key] = [len(data), make_digest(data)]
    along_trial = [name for name, member in members.items() if member["dimension_names"] == ["trial"]]
    members["betas"]["attributes"]["coordinates"] = " ".join(along_trial)
    (store / "betas/zarr.json").write_bytes(encode_json(members["betas"]))
    data = (store / "betas/zarr.json").read_bytes()
    attributes["manifest"]["betas/zarr.json"] = [len(data), make_digest(data)]
    (store / "zarr.json").write_bytes(make_root_metadata(attributes, members))


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


@dataclass(frozen=True)
class MadeExperiment:
    """A store that knows its experiment, and everything that is in it: the oracle."""

    store: MadeStore
    """Its betas."""
    arrays: dict[str, np.ndarray] = field(repr=False)
    """What lies beside them, by name."""

    @property
    def path(self) -> Path:
        """The store's folder."""
        return self.store.path

    @property
    def percent(self) -> np.ndarray:
        """Percent signal change, (trial, z, y, x)."""
        return self.store.percent

    @property
    def session(self) -> np.ndarray:
        """Session of each trial."""
        return np.repeat(self.store.sessions, self.store.trials // len(self.store.sessions))

    @property
    def scored(self) -> np.ndarray:
        """Session z-scores in float64, 0 for what does not vary."""
        values = self.store.stored.astype(np.float64)
        for session in self.store.sessions:
            mine = self.session == session
            deviation, std = values[mine] - values[mine].mean(0), values[mine].std(0)
            values[mine] = np.divide(deviation, std, out=np.zeros_like(deviation), where=std > 0)
        return values


ROI_NAMES = {
    "nsdgeneral": ["nsdgeneral"],
    "prf-visualrois": ["V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4"],
    "Kastner2015": ["hV4", "IPS0", "IPS1", "V3A"],
}
AFFINE = np.array([[1.8, 0, 0, -2.7], [0, 1.8, 0, -11.0], [0, 0, 1.8, 5.5], [0, 0, 0, 1]])


def make_roi_values(shape: Sequence[int], labels: int, step: int) -> np.ndarray:
    """-1, 0, 1 .. labels in turns along the volume, the first voxel -1."""
    return (np.arange(math.prod(shape)) * step % (labels + 2) - 1).astype(np.int16).reshape(shape)


def make_experiment_arrays(store: MadeStore, seed: int = 1) -> dict[str, tuple]:
    """Everything that a store may know of its experiment."""
    rng, trials, shape = np.random.default_rng(seed), store.trials, store.stored.shape[1:]
    dims = ("z", "y", "x") if len(shape) == 3 else ("vertex",)
    counts = [3] * (trials * 5 // 21) + [2] * (trials // 10)
    counts += [1] * (trials - sum(counts))
    image = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    image_10k = (image * 211 % 9973 + 1).astype(np.int16)
    repeat = np.array([(image[:place] == shown).sum() for place, shown in enumerate(image)], np.int8)
    stored = store.stored.reshape(len(store.sessions), -1, *shape).astype(np.float64) / 300
    arrays = {
        "nsd_id": ((image * 4001 % 73_000).astype(np.int32), ("trial",), {}),
        "image_10k": (image_10k, ("trial",), {}),
        "repeat": (repeat, ("trial",), {}),
        "shared1000": (image_10k <= 1000, ("trial",), {}),
        "rt": (np.where(np.arange(trials) % 5, 700.5, np.nan).astype(np.float32), ("trial",), {}),
        "brainmask": (make_roi_values(shape, 5, 3) > 0, dims, {}),
        "ncsnr": (np.where(rng.random(shape) < 0.2, np.nan, rng.random(shape)).astype(np.float32), dims, {}),
        "session_mean": (stored.mean(1).astype(np.float32), ("session_number", *dims), {"units": "percent"}),
        "session_std": (stored.std(1).astype(np.float32), ("session_number", *dims), {"units": "percent", "ddof": 0}),
        "valid": (rng.random((len(store.sessions), *shape)) < 0.9, ("session_number", *dims), {}),
        "rail_count": (np.arange(len(store.sessions), dtype=np.int32) + 4, ("session_number",), {}),
        "affine": (AFFINE, ("ras", "ijk1"), {}),
    }
    for step, (name, labels) in zip((5, 7, 11), ROI_NAMES.items(), strict=True):
        flags = {
            "flag_values": list(range(-1, len(labels) + 1)),
            "flag_meanings": " ".join(["not_cortex", "unlabelled", *labels]),
        }
        arrays[f"roi_{name}"] = (make_roi_values(shape, len(labels), step), dims, flags)
    return arrays


def make_shuffled_values(trials: int, shape: Sequence[int]) -> np.ndarray:
    """int16 values that tell their place and rise nowhere; one voxel never varies, another not in the second half."""
    values = (np.arange(trials * math.prod(shape)) * 7919 % 60_013 - 30_000).astype(np.int16).reshape(trials, *shape)
    flat = values.reshape(trials, -1)
    flat[:, 4] = 777
    flat[trials // 2 :, 9] = -5
    return values


@pytest.fixture(scope="session")
def experiment(make_store: MakeStore) -> MadeExperiment:
    """Volumes with trial table, ROIs, statistics and affine: sessions 2, 3 and 5 of 14 trials. Never to be changed."""
    store = make_store(make_shuffled_values(42, (5, 11, 3)))
    arrays = make_experiment_arrays(store)
    add_arrays(store.path, arrays)
    return MadeExperiment(store, {name: values for name, (values, *_) in arrays.items()})


@pytest.fixture(scope="session")
def extend_store() -> Callable[..., None]:
    """Put arrays into a finished store: extend_store(path, {name: (values, dims, attributes)})."""
    return add_arrays


@pytest.fixture(scope="session")
def make_experiment() -> Callable[[MadeStore], MadeExperiment]:
    """Give a store its experiment, or only the arrays named."""

    def make(store: MadeStore, names: Sequence[str] | None = None) -> MadeExperiment:
        arrays = {name: each for name, each in make_experiment_arrays(store).items() if names is None or name in names}
        add_arrays(store.path, arrays)
        return MadeExperiment(store, {name: values for name, (values, *_) in arrays.items()})

    return make


@pytest.fixture(scope="session")
def describe_experiment() -> Callable[[Path], MadeExperiment]:
    """Give the store at a path its experiment."""

    def describe(path: Path) -> MadeExperiment:
        ds = nsd_zarr.open_dataset(path, raw=True)
        store = MadeStore(path, ds.betas.values, tuple(ds.session_number.values.tolist()), 0)
        arrays = make_experiment_arrays(store)
        add_arrays(path, arrays)
        return MadeExperiment(store, {name: values for name, (values, *_) in arrays.items()})

    return describe
