"""Voxels without data in some sessions, in training."""

import logging
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import nsd_zarr  # noqa: E402
from nsd_zarr.errors import ConfigError, StoreError  # noqa: E402
from nsd_zarr.torch import TrialDataset, TrialLoader  # noqa: E402

SESSIONS, TRIALS, SHAPE = 3, 14, (5, 3, 7)
VOXELS = int(np.prod(SHAPE))


@pytest.fixture(scope="module")
def stored():
    values = np.random.default_rng(3).integers(-9000, 9000, (SESSIONS * TRIALS, VOXELS)).astype(np.int16)
    values[:TRIALS, 2::9] = 0
    values[2 * TRIALS :, 3::17] = 451  # constant, not 0
    return values


@pytest.fixture(scope="module")
def missing(stored):
    """Oracle, (session, voxel)."""
    parts = stored.reshape(SESSIONS, TRIALS, VOXELS)
    found = (parts == parts[:, :1]).all(1)
    found[1, 5] = True  # by `valid` alone
    return found


@pytest.fixture(scope="module")
def path(stored, make_store, extend_store):
    made = make_store(stored.reshape(-1, *SHAPE))
    valid = np.ones((SESSIONS, VOXELS), bool)
    valid[1, 5] = False
    shared = np.arange(SESSIONS * TRIALS) % 4 == 1
    extend_store(
        made.path,
        {
            "valid": (valid.reshape(-1, *SHAPE), ("session_number", "z", "y", "x"), {}),
            "shared1000": (shared, ("trial",), {}),
        },
    )
    return made.path


def read_all(dataset):
    return torch.stack([dataset[place]["betas"] for place in range(len(dataset))]).numpy().reshape(len(dataset), -1)


def make_percent(stored):
    return np.float32(stored) / np.float32(300)


def zscore(stored, train=None):
    """In float64, NaN for what does not vary in its session."""
    out = np.empty(stored.shape)
    for session in range(SESSIONS):
        mine = np.arange(len(stored)) // TRIALS == session
        given = stored[mine if train is None else mine & train] / 300
        out[mine] = (stored[mine] / 300 - given.mean(0)) / np.where(given.std(0) == 0, np.nan, given.std(0))
    return out


@pytest.mark.parametrize(("missing_as", "value"), [("zero", 0), ("nan", np.nan)])
@pytest.mark.parametrize("roi", [None, np.arange(0, VOXELS, 2)], ids=["volume", "region"])
@pytest.mark.parametrize("scored", [False, True])
def test_voxels_without_data_are_what_is_asked_for(path, stored, missing, missing_as, value, roi, scored):
    dataset = TrialDataset(path, roi=roi, missing=missing_as, zscore="session" if scored else None)
    expected = zscore(stored) if scored else make_percent(stored)
    expected = np.where(np.repeat(missing, TRIALS, 0), value, expected)[:, slice(None) if roi is None else roi]
    found = read_all(dataset)
    np.testing.assert_allclose(found, expected, atol=4e-6 if scored else 0)
    (batch,) = TrialLoader(dataset, batch_size=len(dataset), threads=1)
    assert np.array_equal(batch["betas"].numpy().reshape(found.shape), found, equal_nan=True)


def test_raw_counts_are_as_delivered(path, stored):
    assert np.array_equal(read_all(TrialDataset(path, raw=True)), stored)


def test_dropped_voxels_lack_a_session_of_the_selection(path, stored, missing):
    roi = np.arange(0, VOXELS, 2)
    every = TrialDataset(path, roi=roi, missing="drop")
    kept = roi[~missing[:, roi].any(0)]
    assert every.voxels.tolist() == kept.tolist()
    assert np.array_equal(read_all(every), make_percent(stored)[:, kept])
    second = TrialDataset(path, roi=roi, missing="drop", trials=np.arange(TRIALS, 2 * TRIALS))
    assert second.voxels.tolist() == roi[~missing[1, roi]].tolist()
    again = pickle.loads(pickle.dumps(second))
    assert again.voxels.tolist() == second.voxels.tolist()


def test_dataset_says_once_how_many_voxels_lack_how_many_sessions(path, missing, caplog):
    with caplog.at_level(logging.WARNING, "nsd_zarr"):
        for _ in range(2):
            dataset = TrialDataset(path, roi=np.arange(40))
        pickle.loads(pickle.dumps(dataset))
    counts = missing[:, :40].sum(0)
    text = f"{(counts > 0).sum()} of 40 voxels have no data in some of 3 sessions"
    assert sum(text in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("trials", ["train", np.arange(SESSIONS * TRIALS) % 4 != 1], ids=["word", "booleans"])
@pytest.mark.parametrize("roi", [None, np.arange(3, 40)], ids=["volume", "region"])
def test_leak_free_zscore_is_taken_from_its_trials(path, stored, missing, trials, roi):
    train = np.arange(len(stored)) % 4 != 1
    dataset = TrialDataset(path, roi=roi, zscore="session", zscore_trials=trials, trials="test")
    expected = np.where(np.repeat(missing, TRIALS, 0), 0, zscore(stored, train))[~train]
    np.testing.assert_allclose(read_all(dataset), expected[:, slice(None) if roi is None else roi], atol=4e-6)
    ds = nsd_zarr.open_dataset(path).nsd.zscore(trials=train)
    lazy = np.nan_to_num(ds.betas.values.reshape(len(stored), -1)[~train])
    assert np.array_equal(read_all(dataset), lazy[:, slice(None) if roi is None else roi])


def test_state_of_a_loader_knows_what_it_was_made_with(path):
    made = [
        TrialDataset(path, zscore="session"),
        TrialDataset(path, zscore="session", zscore_trials="train"),
        TrialDataset(path, zscore="session", missing="nan"),
    ]
    assert len({TrialLoader(dataset).state_dict()["fingerprint"] for dataset in made}) == 3


REFUSED = {
    "another word": {"missing": "mean"},
    "drop without a region": {"missing": "drop"},
    "NaN counts": {"missing": "nan", "raw": True},
    "statistics without a z-score": {"zscore_trials": "train"},
    "a session without trials": {"zscore": "session", "zscore_trials": np.arange(20)},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused(path, name):
    with pytest.raises(ConfigError):
        TrialDataset(path, **REFUSED[name])


def test_store_without_statistics_is_refused_where_they_are_needed(path, tmp_path):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(tmp_path / "other.zarr", mode="w")
    array = group.create_array(
        "betas", shape=(6, 2, 3, 5), dtype="int16", chunks=(1, 2, 3, 5), dimension_names=list("tzyx")
    )
    array[...] = np.arange(180).reshape(6, 2, 3, 5)
    assert len(TrialDataset(tmp_path / "other.zarr")) == 6
    with pytest.raises(StoreError, match="session_"):
        TrialDataset(tmp_path / "other.zarr", missing="nan")
