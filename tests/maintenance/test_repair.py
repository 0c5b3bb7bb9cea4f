"""repair: after any damage the store is, file for file, the one that was made; and what it must not do."""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pytest

import nsd_zarr
from nsd_zarr.errors import ResumeRefused, SourceError, StoreError
from nsd_zarr.places.local import LocalPlace
from nsd_zarr.store.format import make_root_metadata

SHARD = "betas/c/4/0/0/0"  # trials 8 and 9: trials 2 and 3 of session 2
SMALL = ["session", "trial_in_session", "session_number", "trial_digest"]
DOCUMENTS = ["betas/zarr.json", *(f"{name}/{file}" for name in SMALL for file in ("zarr.json", "c/0"))]


@pytest.fixture
def store(copied_store):
    """Three sessions of six trials in nine shards of two."""
    return copied_store


@pytest.fixture
def whole(store, digest_tree):
    """Every file of the store before it was damaged."""
    return digest_tree(store)


def _lose(path):
    path.unlink()


def _lose_folder(path):
    shutil.rmtree(path.parent)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def _empty(path):
    path.write_bytes(b"")


def _flip(path, position=5):
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)


DAMAGES = [_lose, _lose_folder, _cut, _empty, _flip]


def _forget_run(store, but_lock=False):
    folder = store.with_name(store.name + ".run")
    shutil.rmtree(folder)
    if but_lock:
        folder.mkdir()
        (folder / "lock").touch()


# -- what is made again ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_run", [True, False], ids=["with its run", "without its run"])
@pytest.mark.parametrize("key", [SHARD, *DOCUMENTS])
@pytest.mark.parametrize("damage", DAMAGES)
def test_any_file_that_is_damaged_is_made_again_and_no_other(damage, key, with_run, store, source, whole, digest_tree):
    if damage is _lose_folder and key == "betas/zarr.json":
        pytest.skip("loses all betas: tested by itself")
    if not with_run:
        _forget_run(store)
    times = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    damage(store / key)
    lost = {path.relative_to(store).as_posix() for path in times if not path.exists()} | {key}
    report = nsd_zarr.repair(store, source)
    assert set(report.rewritten) == lost
    assert report.is_whole
    assert digest_tree(store) == whole
    assert all(path.stat().st_mtime_ns == time for path, time in times.items() if path not in {store / k for k in lost})


@pytest.mark.parametrize("damage", DAMAGES[:1] + DAMAGES[2:])
def test_root_document_that_is_damaged_comes_back_from_its_copy(damage, store, source, whole, digest_tree):
    damage(store / "zarr.json")
    assert nsd_zarr.repair(store, source).rewritten == ("zarr.json",)
    assert digest_tree(store) == whole


def test_root_document_comes_back_without_sources_records_and_the_libraries_that_made_it(
    store, source, whole, digest_tree, monkeypatch
):
    folder = store.with_name("subj01.zarr.run")
    for path in [*folder.glob("session-*"), folder / "run.json", *source.iterdir(), store / "zarr.json"]:
        _lose(path)
    monkeypatch.setattr("nsd_zarr.conversion.settings.version", lambda name: "99.0")
    assert nsd_zarr.repair(store, source).rewritten == ("zarr.json",)
    assert digest_tree(store) == whole


@pytest.mark.parametrize(
    "lost", [("betas/c/4/0/0/0",), ("betas/zarr.json", "session_number/c/0", "session/c/0"), ("trial_digest/c/0",)]
)
def test_root_document_and_other_files_lost_together_are_made_again(lost, store, source, whole, digest_tree):
    for key in ("zarr.json", *lost):
        _lose(store / key)
    assert set(nsd_zarr.repair(store, source).rewritten) == {"zarr.json", *lost}
    assert digest_tree(store) == whole
    assert nsd_zarr.repair(store, source).rewritten == ()


@pytest.mark.parametrize("option", ["--dataset", "--codec", "--clevel", "--trials-per-shard"])
def test_options_that_decide_bytes_are_unknown_to_repair(option, store, source, run_cli):
    outcome = run_cli("repair", store, "--source", source, option, 2)
    assert outcome.code == 2
    assert f"No such option: {option}" in outcome.err or f"No such option '{option}'" in outcome.err


@pytest.mark.parametrize("with_run", [True, False], ids=["with its run", "without its run"])
def test_damage_of_every_kind_at_once_is_made_good(with_run, store, source, whole, digest_tree):
    if with_run:
        _flip(store / "zarr.json", 400)
    else:
        _forget_run(store)
    shutil.rmtree(store / "betas/c/3")
    shutil.rmtree(store / "session")
    for key in ("betas/c/0/0/0/0", "betas/c/8/0/0/0", "trial_digest/c/0", "trial_digest/zarr.json"):
        _flip(store / key, 40)
    report = nsd_zarr.repair(store, source)
    assert report.is_whole
    assert digest_tree(store) == whole


def test_all_betas_lost_are_made_again(store, source, whole, digest_tree):
    shutil.rmtree(store / "betas")
    assert len(nsd_zarr.repair(store, source).rewritten) == 10
    assert digest_tree(store) == whole


@pytest.mark.parametrize(
    "kind", [{"dtype": "<f4", "nan": True}, {"dtype": ">i2"}, {"volume": (131,)}, {"layout": "gzip"}], ids=str
)
def test_store_of_each_kind_is_repaired(kind, make_source, convert, digest_tree):
    source = make_source(**kind)
    store = convert(source, codec="zstd", clevel=1)
    before = digest_tree(store)
    for number in (1, 4, 5):
        _lose_folder(next((store / f"betas/c/{number}").rglob("0")))
    assert nsd_zarr.repair(store, source).is_whole
    assert digest_tree(store) == before


def test_shards_far_apart_are_read_in_as_many_passes_as_memory_allows(store, source, whole, digest_tree):
    _lose(store / SHARD)
    with pytest.raises(nsd_zarr.errors.DoesNotFit) as caught:
        nsd_zarr.repair(store, source, workers=1, memory=1)
    for number in (0, 2, 3, 5):
        _lose(store / f"betas/c/{number}/0/0/0")
    assert nsd_zarr.repair(store, source, workers=1, memory=caught.value.expected).is_whole
    assert digest_tree(store) == whole


def test_session_that_is_asked_for_alone_is_repaired(store, source, whole, digest_tree, run_cli):
    for number in (0, 4, 8):
        _lose(store / f"betas/c/{number}/0/0/0")
    _lose(store / "session/c/0")
    for session in (1, 3):
        (source / f"betas_session{session:02d}.hdf5").rename(source / f"{session}.away")
    outcome = run_cli("repair", store, "--source", source, "--sessions", 2)
    assert outcome.code == 1
    assert "2 files made again" in outcome.out
    assert "2 found damaged in sessions that were not asked for:\n  session 01, trials 0 to 1" in outcome.out
    for session in (1, 3):
        (source / f"{session}.away").rename(source / f"betas_session{session:02d}.hdf5")
    outcome = run_cli("repair", store, "--source", source, "--session", "1,3", "--json")
    assert (outcome.code, json.loads(outcome.out)["whole"]) == (0, True)
    assert digest_tree(store) == whole


# -- what is left alone ------------------------------------------------------------------------------------------


def test_whole_store_is_said_to_be_whole_and_nothing_is_written(store, source, digest_tree, run_cli):
    _forget_run(store)
    before = digest_tree(store.parent)
    outcome = run_cli("repair", store, "--source", source)
    assert outcome.code == 0
    assert outcome.out.startswith(f"{store} is whole: nothing to repair")
    assert digest_tree(store.parent) == before


def test_leftovers_are_removed_and_strangers_stay(store, source, whole, digest_tree, run_cli):
    (store / "betas/c/4/0/0/0.1f.partial").write_bytes(b"left over")
    (store.with_name("subj01.zarr.run") / "run.json.2e.partial").write_bytes(b"left over")
    (store / "notes.txt").write_text("mine")
    assert "nothing to repair; 2 leftovers of a killed run removed" in run_cli("repair", store, "--source", source).out
    assert set(digest_tree(store)) == {*whole, "notes.txt"}


def test_source_that_is_another_is_refused_and_nothing_is_written(store, source, check_refused):
    _lose(store / SHARD)
    _lose(store / "betas/c/8/0/0/0")
    with h5py.File(source / "betas_session03.hdf5", "r+") as file:
        file["betas"][5, 4, 3, 2] += 1
    paragraph = check_refused(5, "repair", store, "--source", source)
    assert paragraph.startswith("session 03: the source changed since it was converted: trial 5 of the session")


def test_source_changed_in_trials_that_are_not_needed_repairs(store, source, whole, digest_tree):
    _lose(store / SHARD)
    with h5py.File(source / "betas_session02.hdf5", "r+") as file:
        file["betas"][5, 4, 3, 2] += 1
    assert nsd_zarr.repair(store, source).is_whole
    assert digest_tree(store) == whole


def test_source_that_is_another_is_refused_where_the_digests_are_lost(store, source, check_refused):
    _forget_run(store, but_lock=True)
    _lose(store / "trial_digest/c/0")
    with h5py.File(source / "betas_session03.hdf5", "r+") as file:
        file["betas"][5, 4, 3, 2] += 1
    assert "session 03: the source changed" in check_refused(5, "repair", store, "--source", source)


def test_source_that_is_not_there_is_refused(store, source, tmp_path):
    _lose(store / SHARD)
    (source / "betas_session02.hdf5").unlink()
    with pytest.raises(SourceError, match="session 02 is missing"):
        nsd_zarr.repair(store, source)


def test_library_that_gives_other_bytes_is_refused(store, source, whole, digest_tree, monkeypatch):
    from nsd_zarr.store.codec import BloscCodec

    _lose(store / SHARD)
    encode = BloscCodec.encode
    monkeypatch.setattr(BloscCodec, "encode", lambda self, values: encode(BloscCodec("zstd", 1, 2), values))
    with pytest.raises(ResumeRefused, match="the same values give other bytes") as caught:
        nsd_zarr.repair(store, source)
    assert caught.value.session == 2
    assert set(whole) - set(digest_tree(store)) == {SHARD}
    assert not list(store.rglob("*.partial"))


def test_unfinished_store_is_refused(source, interrupt, check_refused):
    store = interrupt(source)
    assert "has not finished" in check_refused(4, "repair", store, "--source", source)


def test_store_that_is_not_there_is_refused(source, tmp_path, check_refused):
    assert check_refused(4, "repair", tmp_path / "no.zarr", "--source", source).startswith("no such store")


def test_store_of_someone_else_is_refused(source, tmp_path, check_refused):
    import zarr

    zarr.save_array(tmp_path / "other.zarr", np.arange(7))
    check_refused(4, "repair", tmp_path / "other.zarr", "--source", source)


def test_store_in_the_place_of_one_that_was_moved_is_refused(store, source, tmp_path, check_refused):
    import zarr

    store.rename(tmp_path / "moved.zarr")
    zarr.save_array(store, np.arange(7))
    check_refused(4, "repair", store, "--source", source)


def _flip_copy(copy):
    _flip(copy, 300)


def _make_root_incomplete(copy):
    document = json.loads(copy.read_bytes())
    document["attributes"]["status"] = "incomplete"
    document["attributes"].pop("checksum")
    copy.write_bytes(make_root_metadata(document["attributes"], document["consolidated_metadata"]["metadata"]))


def _link_out(copy):
    other = copy.parent.parent / "elsewhere.json"
    copy.rename(other)
    copy.symlink_to(other)


COPY_DAMAGES = {
    _lose: "missing",
    _cut: "no zarr.json of a group",
    _empty: "no zarr.json of a group",
    _flip_copy: "its checksum does not match",
    _make_root_incomplete: "has not finished",
    _link_out: "a link that leads out",
}


@pytest.mark.parametrize("damage", COPY_DAMAGES)
def test_root_document_lost_together_with_its_copy_is_refused_with_the_way_out(damage, store, source, check_refused):
    _lose(store / "zarr.json")
    damage(store.with_name("subj01.zarr.run") / "root.json")
    paragraph = check_refused(4, "repair", store, "--source", source)
    assert "comes back from its copy, subj01.zarr.run/root.json, which cannot be used" in paragraph
    assert COPY_DAMAGES[damage] in paragraph
    assert "Restore zarr.json from a backup, or move the store away and convert again" in paragraph


def test_copy_of_another_store_is_refused(store, make_source, convert, check_refused, tmp_path):
    other = convert(make_source(folder="others", dtype=">i4"), "other.zarr")
    _lose(store / "zarr.json")
    shutil.copy(f"{other}.run/root.json", f"{store}.run/root.json")
    assert "no shard in the store is one that it lists" in check_refused(4, "repair", store, "--source", "source")


def test_copy_from_before_the_store_had_more_sessions_is_refused(store, source, convert, check_refused):
    shorter = convert(source, "other.zarr", sessions="1-2")
    _lose(store / "zarr.json")
    shutil.copy(f"{shorter}.run/root.json", f"{store}.run/root.json")
    assert "it does not list betas/c/" in check_refused(4, "repair", store, "--source", source)


def test_store_in_use_is_refused(store, source):
    from nsd_zarr.conversion.lock import hold_lock

    _lose(store / SHARD)
    with hold_lock(store), pytest.raises(StoreError, match="is in use by a live run"):
        nsd_zarr.repair(store, source)


def test_repair_killed_before_each_rename_is_repeated(store, source, whole, digest_tree, stop_at_rename):
    def damage():
        for key in ("betas/c/0/0/0/0", SHARD, "session/c/0", "zarr.json"):
            _lose(store / key)

    for number in range(1, 5):
        damage()
        with stop_at_rename(number):
            nsd_zarr.repair(store, source, workers=1)
        assert nsd_zarr.repair(store, source).is_whole
        assert digest_tree(store) == whole


def test_disk_that_writes_something_else_is_reported(store, source, monkeypatch):
    _lose(store / "session/c/0")
    write = LocalPlace.write

    def write_other_bytes(place, key, data):
        write(place, key, data[:-1] + b"x" if key == "session/c/0" else data)

    monkeypatch.setattr(LocalPlace, "write", write_other_bytes)
    with pytest.raises(StoreError, match="session/c/0 was written, and is not what was written"):
        nsd_zarr.repair(store, source)
