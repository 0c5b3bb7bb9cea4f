import gc
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader, Subset  # noqa: E402

from nsd_zarr.errors import DamageFound, StoreError  # noqa: E402
from nsd_zarr.torch import TrialDataset, to_percent  # noqa: E402

TIMEOUT = {"num_workers": 2, "timeout": 100}
"""Two workers; one that hangs becomes an error."""


def in_workers(test):
    """Mark a test that starts worker processes."""
    # Python 3.12 and newer warn of any fork of a process with threads; Blosc has some.
    test = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")(test)
    # A machine of one core.
    return pytest.mark.filterwarnings("ignore:This DataLoader will create")(test)


def check_samples(samples, store, trials):
    """Samples, in order, are these trials of the store."""
    assert [sample["trial"] for sample in samples] == list(trials)
    for sample in samples:
        assert list(sample) == ["betas", "trial", "session", "trial_in_session"]
        assert np.array_equal(sample["betas"].numpy(), store.percent[sample["trial"]], equal_nan=True)
        assert (sample["session"], sample["trial_in_session"]) == store.locate(sample["trial"])


def check_batches(batches, store, trials):
    """Batches of a stock DataLoader, put together, are these trials of the store."""
    joined = {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}
    assert joined["trial"].tolist() == list(trials)
    assert joined["trial"].dtype == joined["session"].dtype == torch.int64
    assert np.array_equal(joined["betas"].numpy(), store.percent[list(trials)], equal_nan=True)
    places = torch.stack([joined["session"], joined["trial_in_session"]], 1).tolist()
    assert [tuple(place) for place in places] == [store.locate(trial) for trial in trials]


def test_sample_is_a_trial_with_its_place(volumes):
    sample = TrialDataset(volumes.path)[33]
    assert sample["betas"].dtype == torch.float32
    assert sample["betas"].shape == (5, 11, 3)
    assert {key: value for key, value in sample.items() if key != "betas"} == {
        "trial": 33,
        "session": 5,
        "trial_in_session": 5,
    }
    assert {type(sample[key]) for key in ("trial", "session", "trial_in_session")} == {int}
    check_samples([sample], volumes, [33])


def test_iterating_gives_every_trial_in_order(volumes):
    dataset = TrialDataset(volumes.path)
    assert len(dataset) == 42
    check_samples(list(dataset), volumes, range(42))


def test_sample_is_the_callers_own(volumes):
    dataset = TrialDataset(volumes.path)
    dataset[3]["betas"].zero_()
    check_samples([dataset[3]], volumes, [3])


@pytest.mark.parametrize("index", [-1, -42, 0, 41, np.int64(7), torch.tensor(7), True], ids=repr)
def test_index_is_any_whole_number(volumes, index):
    check_samples([TrialDataset(volumes.path)[index]], volumes, [int(index) % 42])


@pytest.mark.parametrize("index", [42, -43, 10**9])
def test_index_outside_the_dataset_is_an_index_error(volumes, index):
    with pytest.raises(IndexError, match=f"sample {index} is outside the dataset's 42 trials"):
        TrialDataset(volumes.path)[index]


@pytest.mark.parametrize("index", [1.5, 2.0, "3", None, slice(0, 3), [1]], ids=repr)
def test_index_of_another_kind_is_a_type_error(volumes, index):
    with pytest.raises(TypeError):
        TrialDataset(volumes.path)[index]


ODD = np.arange(42) % 2 == 1
SELECTIONS = {
    "booleans": (ODD, range(1, 42, 2)),
    "list of booleans": (ODD.tolist(), range(1, 42, 2)),
    "tensor of booleans": (torch.from_numpy(ODD), range(1, 42, 2)),
    "no true one": (np.zeros(42, bool), []),
    "integers": ([30, 2, 17], [30, 2, 17]),
    "negative": ([-1, -42, 3], [41, 0, 3]),
    "repeats": ([5, 5, 40, 5], [5, 5, 40, 5]),
    "tensor": (torch.tensor([8, 1]), [8, 1]),
    "range": (range(10, 4, -3), [10, 7]),
    "unsigned": (np.array([41, 2], "uint8"), [41, 2]),
    "nothing": ([], []),
    "no integer": (np.array([], int), []),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_selected_trials_come_in_their_order(volumes, name):
    selection, expected = SELECTIONS[name]
    dataset = TrialDataset(volumes.path, trials=selection)
    assert len(dataset) == len(expected)
    check_samples(list(dataset), volumes, expected)


def test_index_counts_along_the_selection(volumes):
    dataset = TrialDataset(volumes.path, trials=[30, 2, 17])
    check_samples([dataset[-1], dataset[1]], volumes, [17, 2])
    with pytest.raises(IndexError, match="sample 3 is outside the dataset's 3 trials"):
        dataset[3]


def test_selection_is_not_changed_by_its_caller_later(volumes):
    trials = np.array([3, 4])
    dataset = TrialDataset(volumes.path, trials=trials)
    trials[:] = 0
    check_samples(list(dataset), volumes, [3, 4])


@pytest.mark.parametrize("trials", [ODD[:41], [True], ODD.reshape(6, 7), [0, 42], [-43], torch.tensor([99])], ids=repr)
def test_selection_outside_the_store_is_an_index_error(volumes, trials):
    with pytest.raises(IndexError, match="42 trials"):
        TrialDataset(volumes.path, trials=trials)


@pytest.mark.parametrize("trials", [[1.0, 2.0], 5, [[1, 2]], slice(3), {1, 2}, ["a"]], ids=repr)
def test_selection_of_another_kind_is_a_type_error(volumes, trials):
    with pytest.raises(TypeError, match="trials are booleans or integers in one dimension"):
        TrialDataset(volumes.path, trials=trials)


def test_getitems_gives_samples_in_the_order_asked_for(volumes):
    dataset = TrialDataset(volumes.path, trials=range(40))
    check_samples(dataset.__getitems__([30, -1, 2, 30, 0]), volumes, [30, 39, 2, 30, 0])
    assert dataset.__getitems__([]) == []
    with pytest.raises(IndexError, match="sample 40"):
        dataset.__getitems__([1, 40])


def test_getitems_reads_in_the_order_of_the_store(volumes, monkeypatch):
    dataset = TrialDataset(volumes.path)
    dataset[1]  # Which voxels have no data in the session is read once, beside the trials.
    offsets = []
    real = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda file, buffers, offset: (offsets.append(offset), real(file, buffers, offset))[1]
    )
    dataset.__getitems__([5, 0, 6, 3])
    assert len(offsets) == 4
    assert offsets == sorted(offsets)


def test_transform_makes_what_is_handed_out(volumes):
    dataset = TrialDataset(
        volumes.path, trials=[4, 9], transform=lambda sample: (sample["trial"], sample["betas"].mean())
    )
    assert dataset[1][0] == 9
    assert [number for number, _ in dataset.__getitems__([1, 0])] == [9, 4]
    assert torch.isclose(dataset[0][1], torch.tensor(volumes.percent[4].mean()))


def test_surfaces_are_vectors(surfaces):
    dataset = TrialDataset(surfaces.path)
    assert dataset[0]["betas"].shape == (23,)
    check_batches(list(DataLoader(dataset, batch_size=5)), surfaces, range(42))


def test_float_source_is_delivered_as_it_is(floats):
    dataset = TrialDataset(floats.path, raw=True)
    assert dataset[0]["betas"].dtype == TrialDataset(floats.path)[0]["betas"].dtype == torch.float32
    assert np.array_equal(np.stack([sample["betas"] for sample in dataset]).view("u4"), floats.stored.view("u4"))


@pytest.mark.parametrize("source", ["float64", "float32", "float16"])
def test_float_source_is_converted_only_where_a_dtype_asks_for_it(make_store, source):
    values = torch.arange(7 * 3 * 5 * 2).reshape(7, 3, 5, 2).div(8).to(getattr(torch, source))
    store = make_store(values.numpy(), sessions=(1,))
    for dtype in (None, torch.float32, torch.float16, torch.bfloat16):
        betas = TrialDataset(store.path, dtype=dtype)[3]["betas"]
        assert betas.dtype == (dtype or values.dtype)
        assert torch.equal(betas, values[3].to(betas.dtype))


def test_raw_samples_are_counts_that_to_percent_scales(volumes):
    dataset = pickle.loads(pickle.dumps(TrialDataset(volumes.path, raw=True)))
    assert torch.equal(dataset[3]["betas"], torch.from_numpy(volumes.stored[3]))
    assert dataset[3]["scale"] == 300
    check_samples([to_percent(dataset[trial]) for trial in (3, 40)], volumes, [3, 40])
    check_batches([to_percent(batch) for batch in DataLoader(dataset, 9)], volumes, range(42))


def test_stock_loader_in_this_process(volumes):
    dataset = TrialDataset(volumes.path)
    check_batches(list(DataLoader(dataset, batch_size=8)), volumes, range(42))
    assert len(DataLoader(dataset, batch_size=8, drop_last=True)) == 5
    part = Subset(TrialDataset(volumes.path, trials=ODD), [20, 0, 3])
    check_batches(list(DataLoader(part, batch_size=2)), volumes, [41, 1, 7])


def test_stock_loader_shuffles_every_trial_once(volumes):
    shuffled = DataLoader(TrialDataset(volumes.path), 8, shuffle=True, generator=torch.Generator().manual_seed(5))
    batches = list(shuffled)
    trials = torch.cat([batch["trial"] for batch in batches]).tolist()
    assert trials != sorted(trials) == list(range(42))
    check_batches(batches, volumes, trials)


@in_workers
@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_stock_loader_with_workers(volumes, start):
    dataset = TrialDataset(volumes.path)
    check_samples([dataset[5]], volumes, [5])  # decoded before the workers start
    options = TIMEOUT | {"num_workers": 1 if start == "spawn" else 2}  # each spawned one imports PyTorch, 3 s
    loader = DataLoader(dataset, 8, multiprocessing_context=start, persistent_workers=True, **options)
    for _ in range(2):
        check_batches(list(loader), volumes, range(42))


# In a process of its own, whose first decode is the one meant. Then again after something was decoded, and while a
# TrialLoader is under way: whoever carries the locks of its threads through a fork hangs.
START = """
import multiprocessing, sys, numpy, torch
from torch.utils.data import DataLoader
from nsd_zarr.torch import TrialDataset, TrialLoader

if __name__ == "__main__":
    store, start, out = sys.argv[1:]
    multiprocessing.set_forkserver_preload(["torch"])
    # Each spawned worker imports PyTorch, 3 s.
    workers = {"num_workers": 1 if start == "spawn" else 2, "timeout": 100, "multiprocessing_context": start}
    for before in ("fresh", "decoded"):
        dataset = TrialDataset(store)
        if before == "decoded":
            dataset[5]
            under_way = iter(TrialLoader(dataset, 4, threads=3))
            next(under_way)
        for name, options in (("workers", workers), ("here", {})):
            batches = list(DataLoader(dataset, 8, **options))
            numpy.save(f"{out}/{before}-{name}.npy", torch.cat([batch["betas"] for batch in batches]).numpy())
"""


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_stock_loader_never_hangs_however_workers_start(volumes, tmp_path, start):
    script = tmp_path / "start.py"
    script.write_text(START)
    command = [sys.executable, script, volumes.path, start, tmp_path]
    subprocess.run(command, check=True, timeout=200)
    for name in ("fresh-workers", "fresh-here", "decoded-workers", "decoded-here"):
        assert np.array_equal(np.load(tmp_path / f"{name}.npy"), volumes.percent)


@in_workers
@pytest.mark.parametrize("workers", [{}, TIMEOUT], ids=["here", "in workers"])
def test_damage_is_reported_through_the_loader(volumes, tmp_path, monkeypatch, workers):
    # After an error PyTorch waits this long, 5 s by default, for each worker before it ends it.
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    store = volumes.copy_to(tmp_path / "damaged.zarr")
    store.shard_path(24).unlink()
    with pytest.raises(DamageFound, match=r"trial 21 \(trial 7 of its session, in betas shard 3\)"):
        list(DataLoader(TrialDataset(store.path), 7, **workers))
    gc.collect()


def test_pickle_is_small_and_reads_from_another_folder(volumes, tmp_path, monkeypatch):
    monkeypatch.chdir(volumes.path.parent)
    dataset = TrialDataset(volumes.path.name)
    check_samples([dataset[3]], volumes, [3])
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(dataset)
    assert len(data) < 4096
    check_samples([pickle.loads(data)[40], dataset[20]], volumes, [40, 20])


def test_pickle_keeps_selection_and_transform(volumes):
    dataset = pickle.loads(pickle.dumps(TrialDataset(volumes.path, trials=[9, 2], transform=dict)))
    assert dataset.transform is dict
    check_samples(list(dataset), volumes, [9, 2])


def test_pickle_refuses_a_store_that_replaced_its_own(volumes, make_store, tmp_path):
    store = volumes.copy_to(tmp_path / "subj01.zarr")
    data = pickle.dumps(TrialDataset(store.path))
    shutil.rmtree(store.path)
    with pytest.raises(StoreError, match="no such store"):
        pickle.loads(data)
    make_store(volumes.stored + 1).copy_to(store.path)
    with pytest.raises(StoreError, match="replaced by another"):
        pickle.loads(data)


def test_missing_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match="no such store"):
        TrialDataset(tmp_path / "nothing.zarr")
