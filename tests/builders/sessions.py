"""Session files in every layout that HDF5 allows: each odd file is one keyword of create_session."""

from __future__ import annotations

import itertools
import math
import zlib
from pathlib import Path

import h5py
import numpy as np

from nsd_zarr.layout import SessionNumber
from nsd_zarr.source.find import SessionFile

ALL = "all"
"""For *missing*: no chunk is written."""


def make_values(session, trials, shape, dtype="<i2", nan=False):
    """Values that encode session, trial, z, y, x: all differ as far as the dtype has values, none is zero.

    nan: every 13th value is NaN.
    """
    dtype = np.dtype(dtype)
    count = trials * math.prod(shape)
    places = (np.arange(count, dtype="i8") + session * count).reshape(trials, *shape)
    if dtype.kind == "f":
        values = ((places % (1021 if dtype.itemsize == 2 else 999_983) + 1) * (1 - 2 * (places % 2)) / 8).astype(dtype)
        if nan:
            values.reshape(-1)[:: 13 if values.size > 13 else 1] = np.nan
        return values
    codes = {1: 251, 2: 65_521}.get(dtype.itemsize, 2**31 - 1)
    values = places * 7 % codes + 1
    if dtype.kind == "i":
        values -= codes // 2
        values[values == 0] = codes // 2 + 1
    return values.astype(dtype)


def create_session(
    path,
    *,
    session=3,
    trials=6,
    shape=(5, 7, 3),
    dtype="<i2",
    chunks="rows",
    layout="chunked",
    name="betas",
    link="",
    libver="earliest",
    userblock=0,
    odd=False,
    order="file",
    missing=0.0,
    fillvalue=None,
    fill_time="ifset",
    filters=None,
    unfiltered_chunks=False,
    maxshape=None,
    nan=False,
    values=None,
    precision=None,
    seed=1,
):
    """Create a session file at *path*; return it as a SessionFile. What it holds: h5py says.

    chunks: "rows" (all trials of one voxel, the dataset's own) or a shape. layout: chunked, gzip (one trial a chunk),
    contiguous, compact, virtual, virtual_inside, external, external_unlimited. link: soft, external. odd: rows start at
    odd bytes. order: file, random or reverse. missing: share of the chunks that are never written, or ALL. values: what
    the dataset holds, in place of make_values; their shape and dtype then count.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if values is None:
        values = make_values(session, trials, shape, dtype, nan)
    trials, *shape = values.shape
    dtype = values.dtype
    with h5py.File(path, "w", libver=libver, userblock_size=userblock) as file:
        if odd:
            file.create_dataset("pad", data=np.arange(3, dtype="i1") + 1)
        stored = {"soft": "real/betas", "external": "unused"}.get(link, name)
        if layout.startswith("virtual"):
            _create_virtual(file, path, stored, values, inside=layout == "virtual_inside")
        elif layout.startswith("external"):
            _create_external(file, path, stored, values, unlimited=layout == "external_unlimited")
        elif layout == "compact":
            _create_compact(file, stored, values)
        elif layout == "contiguous":
            file.create_dataset(stored, data=values, dtype=dtype)
        elif layout == "gzip":
            file.create_dataset(stored, data=values, chunks=(1, *shape), compression="gzip", shuffle=True)
        else:
            shape_of_chunk = (trials, *(1 for _ in shape)) if chunks == "rows" else chunks
            data = file.create_dataset(
                stored,
                values.shape,
                _make_type(dtype, precision),
                chunks=shape_of_chunk,
                fillvalue=fillvalue,
                fill_time=fill_time,
                maxshape=maxshape,
                **(filters or {}),
            )
            _write_chunks(data, values, order, missing, unfiltered_chunks, np.random.default_rng(seed))
        if link == "soft":
            file[name] = h5py.SoftLink("/real/betas")
    if link == "external":
        real = path.with_name(f"real_{path.name}")
        path.rename(real)
        with h5py.File(path, "w", libver=libver) as file:
            file[name] = h5py.ExternalLink(real.name, "/unused")
    return SessionFile(SessionNumber(session), path)


def _make_type(dtype, precision):
    if precision is None:
        return np.dtype(dtype)
    kind = h5py.h5t.py_create(np.dtype(dtype)).copy()
    kind.set_precision(precision)
    return h5py.Datatype(kind)


def _write_chunks(data, values, order, missing, unfiltered_chunks, rng):
    chunks = data.chunks  # asks HDF5 each time
    steps = [range(0, size, step) for size, step in zip(data.shape, chunks, strict=True)]
    corners = list(itertools.product(*steps))
    if order == "random":
        corners = [corners[number] for number in rng.permutation(len(corners))]
    if order == "reverse":
        corners.reverse()
    written = 0 if missing == ALL else max(1, round(len(corners) * (1 - missing)))
    kept = set(rng.permutation(len(corners))[:written].tolist())
    filtered = data.id.get_create_plist().get_nfilters() and not unfiltered_chunks
    for number, corner in enumerate(corners):
        if number not in kept:
            continue
        place = tuple(slice(start, start + step) for start, step in zip(corner, chunks, strict=True))
        if filtered:
            data[place] = values[place]
            continue
        # Written past the chunk cache, so that the chunks lie in this order. What hangs over the edge is not read.
        part = values[place]
        if part.shape != chunks:
            part = np.pad(part, [(0, step - size) for step, size in zip(chunks, part.shape, strict=True)])
        whole = part.tobytes()
        mask = int(unfiltered_chunks and number % 2)
        raw = zlib.compress(whole) if unfiltered_chunks and not mask else whole
        data.id.write_direct_chunk(corner, raw, filter_mask=mask)


def _create_compact(file, name, values):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(values.shape)
    kind = h5py.h5t.py_create(values.dtype)
    data = h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind, space, properties))
    data[...] = values


def _create_external(file, path, name, values, *, unlimited):
    half = values.nbytes // 2 + 1
    size = h5py.h5f.UNLIMITED if unlimited else values.nbytes - half + 4
    folder = str(path.parent)
    parts = [(f"{path.stem}_0.raw", 5, half), (f"{path.stem}_1.raw", 0, size)]
    file.create_dataset(name, values.shape, values.dtype, external=parts, efile_prefix=folder)[...] = values
    # HDF5 writes only what it was given; a part must be as long as it says.
    last = path.with_name(f"{path.stem}_1.raw")
    with open(last, "ab") as raw:
        raw.truncate(values.nbytes - half + 4)


def _create_virtual(file, path, name, values, *, inside):
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    half = len(values) // 2
    for number, part in enumerate((range(half), range(half, len(values)))):
        block = values[part.start : part.stop]
        if inside:
            file[f"part{number}"] = block
            source = h5py.VirtualSource(".", f"part{number}", block.shape)
        else:
            beside = path.with_name(f"{path.stem}_part{number}.h5")
            with h5py.File(beside, "w") as other:
                other["values"] = block
            source = h5py.VirtualSource(beside.name, "values", block.shape)
        layout[part.start : part.stop] = source
    file.create_virtual_dataset(name, layout, fillvalue=-9)


def create_source(folder, sessions, *, prefix="", **odd):
    """Create a folder with one file for each of *sessions*; see create_session for the keywords. Returns the folder.

    sessions: numbers, or a dict of the values of each number.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for session in sessions:
        own = {"values": sessions[session]} if isinstance(sessions, dict) else {}
        create_session(folder / f"{prefix}betas_session{session:02d}.hdf5", session=session, **own, **odd)
    return folder


def read_source(folder, name="betas"):
    """The oracle: all sessions of a folder through h5py, one behind the other."""
    parts = []
    for path in sorted(Path(folder).glob("*.hdf5")):
        with h5py.File(path, "r") as file:
            parts.append(file[name][()])
    return np.concatenate(parts)
