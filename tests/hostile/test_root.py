"""Root documents of a stranger: refused, or read rightly; never anything else."""

from __future__ import annotations

import copy
import os

import numpy as np
import pytest

from nsd_zarr.errors import DamageFound, StoreError

pytestmark = pytest.mark.slow

ABSURD = [2**63, 2**62, 2**31 + 1, -1, 0, 1.5, 14.0, True, "14", None, [], {}, 10**40, float("1e300")]


def set_at(*place):
    """set_at("members", "betas", "shape", 0)(value): a change of the root document."""

    def make(value):
        def change(attributes, members):
            target = {"attributes": attributes, "members": members}
            for step in place[:-1]:
                target = target[step]
            target[place[-1]] = value

        return change

    return make


SHAPES = {
    "trials": set_at("members", "betas", "shape", 0),
    "z": set_at("members", "betas", "shape", 1),
    "x": set_at("members", "betas", "shape", 3),
    "inner chunk": set_at("members", "betas", "codecs", 0, "configuration", "chunk_shape", 0),
    "shard": set_at("members", "betas", "chunk_grid", "configuration", "chunk_shape", 0),
    "trials per shard": set_at("attributes", "settings", "trials_per_shard"),
    "session": set_at("attributes", "settings", "sessions", 1),
    "small": set_at("members", "session", "shape", 0),
    "small chunk": set_at("members", "session", "chunk_grid", "configuration", "chunk_shape", 0),
    "text": set_at("members", "trial_digest", "shape", 0),
}


@pytest.mark.parametrize("value", ABSURD, ids=repr)
@pytest.mark.parametrize("place", SHAPES)
def test_absurd_number_is_refused(place, value, hostile, change_root, read_all_ways):
    change_root(hostile.path, SHAPES[place](value))
    _check_refused(read_all_ways(hostile.path))


def _check_refused(found):
    """Every face raised an error of ours, or reported damage."""
    for name, outcome in found.items():
        assert isinstance(outcome, (DamageFound, StoreError)) or outcome is False or outcome in (1, 4), name


def _shape_of(*shape):
    def change(attributes, members):
        members["betas"]["shape"] = list(shape)
        members["betas"]["chunk_grid"]["configuration"]["chunk_shape"] = [7, *shape[1:]]
        members["betas"]["codecs"][0]["configuration"]["chunk_shape"] = [1, *shape[1:]]
        attributes["settings"]["shape"] = [14, *shape[1:]]

    return change


@pytest.mark.parametrize(
    "shape",
    [
        (42, 2**20, 2**20, 2**20),
        (42, 2**31, 1, 1),
        (42,),
        (42, 5, 11),
        (42, 5, 11, 3, 1),
        (42, 5, 11, 4),
        (41, 5, 11, 3),
    ],
    ids=str,
)
def test_shape_that_all_metadata_agree_on_is_refused_too(shape, hostile, change_root, read_all_ways):
    change_root(hostile.path, _shape_of(*shape))
    found = read_all_ways(hostile.path)
    _check_refused({name: outcome for name, outcome in found.items() if not name.startswith("info")})


@pytest.mark.parametrize(
    "sessions",
    [[], [2, 2, 5], [5, 3, 2], [2, 3], list(range(1, 43)), list(range(1, 10_000)), [2, 3, 10**9], "235", {"2": 3}],
    ids=lambda sessions: str(sessions)[:20],
)
def test_sessions_that_are_none_are_refused(sessions, hostile, change_root, read_all_ways):
    change_root(hostile.path, set_at("attributes", "settings", "sessions")(sessions))
    found = read_all_ways(hostile.path)
    _check_refused({name: outcome for name, outcome in found.items() if not name.startswith("info")})


@pytest.mark.parametrize("vertices", [[80, 85], [165], [-1, 166], [82.0, 83], "ab", [True, 164], [[80], 85]], ids=str)
def test_hemispheres_that_are_not_those_of_the_betas_are_refused(vertices, hostile, change_root, read_all_ways):
    change_root(hostile.path, set_at("attributes", "settings", "vertices")(vertices))
    found = read_all_ways(hostile.path)
    _check_refused({name: outcome for name, outcome in found.items() if not name.startswith("info")})


@pytest.mark.parametrize("affine", [[], 3, [[1.0] * 4] * 3, [[1.0] * 3] * 4, [["a"] * 4] * 4, [[1] * 4] * 4], ids=str)
def test_affine_of_a_source_that_is_none_is_refused(affine, hostile, change_root, read_all_ways):
    change_root(hostile.path, set_at("attributes", "sources", 0, "affine")(affine))
    found = read_all_ways(hostile.path)
    _check_refused({name: outcome for name, outcome in found.items() if not name.startswith("info")})


def _sharding(name, value):
    return set_at("members", "betas", "codecs", 0, "configuration", name)(value)


def _blosc(name, value):
    return set_at("members", "betas", "codecs", 0, "configuration", "codecs", 1, "configuration", name)(value)


METADATA = {
    "data type unknown": set_at("members", "betas", "data_type")("complex128"),
    "data type of objects": set_at("members", "betas", "data_type")("object"),
    "data type another": set_at("members", "betas", "data_type")("float32"),
    "data type big-endian": _sharding("codecs", [{"name": "bytes", "configuration": {"endian": "big"}}]),
    "codec of pickles": set_at("members", "betas", "codecs")([{"name": "pickle"}]),
    "codec in a list": set_at("members", "betas", "codecs")([[]]),
    "no codecs": set_at("members", "betas", "codecs")([]),
    "compressor unknown": _blosc("cname", "snappy"),
    "typesize another": _blosc("typesize", 4),
    "blocks huge": _blosc("blocksize", 2**31),
    "index at the start": _sharding("index_location", "start"),
    "key encoding v2": set_at("members", "betas", "chunk_key_encoding")({"name": "v2"}),
    "key separator": set_at("members", "betas", "chunk_key_encoding", "configuration", "separator")("/../"),
    "storage transformer": set_at("members", "betas", "storage_transformers")([{"name": "x"}]),
    "group": set_at("members", "betas", "node_type")("group"),
    "attributes no object": set_at("members", "betas", "attributes")(["units"]),
    "scale another": set_at("members", "betas", "attributes", "scale_factor")(0.5),
    "coordinates no text": set_at("members", "betas", "attributes", "coordinates")([1]),
    "dims few": set_at("members", "betas", "dimension_names")(["trial"]),
    "dims twice": set_at("members", "session", "dimension_names")(["trial", "trial"]),
    "dims numbers": set_at("members", "session", "dimension_names")([7]),
    "dims another": set_at("members", "session", "dimension_names")(["z"]),
    "small text for numbers": set_at("members", "session", "data_type")("string"),
    "small numbers for text": set_at("members", "trial_digest", "data_type")("int8"),
    "small codec": set_at("members", "session", "codecs")([{"name": "gzip"}]),
    "small codecs three": set_at("members", "session", "codecs")(
        [{"name": "bytes"}, {"name": "x"}, {"name": "crc32c"}]
    ),
    "no betas": lambda attributes, members: members.pop("betas"),
    "members a list": set_at("members", "session")([]),
    "status a list": set_at("attributes", "status")([]),
    "libraries a list": set_at("attributes", "libraries")([]),
    "sources no list": set_at("attributes", "sources")(5),
    "source a number": set_at("attributes", "sources")([5]),
    "source session a text": set_at("attributes", "sources", 0, "session")("%s" * 9),
    "settings without codec": lambda attributes, members: attributes["settings"].pop("codec"),
    "level huge": set_at("attributes", "settings", "clevel")(10**9),
    "codec of settings": set_at("attributes", "settings", "codec")("../../x"),
    "dataset a number": set_at("attributes", "settings", "dataset")(5),
    "manifest a list": set_at("attributes", "manifest")([["a", 1]]),
}


@pytest.mark.parametrize("change", METADATA)
def test_metadata_that_this_package_does_not_write_are_refused(change, hostile, change_root, read_all_ways):
    change_root(hostile.path, METADATA[change])
    found = read_all_ways(hostile.path)
    _check_refused(found)
    assert isinstance(found["xarray"], DamageFound)


def _add_array(name):
    def change(attributes, members):
        members[name] = copy.deepcopy(members["session"])

    return change


@pytest.mark.parametrize(
    "name", ["../outside", "/etc", "a/b", "..", ".", ".hidden", "", "a\0b", "a\\b", "a\x1b[2J", "x" * 300]
)
def test_array_name_that_leaves_the_store_is_refused(name, hostile, change_root, read_all_ways):
    (hostile.path.parent.parent / "outside").mkdir()
    change_root(hostile.path, _add_array(name))
    found = read_all_ways(hostile.path)
    _check_refused(found)
    assert "is no name of an array" in found["xarray"].problem
    assert "\x1b" not in str(found["xarray"])


ELSEWHERE = [
    "../../outside",
    "session/../../../outside",
    "/etc/hostname",
    "session/c/../../../x",
    "session/c/00",
    "c/0",
]
ELSEWHERE += ["session/c/0/", "zarr.json", "session/./c/0", "betas\\c\\0", "nobody/c/0", ""]


@pytest.mark.parametrize("key", ELSEWHERE)
def test_manifest_that_names_a_file_elsewhere_is_refused(key, hostile, change_root, read_all_ways):
    (hostile.path.parent.parent / "outside").write_bytes(b"secret")
    change_root(hostile.path, set_at("attributes", "manifest", key)([6, "0" * 32]))
    found = read_all_ways(hostile.path)
    _check_refused(found)
    assert "its manifest names" in found["xarray"].problem


ZEROS = "0" * 32
RECORDS = [[], [1], [-1, ZEROS], [1.0, ZEROS], [1, "0"], [1, 5], [1, ZEROS, ZEROS, 1], "ab", 7, None, [2**80, ZEROS]]


@pytest.mark.parametrize("record", RECORDS, ids=str)
def test_manifest_record_that_is_none_is_refused(record, hostile, change_root, read_all_ways):
    change_root(hostile.path, set_at("attributes", "manifest", "session/c/0")(record))
    _check_refused(read_all_ways(hostile.path))


# -- the document as such ----------------------------------------------------------------------------------------

DOCUMENTS = {
    "deep": b"[" * 200_000,
    "deep objects": b'{"a":' * 200_000,
    "deep attributes": b'{"attributes": {"format": "nsd_zarr", "x": ' + b"[" * 100_000,
    "many lists": b"[" + b"[]," * 50_000 + b"[]]",
    "long number": b'{"attributes": {"format": "nsd_zarr", "format_version": ' + b"9" * 100_000 + b"}}",
    "not text": b"\xff\xfe" * 100,
    "nul": b"\0" * 100,
    "nan": b'{"attributes": {"format": "nsd_zarr", "format_version": NaN}}',
    "lone surrogate": b'{"attributes": {"format": "nsd_zarr", "format_version": "\\ud800"}}',
    "escape": b'{"attributes": {"format": "nsd_zarr", "format_version": "\\u001b[2Jgone"}}',
    # In the form in which this package writes; another form is read by zarr-python, see store/foreign/open.py.
    "no members": b'{\n "attributes": {"format": "nsd_zarr", "format_version": 1}}',
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_that_is_none_is_refused(name, hostile, read_all_ways, capsys, monkeypatch):
    # JSON takes many times its bytes: what the limit lets through is bounded with it.
    monkeypatch.setitem(read_all_ways.__globals__, "MAX_MEMORY", 512 * 2**20)
    (hostile.path / "zarr.json").write_bytes(DOCUMENTS[name])
    _check_refused(read_all_ways(hostile.path))


def test_document_of_a_terabyte_is_refused_unread(hostile, read_all_ways):
    os.truncate(hostile.path / "zarr.json", 2**40)
    _check_refused(read_all_ways(hostile.path))


def test_hostile_words_do_not_reach_the_terminal(hostile, change_root, capsys):
    from nsd_zarr.cli.main import run

    def change(attributes, members):
        attributes["libraries"]["numpy"] = "2\x1b]0;owned\x07\n[bold red]x[/]\u202e"
        attributes["settings"]["dataset"] = "betas\x1b[2J\r"

    change_root(hostile.path, change)
    assert run(["info", str(hostile.path)]) == 0
    printed = capsys.readouterr().out
    assert not set(printed) & set("\x1b\x07\r\u202e")
    assert "\\x1b]0;owned\\x07\\n[bold red]x[/]\\u202e" in printed


def test_store_that_nobody_changed_is_read_by_all(hostile, read_all_ways):
    found = read_all_ways(hostile.path)
    assert np.array_equal(found["reader"], hostile.stored)
    assert np.array_equal(found["mean"], hostile.percent.mean(0))
    assert found["verify"] is True
    assert (found["info"], found["verify command"]) == (0, 0)
