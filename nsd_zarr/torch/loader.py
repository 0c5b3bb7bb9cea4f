"""Batches of trials as tensors, decoded ahead by threads of this process."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Generator, Iterator
from contextlib import closing
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Never

import numpy as np
import torch

from nsd_zarr.buffers import Slots
from nsd_zarr.errors import ConfigError, ResumeRefused
from nsd_zarr.loading.in_flight import choose_prefetch, choose_requests, count_threads
from nsd_zarr.loading.loader import BatchLoader, BatchMemory, LoaderStats, TrialBatch, describe_stats, make_slots
from nsd_zarr.loading.order import check_whole
from nsd_zarr.resources import count_cores
from nsd_zarr.science import kernels
from nsd_zarr.store.digest import make_digest
from nsd_zarr.torch.batch import make_batch, make_order, split_betas
from nsd_zarr.torch.dataset import Sample, TrialDataset, view_slot
from nsd_zarr.torch.device import CudaCopier, copy_ahead, move
from nsd_zarr.torch.sampler import Place, TrialSampler
from nsd_zarr.torch.selection import find_selection

_REMOVED = {
    "copy": "A batch is the consumer's own without it; reuse=True makes it valid only until the next one is asked for.",
    "progress": "Wrap the loader, which has a length: for batch in tqdm(loader).",
}
"""Options of earlier versions, and what to do in their place."""


class TrialLoader:
    """Batches of a TrialDataset, decoded ahead by threads of this process: no worker processes, no copies between them.

    Each batch is a dict: "betas" (b, z, y, x), with roi (b, voxel); "trial", "session", "trial_in_session" int64 (b,),
    -1 where a row only fills up; "nsd_id" and so on as in the dataset; "valid" bool (b,); with raw also "scale"; with
    images "image" uint8 (b, row, column, channel), each decoded straight into the batch, a repeated one once. A
    batch is the consumer's own: its memory is used again when nobody refers to any part of it (tensor, view, array).
    Of several subjects also "subject", and as the dataset says "mask" (b, voxel), or "betas" as a list.

    Each iterator is independent of the others and passes once through an epoch, which it takes when its first batch is
    asked for: the one that set_epoch said, or else the one behind the latest that was begun. An epoch counts as done
    when its last batch is handed out. The state is the place of the iterator that handed out the latest batch. An
    iterator that is dropped before its end stops its threads and frees its memory.

    Parameters
    ----------
    dataset
        A TrialDataset; a Subset of one, as random_split makes them; a ConcatDataset of parts of one store.
    batch_size
        Rows of the global batch; each rank receives its share, padded to equal size, and all take the same number of
        steps.
    shuffle
        Each epoch is a permutation by *seed* and epoch, the same for any threads and ranks.
    seed
        Whole number from 0.
    threads
        That decode; None for one each core, at most 4.
    requests
        Of a store behind a URL, in flight at once, at most 64; None for 32.
    prefetch
        Batches decoded ahead; with the one in use prefetch + 1 batches of memory, kept from one epoch to the next,
        and what the consumer keeps. None for 2; behind a URL for as many as keep all requests in use.
    rank, world_size
        Which share of each global batch is this process's, from 0, and of how many.
    drop_last
        Leave out a last batch that is not full.
    reuse
        A batch is valid only until the next one is asked for, then its memory is filled again, whoever still refers
        to it.
    device
        Batches are handed out there; to CUDA they are copied from pinned memory, the next one while one is used, and
        are the consumer's own.

    Raises
    ------
    ConfigError
        For an option or dataset that is not as described.
    DamageFound, StoreError, OSError
        From a thread, where the batch is asked for; DamageFound names the trial.

    Examples
    --------
    >>> train = TrialDataset("subj01.zarr", trials="train", roi="nsdgeneral", zscore="session")
    >>> loader = TrialLoader(train, batch_size=16, shuffle=True, seed=0)
    >>> for batch in loader:
    ...     betas = batch["betas"][batch["valid"]]
    >>> len(betas) == len(train) % 16 or 16
    True
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 32,
        *,
        shuffle: bool = False,
        seed: int = 0,
        threads: int | None = None,
        requests: int | None = None,
        prefetch: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        reuse: bool = False,
        device: torch.device | str | None = None,
        **unknown: Never,
    ) -> None:
        _check_options(unknown)
        self.dataset = dataset
        self._selection = find_selection(dataset)
        self._trials = self._selection.dataset
        options = (batch_size, shuffle, seed, rank, world_size, drop_last)
        self.order = make_order(self._trials.source, self._selection.numbers, *options)
        self.sampler = TrialSampler(self.order)
        self.batch_sampler = None  # Lightning asks a loader of validation batches for it
        self.threads = min(4, count_cores()) if threads is None else check_whole("threads", threads, 1)
        self.requests = choose_requests(self._trials.reader, requests)
        self.prefetch = choose_prefetch(prefetch, self.requests, self.order.rows)
        self.reuse = reuse
        self.device = torch.device(device) if device is not None else torch.device("cpu")
        self._slots = _make_slots(self._trials, self.order.rows, self.prefetch, self.device, reuse=reuse)
        self._stats = LoaderStats()
        self._latest: weakref.ref[Generator[Sample, None, None]] | None = None

    def __repr__(self) -> str:
        order, place = self.order, self.sampler.place
        options = f"batch_size={order.batch_size}, shuffle={order.shuffle}, seed={order.seed}"
        options += f", rank={order.rank}, world_size={order.world_size}" if order.world_size > 1 else ""
        options += f", drop_last={order.drop_last}, reuse={self.reuse}, device='{self.device}'"
        where = f"epoch {place.epoch}, {place.batches} of {len(self)} batches handed out"
        return f"TrialLoader({self.dataset!r}, {options}): {where}"

    def __len__(self) -> int:
        """Steps of an epoch."""
        return self.order.steps

    def __iter__(self) -> Iterator[Sample]:
        iterator = self._iterate()
        self._latest = weakref.ref(iterator)  # Weakly: an iterator that everybody else has dropped ends.
        return iterator

    @property
    def _running(self) -> Generator[Sample, None, None] | None:
        """The latest iterator, as long as somebody holds it; its close() ends it at once."""
        return None if self._latest is None else self._latest()

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next, from 0. Of the epoch that a state was loaded for, the place is kept.

        The same as loader.sampler.set_epoch, which trainers call. Raises ConfigError for what is no whole number
        from 0.

        >>> loader = TrialLoader(TrialDataset("subj01.zarr"), shuffle=True)
        >>> loader.set_epoch(3)
        >>> loader.state_dict()["epoch"]
        3
        """
        self.sampler.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where this loader is: counts batches handed out, not those decoded ahead. The same on every rank.

        Behind the last batch of an epoch it is the beginning of the next one.

        >>> loader = TrialLoader(TrialDataset("subj01.zarr"), batch_size=5)
        >>> batch = next(iter(loader))
        >>> loader.state_dict()["batches"]
        1
        """
        place = self.sampler.place
        return {
            "seed": self.order.seed,
            "epoch": place.epoch,
            "batches": place.batches,
            "fingerprint": self._fingerprint,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind the last batch that was handed out when *state* was taken, also at another world size.

        Raises ResumeRefused when it is of another store, selection, seed or global batch.

        >>> first = TrialLoader(TrialDataset("subj01.zarr"), batch_size=5)
        >>> batch = next(iter(first))
        >>> loader = TrialLoader(TrialDataset("subj01.zarr"), batch_size=5)
        >>> loader.load_state_dict(first.state_dict())
        >>> next(iter(loader))["trial"].tolist()
        [5, 6, 7, 8, 9]
        """
        found = (state["fingerprint"], state["seed"])
        if found != (self._fingerprint, self.order.seed):
            raise ResumeRefused(
                "the loader's state is of another store, selection, seed or batch size",
                hint="Make the loader as it was made when the state was taken.",
                expected=(self._fingerprint, self.order.seed),
                found=found,
            )
        place = Place(check_whole("epoch", state["epoch"], 0), check_whole("batches", state["batches"], 0))
        self.sampler.go_to(place)

    def stats(self) -> dict[str, Any]:
        """Where the time of the latest iteration went; "limited_by" names what to improve.

        >>> loader = TrialLoader(TrialDataset("subj01.zarr"))
        >>> for batch in loader:
        ...     pass
        >>> loader.stats()["batches"] == len(loader)
        True
        """
        return describe_stats(self._stats)

    @cached_property
    def _fingerprint(self) -> str:
        dataset, selection, order = self._trials, self._selection.trials, self.order
        chosen = "all" if selection is None else make_digest(np.ascontiguousarray(selection))
        text = f"{dataset.source.fingerprint} {chosen} {order.batch_size} {order.shuffle} {order.drop_last}"
        text += dataset.source.describe()
        if dataset.images is not None:
            text += f" {dataset.images.images.fingerprint}"
        return make_digest(text.encode())

    def _iterate(self) -> Generator[Sample, None, None]:
        place, stats = self.sampler.next, LoaderStats()
        if self._trials.is_scaled:
            kernels.load_soon()  # NumPy scales the first batches.
        self._stats = stats
        batches = self._decode(place, stats)
        if self.device.type == "cuda":
            batches = copy_ahead(batches, CudaCopier(self.device), stats)

        def count(batch: Sample) -> Sample:
            nonlocal place
            place = self.sampler.move_on(place)
            return split_betas(self._trials.source, batch)

        with closing(batches):
            # No variable of this frame may refer to a batch while the consumer has it: its memory would count as used.
            yield from map(count, batches)

    def _decode(self, place: Place, stats: LoaderStats) -> Generator[Sample, None, None]:
        """Batches in the memory of slots; for other devices than CUDA as they are handed out."""
        dataset = self._trials
        trials, find_row = self._selection.trials, dataset.source.find_row
        threads = count_threads(dataset.reader, self.threads, self.requests)
        loader = BatchLoader(dataset.reader, trials, self.order, threads, dataset.images, find_row)
        with closing(loader.iterate(self._slots, place.epoch, place.batches, stats)) as batches:
            yield from map(self._make, batches)

    def _make(self, batch: TrialBatch) -> Sample:
        made = make_batch(self._trials, batch)
        return made if self.device.type in ("cpu", "cuda") else move(made, self.device)


def _make_slots(dataset: TrialDataset, rows: int, prefetch: int, device: torch.device, *, reuse: bool) -> Slots:
    """Memory of batches. *device*: for CUDA it is pinned."""
    pinned = device.type == "cuda"

    def make() -> BatchMemory:
        betas = view_slot(dataset.make_slot((rows,), pinned=pinned))
        if dataset.images is None:
            return BatchMemory(betas)
        return BatchMemory(betas, view_slot(dataset.make_image_slot((rows,), pinned=pinned)))

    # What goes to another device is copied before the next batch is asked for.
    return make_slots(make, prefetch, reuse=reuse or device.type != "cpu")


def _check_options(unknown: dict[str, Any]) -> None:
    for name in unknown:
        if name in _REMOVED:
            raise ConfigError(f"TrialLoader has no {name}= any more", hint=_REMOVED[name])
        known = [option for option in inspect.signature(TrialLoader).parameters if option != "unknown"]
        near = get_close_matches(name, known, 1)
        raise ConfigError(
            f"TrialLoader has no option {name}",
            hint=f"Did you mean {near[0]}?" if near else f"It has {', '.join(known)}.",
        )
