"""Images beside betas: in samples and batches, by any loader, from either source."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

from nsd_zarr.errors import ResumeRefused, StoreError  # noqa: E402
from nsd_zarr.loading.images import StoreImages  # noqa: E402
from nsd_zarr.torch import TrialDataset, TrialLoader  # noqa: E402

KINDS = ["hdf5", "every", "seen"]


@pytest.fixture(params=KINDS)
def paired(request, experiment, stimulus_images):
    """A dataset with images of each kind of source."""
    return TrialDataset(experiment.path, images=stimulus_images.locate(request.param))


@pytest.fixture
def shown(experiment, stimulus_images):
    """The oracle: the image of each trial."""
    return stimulus_images.values[experiment.arrays["nsd_id"]]


@pytest.fixture
def counted(monkeypatch):
    """Ids of images read out of a store, in order."""
    read, real = [], StoreImages.read_into
    monkeypatch.setattr(
        StoreImages, "read_into", lambda self, nsd_id, *rest: (read.append(nsd_id), real(self, nsd_id, *rest))[1]
    )
    return read


def copies(loader):
    return [{name: tensor.clone() for name, tensor in batch.items()} for batch in loader]


def test_sample_has_the_image_that_its_trial_showed(paired, shown, experiment):
    for trial in range(42):
        sample = paired[trial]
        assert (sample["image"].dtype, sample["image"].shape) == (torch.uint8, (7, 5, 3))
        assert np.array_equal(sample["image"], shown[trial])
        assert np.array_equal(sample["betas"], experiment.trained[trial])


def test_selected_trials_have_their_own_images(experiment, stimulus_images, shown):
    dataset = TrialDataset(experiment.path, trials=[40, 2, 2, 17], images=stimulus_images.seen, roi="nsdgeneral")
    assert [sample["trial"] for sample in dataset] == [40, 2, 2, 17]
    assert np.array_equal(torch.stack([sample["image"] for sample in dataset]), shown[[40, 2, 2, 17]])


def test_repeated_image_is_read_once_in_a_batch_and_each_sample_has_its_own(experiment, stimulus_images, counted):
    ids = experiment.arrays["nsd_id"]
    repeated = np.flatnonzero(ids == np.bincount(ids).argmax())
    assert len(repeated) == 3
    dataset = TrialDataset(experiment.path, images=stimulus_images.seen)
    samples = dataset.__getitems__([*repeated, 0])
    assert len(counted) == 2
    samples[0]["image"].zero_()
    assert samples[1]["image"].any()
    changing = TrialDataset(
        experiment.path, images=stimulus_images.seen, transform=lambda sample: sample["image"].add_(1)
    )
    first, second, third = changing.__getitems__(repeated.tolist())
    assert torch.equal(first, second)
    assert torch.equal(first, third)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_loader_reads_each_image_of_a_batch_once(threads, experiment, stimulus_images, counted, shown):
    loader = TrialLoader(
        TrialDataset(experiment.path, images=stimulus_images.seen), 16, shuffle=True, seed=3, threads=threads
    )
    ids = experiment.arrays["nsd_id"]
    distinct, repeats = 0, 0
    for batch in loader:
        trials = batch["trial"][batch["valid"]].numpy()
        assert np.array_equal(batch["image"][batch["valid"]], shown[trials])
        assert not batch["image"][~batch["valid"]].any()
        distinct += len(np.unique(ids[trials]))
        repeats += len(trials) - len(np.unique(ids[trials]))
    assert repeats > 0
    assert len(counted) == distinct


@pytest.mark.parametrize("options", [{}, {"raw": True}, {"dtype": torch.bfloat16}, {"roi": "nsdgeneral"}], ids=str)
def test_loader_gives_what_the_dataset_gives(options, experiment, stimulus_images):
    dataset = TrialDataset(experiment.path, images=stimulus_images.hdf5, **options)
    for batch in TrialLoader(dataset, 5, shuffle=True, seed=1, threads=3):
        for row in np.flatnonzero(batch["valid"]).tolist():
            sample = dataset[int(batch["trial"][row])]
            assert torch.equal(batch["image"][row], sample["image"])
            assert torch.equal(batch["betas"][row], sample["betas"])


def test_each_kind_of_source_gives_the_same_epoch(experiment, stimulus_images):
    epochs = []
    for kind in KINDS:
        dataset = TrialDataset(experiment.path, images=stimulus_images.locate(kind))
        epochs.append(copies(TrialLoader(dataset, 8, shuffle=True, seed=9)))
    for batches in zip(*epochs, strict=True):
        for name in batches[0]:
            assert all(torch.equal(batches[0][name], batch[name]) for batch in batches[1:])


def test_slot_is_betas_and_images_and_nothing_else(experiment, stimulus_images):
    loader = TrialLoader(TrialDataset(experiment.path, images=stimulus_images.seen), 8, prefetch=2, reuse=True)
    addresses = {(batch["betas"].data_ptr(), batch["image"].data_ptr()) for batch in loader}
    assert len(addresses) <= 3
    slots = loader._slots.spare
    assert [slot.betas.nbytes for slot in slots] == [8 * 5 * 11 * 3 * 4] * 3
    assert [slot.images.nbytes for slot in slots] == [8 * 7 * 5 * 3] * 3
    assert addresses <= {(slot.betas.ctypes.data, slot.images.ctypes.data) for slot in slots}


def test_slot_at_the_reference_shape_is_305_megabytes():
    assert round(32 * (150 * 150 * 100 * 4 + 425 * 425 * 3) / 1e6) == 305


def test_copied_batches_are_the_consumers_own(experiment, stimulus_images, shown):
    dataset = TrialDataset(experiment.path, images=stimulus_images.seen)
    batches = list(TrialLoader(dataset, 8))
    images = torch.cat([batch["image"][batch["valid"]] for batch in batches])
    assert np.array_equal(images, shown)
    assert len({batch["image"].data_ptr() for batch in batches}) == len(batches)


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_give_the_images_of_one(world_size, experiment, stimulus_images, shown):
    dataset = TrialDataset(experiment.path, images=stimulus_images.seen)
    for rank in range(world_size):
        for batch in TrialLoader(dataset, 12, shuffle=True, seed=2, rank=rank, world_size=world_size):
            trials = batch["trial"][batch["valid"]].numpy()
            assert np.array_equal(batch["image"][batch["valid"]], shown[trials])


def test_resumed_loader_goes_on_with_the_same_images_and_refuses_others(experiment, stimulus_images):
    dataset = TrialDataset(experiment.path, images=stimulus_images.seen)
    loader = TrialLoader(dataset, 8, shuffle=True, seed=4)
    whole = copies(loader)
    loader.set_epoch(0)
    iterator = iter(loader)
    for _ in range(2):
        next(iterator)
    state = loader.state_dict()
    iterator.close()
    resumed = TrialLoader(dataset, 8, shuffle=True, seed=4, threads=3)
    resumed.load_state_dict(state)
    for batch, expected in zip(copies(resumed), whole[2:], strict=True):
        assert torch.equal(batch["image"], expected["image"])
    for images in (None, stimulus_images.hdf5, stimulus_images.every):
        other = TrialLoader(TrialDataset(experiment.path, images=images), 8, shuffle=True, seed=4)
        with pytest.raises(ResumeRefused):
            other.load_state_dict(state)


def test_pickle_is_small_and_refuses_other_images(paired, experiment, stimulus_images, tmp_path, make_stimuli):
    data = pickle.dumps(paired)
    assert len(data) < 4096
    again = pickle.loads(data)
    assert torch.equal(again[33]["image"], paired[33]["image"])
    path = tmp_path / "nsd_stimuli.hdf5"
    make_stimuli(path, 73_000)
    data = pickle.dumps(TrialDataset(experiment.path, images=path))
    make_stimuli(path, 72_999)
    with pytest.raises(StoreError, match=r"replaced by another|not among its"):
        pickle.loads(data)


def test_store_without_a_trial_table_is_refused(volumes, stimulus_images):
    with pytest.raises(StoreError, match="the store has no nsd_id"):
        TrialDataset(volumes.path, images=stimulus_images.seen)


# In a process of its own. An image was read, and a loader is under way, before the workers start: who carries a handle
# or a lock of HDF5 through a fork hangs or reads rubbish.
START = """
import sys, numpy, torch
from torch.utils.data import DataLoader
from nsd_zarr.torch import TrialDataset, TrialLoader

if __name__ == "__main__":
    store, start, *paths = sys.argv[1:]
    for images, out in zip(paths[::2], paths[1::2]):
        dataset = TrialDataset(store, images=images)
        dataset[5]
        under_way = iter(TrialLoader(dataset, 4, threads=3))
        next(under_way)
        workers = 1 if start == "spawn" else 2  # each spawned one imports PyTorch, 3 s
        batches = list(DataLoader(dataset, 8, num_workers=workers, timeout=100, multiprocessing_context=start))
        numpy.save(out, torch.cat([batch["image"] for batch in batches]).numpy())
"""


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_stock_loader_with_workers_gives_the_same_images(start, experiment, stimulus_images, shown, tmp_path):
    (tmp_path / "start.py").write_text(START)
    # Of both kinds in one process: importing PyTorch is most of its time.
    kinds = {kind: tmp_path / f"{kind}.npy" for kind in ("hdf5", "seen")}
    paths = [path for kind, out in kinds.items() for path in (stimulus_images.locate(kind), out)]
    subprocess.run([sys.executable, tmp_path / "start.py", experiment.path, start, *paths], check=True, timeout=200)
    for out in kinds.values():
        assert np.array_equal(np.load(out), shown)


def test_stock_loader_in_this_process_gives_the_same_images(paired, shown):
    images = torch.cat([batch["image"] for batch in DataLoader(paired, 8)])
    assert np.array_equal(images, shown)
