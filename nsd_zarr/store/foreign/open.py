"""Opening stores of another layout or place: other codecs and chunks, copies by other tools, zip files, URLs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from nsd_zarr.errors import NsdZarrError, StoreError
from nsd_zarr.layout import COUNTS_PER_PERCENT, DTYPE_BYTES, MAX_TRIALS, Geometry, SessionNumber, make_dims
from nsd_zarr.places.choose import choose_place, find_remote
from nsd_zarr.retry import read_again
from nsd_zarr.store.attributes import parse_foreign_attributes
from nsd_zarr.store.check import MAX_ROOT_BYTES
from nsd_zarr.store.codec import MAX_FRAME_BYTES, BloscCodec
from nsd_zarr.store.digest import make_digest
from nsd_zarr.store.foreign.bounded import bound_array
from nsd_zarr.store.foreign.bounds import find_oversize, read_remote
from nsd_zarr.store.foreign.codecs import check_codecs
from nsd_zarr.store.foreign.group import open_group
from nsd_zarr.store.format import BETAS, FORMAT, METADATA_NAME, Json, make_betas_metadata
from nsd_zarr.store.meta import ArrayMeta
from nsd_zarr.store.root import Store, check_complete, check_version, make_store, open_store


def open_any(
    location: str | os.PathLike[str],
    *,
    allow_unfinished: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Store:
    """Open a store to read from: ours, or a Zarr group (version 2 or 3) elsewhere or of another layout with `betas`.

    *location*: a folder, a zip file, or a URL ("s3://bucket/subj01.zarr"), reached by *storage_options*. Raises
    StoreError: missing, something else, unfinished; DamageFound when the root document of a store of ours is damaged;
    ConfigError for options.
    """
    remote = find_remote(location, storage_options)
    if remote is not None and find_spec("obstore") is not None:
        return _open_objects(remote, allow_unfinished)
    text = os.fsdecode(location)
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    if "://" in text:
        return _open_remote(text, allow_unfinished)
    path = Path(os.path.abspath(os.path.expanduser(text)))
    if not _is_written_by_us(path):
        with suppress(_NotOurs):
            return _make_foreign(str(path), path, allow_unfinished)
    store = open_store(path, allow_unfinished=allow_unfinished)
    return store if is_trial_sharded(store) else store.read_through_zarr(str(path))


def find_path(location: str | os.PathLike[str]) -> Path:
    """*location* as xarray's own engines take it: absolute, so that what is opened stays readable from another folder.

    A URL as a path that knows how it is reached.
    """
    return find_remote(location) or Path(os.path.abspath(os.path.expanduser(os.fsdecode(location))))


def is_trial_sharded(store: Store) -> bool:
    """Whether the public metadata of `betas` describe the layout that the decode engine reads.

    A chunk a trial, shards of whole trials, inner codecs bytes, blosc, crc32c, index at the end.
    """
    found = store.members[BETAS].document
    try:
        blosc = found["codecs"][0]["configuration"]["codecs"][1]["configuration"]
        expected = make_betas_metadata(store.geometry, BloscCodec(**blosc))
    except (LookupError, TypeError):
        return False
    return all(found.get(name) == expected[name] for name in expected if name not in ("attributes", "fill_value"))


# -- opening -----------------------------------------------------------------------------------------------------


class _NotOurs(Exception):
    """No Zarr group with `betas` is there."""


def _is_written_by_us(path: Path) -> bool:
    """Whether the root document has the form in which we write it: lines indented by one blank.

    Then its seal must hold. Whoever copies a store with another tool writes another form, and our seal with it, which
    then says nothing. No single changed bit makes one form of the other and leaves it JSON.
    """
    place = choose_place(path)
    try:
        return read_again(lambda: place.open(METADATA_NAME).read_range(0, 4), str(path)) == b'{\n "'
    except OSError:
        return False
    except ValueError:  # a pipe, or a link that leads out: for open_store to refuse
        return True


def _open_objects(path: Path, allow_unfinished: bool) -> Store:
    """A store behind the URL *path*. One of ours is read by the decode engine, by one request."""
    place, data = choose_place(path), b""
    try:
        with suppress(FileNotFoundError):
            data = read_again(lambda: place.read(METADATA_NAME, MAX_ROOT_BYTES), place.locate(METADATA_NAME))
    except (OSError, ValueError) as error:
        if isinstance(error, NsdZarrError):
            raise
        text = getattr(error, "strerror", None) or error
        raise StoreError(f"the store cannot be opened: {text}", path=path) from error
    if data[:4] == b'{\n "':
        store = make_store(path, data)
        check_complete(store, allow_unfinished)
        return store if is_trial_sharded(store) else store.read_through_zarr(str(path))
    try:
        return _make_foreign(str(path), path, allow_unfinished)
    except _NotOurs as error:
        raise StoreError(f"no Zarr store with betas is there: {error}", hint="Check the URL.", path=path) from error


def _open_remote(url: str, allow_unfinished: bool) -> Store:
    """A store behind a URL of another kind. One of ours has its seal checked, and each of its shards is looked for."""
    try:
        data = read_remote(url, METADATA_NAME, MAX_ROOT_BYTES)
        if data is not None and data[:4] == b'{\n "':
            store = make_store(Path(url), data)
            check_complete(store, allow_unfinished)
            return store.read_through_zarr(url)
        return _make_foreign(url, Path(url), allow_unfinished)
    except _NotOurs as error:
        raise StoreError(f"no Zarr store with betas is there: {error}", hint="Check the URL.", path=url) from error
    except ImportError as error:
        raise StoreError(f"a package for this URL is missing: {error}", path=url) from error
    except (OSError, ValueError) as error:
        if isinstance(error, NsdZarrError):
            raise
        raise StoreError(f"cannot be opened: {error}", hint="Check the URL and the network.", path=url) from error


def _make_foreign(location: str, path: Path, allow_unfinished: bool) -> Store:
    """A Zarr group of another layout. Raises _NotOurs when there is none with `betas`, StoreError when it is odd."""
    try:
        return _describe_group(location, path, allow_unfinished)
    except (NsdZarrError, _NotOurs):
        raise
    except Exception as error:  # Metadata may hold anything, and zarr-python has no one error for what it cannot read.
        raise _refuse(f"zarr-python cannot read its metadata: {error or type(error).__name__}", path) from error


def _refuse(problem: str, path: Path, **what: Any) -> StoreError:
    return StoreError(problem, hint="Open it with xarray.open_zarr.", path=path, **what)


def _describe_group(location: str, path: Path, allow_unfinished: bool) -> Store:
    import zarr

    if problem := find_oversize(path):
        raise _refuse(problem, path)
    try:
        group = open_group(location, path)
        betas = group[BETAS]
    except Exception as error:  # Each kind of store and each version of zarr-python has errors of its own.
        raise _NotOurs(str(error)) from error
    if not isinstance(betas, zarr.Array) or betas.ndim not in (2, 4) or str(betas.dtype.name) not in DTYPE_BYTES:
        raise _NotOurs("betas is no array of numbers with 4 dimensions (volumes) or 2 (surfaces)")
    check_codecs(group, path)
    _check_betas(betas, path)
    attributes = dict(group.attrs)
    if attributes.get("format") == FORMAT:
        check_version(attributes, path)
    _check_scale(dict(betas.attrs), betas.dtype, path)
    description = json.dumps([betas.metadata.to_dict(), attributes], sort_keys=True, default=str)
    attributes.pop("manifest", None)  # That of the store of which this is a copy.
    store = Store(
        path=path,
        attributes=parse_foreign_attributes(attributes, make_digest(description.encode())),
        members=dict(sorted(_describe_all(group, betas, path))),
        manifest={},
        geometry=_make_geometry(group, betas, path),
        zarr_location=location,
    )
    check_complete(store, allow_unfinished)
    return store


def _check_betas(betas: Any, path: Path) -> None:
    """Refuse shapes that no session has, before memory is taken for a trial or a chunk."""
    is_sane = all(_is_sane(shape, betas.dtype) for shape in ((1, *betas.shape[1:]), betas.chunks))
    is_sane = is_sane and min(*betas.shape, *betas.chunks) > 0
    if not is_sane or betas.shape[0] > MAX_TRIALS or _count_in_shard(betas) > MAX_TRIALS:
        raise _refuse(
            f"betas of shape {betas.shape} in chunks of {betas.chunks}, expected trials and chunks of at most "
            f"{MAX_FRAME_BYTES} bytes, and at most {MAX_TRIALS} trials",
            path,
        )


def _is_sane(shape: Sequence[int], dtype: np.dtype[Any]) -> bool:
    return math.prod(shape) * max(1, dtype.itemsize) <= MAX_FRAME_BYTES


def _count_in_shard(array: Any) -> int:
    """Chunks that the index of one shard lists; 1 without shards."""
    return math.prod(array.shards) // math.prod(array.chunks) if array.shards else 1


def _check_scale(attributes: Json, dtype: np.dtype[Any], path: Path) -> None:
    """Integers must be counts of 1/300 percent: what the dataset delivers, and all that this package scales."""
    scale = attributes.get("scale_factor", 1 / COUNTS_PER_PERCENT)
    is_ours = type(scale) in (int, float) and abs(scale * COUNTS_PER_PERCENT - 1) <= 1e-6
    if dtype.kind in "iu" and not is_ours:
        raise _refuse(
            f"betas have scale_factor {str(scale)[:80]}, expected 1/{COUNTS_PER_PERCENT}",
            path,
            expected=1 / COUNTS_PER_PERCENT,
            found=scale,
        )


def _describe_all(group: Any, betas: Any, path: Path) -> Iterator[tuple[str, ArrayMeta]]:
    """Name, and what readers ask of the metadata, of each array whose dimensions are named. Raises StoreError."""
    names = make_dims(betas.ndim)
    sizes = dict(zip(names, betas.shape, strict=True))
    yield BETAS, _describe(betas, names)
    for name, array in group.arrays():
        dims = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
        if name != BETAS and dims is not None and None not in dims:
            _check_beside(name, array, dims, sizes, path)
            yield name, _describe(array, dims)


def _check_beside(name: str, array: Any, dims: Sequence[str], sizes: dict[str, int], path: Path) -> None:
    """Refuse an array that does not lie along the axes of betas and of the others, or whose chunks are absurd."""
    fits = isinstance(dims, (list, tuple)) and all(isinstance(dim, str) for dim in dims)
    fits = fits and len(set(dims)) == len(dims) == array.ndim
    fits = fits and all(sizes.setdefault(dim, length) == length for dim, length in zip(dims, array.shape, strict=True))
    shapes = (_describe(array, dims).chunk_shape, array.chunks)
    if not fits or not all(_is_sane(shape, array.dtype) for shape in shapes) or _count_in_shard(array) > MAX_TRIALS:
        raise _refuse(
            f"{name} of shape {array.shape} along {tuple(dims)} in chunks of {array.chunks}, expected axes as long as "
            f"those of the other arrays, and chunks of at most {MAX_FRAME_BYTES} bytes",
            path,
        )


def _describe(array: Any, dims: Sequence[str]) -> ArrayMeta:
    text = array.dtype.kind not in "biufc"
    # Read a session at a time where it is one of many, else whole, whatever its chunks are.
    rows = 1 if array.ndim > 1 and dims[0] == "session_number" else array.shape[0] if array.shape else 1
    return ArrayMeta(
        shape=tuple(array.shape),
        dtype="string" if text else array.dtype.name,
        dims=tuple(dims),
        chunk_shape=(rows, *array.shape[1:]) if array.shape else (),
        attributes={name: value for name, value in array.attrs.items() if not name.startswith("_ARRAY")},
    )


def _make_geometry(group: Any, betas: Any, path: Path) -> Geometry:
    """Sessions by the coordinate `session`, where there is one; else all trials are one session's."""
    numbers = _read_sessions(group, betas, path)
    sessions, counts = np.unique(numbers, return_counts=True)
    if not np.array_equal(numbers, np.repeat(sessions, counts)) or len(set(counts.tolist())) != 1:
        raise _refuse(
            f"its {len(sessions)} sessions have {counts.min()} to {counts.max()} trials or are mixed, expected one "
            "after the other, of one length",
            path,
        )
    along = (betas.shards or betas.chunks)[0]
    return Geometry(
        sessions=tuple(SessionNumber(int(number)) for number in sessions),
        trials_per_session=int(counts[0]),
        trials_per_shard=along if counts[0] % along == 0 else 1,
        volume_shape=tuple(betas.shape[1:]),
        dtype=betas.dtype.name,
    )


def _read_sessions(group: Any, betas: Any, path: Path) -> np.ndarray:
    """Session number of each trial; 1 for all where the store has no such coordinate."""
    if "session" not in group:
        return np.ones(betas.shape[0], np.int16)
    session = bound_array(group["session"])
    if (
        session.shape != betas.shape[:1]
        or session.dtype.kind not in "iu"
        or not _is_sane(session.chunks, session.dtype)
    ):
        raise _refuse(
            f"session is {session.dtype} of shape {session.shape} in chunks of {session.chunks}, expected one whole "
            f"number for each of {betas.shape[0]} trials",
            path,
        )
    return np.asarray(session[:])
