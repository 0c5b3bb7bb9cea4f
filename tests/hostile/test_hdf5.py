"""Session files of a stranger: refused with our own error, in little time and memory, and nothing outside is read."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import tracemalloc

import h5py
import numpy as np
import pytest

import nsd_zarr
from nsd_zarr.errors import NsdZarrError, SourceError
from nsd_zarr.source.hdf5.parts import PREFIXES

pytestmark = pytest.mark.slow

TRIALS, VOLUME = 6, (5, 7, 11)
VALUES = np.arange(1, TRIALS * 385 + 1, dtype="int16").reshape(TRIALS, *VOLUME)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "given").mkdir()
    return tmp_path / "given"


def _create(folder, values=VALUES, **options):
    path = folder / "betas_session01.hdf5"
    with h5py.File(path, "w", libver="earliest") as file:
        file.create_dataset("betas", data=values, **options)
    return path


def _convert_as_child(folder, **environment):
    """Convert in a process of its own, which may be killed: its exit code and what it printed."""
    code = "from nsd_zarr.cli import main; main()"
    command = [sys.executable, "-c", code, "convert", str(folder), str(folder.parent / "subj01.zarr"), "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | environment)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


# -- shapes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [(2**60, 1, 1, 1), (2**40, 5, 7, 11), (2**25, 3), (6, 2**31, 1, 1), (6, 2**20, 2**20, 2**15), (6, 2**40)],
    ids=str,
)
@pytest.mark.parametrize("chunked", [False, True], ids=["contiguous", "chunked"])
def test_absurd_shape_of_a_tiny_file_is_refused_at_once(shape, chunked, folder):
    path = folder / "betas_session01.hdf5"
    with h5py.File(path, "w", libver="earliest") as file:
        chunks = tuple(min(length, 8) for length in shape) if chunked else None
        try:
            file.create_dataset("betas", shape, "int16", chunks=chunks)
        except (ValueError, OSError):
            pytest.skip("HDF5 does not write it")
    started = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(NsdZarrError):
            nsd_zarr.convert(folder, folder.parent / "subj01.zarr")
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()
    assert time.monotonic() - started < 30
    assert not (folder.parent / "subj01.zarr").exists()


def test_chunk_that_does_not_fit_the_memory_is_refused_before_it_is_read(folder):
    path = folder / "betas_session01.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("betas", (6, 1024, 1024, 300), "int16", chunks=(6, 1024, 1024, 150), compression="gzip")
    with pytest.raises(NsdZarrError, match="memory"):
        nsd_zarr.convert(folder, folder.parent / "subj01.zarr", memory="200MiB", workers=1)


# -- circles and truncation --------------------------------------------------------------------------------------


def _tree_nodes(data):
    """Places of the nodes of the chunk index, with level and number of entries."""
    place, found = data.find(b"TREE\x01"), []
    while place >= 0:
        found.append((place, data[place + 5], data[place + 6] | data[place + 7] << 8))
        place = data.find(b"TREE\x01", place + 1)
    return found


def _point(data, node, entries, address):
    """Let entries of a node with rank 5 keys point to *address*."""
    for entry in entries:
        struct.pack_into("<Q", data, node + 24 + entry * 56 + 48, address)


def _circle(data):
    root, _, count = next(node for node in _tree_nodes(data) if node[1] > 0)
    _point(data, root, range(count), root)


def _leaf_for_all(data):
    root, _, count = next(node for node in _tree_nodes(data) if node[1] > 0)
    leaf = next(node for node in _tree_nodes(data) if node[1] == 0)[0]
    _point(data, root, range(count), leaf)


def _far(data):
    root, _, count = next(node for node in _tree_nodes(data) if node[1] > 0)
    _point(data, root, range(count), 2**62)


def _deep(data):
    root = next(node for node in _tree_nodes(data) if node[1] > 0)[0]
    data[root + 5] = 255


def _siblings(data):
    for place, _, _ in _tree_nodes(data):
        struct.pack_into("<QQ", data, place + 8, place, place)


def _no_index(data):
    root = next(node for node in _tree_nodes(data) if node[1] > 0)[0]
    data[root : root + 24] = bytes(24)


@pytest.mark.parametrize("change", [_circle, _leaf_for_all, _far, _deep, _siblings, _no_index])
@pytest.mark.parametrize("filtered", [False, True], ids=["rows", "gzip"])
def test_index_that_leads_in_circles_or_nowhere_is_refused_or_read_rightly(change, filtered, folder):
    path = _create(folder, chunks=(TRIALS, 1, 1, 1), **({"compression": "gzip"} if filtered else {}))
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    code, printed = _convert_as_child(folder)
    assert code in (0, 3), printed
    if code == 0:
        # What a tree does not lead to was never written, as far as HDF5 can tell.
        with h5py.File(path) as file:
            expected = file["betas"][...]
        assert np.array_equal(nsd_zarr.open_dataset(folder.parent / "subj01.zarr", raw=True).betas, expected)


def test_group_that_holds_itself_is_not_walked(folder):
    path = _create(folder)
    with h5py.File(path, "r+") as file:
        file["circle"] = file["/"]
        file["soft"] = h5py.SoftLink("/soft")
        file["far"] = h5py.ExternalLink(path.name, "/far")
    for number, name in enumerate(("circle/circle/circle/betas", "soft", "far", "circle/soft/betas")):
        try:
            nsd_zarr.convert(folder, folder.parent / f"{number}.zarr", dataset=name)
        except SourceError as error:
            assert "circle" in str(error) or "no dataset" in str(error)  # noqa: PT017


# -- where parts are looked for ----------------------------------------------------------------------------------


def _link(path, other):
    with h5py.File(path, "w") as file:
        file["betas"] = h5py.ExternalLink(other.name, "betas")


def _external(path, other):
    with h5py.File(path, "w") as file:
        file.create_dataset("betas", VALUES.shape, "int16", external=[(other.name, 0, VALUES.nbytes)])


def _virtual(path, other):
    layout = h5py.VirtualLayout(VALUES.shape, "int16")
    layout[...] = h5py.VirtualSource(other.name, "betas", VALUES.shape)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("betas", layout)


@pytest.mark.parametrize(("make", "what"), list(zip([_link, _external, _virtual], PREFIXES, strict=True)))
def test_environment_does_not_lead_to_parts_elsewhere(make, what, folder):
    """HDF5 prefers the folder of the environment to the one that was checked; it holds other values."""
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    for place, values in ((folder, VALUES), (elsewhere, -VALUES)):
        if what == "external storage":
            (place / "part").write_bytes(values.tobytes())
        else:
            with h5py.File(place / "part", "w") as file:
                file["betas"] = values
    make(folder / "betas_session01.hdf5", folder / "part")
    code, printed = _convert_as_child(folder, **{PREFIXES[what]: str(elsewhere)})
    assert code == 3
    assert f"Unset {PREFIXES[what]}" in printed
    code, printed = _convert_as_child(folder)
    assert code == 0, printed
    assert np.array_equal(nsd_zarr.open_dataset(folder.parent / "subj01.zarr", raw=True).betas, VALUES)


def test_environment_is_nothing_to_a_plain_file(folder, monkeypatch):
    for name in PREFIXES.values():
        monkeypatch.setenv(name, "/nowhere")
    _create(folder)
    nsd_zarr.convert(folder, folder.parent / "subj01.zarr")


# -- words -------------------------------------------------------------------------------------------------------


def test_names_in_a_file_do_not_reach_the_terminal(folder):
    path = folder / "betas_session01.hdf5"
    with h5py.File(path, "w") as file:
        file["\x1b]0;owned\x07[bold]"] = VALUES
    code, printed = _convert_as_child(folder)
    assert code == 3
    assert not set(printed) & set("\x1b\x07")
    assert "\\x1b]0;owned\\x07[bold]" in printed


def test_yaml_of_a_stranger_runs_nothing_and_does_not_grow(folder):
    started, laughs = time.monotonic(), "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    laughs += "".join(f"{c}: &{c} [{','.join([f'*{b}'] * 10)}]\n" for b, c in zip("abcdefgh", "bcdefghi", strict=True))
    marker = folder / "ran"
    for text in (
        f"codec: !!python/object/apply:os.system ['touch {marker}']\n",
        f"codec: !!python/object/new:os.system [touch {marker}]\n",
        "codec: !ours zstd\n",
        laughs,
        f"sessions:\n- {laughs.replace(chr(10), chr(10) + '- ')}*i\n",
        "codec: " + "x" * 2**21,
        "codec: &x [*x]\n",
        "[" * 5_000,
        "workers: " + "9" * 100_000 + "\n",
    ):
        config = folder / "convert.yaml"
        config.write_text(text)
        with pytest.raises(nsd_zarr.NsdZarrError) as caught:
            nsd_zarr.convert(folder, folder.parent / "subj01.zarr", config=config)
        assert len(str(caught.value)) < 2000
    assert not marker.exists()
    # A text of ten to the ninth parts takes longer, and more memory than there is.
    assert time.monotonic() - started < 60
