"""convert, undisturbed: exact values, the same bytes whatever ran them, and a store that knows nothing of where."""

from __future__ import annotations

import builtins
import io
import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import zarr

import nsd_zarr
from nsd_zarr.conversion import memory, memory_choice
from nsd_zarr.conversion.events import RunStarted, SessionDone, TrialsDone, TrialsRead
from nsd_zarr.conversion.memory import BASE_BYTES, Need, make_memory_plan
from nsd_zarr.errors import StoreError
from nsd_zarr.layout import Geometry
from nsd_zarr.store.root import open_store


def _read_with_zarr(store, name="betas"):
    return zarr.open_array(store / name, mode="r")[...]


def _same_bits(left, right):
    """Equal as stored: NaN equals itself, and -0.0 is not 0.0."""
    assert left.shape == right.shape
    return left.tobytes() == right.astype(left.dtype).tobytes()


# -- values ------------------------------------------------------------------------------------------------------

KINDS = {
    "the dataset's own rows": {},
    "contiguous": {"layout": "contiguous"},
    "gzip": {"layout": "gzip"},
    "user block": {"userblock": 1024},
    "big-endian rows": {"dtype": ">i2"},
    "big-endian gzip": {"dtype": ">i4", "layout": "gzip"},
    "float32 rows with NaN": {"dtype": "<f4", "nan": True},
    "float64 contiguous with NaN": {"dtype": "<f8", "nan": True, "layout": "contiguous"},
    "bytes": {"dtype": "u1", "layout": "contiguous"},
    "surface rows": {"volume": (131,)},
    "surface gzip": {"volume": (131,), "layout": "gzip"},
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_store_of_each_layout_holds_what_h5py_reads(kind, make_source, read_source, convert):
    folder = make_source(**kind)
    values = _read_with_zarr(convert(folder))
    expected = read_source(folder)
    assert values.dtype == expected.dtype.newbyteorder("=")
    assert _same_bits(values, expected)


@pytest.mark.parametrize("trials_per_shard", [1, 2, 3, 6, None])
@pytest.mark.parametrize(("codec", "clevel"), [("lz4", 0), ("lz4", None), ("zstd", 9), ("zlib", 1), ("blosclz", 5)])
def test_store_of_each_codec_and_shard_holds_the_source(codec, clevel, trials_per_shard, source, read_source, convert):
    store = convert(source, codec=codec, clevel=clevel, trials_per_shard=trials_per_shard)
    array = zarr.open_array(store / "betas", mode="r")
    assert array.shards == (trials_per_shard or 6, 5, 7, 11)
    assert array.chunks == (1, 5, 7, 11)
    assert np.array_equal(array[...], read_source(source))


def test_store_of_chosen_sessions_numbers_trials_by_session(make_source, make_session, convert):
    folder = make_source(sessions=(2, 3, 5))
    make_session(4, values=np.full((6, 5, 7, 11), 77, "<i2"))
    store = convert(folder, sessions="5,2-3")
    assert _read_with_zarr(store, "session").tolist() == [2] * 6 + [3] * 6 + [5] * 6
    assert _read_with_zarr(store, "trial_in_session").tolist() == [*range(6)] * 3
    assert _read_with_zarr(store, "session_number").tolist() == [2, 3, 5]
    assert 77 not in _read_with_zarr(store)


def test_store_of_another_dataset_name_holds_it(make_source, read_source, convert):
    folder = make_source(name="betas_FIR")
    assert np.array_equal(_read_with_zarr(convert(folder, dataset="betas_FIR")), read_source(folder, "betas_FIR"))


# -- the same bytes ----------------------------------------------------------------------------------------------


def _limit_for_passes(passes):
    """The memory with which sessions of three shards of two trials take so many passes with one thread."""
    need = Need(Geometry((1, 2, 3), 6, 2, (5, 7, 11), "int16"), by_offset=True, chunk_bytes=0)
    limit = BASE_BYTES + need.session_bytes({2: 4, 3: 2}[passes], threads=1)
    assert make_memory_plan(need, 3, 1, limit).passes == passes
    return limit


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"workers": 1},
        {"workers": 3},
        {"workers": 7},
        {"workers": 1, "scheduler": "synchronous"},
        {"workers": 3, "scheduler": "synchronous"},
        {"workers": 1, "passes": 2},
        {"workers": 1, "passes": 3},
        {"workers": 1, "cached": True},
    ],
    ids=str,
)
def test_store_is_byte_identical_however_it_is_made(options, source, convert, digest_tree, tmp_path, monkeypatch):
    options = dict(options)
    passes, is_cached = options.pop("passes", None), options.pop("cached", False)
    if passes:
        options["memory"] = _limit_for_passes(passes)
    monkeypatch.setattr(memory_choice, "is_file_cached", lambda path, unknown: False)
    expected = digest_tree(convert(source, "expected.zarr"))
    if is_cached:
        monkeypatch.setattr(memory_choice, "is_file_cached", lambda path, unknown: True)
        monkeypatch.setattr(memory, "LEAST_SPARED_BYTES", 1)
        monkeypatch.setattr(memory, "TOUCHED_BYTES", 1)
        assert nsd_zarr.plan(source, tmp_path / "planned.zarr", trials_per_shard=2, **options).memory.passes == 3
    assert digest_tree(convert(source, "other.zarr", **options)) == expected


def test_store_made_elsewhere_later_by_another_host_is_byte_identical(
    source, convert, digest_tree, tmp_path, monkeypatch
):
    expected = digest_tree(convert(source))
    moved = source.rename(tmp_path / "moved")
    for path in moved.iterdir():
        os.utime(path, ns=(1, 1))
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    assert digest_tree(convert(moved, "another name")) == expected


def test_finished_store_is_left_alone_by_the_same_command(source, convert, digest_tree, tmp_path, make_recorder):
    store = convert(source)
    before = digest_tree(tmp_path)
    recorder = make_recorder()
    report = nsd_zarr.convert(source, store, trials_per_shard=2, on_event=recorder)
    assert recorder.events == []
    assert (report.sessions, report.finished_before, report.trials) == ((), 3, 18)
    assert digest_tree(tmp_path) == before


def test_finished_store_in_a_read_only_place_is_a_no_op(source, convert, run_child, without_privileges):
    store = convert(source)
    run_folder = store.with_name(store.name + ".run")
    for path in (store, run_folder, *store.rglob("*"), *run_folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    outcome = run_child("convert", source, store, "--trials-per-shard", 2, prefix=without_privileges)
    assert (outcome.code, outcome.err) == (0, "")
    assert "nothing to do" in outcome.out


# -- what a store says, and when ---------------------------------------------------------------------------------


def test_store_names_neither_host_nor_place(source, convert, tmp_path):
    store = convert(source)
    text = "\n".join(path.read_text() for path in store.rglob("zarr.json"))
    assert str(tmp_path) not in text
    assert tmp_path.name not in text
    assert f'"{socket.gethostname()}' not in text
    for path in source.iterdir():
        assert str(path.stat().st_mtime_ns) not in text


def test_store_is_incomplete_until_everything_else_is_written(source, tmp_path):
    store, seen = tmp_path / "subj01.zarr", []

    def look(event):
        if isinstance(event, TrialsRead):
            return
        seen.append(json.loads((store / "zarr.json").read_bytes())["attributes"]["status"])
        assert "manifest" not in json.loads((store / "zarr.json").read_bytes())["attributes"]
        with pytest.raises(StoreError, match="has not finished"):
            open_store(store)

    nsd_zarr.convert(source, store, trials_per_shard=2, on_event=look)
    assert set(seen) == {"incomplete"}
    assert len(seen) == 1 + 18 + 3
    assert open_store(store).is_complete


def test_root_document_is_the_last_file_renamed(source, tmp_path, monkeypatch):
    renamed = []
    replace = os.replace

    def note(old, new):
        replace(old, new)
        renamed.append(Path(new).relative_to(tmp_path).as_posix())

    monkeypatch.setattr(os, "replace", note)
    nsd_zarr.convert(source, tmp_path / "subj01.zarr", trials_per_shard=2, workers=1)
    assert renamed[:2] == ["subj01.zarr.run/run.json", "subj01.zarr/zarr.json"]
    assert renamed[-1] == "subj01.zarr/zarr.json"
    for session in (1, 2, 3):
        record = renamed.index(f"subj01.zarr.run/session-{session:02d}.json")
        assert all(
            renamed.index(f"subj01.zarr/betas/c/{shard}/0/0/0") < record
            for shard in range(3 * session - 3, 3 * session)
        )
    assert sum(name.startswith("subj01.zarr/betas/c/") for name in renamed) == 9


def test_converting_reads_nothing_back(source, tmp_path, monkeypatch):
    store, read = tmp_path / "subj01.zarr", []

    def note(path, reading):
        inside = Path(os.fsdecode(path)).is_relative_to(store) if isinstance(path, (str, bytes, Path)) else False
        # The store's folder itself is opened to be locked.
        if inside and reading and Path(path) != store and not Path(path).is_dir():
            read.append(Path(path).relative_to(store).as_posix())

    def watched_open(path, mode="r", *args, _open=builtins.open, **kwargs):
        note(path, "r" in mode or "+" in mode)
        return _open(path, mode, *args, **kwargs)

    def watched_os_open(path, flags, *args, _open=os.open, **kwargs):
        note(path, not flags & os.O_WRONLY)
        return _open(path, flags, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", watched_open)
    monkeypatch.setattr(io, "open", watched_open)
    monkeypatch.setattr(os, "open", watched_os_open)

    def forget_before_the_end(event):
        assert read == []

    nsd_zarr.convert(source, store, trials_per_shard=2, on_event=forget_before_the_end)
    assert set(read) == {"zarr.json"}


# -- what a run tells --------------------------------------------------------------------------------------------


def test_events_count_each_session_and_trial_once(source, convert, make_recorder):
    recorder = make_recorder()
    convert(source, on_event=recorder)
    assert recorder.events[0] == RunStarted(sessions=3, trials=18, trial_bytes=770, finished_sessions=0, reads=18)
    assert recorder.trials == 18
    assert recorder.sessions == [1, 2, 3]
    done = [event for event in recorder.events if isinstance(event, SessionDone)]
    assert {event.how for event in done} == {"by offset"}
    assert sum(isinstance(event, TrialsDone) for event in recorder.events) == 18


def test_report_adds_up_bytes_in_and_out(source, tmp_path):
    report = nsd_zarr.convert(source, tmp_path / "subj01.zarr", trials_per_shard=2)
    shards = [path for path in (report.store / "betas/c").rglob("*") if path.is_file()]
    assert (len(shards), report.bytes_in) == (9, 18 * 770)
    assert report.bytes_out == sum(path.stat().st_size for path in shards)
    assert [done.session for done in report.sessions] == [1, 2, 3]
    assert json.loads(json.dumps(report.as_dict()))["trials"] == 18


def test_store_beside_a_relative_path_is_made_there(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert nsd_zarr.convert("source", "out/../subj01.zarr").store == tmp_path / "subj01.zarr"
    assert nsd_zarr.verify("subj01.zarr", "source/*.hdf5").is_whole
