"""Copying ahead, with a device that records what is done to it: no CUDA is needed to see the order of things."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nsd_zarr.loading.loader import LoaderStats, describe_stats  # noqa: E402
from nsd_zarr.torch import TrialDataset, TrialLoader  # noqa: E402
from nsd_zarr.torch import loader as loader_module  # noqa: E402
from nsd_zarr.torch.device import copy_ahead, move  # noqa: E402


class RecordingCopier:
    """A device whose copies happen only when finished: who frees memory too early hands out wrong values."""

    def __init__(self):
        self.events = []

    def begin(self, batch):
        self.events.append(("begin", int(batch["trial"][0])))
        return batch

    def finish(self, begun):
        self.events.append(("finish", int(begun["trial"][0])))
        return {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in begun.items()}


def make_batches(count, events, slots=1):
    """Batches that live in one slot of memory, filled again when the next one is asked for."""
    memory = torch.zeros(slots, 1, dtype=torch.int64)
    for number in range(count):
        events.append(("decode", number))
        memory[number % slots] = number
        yield {"trial": memory[number % slots], "scale": 300}
    events.append(("end", count))


def test_copy_of_the_next_batch_is_begun_before_a_batch_is_handed_out():
    copier = RecordingCopier()
    for batch in copy_ahead(make_batches(3, copier.events), copier, LoaderStats()):
        copier.events.append(("use", int(batch["trial"])))
    assert copier.events == [
        *[("decode", 0), ("begin", 0), ("finish", 0), ("decode", 1), ("begin", 1), ("use", 0)],
        *[("finish", 1), ("decode", 2), ("begin", 2), ("use", 1), ("finish", 2), ("end", 3), ("use", 2)],
    ]


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_every_batch_arrives_with_its_own_values_though_its_memory_is_used_again(count):
    copier = RecordingCopier()
    batches = list(copy_ahead(make_batches(count, []), copier, LoaderStats()))
    assert [int(batch["trial"]) for batch in batches] == list(range(count))


def test_leaving_early_finishes_the_copy_under_way_and_ends_the_decoding():
    copier, source = RecordingCopier(), make_batches(5, [])
    batches = copy_ahead(source, copier, LoaderStats())
    next(batches)
    batches.close()
    assert copier.events[-2:] == [("begin", 1), ("finish", 1)]
    assert list(source) == []


@pytest.mark.parametrize("prefetch", [0, 1, 2])
def test_loader_to_a_copying_device_delivers_the_same_as_the_host(volumes, monkeypatch, prefetch):
    dataset, made = TrialDataset(volumes.path), []
    monkeypatch.setattr(loader_module, "CudaCopier", lambda device: made.append(RecordingCopier()) or made[-1])
    monkeypatch.setattr(TrialDataset, "make_slot", lambda self, rows, pinned: _slot(self, rows))
    loader = TrialLoader(dataset, 4, shuffle=True, seed=1, prefetch=prefetch, device="cuda")
    found = list(loader)
    trials = torch.cat([batch["trial"][batch["valid"]] for batch in found]).numpy()
    betas = torch.cat([batch["betas"][batch["valid"]] for batch in found]).numpy()
    assert sorted(trials.tolist()) == list(range(volumes.trials))
    np.testing.assert_array_equal(betas, volumes.percent[trials])
    assert loader.state_dict()["epoch"] == 1


def _slot(dataset, rows):
    return torch.empty((*rows, *dataset.store.geometry.volume_shape))


def test_loader_state_counts_batches_handed_out_not_those_on_their_way(volumes, monkeypatch):
    monkeypatch.setattr(loader_module, "CudaCopier", lambda device: RecordingCopier())
    monkeypatch.setattr(TrialDataset, "make_slot", lambda self, rows, pinned: _slot(self, rows))
    loader = TrialLoader(TrialDataset(volumes.path), 4, device="cuda")
    batches = iter(loader)
    next(batches)
    assert loader.state_dict()["batches"] == 1


def test_stats_name_the_copy_when_it_is_what_is_waited_for():
    stats = LoaderStats(copy_seconds=3.0)
    stats.ring = dataclasses.replace(stats.ring, wait_seconds=1.0, consume_seconds=6.0, batches=1)
    described = describe_stats(stats)
    assert (described["limited_by"], described["copy_seconds"], described["consumer_seconds"]) == ("copy", 3.0, 3.0)
    assert described["stall_percent"] == pytest.approx(100 * 4 / 7)


def test_move_leaves_what_is_no_tensor():
    moved = move({"betas": torch.ones(2), "scale": 300}, torch.device("meta"))
    assert (moved["betas"].device.type, moved["scale"]) == ("meta", 300)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_loader_on_cuda_delivers_the_hosts_values(volumes):
    host = TrialLoader(TrialDataset(volumes.path), 4, shuffle=True, copy=True)
    device = TrialLoader(TrialDataset(volumes.path), 4, shuffle=True, device="cuda")
    for expected, found in zip(list(host), list(device), strict=True):
        for name, value in expected.items():
            assert found[name].device.type == "cuda"
            assert torch.equal(found[name].cpu(), value)
