"""Batches of trials as tensors, decoded ahead by threads of this process."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import torch

from nsd_zarr.errors import ResumeRefused
from nsd_zarr.loading.loader import BatchLoader, LoaderStats, TrialBatch, describe_stats
from nsd_zarr.loading.order import PADDING, TrialOrder
from nsd_zarr.resources import count_cores
from nsd_zarr.store.digest import make_digest
from nsd_zarr.torch.dataset import Sample, TrialDataset, view_slot
from nsd_zarr.torch.device import CudaCopier, copy_ahead, move
from nsd_zarr.torch.progress import Kind, choose_kind, show_progress


class TrialLoader:
    """Batches of a TrialDataset, decoded ahead by threads of this process: no worker processes, no copies between them.

    Each batch is a dict: "betas" (b, z, y, x), with roi (b, voxel); "trial", "session", "trial_in_session" int64 (b,),
    -1 where a row only fills up; "nsd_id" and so on as in the dataset; "valid" bool (b,); with raw also "scale"; with
    images "image" uint8 (b, row, column, channel), each decoded straight into the batch, a repeated one once. A
    batch is valid until the next one is asked for, because its memory is then filled again, unless *copy*.

    *batch_size*: rows of the global batch; rank *rank* of *world_size* receives its share, padded to equal size, and
    all ranks take the same number of steps. *shuffle*: each epoch is a permutation by *seed* and epoch, the same for
    any threads and ranks. Epochs count up by themselves after each whole pass; set_epoch says which one is next.
    *threads*: that decode; None for one each core, at most 4. *prefetch*: batches decoded ahead; prefetch + 1 slots of
    memory. *drop_last*: leave out a last batch that is not full. *device*: batches are handed out there; to CUDA they
    are copied from pinned memory, the next one while one is used, and are the consumer's own. *progress*: "tqdm" or
    "rich" draws a bar on standard error, True whichever there is.

    Errors of a thread are raised by the iteration, DamageFound naming the trial. A second iteration ends the first.

    >>> train = TrialDataset("subj01.zarr", trials="train", roi="nsdgeneral", zscore="session")
    >>> loader = TrialLoader(train, batch_size=16, shuffle=True, seed=0)
    >>> for batch in loader:
    ...     betas = batch["betas"][batch["valid"]]
    >>> len(betas) == len(train) % 16 or 16
    True
    """

    def __init__(
        self,
        dataset: TrialDataset,
        batch_size: int = 32,
        *,
        shuffle: bool = False,
        seed: int = 0,
        threads: int | None = None,
        prefetch: int = 2,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        copy: bool = False,
        device: torch.device | str | None = None,
        progress: Kind = False,
    ) -> None:
        if dataset.transform is not None:
            raise ValueError("TrialLoader hands out batches: apply the transform to the batch, not in the dataset")
        if prefetch < 0 or (threads is not None and threads < 1):
            raise ValueError(f"prefetch {prefetch}, threads {threads}: expected at least 0 and 1")
        self.dataset = dataset
        self.order = TrialOrder(len(dataset), batch_size, shuffle, seed, rank, world_size, drop_last)
        self.threads = threads or min(4, count_cores())
        self.copy = copy
        self.device = torch.device(device) if device is not None else torch.device("cpu")
        self.progress = choose_kind(progress)
        self._slots = prefetch + 1
        self._memory: list[torch.Tensor] = []
        self._image_memory: list[torch.Tensor] = []
        self._stats = LoaderStats()
        self._epoch = self._done = self._resume_at = 0
        self._running: Generator[Sample, None, None] | None = None

    def __len__(self) -> int:
        """Steps of an epoch."""
        return self.order.steps

    def __iter__(self) -> Iterator[Sample]:
        if self._running is not None:
            self._running.close()
        self._done, self._resume_at = self._resume_at, 0
        self._running = self._iterate(self._done)
        return self._running

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next, from 0. Of the epoch that a state was loaded for, the place is kept.

        >>> loader = TrialLoader(TrialDataset("subj01.zarr"), shuffle=True)
        >>> loader.set_epoch(3)
        >>> loader.state_dict()["epoch"]
        3
        """
        if epoch != self._epoch:
            self._epoch, self._done, self._resume_at = epoch, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Where this loader is: counts batches handed out, not those decoded ahead. The same on every rank.

        >>> loader = TrialLoader(TrialDataset("subj01.zarr"), batch_size=5)
        >>> batch = next(iter(loader))
        >>> loader.state_dict()["batches"]
        1
        """
        return {"seed": self.order.seed, "epoch": self._epoch, "batches": self._done, "fingerprint": self._fingerprint}

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
        self._epoch, self._done, self._resume_at = state["epoch"], state["batches"], state["batches"]

    def stats(self) -> dict[str, Any]:
        """Where the time of the latest iteration went; "limited_by" names what to improve.

        >>> loader = TrialLoader(TrialDataset("subj01.zarr"))
        >>> for batch in loader:
        ...     pass
        >>> loader.stats()["batches"] == len(loader)
        True
        """
        return describe_stats(self._stats)

    @property
    def _fingerprint(self) -> str:
        selection = self.dataset.selection
        chosen = "all" if selection is None else make_digest(np.ascontiguousarray(selection))
        order = self.order
        text = f"{self.dataset.store.fingerprint} {chosen} {order.batch_size} {order.shuffle} {order.drop_last}"
        text += self.dataset.request.describe(self.dataset.store)
        if self.dataset.images is not None:
            text += f" {self.dataset.images.images.fingerprint}"
        return make_digest(text.encode())

    def _iterate(self, first_step: int) -> Generator[Sample, None, None]:
        self._stats = LoaderStats()
        batches = self._decode(first_step)
        if self.device.type == "cuda":
            batches = copy_ahead(batches, CudaCopier(self.device), self._stats)
        if self.progress:
            title = f"epoch {self._epoch}"
            batches = show_progress(batches, self.progress, title, first_step, len(self), self.stats)
        with closing(batches):
            for batch in batches:
                self._done += 1
                yield batch
        self._epoch, self._done = self._epoch + 1, 0

    def _decode(self, first_step: int) -> Generator[Sample, None, None]:
        """Batches in the ring's memory; for other devices than CUDA as they are handed out."""
        dataset = self.dataset
        self._take_memory()
        loader = BatchLoader(dataset.reader, dataset.selection, self.order, self.threads, dataset.images)
        views, images = ([view_slot(slot) for slot in memory] for memory in (self._memory, self._image_memory))
        with closing(loader.iterate(views, self._epoch, first_step, self._stats, images)) as batches:
            for batch in batches:
                yield self._make(batch)

    def _take_memory(self) -> None:
        """The ring's memory, once: a slot for each batch that is under way."""
        if self._memory:
            return
        pinned, rows = self.device.type == "cuda", (self.order.rows,)
        self._memory = [self.dataset.make_slot(rows, pinned=pinned) for _ in range(self._slots)]
        if self.dataset.images is not None:
            self._image_memory = [self.dataset.make_image_slot(rows, pinned=pinned) for _ in range(self._slots)]

    def _make(self, batch: TrialBatch) -> Sample:
        geometry, valid = self.dataset.store.geometry, batch.valid
        position, inside = np.divmod(batch.trials, geometry.trials_per_session)
        session = np.asarray(geometry.sessions, np.int64)[position]
        made: Sample = {"betas": self._memory[batch.slot], "trial": torch.from_numpy(batch.trials)}
        made["session"] = torch.from_numpy(np.where(valid, session, PADDING))
        made["trial_in_session"] = torch.from_numpy(np.where(valid, inside, PADDING))
        for name, column in self.dataset.table.items():
            padding = False if column.dtype == bool else PADDING
            made[name] = torch.from_numpy(np.where(valid, column[batch.trials], padding))
        made["valid"] = torch.from_numpy(valid)
        if self._image_memory:
            made["image"] = self._image_memory[batch.slot]
        if self.device.type == "cpu":
            reused = [name for name in ("betas", "image") if name in made and self.copy]
            made |= {name: made[name].clone() for name in reused}
        elif self.device.type != "cuda":
            made = move(made, self.device)
        return made | ({"scale": self.dataset.scale} if self.dataset.raw else {})
