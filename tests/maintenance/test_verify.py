"""verify, seen to fail: each kind of damage is found, and reported with its file, session and trials."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import nsd_zarr
from nsd_zarr.conversion.events import RunStarted
from nsd_zarr.errors import StoreError
from nsd_zarr.store.codec import BloscCodec
from nsd_zarr.store.digest import make_digest
from nsd_zarr.store.format import make_root_metadata
from nsd_zarr.store.reader import TrialReader
from nsd_zarr.store.root import open_store
from nsd_zarr.store.shard import write_shard

SHARD = "betas/c/4/0/0/0"  # trials 8 and 9: trials 2 and 3 of session 2


@pytest.fixture
def store(copied_store):
    """Three sessions of six trials in nine shards of two."""
    return copied_store


def _flip(path, position, bit=0):
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def _places(report):
    return {(damage.path, damage.session, damage.trials) for damage in report.damages}


# -- whole stores ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("--quick",), ("--source",)], ids=["full", "quick", "source"])
def test_whole_store_is_found_whole(words, store, source, run_cli):
    words = (*words, source) if words == ("--source",) else words
    outcome = run_cli("verify", store, *words, "--json")
    printed = json.loads(outcome.out)
    assert (outcome.code, printed["whole"], printed["damages"]) == (0, True, [])
    assert printed["strength"] == (words[0].strip("-") if words else "full")
    assert printed["trials"] == (0 if words == ("--quick",) else 18)
    assert printed["files"] == sum(path.is_file() for path in store.rglob("*"))


@pytest.mark.parametrize(
    "kind", [{"dtype": "<f4", "nan": True}, {"dtype": ">i2"}, {"volume": (131,)}, {"layout": "gzip"}], ids=str
)
def test_whole_store_of_each_kind_equals_its_source(kind, make_source, convert):
    source = make_source(**kind)
    report = nsd_zarr.verify(convert(source), source)
    assert (report.is_whole, report.strength, report.trials) == (True, "source", 18)


def test_verifying_writes_nothing_and_counts_each_trial(store, source, digest_tree, make_recorder):
    before, recorder = digest_tree(store.parent), make_recorder()
    nsd_zarr.verify(store, source, on_event=recorder)
    assert digest_tree(store.parent) == before
    steps = [event for event in recorder.events if isinstance(event, RunStarted)]
    assert steps == [
        RunStarted(3, 18, 770, 0, step="verifying"),
        RunStarted(3, 18, 770, 0, reads=18, step="comparing"),
    ]
    assert recorder.trials == 36


def test_store_without_its_run_is_whole(store):
    shutil.rmtree(store.with_name("subj01.zarr.run"))
    assert nsd_zarr.verify(store).is_whole


# -- damage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 5, 16, 40, -1], ids=lambda position: f"byte {position}")
def test_bit_flipped_in_a_chunk_is_found_with_its_trial(position, store):
    lengths = _entries(store)
    start, end = lengths[1][0], sum(lengths[1])
    _flip(store / SHARD, start + position if position >= 0 else end + position, bit=3)
    report = nsd_zarr.verify(store)
    assert _places(report) == {(SHARD, 2, (9, 9))}
    (damage,) = report.damages
    assert damage.problem.startswith("lost or damaged: its crc32c does not match")
    assert [damage.offset, damage.length] == lengths[1]


def _entries(store):
    reader = TrialReader(open_store(store))
    return reader._open_shard(4).entries.tolist()


def test_bit_flipped_in_any_byte_of_a_shard_is_found(store):
    path = store / SHARD
    for position in range(0, path.stat().st_size, 7):
        _flip(path, position, bit=position % 8)
        assert {place[:2] for place in _places(nsd_zarr.verify(store, workers=1))} == {(SHARD, 2)}
        _flip(path, position, bit=position % 8)
    assert nsd_zarr.verify(store).is_whole


def _lose(path):
    path.unlink()


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


def _empty(path):
    path.write_bytes(b"")


def _lengthen(path):
    path.write_bytes(path.read_bytes() + b"more")


def _flip_index(path):
    _flip(path, -10)


@pytest.mark.parametrize("quick", [True, False], ids=["quick", "full"])
@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (_lose, "missing"),
        (_truncate, "bytes, expected "),
        (_empty, "0 bytes, expected "),
        (_lengthen, "bytes, expected "),
        (_flip_index, "the crc32c of its index does not match"),
    ],
)
def test_shard_damaged_as_a_whole_is_found_once_with_all_its_trials(damage, problem, quick, store):
    damage(store / SHARD)
    report = nsd_zarr.verify(store, quick=quick)
    assert _places(report) == {(SHARD, 2, (8, 9))}
    assert len(report.damages) == 1
    assert problem in report.damages[0].problem


def test_lost_shard_of_a_single_trial_is_found_once(source, convert):
    store = convert(source, trials_per_shard=1)
    (store / SHARD).unlink()
    report = nsd_zarr.verify(store)
    assert [(damage.path, damage.trials, damage.problem) for damage in report.damages] == [(SHARD, (4, 4), "missing")]


def test_swapped_shards_are_found_in_both_places(store):
    first, second = store / SHARD, store / "betas/c/7/0/0/0"
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    trials = {trial for _, _, place in _places(nsd_zarr.verify(store)) for trial in range(place[0], place[1] + 1)}
    assert trials == {8, 9, 14, 15}


def _encode_again(store, change):
    """A shard whose trials are changed, with every checksum right, in the manifest too."""
    reader = TrialReader(open_store(store))
    values = np.empty((2, 5, 7, 11), "<i2")
    for number in range(2):
        reader.read_into(8 + number, values[number])
    changed = change(values)
    pending = write_shard(store, SHARD, changed.reshape(2, -1), BloscCodec("lz4", 5, 2), lambda: None)
    record = pending.commit()
    document = json.loads((store / "zarr.json").read_bytes())
    attributes = document["attributes"]
    attributes["manifest"][SHARD] = [record.size, record.digest, record.tail]
    members = document["consolidated_metadata"]["metadata"]
    (store / "zarr.json").write_bytes(make_root_metadata(attributes, members))


def _change_one_value(values):
    values[1, 4, 6, 10] += 1
    return values


def test_swapped_trials_with_right_checksums_are_found_by_their_digests(store):
    _encode_again(store, lambda values: values[::-1].copy())
    assert nsd_zarr.verify(store, quick=True).is_whole
    report = nsd_zarr.verify(store)
    assert _places(report) == {(SHARD, 2, (8, 8)), (SHARD, 2, (9, 9))}
    assert {damage.problem for damage in report.damages} == {"its values are not those that were read from the source"}


def test_older_shard_of_the_same_size_is_found_though_its_checksums_are_right(store):
    whole = (store / "zarr.json").read_bytes()
    _encode_again(store, lambda values: values[::-1].copy())
    (store / "zarr.json").write_bytes(whole)
    report = nsd_zarr.verify(store, quick=True)
    assert _places(report) == {(SHARD, 2, (8, 9))}
    assert "not the one that was written here" in report.damages[0].problem
    assert _places(nsd_zarr.verify(store)) == {(SHARD, 2, (8, 8)), (SHARD, 2, (9, 9))}


def test_changed_value_with_right_checksums_is_found(store):
    _encode_again(store, _change_one_value)
    assert {place[:2] for place in _places(nsd_zarr.verify(store))} == {(SHARD, 2)}


SMALL = ["betas/zarr.json", "session/zarr.json", "session/c/0", "trial_in_session/c/0", "trial_digest/c/0"]


@pytest.mark.parametrize("quick", [True, False], ids=["quick", "full"])
@pytest.mark.parametrize("key", SMALL)
@pytest.mark.parametrize("damage", [_lose, _truncate, _lengthen, lambda path: _flip(path, 5)])
def test_small_file_that_is_damaged_is_found(damage, key, quick, store):
    damage(store / key)
    report = nsd_zarr.verify(store, quick=quick)
    assert _places(report) == {(key, None, None)}


def test_root_with_any_byte_flipped_is_found_or_no_store(store):
    path = store / "zarr.json"
    data = path.read_bytes()
    for position in range(0, len(data), 61):
        _flip(path, position, bit=position % 7)
        try:
            report = nsd_zarr.verify(store)
        except StoreError as error:
            assert "damaged" in str(error) or "format version" in str(error)  # noqa: PT017
        else:
            assert _places(report) == {("zarr.json", None, None)}
        path.write_bytes(data)


def test_damage_of_several_kinds_is_reported_together(store, run_cli):
    _lose(store / SHARD)
    _flip(store / "betas/c/0/0/0/0", 30)
    _empty(store / "session" / "c" / "0")
    outcome = run_cli("verify", store)
    assert outcome.code == 1
    assert "is damaged, 3 found" in outcome.out
    assert "session 02, trials 8 to 9, betas/c/4/0/0/0: missing" in outcome.out
    assert "session 01, trial 0, betas/c/0/0/0/0, bytes 0 to 3" in outcome.out
    assert "session/c/0: 0 bytes, expected 40" in outcome.out


def test_damage_as_json_names_file_session_and_trials(store, run_cli):
    _lose(store / SHARD)
    outcome = run_cli("verify", store, "--json", "--quiet")
    printed = json.loads(outcome.out)
    assert (outcome.code, outcome.err, printed["whole"]) == (1, "", False)
    place = {"session": 2, "trials": [8, 9], "offset": None, "length": None, "images": None, "subject": None}
    assert printed["damages"] == [{"path": SHARD, "problem": "missing", "experiment": None} | place]
    assert printed["repair"] == f"nsd-zarr repair {store} --source SOURCE --sessions 2"


def test_damage_is_reported_with_the_command_that_repairs_it(store, source, run_cli):
    import shlex

    for number in (0, 4):
        _flip(store / f"betas/c/{number}/0/0/0", 30)
    last = run_cli("verify", store, "--source", source).out.splitlines()[-1]
    assert last == f"Repair it: nsd-zarr repair {store} --source {source} --sessions 1-2"
    assert run_cli(*shlex.split(last.partition("nsd-zarr ")[2])).code == 0
    assert run_cli("verify", store).code == 0


def test_command_that_repairs_holds_from_any_folder_and_names_the_same_betas(store, source, tmp_path, monkeypatch):
    # Of two subjects, the second.
    root = tmp_path / "root"
    for subject in ("subj01", "subj02"):
        folder = root / f"nsddata_betas/ppdata/{subject}/func1pt8mm/betas_fithrf_GLMdenoise_RR"
        folder.parent.mkdir(parents=True)
        shutil.copytree(source, folder)
    _lose(store / "session/c/0")
    monkeypatch.chdir(tmp_path)
    report = nsd_zarr.verify(store, "root", subject=2)
    assert report.repair_command == f"nsd-zarr repair {store} --source {root} --subject 2"


def test_damage_to_files_that_concern_all_is_repaired_with_all_sessions(store):
    _lose(store / SHARD)
    _lose(store / "session/c/0")
    assert nsd_zarr.verify(store).repair_command == f"nsd-zarr repair {store} --source SOURCE"


def test_shard_of_other_bytes_with_the_same_values_is_found(store):
    # As another library would have compressed it: every checksum and every value right.
    reader, values = TrialReader(open_store(store)), np.empty((2, 385), "<i2")
    for number in range(2):
        reader.read_into(8 + number, values[number])
    write_shard(store, SHARD, values, BloscCodec("lz4", 5, 2, shuffle="noshuffle"), lambda: None).commit()
    size = (store / SHARD).stat().st_size
    root = store / "zarr.json"
    _seal(root, lambda attributes: attributes["manifest"][SHARD].__setitem__(0, size))
    report = nsd_zarr.verify(store)
    assert _places(report) == {(SHARD, 2, (8, 9))}
    assert report.damages[0].problem.endswith("though every value is right")


def _seal(path, change):
    """Change the root document as somebody would who knows how its checksum is made."""
    document = json.loads(path.read_bytes())
    attributes = document["attributes"]
    change(attributes)
    del attributes["checksum"]
    path.write_bytes(make_root_metadata(attributes, document["consolidated_metadata"]["metadata"]))


def test_manifest_that_lacks_a_file_is_found(store):
    _seal(store / "zarr.json", lambda attributes: [attributes["manifest"].pop(key) for key in (SHARD, "session/c/0")])
    damages = nsd_zarr.verify(store, quick=True).damages
    assert [(damage.path, damage.problem) for damage in damages] == [
        (SHARD, "the manifest does not know it"),
        ("session/c/0", "the manifest does not know it"),
    ]


def test_metadata_that_differ_from_their_copy_in_the_root_are_found(store):
    path = store / "session/zarr.json"
    path.write_bytes(path.read_bytes().replace(b"scan session", b"soap session"))
    record = [path.stat().st_size, make_digest(path.read_bytes())]
    _seal(store / "zarr.json", lambda attributes: attributes["manifest"].update({"session/zarr.json": record}))
    (damage,) = nsd_zarr.verify(store, quick=True).damages
    assert (damage.path, damage.problem) == ("session/zarr.json", "differs from its copy in the root document")


@pytest.mark.parametrize("damage", [_lose, _empty, lambda path: path.write_bytes(b"[1, 2")])
def test_root_document_that_is_gone_is_reported_as_damage(damage, store, run_cli):
    damage(store / "zarr.json")
    outcome = run_cli("verify", store)
    assert outcome.code == 1
    assert "zarr.json: the root document is lost or damaged" in outcome.out


def test_files_that_are_not_of_the_store_are_noted_and_no_damage(store, run_cli):
    (store / "betas/c/4/0/0/0.1f.partial").write_bytes(b"left over")
    (store / "notes.txt").write_text("mine")
    outcome = run_cli("verify", store, "--quick")
    assert outcome.code == 0
    note = "Note: 2 files not of this store, which no reader looks at: notes.txt, betas/c/4/0/0/0.1f.partial"
    assert outcome.out.splitlines()[-1] == note
    assert json.loads(run_cli("verify", store, "--json").out)["untracked_files"] == [
        "notes.txt",
        "betas/c/4/0/0/0.1f.partial",
    ]


def test_store_damaged_where_its_checksums_are_right_differs_from_its_source(store, source):
    _encode_again(store, lambda values: values[::-1].copy())
    assert {place[2] for place in _places(nsd_zarr.verify(store, source))} == {(8, 8), (9, 9)}
