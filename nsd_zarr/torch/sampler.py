"""Which epoch comes next, and how far the latest one is: what a loader's state says, and `loader.sampler`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nsd_zarr.loading.order import TrialOrder, check_whole


@dataclass(frozen=True, slots=True)
class Place:
    """A place between two batches."""

    epoch: int
    """Epoch, from 0."""
    batches: int
    """Batches of it that were handed out."""


class TrialSampler:
    """The order of trials, and where a loader is in it. Made by TrialLoader, as `loader.sampler`.

    Trainers look for `sampler.set_epoch`, as torch's DistributedSampler has it, and call it before each epoch.

    >>> loader = TrialLoader(TrialDataset("subj01.zarr"), batch_size=5, shuffle=True)
    >>> loader.sampler.set_epoch(2)
    >>> loader.sampler.epoch, len(loader.sampler) == len(loader.dataset)
    (2, True)
    """

    def __init__(self, order: TrialOrder) -> None:
        self.order = order
        self.place = Place(0, 0)
        """Behind the batch that was handed out last, by whichever iterator."""
        self.next = Place(0, 0)
        """Where the next iterator begins. An epoch of which a batch was handed out is not begun a second time, unless
        set_epoch asks for it or a state in the middle of it was loaded."""

    def __len__(self) -> int:
        """Samples of an epoch, of all ranks together."""
        return self.order.count

    def __iter__(self) -> Iterator[int]:
        """Samples of the epoch that comes next, in its order, of all ranks together; it begins no epoch."""
        return iter(self.order.permute(self.next.epoch).tolist())

    @property
    def epoch(self) -> int:
        """The epoch that the next iterator begins or goes on with."""
        return self.next.epoch

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next, from 0. The place of a state that was loaded in the same epoch is kept.

        Raises ConfigError for what is no whole number from 0.
        """
        epoch = check_whole("epoch", epoch, 0)
        if epoch != self.next.epoch or not self.next.batches:
            self.go_to(Place(epoch, 0))

    def go_to(self, place: Place) -> None:
        """Go on behind *place*; behind the last batch of an epoch begins the next one."""
        if place.batches >= self.order.steps:
            place = Place(place.epoch + bool(self.order.steps), 0)
        self.place = self.next = place

    def move_on(self, place: Place) -> Place:
        """Count one batch as handed out by an iterator that is at *place*; where the iterator is then."""
        place = Place(place.epoch, place.batches + 1)
        is_last = place.batches >= self.order.steps
        self.place, self.next = Place(place.epoch + 1, 0) if is_last else place, Place(place.epoch + 1, 0)
        return place
