"""Ten sessions, then thirty more: the bytes of one conversion, and what readers of the former store get meanwhile."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
from builders import create_source, make_values, watch_changes

import nsd_zarr
from nsd_zarr.errors import DamageFound, StoreError
from nsd_zarr.places import open_files
from nsd_zarr.store.reader import TrialReader
from nsd_zarr.store.root import open_store

TRIALS, SHAPE, FIRST, ALL = 12, (3, 5, 4), range(1, 11), range(1, 41)
OPTIONS = {"trials_per_shard": 4, "workers": 1}
REPLACED = r"another one has taken its place since it was opened\. Open it again"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Folders of the first ten sessions, and of all forty: the same files, by name, size and time."""
    top = tmp_path_factory.mktemp("sources")
    for name, sessions in (("first", FIRST), ("all", ALL)):
        create_source(top / name, {session: make_values(session, TRIALS, SHAPE) for session in sessions})
        for session in sessions:
            os.utime(top / name / f"betas_session{session:02d}.hdf5", (session, session))
    return top


@pytest.fixture
def forget(monkeypatch):
    """One descriptor is kept open for all shards: any other one is opened again when it is read."""
    monkeypatch.setattr(open_files, "count_allowed", lambda: 1)


@pytest.fixture
def store(sources, tmp_path):
    nsd_zarr.convert(sources / "first", tmp_path / "grown.zarr", **OPTIONS)
    return tmp_path / "grown.zarr"


def list_records(store):
    """Names of the files of a store's run, and what of its records does not tell when and where it was made."""
    run = store.with_name(store.name + ".run")
    return {path.name for path in run.iterdir()}, (run / "root.json").read_bytes()


def read_trial(reader, trial):
    values = np.empty(SHAPE, np.int16)
    reader.read_into(trial, values)
    return values


def test_ten_sessions_and_thirty_more_are_the_store_of_forty(sources, store, tmp_path, digest_tree):
    report = nsd_zarr.convert(sources / "all", store, workers=1)
    nsd_zarr.convert(sources / "all", tmp_path / "at_once.zarr", **OPTIONS)
    assert (report.finished_before, report.trials) == (10, 480)
    grown, at_once = digest_tree(store), digest_tree(tmp_path / "at_once.zarr")
    assert {"zarr.json", "betas/c/119/0/0/0", "trial_digest/c/0"} <= {str(key) for key in at_once}
    assert grown == at_once
    assert list_records(store) == list_records(tmp_path / "at_once.zarr")
    assert nsd_zarr.verify(store, sources / "all").is_whole


def test_readers_that_are_open_all_the_while_are_right_or_raise(sources, store, forget):
    pytest.importorskip("torch")
    from nsd_zarr.torch import TrialDataset

    expected = np.concatenate([make_values(session, TRIALS, SHAPE) for session in FIRST])
    used, late = TrialReader(open_store(store)), TrialReader(open_store(store))
    dataset, trained = nsd_zarr.open_dataset(store, raw=True), TrialDataset(store, raw=True)
    readers = {
        "used": lambda trial: read_trial(used, trial),
        "late": lambda trial: read_trial(late, trial),
        "xarray": lambda trial: dataset.betas[trial].values,
        "torch": lambda trial: trained[trial]["betas"].numpy(),
    }
    outcomes: dict[str, set[str]] = {name: set() for name in readers}
    looks = [0]

    def look(number=0):
        looks[0] += 1
        for name in ("used", "xarray", "torch") if number else readers:
            # In the middle some trials, which differ from look to look; in the end all of them.
            for trial in range(looks[0] % 7, 120, 29) if number else range(120):
                try:
                    assert np.array_equal(readers[name](trial), expected[trial]), (name, trial)
                    outcomes[name].add("right")
                except StoreError as error:
                    outcomes[name].add("raised" if re.search(REPLACED, str(error)) else str(error))

    used_before = [read_trial(used, trial) for trial in range(120)]
    assert np.array_equal(used_before, expected)
    with watch_changes(look):
        nsd_zarr.convert(sources / "all", store, workers=1)
    assert looks[0] > 100
    look()
    # Shards that stayed are the same files, and the digests are known to all readers of the former store.
    assert outcomes == {name: {"right"} for name in readers}
    assert nsd_zarr.open_dataset(store).sizes["trial"] == 480


def test_reader_that_read_nothing_before_says_that_the_store_was_replaced(sources, store):
    reader, dataset = TrialReader(open_store(store)), nsd_zarr.open_dataset(store)
    nsd_zarr.convert(sources / "all", store, workers=1)
    for read in (lambda: read_trial(reader, 0), lambda: dataset.betas[0].load(), lambda: dataset.session.load()):
        with pytest.raises(StoreError, match=f"array (trial_digest|session) is of a store .*{REPLACED}"):
            read()


def test_shard_of_a_store_that_was_replaced_says_so(sources, store, tmp_path, forget):
    reader, dataset = TrialReader(open_store(store)), nsd_zarr.open_dataset(store)
    for trial in (0, 5):
        read_trial(reader, trial)
    create_source(tmp_path / "other", {session: make_values(session + 50, TRIALS, SHAPE) for session in FIRST})
    nsd_zarr.convert(tmp_path / "other", store, workers=1, replace_session=list(FIRST))
    for trial in (0, 1, 17, 119):  # An index that is known; others that are not.
        with pytest.raises(StoreError, match=rf"trial {trial} \(.*shard {trial // 4}\).*{REPLACED}") as caught:
            read_trial(reader, trial)
        assert (caught.value.session, caught.value.path) == (trial // 12 + 1, store / f"betas/c/{trial // 4}/0/0/0")
    with pytest.raises(StoreError, match=f"array session_mean.*{REPLACED}"):
        dataset["session_mean"].values  # noqa: B018


def test_damage_to_the_store_that_was_opened_stays_damage(store):
    reader = TrialReader(open_store(store))
    shard = store / "betas/c/3/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DamageFound, match=r"trial 12 .* is lost or damaged"):
        read_trial(reader, 12)
    (store / "zarr.json").write_bytes(b"{}")
    with pytest.raises(DamageFound, match=r"trial 12 .* is lost or damaged"):
        read_trial(reader, 12)
