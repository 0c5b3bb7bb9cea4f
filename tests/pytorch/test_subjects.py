"""Several subjects in one dataset: every trial once an epoch, whatever the ranks; regions of unequal length."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from builders import SUBJECT_SHAPES

torch = pytest.importorskip("torch")

from torch.utils.data import ConcatDataset, DataLoader, Subset  # noqa: E402

import nsd_zarr  # noqa: E402
from nsd_zarr.errors import ConfigError, DamageFound, ResumeRefused, StoreError  # noqa: E402
from nsd_zarr.loading.order import GroupedOrder  # noqa: E402
from nsd_zarr.science.shared_images import join_images  # noqa: E402
from nsd_zarr.torch import TrialDataset, TrialLoader, to_percent  # noqa: E402

FORMS = {
    "padded": {"roi": "nsdgeneral"},
    "list": {"roi": "nsdgeneral", "unequal": "list"},
    "by subject": {"roi": "nsdgeneral", "batch_by": "subject"},
    "volumes by subject": {"batch_by": "subject"},
    "list of volumes": {"unequal": "list"},
}


@pytest.fixture(scope="module")
def alone(whole_tree):
    """The same trials, from a dataset of each subject alone: the oracle."""
    return {
        (subject, roi): TrialDataset(whole_tree / f"subj0{subject}", roi=roi)
        for subject in (1, 2)
        for roi in (None, "nsdgeneral")
    }


def find_rows(batch):
    """Subject, trial and values of each row of a batch that holds a trial."""
    for row in np.flatnonzero(batch["valid"].numpy()).tolist():
        betas = batch["betas"][row]
        values = betas[batch["mask"][row]] if "mask" in batch else betas
        yield int(batch["subject"][row]), int(batch["trial"][row]), values


def find_trials(batches):
    return [(subject, trial) for batch in batches for subject, trial, _ in find_rows(batch)]


ALL = [(subject, trial) for subject in (1, 2) for trial in range(36)]


# -- samples -----------------------------------------------------------------------------------------------------


def test_sample_is_the_subjects_own_with_its_number(whole_tree, alone):
    dataset = TrialDataset(whole_tree, subjects=[1, 2], roi="nsdgeneral")
    assert len(dataset) == 72
    for index in (0, 35, 36, 71, -1):
        sample = dataset[index]
        own = alone[sample["subject"], "nsdgeneral"][sample["trial"]]
        assert (sample["subject"], sample["trial"]) == ALL[index]
        torch.testing.assert_close(sample["betas"][sample["mask"]], own["betas"], rtol=0, atol=0)
        assert not sample["betas"][~sample["mask"]].any()
        assert {name: sample[name] for name in own if name != "betas"} == {
            name: own[name] for name in own if name != "betas"
        }


def test_subjects_may_be_chosen_and_are_all_by_default(whole_tree):
    assert len(TrialDataset(whole_tree, roi="nsdgeneral")) == 72
    assert TrialDataset(whole_tree, subjects="2")[0]["betas"].shape == SUBJECT_SHAPES[2][1:]
    assert set(TrialDataset(whole_tree, roi="nsdgeneral").voxels) == {1, 2}


def test_stock_dataloader_with_workers_collates_padded_samples(whole_tree):
    dataset = TrialDataset(whole_tree, roi="nsdgeneral")
    batches = list(DataLoader(dataset, batch_size=16, num_workers=2, multiprocessing_context="fork"))
    assert sorted(zip(*(torch.cat([b[n] for b in batches]).tolist() for n in ("subject", "trial")), strict=True)) == ALL


def test_selections_are_words_or_given_by_subject(whole_tree, alone):
    test = TrialDataset(whole_tree, roi="nsdgeneral", trials="test")
    expected = [len(TrialDataset(whole_tree / f"subj0{n}", trials="test")) for n in (1, 2)]
    assert [int((test.source.table["subject"][test.selection] == n).sum()) for n in (1, 2)] == expected
    voxels = {1: [3, 4], 2: [7, 1, 5]}
    some = TrialDataset(whole_tree, trials={1: [5, 2], 2: np.arange(36) % 12 == 0}, roi=voxels)
    rows = [(sample["subject"], sample["trial"], sample["mask"].tolist()) for sample in some]
    assert [row[:2] for row in rows] == [(1, 5), (1, 2), (2, 0), (2, 12), (2, 24)]
    assert (rows[0][2], rows[2][2]) == ([True, True, False], [True, True, True])
    expected = alone[2, None][12]["betas"].reshape(-1)[voxels[2]]
    torch.testing.assert_close(some[3]["betas"], expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, r"volumes of unequal shape, \(7, 5, 3\) and \(5, 3, 11\)"),
        ({"roi": "nsdgeneral", "trials": [1, 2]}, "trials as numbers or booleans are those of one subject"),
        ({"roi": np.array([1, 2])}, "roi as numbers or booleans are those of one subject"),
        ({"roi": {1: [3]}}, "subject 2: roi says nothing for this subject"),
        ({"batch_by": "session"}, "batch_by = 'session'"),
        ({"unequal": "crop"}, "unequal = 'crop'"),
        ({"subjects": "0"}, "expected subject numbers"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(options, words, whole_tree):
    with pytest.raises(ConfigError, match=words):
        TrialDataset(whole_tree, **options)


def test_subject_that_is_missing_is_named(whole_tree):
    with pytest.raises(StoreError, match="subject 3: no such store"):
        TrialDataset(whole_tree, subjects=[1, 3])


@pytest.mark.parametrize("options", [{"subjects": [1]}, {"batch_by": "subject"}, {"unequal": "list"}])
def test_options_of_several_subjects_are_refused_for_one(options, whole_tree):
    with pytest.raises(ConfigError, match="this is none"):
        TrialDataset(whole_tree / "subj01", **options)


def test_damage_names_the_subject(tree):
    path = tree / "subj02/betas/c/1/0/0/0"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    dataset = TrialDataset(tree, roi="nsdgeneral")
    with pytest.raises(DamageFound, match=r"^subject 2, session 02: .*trial 12") as caught:
        dataset[36 + 12]
    assert caught.value.subject == 2
    with pytest.raises(DamageFound, match="subject 2"):
        list(TrialLoader(dataset, 8))


def test_dataset_pickles_and_is_refused_where_a_store_became_another(tree):
    dataset = TrialDataset(tree, roi="nsdgeneral", zscore="session", batch_by="subject")
    data = pickle.dumps(dataset)
    assert len(data) < 5000
    again = pickle.loads(data)
    assert repr(again) == repr(dataset)
    torch.testing.assert_close(again[50]["betas"], dataset[50]["betas"])
    nsd_zarr.attach(tree / "subj02", no_experiment=True)
    with pytest.raises(StoreError, match="replaced by another"):
        pickle.loads(data)


# -- batches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_every_trial_comes_once_an_epoch_whatever_the_ranks(form, world_size, whole_tree):
    dataset = TrialDataset(whole_tree, **FORMS[form])
    epochs = []
    for epoch in range(2):
        ranks = []
        for rank in range(world_size):
            loader = TrialLoader(dataset, 10, shuffle=True, seed=4, rank=rank, world_size=world_size, threads=1)
            loader.set_epoch(epoch)
            ranks.append([find_trials([batch]) for batch in loader])
        assert len({len(steps) for steps in ranks}) == 1
        found = [trial for steps in zip(*ranks, strict=True) for share in steps for trial in share]
        assert sorted(found) == ALL
        epochs.append(found)
    assert epochs[0] != epochs[1]
    whole = TrialLoader(dataset, 10, shuffle=True, seed=4)
    assert epochs[0] == find_trials(whole)


@pytest.mark.parametrize("form", FORMS)
def test_values_are_those_of_each_subject_alone(form, whole_tree, alone):
    options = FORMS[form]
    dataset, seen = TrialDataset(whole_tree, **options), 0
    for batch in TrialLoader(dataset, 7, shuffle=True, seed=1):
        for subject, trial, values in find_rows(batch):
            expected = alone[subject, options.get("roi")][trial]["betas"]
            torch.testing.assert_close(values, expected, rtol=0, atol=0)
            seen += 1
    assert seen == 72


def test_batches_by_subject_are_of_one_in_its_own_shape_on_every_rank(whole_tree):
    dataset = TrialDataset(whole_tree, batch_by="subject")
    ranks = [list(TrialLoader(dataset, 10, shuffle=True, rank=rank, world_size=3, threads=1)) for rank in range(3)]
    assert len(ranks[0]) == 8
    subjects = []
    for step in zip(*ranks, strict=True):
        (subject,) = {n for batch in step for n in batch["subject"][batch["valid"]].tolist()}
        assert {batch["betas"].shape for batch in step} == {(4, *SUBJECT_SHAPES[subject][1:])}
        assert all(batch["betas"].is_contiguous() for batch in step)
        subjects.append(subject)
    assert sorted(subjects) == [1] * 4 + [2] * 4
    assert subjects != sorted(subjects)


@pytest.mark.parametrize("form", FORMS)
def test_batch_that_is_kept_stays_as_it_is_while_others_are_read(form, whole_tree):
    options = FORMS[form]
    kept = [batch["betas"] for batch in TrialLoader(TrialDataset(whole_tree, **options), 4, shuffle=True, prefetch=1)]
    again = TrialLoader(TrialDataset(whole_tree, **options), 4, shuffle=True)
    for betas, batch in zip(kept, again, strict=True):
        for mine, other in zip(betas, batch["betas"], strict=True):
            assert torch.equal(mine, other)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("drop_last", [False, True])
def test_state_goes_on_behind_any_batch_at_another_world_size(form, drop_last, whole_tree):
    dataset = TrialDataset(whole_tree, **FORMS[form])
    options = {"shuffle": True, "seed": 2, "drop_last": drop_last, "threads": 1}
    loader = TrialLoader(dataset, 9, **options)
    order, states = [], []
    for batch in loader:
        order.append(find_trials([batch]))
        states.append(loader.state_dict())
    for taken in (1, len(order) // 2, len(order) - 1):
        ranks = []
        for rank in range(2):
            resumed = TrialLoader(TrialDataset(whole_tree, **FORMS[form]), 9, rank=rank, world_size=2, **options)
            resumed.load_state_dict(states[taken - 1])
            ranks.append([find_trials([batch]) for batch in resumed])
        assert [first + second for first, second in zip(*ranks, strict=True)] == order[taken:]


def test_state_of_other_subjects_or_batches_is_refused(whole_tree):
    state = TrialLoader(TrialDataset(whole_tree, roi="nsdgeneral"), 9).state_dict()
    for options in ({"subjects": [1]}, {"batch_by": "subject"}, {"trials": "train"}):
        with pytest.raises(ResumeRefused):
            TrialLoader(TrialDataset(whole_tree, roi="nsdgeneral", **options), 9).load_state_dict(state)


def test_parts_of_a_dataset_of_several_subjects_load(whole_tree):
    dataset = TrialDataset(whole_tree, roi="nsdgeneral", batch_by="subject")
    part = Subset(dataset, [70, 1, 40, 3])
    assert sorted(find_trials(TrialLoader(part, 2, shuffle=True))) == [(1, 1), (1, 3), (2, 4), (2, 34)]
    joined = ConcatDataset([part, Subset(dataset, [5])])
    assert len(find_trials(TrialLoader(joined, 2))) == 5


def test_raw_and_half_precision_are_padded_too(whole_tree, alone):
    counts = next(iter(TrialLoader(TrialDataset(whole_tree, roi="nsdgeneral", raw=True, trials={1: [3], 2: [4]}), 2)))
    assert (counts["betas"].dtype, counts["scale"]) == (torch.int16, 300)
    percent = to_percent(counts)["betas"][0][counts["mask"][0]]
    whole = nsd_zarr.open_dataset(whole_tree / "subj01").betas[3].values.reshape(-1)
    voxels = TrialDataset(whole_tree, roi="nsdgeneral").voxels[1]
    np.testing.assert_array_equal(percent.numpy(), whole[voxels])
    half = next(iter(TrialLoader(TrialDataset(whole_tree, batch_by="subject", dtype=torch.bfloat16), 4)))
    torch.testing.assert_close(half["betas"][2], alone[1, None][2]["betas"].to(torch.bfloat16))


# -- images ------------------------------------------------------------------------------------------------------


def test_images_of_all_subjects_come_from_one_store_by_nsd_id(whole_tree, subjects, tmp_path):
    images = tmp_path / "images.zarr"
    nsd_zarr.convert_images(subjects.root, images, subjects="1-2")
    dataset = TrialDataset(whole_tree, roi="nsdgeneral", images=images)
    own = {n: TrialDataset(whole_tree / f"subj0{n}", images=images) for n in (1, 2)}
    for batch in TrialLoader(dataset, 12, shuffle=True):
        for row in np.flatnonzero(batch["valid"].numpy()).tolist():
            expected = own[int(batch["subject"][row])][int(batch["trial"][row])]["image"]
            assert torch.equal(batch["image"][row], expected)


def test_shared_images_are_joined_across_subjects(whole_tree):
    dataset = TrialDataset(whole_tree, roi="nsdgeneral")
    shared = dataset.find_shared_images()
    ids = {n: [dataset[i]["nsd_id"] for i, (subject, _) in enumerate(ALL) if subject == n] for n in (1, 2)}
    assert shared.nsd_id.tolist() == sorted(set(ids[1]) & set(ids[2]))
    assert len(shared) > 0
    for row, nsd_id in enumerate(shared.nsd_id.tolist()):
        for place, subject in enumerate(shared.subjects):
            samples = [int(sample) for sample in shared.samples[row, place] if sample >= 0]
            expected = [i for i, (n, _) in enumerate(ALL) if n == subject and dataset[i]["nsd_id"] == nsd_id]
            assert samples == expected


def test_join_of_images_against_a_plain_loop():
    random = np.random.default_rng(3)
    ids, subjects = random.integers(0, 12, 60), np.sort(random.integers(1, 4, 60))
    joined = join_images(ids, subjects)
    expected = [n for n in range(12) if all(np.any((ids == n) & (subjects == s)) for s in (1, 2, 3))]
    assert joined.nsd_id.tolist() == expected
    for row, nsd_id in enumerate(expected):
        for place, subject in enumerate((1, 2, 3)):
            wanted = np.flatnonzero((ids == nsd_id) & (subjects == subject)).tolist()
            assert [int(n) for n in joined.samples[row, place] if n >= 0] == wanted
    none = join_images(np.array([1, 2]), np.array([1, 2]))
    assert (len(none), none.samples.shape) == (0, (0, 2, 0))


# -- the order alone ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [False, True])
def test_grouped_order_has_each_sample_once_and_full_batches_but_one_a_group(shuffle):
    groups = np.repeat([0, 1, 2], [23, 5, 40])
    order = GroupedOrder(68, 7, shuffle, 5, groups=groups)
    batches = list(order.cut(3))
    assert len(batches) == order.steps == 4 + 1 + 6
    assert sorted(np.concatenate([samples for _, samples in batches]).tolist()) == list(range(68))
    assert all(set(groups[samples]) == {group} for group, samples in batches)
    short = [group for group, samples in batches if len(samples) < 7]
    assert sorted(short) == [0, 1, 2]
    dropped = GroupedOrder(68, 7, shuffle, 5, drop_last=True, groups=groups)
    assert dropped.steps == len(list(dropped.cut(3))) == 3 + 0 + 5
    assert sorted(dropped.permute(3).tolist()) == list(range(68))
