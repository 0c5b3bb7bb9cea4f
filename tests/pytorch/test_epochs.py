"""Epochs and states as trainers use a loader: exactly len(loader) batches, several iterators, set_epoch."""

import itertools
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils.data import ConcatDataset, DataLoader, Subset, random_split  # noqa: E402

import nsd_zarr  # noqa: E402
from nsd_zarr.errors import ResumeRefused  # noqa: E402
from nsd_zarr.torch import TrialDataset, TrialLoader  # noqa: E402


@pytest.fixture(scope="module")
def dataset(volumes):
    return TrialDataset(volumes.path)


def list_trials(batches):
    return [trial for batch in batches for trial in batch["trial"][batch["valid"]].tolist()]


def make(dataset, **options):
    return TrialLoader(dataset, 8, **{"shuffle": True, "seed": 3} | options)


EXACTLY = {
    "zip": lambda loader: [batch for _, batch in zip(range(len(loader)), loader, strict=False)],
    "islice": lambda loader: list(itertools.islice(loader, len(loader))),
    "next": lambda loader: [next(iterator) for iterator in [iter(loader)] for _ in range(len(loader))],
}


@pytest.mark.parametrize("way", EXACTLY)
def test_epoch_moves_on_though_nobody_asks_for_its_end(dataset, way):
    loader, whole = make(dataset), make(dataset)
    for epoch in range(3):
        assert list_trials(EXACTLY[way](loader)) == list_trials(whole)
        assert (loader.state_dict()["epoch"], loader.state_dict()["batches"]) == (epoch + 1, 0)


def test_limited_epochs_see_other_trials_each_time(dataset):
    loader = make(dataset)
    seen = [list_trials(itertools.islice(loader, 1)) for _ in range(20)]
    assert len({trial for trials in seen for trial in trials}) > 35  # 8 by chance, 20 times
    again = make(dataset)
    for epoch, trials in enumerate(seen):
        again.set_epoch(epoch)
        assert list_trials(itertools.islice(again, 1)) == trials


def test_sampler_of_a_loader_sets_its_epoch(dataset):
    loader, other = make(dataset), make(dataset)
    loader.sampler.set_epoch(5)
    other.set_epoch(5)
    assert loader.state_dict() == other.state_dict()
    expected = list(loader.sampler)
    assert list_trials(loader) == list_trials(other) == expected
    assert len(loader.sampler) == 42


def test_iterators_of_one_loader_each_pass_through_an_epoch_of_their_own(dataset):
    loader = make(dataset)
    pairs = [(one["trial"], other["trial"]) for one, other in zip(loader, loader, strict=True)]
    assert len(pairs) == len(loader)
    assert not all(torch.equal(*pair) for pair in pairs)


def test_state_is_that_of_the_iterator_that_handed_out_the_latest_batch(dataset):
    undisturbed, loader = make(dataset), make(dataset)
    expected = [list_trials(undisturbed) for _ in range(3)]
    found = []
    for _ in range(3):
        trials = []
        for step, batch in enumerate(loader):
            trials += list_trials([batch])
            if step == 2:
                assert len(list(loader)) == len(loader)  # as in a validation with the loader that trains
                next(iter(loader))
            if step == 3:
                state = loader.state_dict()
        found.append(trials)
    assert found == expected
    resumed = make(dataset)
    resumed.load_state_dict(pickle.loads(pickle.dumps(state)))
    assert list_trials(resumed) == expected[2][32:]


def test_an_iterator_that_nobody_used_takes_neither_epoch_nor_place(dataset):
    loader = make(dataset)
    loader.load_state_dict(loader.state_dict() | {"epoch": 4, "batches": 2})
    iter(loader)  # as Lightning does to see whether it can
    resumed = list_trials(loader)
    other = make(dataset)
    other.set_epoch(4)
    assert resumed == list_trials(other)[16:]


def test_set_epoch_begins_an_epoch_anew_that_was_left(dataset):
    loader = make(dataset)
    loader.set_epoch(1)
    first = list_trials(itertools.islice(loader, 2))
    loader.set_epoch(1)
    assert list_trials(itertools.islice(loader, 2)) == first


@pytest.mark.parametrize("seed", [None, -1, "a", True, 1.5, [1]], ids=repr)
def test_seed_that_is_no_whole_number_from_0_is_refused_at_once(dataset, seed):
    with pytest.raises(nsd_zarr.errors.ConfigError, match=r"seed .*: expected a whole number from 0"):
        TrialLoader(dataset, 8, shuffle=True, seed=seed)


@pytest.mark.parametrize("epoch", [None, -1, "a", True, 0.5], ids=repr)
def test_epoch_that_is_no_whole_number_from_0_is_refused_at_once(dataset, epoch):
    for set_epoch in (make(dataset).set_epoch, make(dataset).sampler.set_epoch):
        with pytest.raises(nsd_zarr.errors.ConfigError, match=r"epoch .*: expected a whole number from 0"):
            set_epoch(epoch)


@pytest.mark.parametrize("seed", [np.int64(3), torch.tensor(3), 3])
def test_seed_may_be_any_whole_number(dataset, seed):
    assert list_trials(make(dataset, seed=seed)) == list_trials(make(dataset))


def test_subset_is_read_as_the_stock_loader_reads_it(volumes, dataset):
    some = TrialDataset(volumes.path, trials=range(40, 0, -2))
    for part in (Subset(dataset, [5, 3, 41, 3]), Subset(Subset(some, range(3, 15)), [4, 0]), Subset(dataset, [])):
        found, expected = list(TrialLoader(part, 3)), list(DataLoader(part, 3))
        assert list_trials(found) == [trial for batch in expected for trial in batch["trial"].tolist()]
        for batch, other in zip(found, expected, strict=True):
            assert torch.equal(batch["betas"][batch["valid"]], other["betas"])


def test_parts_of_a_random_split_are_apart_and_joined_again_are_whole(dataset):
    parts = random_split(dataset, [30, 12], torch.Generator().manual_seed(1))
    trials = [list_trials(make(part)) for part in parts]
    assert sorted(trials[0] + trials[1]) == list(range(42))
    assert sorted(list_trials(make(ConcatDataset(parts)))) == list(range(42))
    with pytest.raises(ResumeRefused):
        make(parts[0]).load_state_dict(make(parts[1]).state_dict())


def test_datasets_that_no_batch_can_be_made_of_are_refused_with_the_way_out(volumes, surfaces, dataset):
    joined = [ConcatDataset([dataset, TrialDataset(surfaces.path)])]
    joined += [ConcatDataset([dataset, TrialDataset(volumes.path, raw=True)])]
    for given in joined:
        with pytest.raises(nsd_zarr.errors.ConfigError, match=r"different stores or options.*make a loader each"):
            TrialLoader(given)
    with pytest.raises(nsd_zarr.errors.ConfigError, match=r"given a list, .*torch\.utils\.data\.DataLoader"):
        TrialLoader([dataset[0]])


class Pairs(TrialDataset):
    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return sample["betas"].flatten(), sample["trial"]


def test_subclass_that_makes_its_own_samples_is_honoured_by_the_stock_loader(volumes):
    pairs = Pairs(volumes.path)
    for given in (pairs, Subset(pairs, range(42))):
        batches = list(DataLoader(given, 8))
        assert torch.cat([trials for _, trials in batches]).tolist() == list(range(42))
        found = torch.cat([betas for betas, _ in batches]).numpy()
        assert np.array_equal(found, volumes.percent.reshape(42, -1), equal_nan=True)


def test_subclass_that_makes_its_own_samples_is_refused_by_our_loader(volumes):
    for given in (Pairs(volumes.path), Subset(Pairs(volumes.path), [1])):
        with pytest.raises(nsd_zarr.errors.ConfigError, match=r"the Pairs overrides __getitem__.*DataLoader"):
            TrialLoader(given)


class Named(TrialDataset):
    """A subclass that changes no sample."""

    name = "subject 1"


def test_subclass_that_changes_no_sample_is_read_by_both(volumes):
    assert list_trials(TrialLoader(Named(volumes.path), 8)) == list(range(42))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"copy": True}, r"no copy= any more.*reuse=True"),
        ({"copy": False}, r"no copy= any more.*reuse=True"),
        ({"progress": "tqdm"}, r"no progress= any more.*tqdm\(loader\)"),
        ({"batchsize": 3}, "no option batchsize. Did you mean batch_size?"),
        ({"threads": 0}, "threads 0: expected a whole number from 1"),
        ({"prefetch": -1}, "prefetch -1: expected a whole number from 0"),
    ],
)
def test_options_that_are_gone_or_wrong_are_refused_with_what_to_say(dataset, option, words):
    with pytest.raises(nsd_zarr.errors.ConfigError, match=words):
        TrialLoader(dataset, **option)


def test_loader_has_a_length_for_a_bar(dataset, capsys):
    tqdm = pytest.importorskip("tqdm")
    loader = make(dataset)
    assert len(list(tqdm.tqdm(loader))) == len(loader)
    assert f"{len(loader)}/{len(loader)}" in capsys.readouterr().err
    list(loader)
    assert capsys.readouterr() == ("", "")


def test_datasets_and_loaders_print_what_they_are(volumes):
    described = repr(TrialDataset(volumes.path, trials=range(20), raw=True))
    assert described == f"TrialDataset('{volumes.path}': 20 trials of 3 sessions, betas (5, 11, 3) int16, raw=True)"
    loader = make(TrialDataset(volumes.path, roi=[3, 4]))
    next(iter(loader))
    assert repr(loader) == (
        f"TrialLoader(TrialDataset('{volumes.path}': 42 trials of 3 sessions, betas (2,) float32, roi=[3, 4]), "
        "batch_size=8, shuffle=True, seed=3, drop_last=False, reuse=False, device='cpu'): "
        "epoch 0, 1 of 6 batches handed out"
    )
