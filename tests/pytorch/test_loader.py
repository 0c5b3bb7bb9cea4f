import hashlib
import pickle
import threading

import h5py
import numpy as np
import pytest
import zarr

torch = pytest.importorskip("torch")

import nsd_zarr  # noqa: E402
from nsd_zarr.errors import DamageFound, ResumeRefused  # noqa: E402
from nsd_zarr.science import kernels  # noqa: E402
from nsd_zarr.torch import TrialDataset, TrialLoader, to_percent  # noqa: E402

TRIALS, SHAPE, SESSIONS = 13, (5, 7, 3), 3


def write_session(path, session, dtype=np.int16, trials=TRIALS):
    values = np.arange(trials * np.prod(SHAPE)).reshape(trials, *SHAPE) * 17 - 9000 + session
    with h5py.File(path, "w", libver="earliest") as file:
        file.create_dataset("betas", data=values.astype(dtype), chunks=(trials, 1, 1, 1))
    return values.astype(dtype)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loader")
    counts = [write_session(folder / f"betas_session{n:02d}.hdf5", n) for n in range(1, SESSIONS + 1)]
    nsd_zarr.convert(folder, folder / "subj01.zarr", trials_per_shard=1)
    return folder / "subj01.zarr", np.concatenate(counts)


def digest(batches):
    """Digest over all delivered bytes of valid rows."""
    found = hashlib.sha256()
    for batch in batches:
        valid = batch["valid"]
        for name in ("betas", "trial", "session", "trial_in_session"):
            found.update(batch[name][valid].contiguous().numpy().tobytes())
    return found.hexdigest()


def copies(loader):
    return [{name: tensor.clone() for name, tensor in batch.items()} for batch in loader]


def test_loader_delivers_each_trial_once_and_right(made):
    store, counts = made
    batches = copies(TrialLoader(TrialDataset(store), 4, shuffle=True, seed=3))
    trials = torch.cat([batch["trial"][batch["valid"]] for batch in batches])
    assert sorted(trials.tolist()) == list(range(TRIALS * SESSIONS))
    for batch in batches:
        for row in range(4):
            if not batch["valid"][row]:
                assert (batch["betas"][row] == 0).all()
                assert batch["trial"][row] == batch["session"][row] == batch["trial_in_session"][row] == -1
                continue
            trial = int(batch["trial"][row])
            expected = counts[trial].astype(np.float32) / np.float32(300)
            np.testing.assert_array_equal(batch["betas"][row].numpy(), expected)
            assert (int(batch["session"][row]), int(batch["trial_in_session"][row])) == (
                trial // TRIALS + 1,
                trial % TRIALS,
            )


def test_loader_digest_is_equal_for_any_threads_and_prefetch(made):
    dataset = TrialDataset(made[0])
    found = {
        digest(copies(TrialLoader(dataset, 4, shuffle=True, seed=1, threads=threads, prefetch=prefetch)))
        for threads in (1, 2, 4)
        for prefetch in (0, 2)
    }
    assert len(found) == 1


@pytest.mark.parametrize("world_size", range(1, 9))
def test_loader_merged_over_ranks_gives_the_global_stream(made, world_size):
    dataset = TrialDataset(made[0])
    alone = copies(TrialLoader(dataset, 8, shuffle=True, seed=1))
    ranks = [
        copies(TrialLoader(dataset, 8, shuffle=True, seed=1, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    assert len({batch["betas"].shape for batches in ranks for batch in batches}) == 1
    merged = [
        {name: torch.cat([batch[name][batch["valid"]] for batch in step]) for name in step[0]}
        for step in zip(*ranks, strict=True)
    ]
    assert digest(merged) == digest(alone)


def test_loader_resumed_at_every_batch_goes_on_with_the_next(made):
    dataset = TrialDataset(made[0])
    whole = copies(TrialLoader(dataset, 4, shuffle=True, seed=5))
    for stop in range(len(whole) + 1):
        loader = TrialLoader(dataset, 4, shuffle=True, seed=5)
        iterator = iter(loader)
        for _ in range(stop):
            next(iterator)
        state = pickle.loads(pickle.dumps(loader.state_dict()))
        iterator.close()
        assert len(str(state)) < 200
        resumed = TrialLoader(dataset, 4, shuffle=True, seed=5, threads=3)
        resumed.load_state_dict(state)
        if stop == len(whole):  # The epoch was done when its last batch was handed out.
            assert (state["epoch"], state["batches"]) == (1, 0)
            resumed.set_epoch(0)
            stop = 0
        assert digest(copies(resumed)) == digest(whole[stop:])


def test_loader_resumed_a_third_time_at_another_world_size_goes_on(made):
    dataset = TrialDataset(made[0])
    whole = copies(TrialLoader(dataset, 6, shuffle=True, seed=5))
    state, merged = None, []
    for world_size in (1, 2, 3, 5):
        steps, states = [], []
        for rank in range(world_size):
            loader = TrialLoader(dataset, 6, shuffle=True, seed=5, rank=rank, world_size=world_size)
            if state is not None:
                loader.load_state_dict(state)
            iterator = iter(loader)
            steps.append(
                [
                    {name: tensor.clone() for name, tensor in next(iterator).items()}
                    for _ in range(2 - (world_size == 5))
                ]
            )
            states.append(loader.state_dict())
            iterator.close()
        assert all(each == states[0] for each in states)
        state = states[0]
        merged += [
            {name: torch.cat([batch[name][batch["valid"]] for batch in step]) for name in step[0]}
            for step in zip(*steps, strict=True)
        ]
    assert digest(merged) == digest(whole)


def test_loader_epochs_count_up_and_set_epoch_repeats_one(made):
    loader = TrialLoader(TrialDataset(made[0]), 4, shuffle=True, seed=2)
    first, second = digest(copies(loader)), digest(copies(loader))
    assert first != second
    loader.set_epoch(0)
    assert digest(copies(loader)) == first
    loader.set_epoch(1)
    assert digest(copies(loader)) == second


def test_loader_resumed_in_a_loop_that_sets_the_epoch_keeps_its_place(made):
    dataset = TrialDataset(made[0])
    loader = TrialLoader(dataset, 4, shuffle=True, seed=2)
    loader.set_epoch(3)
    whole = copies(loader)
    resumed = TrialLoader(dataset, 4, shuffle=True, seed=2)
    resumed.load_state_dict(loader.state_dict() | {"epoch": 3, "batches": 4})
    resumed.set_epoch(3)
    assert digest(copies(resumed)) == digest(whole[4:])


@pytest.mark.parametrize("other", [{"seed": 9}, {"batch_size": 5}, {"shuffle": False}, {"drop_last": True}])
def test_loader_state_of_another_order_is_refused(made, other):
    options = {"batch_size": 4, "shuffle": True, "seed": 1}
    state = TrialLoader(TrialDataset(made[0]), **options).state_dict()
    with pytest.raises(ResumeRefused):
        TrialLoader(TrialDataset(made[0]), **options | other).load_state_dict(state)


def test_loader_state_of_another_selection_is_refused(made):
    state = TrialLoader(TrialDataset(made[0]), 4).state_dict()
    with pytest.raises(ResumeRefused):
        TrialLoader(TrialDataset(made[0], trials=[1, 2]), 4).load_state_dict(state)


def test_loader_reuses_its_slots_and_by_default_does_not(made):
    dataset = TrialDataset(made[0])
    reused = {batch["betas"].data_ptr() for batch in TrialLoader(dataset, 4, prefetch=2, reuse=True)}
    assert len(reused) == 3
    kept = list(TrialLoader(dataset, 4, prefetch=2))
    assert digest(kept) == digest(copies(TrialLoader(dataset, 4)))


def test_loader_with_selection_and_drop_last_leaves_out_what_does_not_fill_a_batch(made):
    dataset = TrialDataset(made[0], trials=[30, 2, 2, 17, 8])
    loader = TrialLoader(dataset, 2, drop_last=True)
    assert len(loader) == 2
    assert [batch["trial"].tolist() for batch in loader] == [[30, 2], [2, 17]]


def test_loader_raw_and_to_percent_are_bit_equal_to_the_host_for_all_codes(tmp_path):
    codes = np.arange(-32768, 32768).astype(np.int16).reshape(2, 8, 64, 64)
    with h5py.File(tmp_path / "betas_session01.hdf5", "w", libver="earliest") as file:
        file.create_dataset("betas", data=codes)
    nsd_zarr.convert(tmp_path, tmp_path / "codes.zarr")
    dataset = TrialDataset(tmp_path / "codes.zarr", raw=True)
    (batch,) = TrialLoader(dataset, 2)
    assert batch["betas"].dtype == torch.int16
    assert batch["scale"] == 300
    percent = to_percent(batch)
    assert "scale" not in percent
    expected = codes.astype(np.float32) / np.float32(300)
    assert (percent["betas"].numpy().view(np.uint32) == expected.view(np.uint32)).all()
    collated = next(iter(torch.utils.data.DataLoader(dataset, batch_size=2)))
    assert torch.equal(to_percent(collated)["betas"], percent["betas"])
    assert torch.equal(to_percent(dataset[1])["betas"], percent["betas"][1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_loader_of_half_precision_is_rounded_once_from_float32(made, dtype):
    store, counts = made
    expected = torch.from_numpy(counts.astype(np.float32) / np.float32(300)).to(dtype)
    dataset = TrialDataset(store, dtype=dtype)
    batches = list(TrialLoader(dataset, 13))
    assert torch.equal(torch.cat([batch["betas"] for batch in batches]), expected)
    assert torch.equal(dataset[7]["betas"], expected[7])


@pytest.mark.parametrize("options", [{"raw": True, "dtype": torch.float16}, {"dtype": torch.int8}])
def test_dataset_with_contradicting_dtype_is_refused(made, options):
    with pytest.raises(ValueError, match="expected float32"):
        TrialDataset(made[0], **options)


def test_loader_error_in_a_thread_names_the_trial_and_leaves_no_thread(tmp_path):
    write_session(tmp_path / "betas_session01.hdf5", 1)
    nsd_zarr.convert(tmp_path, tmp_path / "a.zarr", trials_per_shard=1)
    next((tmp_path / "a.zarr/betas/c/7").rglob("0")).joinpath("0/0").unlink()
    with pytest.raises(DamageFound, match="trial 7 "):
        list(TrialLoader(TrialDataset(tmp_path / "a.zarr"), 4))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nsd-zarr read")]


def test_loader_left_early_and_begun_again_starts_the_epoch_over(made):
    loader = TrialLoader(TrialDataset(made[0]), 4, shuffle=True)
    for _ in loader:
        break
    assert loader.state_dict()["batches"] == 1
    assert len(list(loader)) == len(loader)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nsd-zarr read")]


def test_loader_iterators_are_independent(made):
    loader = TrialLoader(TrialDataset(made[0]), 4)
    first = iter(loader)
    next(first)
    assert next(iter(loader))["trial"].tolist() == [0, 1, 2, 3]
    assert len(list(loader)) == len(loader)
    assert [batch["trial"][0].item() for batch in first] == list(range(4, TRIALS * SESSIONS, 4))


def test_loader_stats_tell_what_limits(made):
    loader = TrialLoader(TrialDataset(made[0]), 4)
    copies(loader)
    stats = loader.stats()
    assert (stats["batches"], stats["rows"]) == (10, 40)
    assert stats["limited_by"] in ("read", "decode", "cast", "consumer")
    assert min(stats["read_seconds"], stats["decode_seconds"], stats["cast_seconds"]) > 0
    assert 0 <= stats["stall_percent"] <= 100


def test_loader_with_transform_in_the_dataset_is_refused(made):
    with pytest.raises(ValueError, match="transform"):
        TrialLoader(TrialDataset(made[0], transform=dict))


def test_loader_to_the_cpu_device_delivers_the_same(made):
    dataset = TrialDataset(made[0])
    assert digest(TrialLoader(dataset, 4, device="cpu")) == digest(TrialLoader(dataset, 4))


@pytest.mark.parametrize("raw", [False, True])
def test_loader_over_another_layout_delivers_the_same(made, tmp_path, raw):
    ours = zarr.open_group(made[0], mode="r")
    copy = zarr.open_group(tmp_path / "copy.zarr", mode="w")
    copy.create_array("betas", data=ours["betas"][:], chunks=(3, *SHAPE), compressors=zarr.codecs.GzipCodec())
    copy.create_array("session", data=ours["session"][:])
    options = {"shuffle": True, "seed": 5, "threads": 2}
    expected = digest(TrialLoader(TrialDataset(made[0], raw=raw), 4, **options))
    dataset = pickle.loads(pickle.dumps(TrialDataset(tmp_path / "copy.zarr", raw=raw)))
    assert digest(TrialLoader(dataset, 4, **options)) == expected


@pytest.mark.parametrize(
    ("kind", "options", "times"), [("volumes", {}, 1), ("volumes", {"raw": True}, 0), ("floats", {}, 0)]
)
def test_loader_of_counts_to_be_scaled_loads_kernels_when_its_first_batch_is_asked_for(
    request, monkeypatch, kind, options, times
):
    begun = []
    monkeypatch.setattr(kernels, "load_soon", lambda: begun.append(True))
    iterator = iter(TrialLoader(TrialDataset(request.getfixturevalue(kind).path, **options), 4))
    assert not begun
    next(iterator)
    assert len(begun) == times
