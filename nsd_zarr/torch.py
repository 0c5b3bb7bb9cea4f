"""Trials of a store for PyTorch: a map-style dataset for the stock DataLoader, and a faster loader of its own."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nsd_zarr.errors import ResumeRefused, StoreError
from nsd_zarr.layout import COUNTS_PER_PERCENT
from nsd_zarr.read.loader import BatchLoader, LoaderStats, TrialBatch, describe_stats
from nsd_zarr.read.order import PADDING, TrialOrder
from nsd_zarr.read.request import Request, find_trials, read_table
from nsd_zarr.store.digest import make_digest
from nsd_zarr.store.root import Store, open_store

try:
    import torch
    from torch.utils.data import Dataset
except ImportError as error:
    raise ImportError('nsd_zarr.torch needs PyTorch: pip install "nsd-zarr[torch]"') from error

__all__ = ["TrialDataset", "TrialLoader", "to_percent"]

Sample = dict[str, Any]
_FORMS = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


class TrialDataset(Dataset[Sample]):
    """Trials of one store as tensors.

    `dataset[i]` is a dict: "betas", float32 tensor of percent signal change, shape (z, y, x) ((vertex,) for surfaces;
    float sources keep their dtype); "trial", the trial in the store, from 0; "session", from 1; "trial_in_session",
    from 0; where the store has its trial table also "nsd_id" (0-based 73k id), "image_10k" (from 1), "repeat" (0 to 2)
    and "shared1000". All but "betas" are Python numbers, which a DataLoader collates to tensors.

    *store*: path of a finished store. *trials*: which ones, as booleans over all trials, as trial numbers (in that
    order, repeats allowed), or "train" (images that are not shared), "test" (shared1000) or "shared515"; None for all.
    *roi*: "betas" are the voxels (voxel,) of a ROI or label, of several, of {ROI: labels}, of a mask (z, y, x), or of
    flat voxel indices in C order; see ds.nsd.roi. *zscore*: "session" for z-scores by the store's statistics, which are
    kept once read, two numbers a voxel and session; see ds.nsd.zscore. *raw*: "betas" are the stored counts, int16, and "scale" says
    how many make one percent; see to_percent. *dtype*: torch.float16, torch.bfloat16 (rounded once from float32) or
    torch.float32 (which it is anyway). *transform*: called with each sample, returns what is handed out.

    Picklable, without open files or data: give it to any number of workers, started by fork, spawn or forkserver.
    Raises StoreError or DamageFound as nsd_zarr.open_dataset; ConfigError for an unknown ROI or word; IndexError for
    trials outside the store.
    """

    def __init__(
        self,
        store: str | os.PathLike[str],
        *,
        trials: Any = None,
        roi: Any = None,
        zscore: str | None = None,
        raw: bool = False,
        dtype: torch.dtype | None = None,
        transform: Callable[[Sample], Any] | None = None,
    ) -> None:
        opened = open_store(Path(os.path.abspath(store)))
        if dtype not in (None, *_FORMS) or (raw and dtype is not None):
            raise ValueError(
                f"dtype {dtype}{' with raw' if raw else ''}: expected float32, float16 or bfloat16, or raw"
            )
        self.trials = trials if isinstance(trials, str) else find_trials(opened, trials)
        self.request = Request(roi, zscore, raw, _FORMS[dtype] if dtype else None)
        self.raw = raw
        self.dtype = dtype
        self.transform = transform
        self._attach(opened)

    def _attach(self, store: Store) -> None:
        self.store = store
        self.selection = find_trials(store, self.trials)
        self.reader, self.sample_shape = self.request.make_reader(store)
        self.table = read_table(store)

    def __getstate__(self) -> dict[str, Any]:
        names = ("trials", "request", "raw", "dtype", "transform")
        state = {name: getattr(self, name) for name in names}
        return state | {"path": os.fspath(self.store.path), "fingerprint": self.store.fingerprint}

    def __setstate__(self, state: dict[str, Any]) -> None:
        store = open_store(Path(state.pop("path")))
        if store.fingerprint != state.pop("fingerprint"):
            raise StoreError(
                "the store was replaced by another since this dataset was made",
                hint="Make the dataset again.",
                path=store.path,
            )
        self.__dict__.update(state)
        self._attach(store)

    def __len__(self) -> int:
        return self.store.geometry.trials if self.selection is None else len(self.selection)

    def __getitem__(self, index: int) -> Any:
        """Sample *index* of the selection, negative from its end. Raises IndexError; DamageFound, naming the trial."""
        trial = self._find_trial(index)
        betas = self.make_slot(())
        self.reader.read_into(trial, view_slot(betas))
        session, inside = self.store.geometry.locate_trial(trial)
        sample = {"betas": betas, "trial": trial, "session": int(session), "trial_in_session": int(inside)}
        sample |= {name: column[trial].item() for name, column in self.table.items()}
        sample |= {"scale": self.scale} if self.raw else {}
        return sample if self.transform is None else self.transform(sample)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Samples of a batch, in the order of *indices*, read in the order in which they lie in the store."""
        order = sorted(range(len(indices)), key=lambda position: self._find_trial(indices[position]))
        samples: list[Any] = [None] * len(indices)
        for position in order:
            samples[position] = self[indices[position]]
        return samples

    @property
    def scale(self) -> int:
        """Stored counts that make one percent signal change: 300 for integers, 1 for float sources."""
        return COUNTS_PER_PERCENT if np.dtype(self.store.geometry.dtype).kind in "iu" else 1

    def make_slot(self, rows: tuple[int, ...], *, pinned: bool = False) -> torch.Tensor:
        """An empty tensor for *rows* trials, of the dtype that is delivered."""
        shape = (*rows, *self.sample_shape)
        dtype = self.dtype or torch.from_numpy(np.empty(0, self.reader.dtype)).dtype
        return torch.empty(shape, dtype=dtype, pin_memory=pinned)

    def _find_trial(self, index: int) -> int:
        position = operator.index(index) + (len(self) if index < 0 else 0)
        if not 0 <= position < len(self):
            raise IndexError(f"sample {index} is outside the dataset's {len(self)} trials")
        return position if self.selection is None else int(self.selection[position])


class TrialLoader:
    """Batches of a TrialDataset, decoded ahead by threads of this process: no worker processes, no copies between them.

    Each batch is a dict: "betas" (b, z, y, x), with roi (b, voxel); "trial", "session", "trial_in_session" int64 (b,),
    -1 where a row only fills up; "nsd_id" and so on as in the dataset; "valid" bool (b,); with raw also "scale". A
    batch is valid until the next one is asked for, because its memory is then filled again, unless *copy*.

    *batch_size*: rows of the global batch; rank *rank* of *world_size* receives its share, padded to equal size, and
    all ranks take the same number of steps. *shuffle*: each epoch is a permutation by *seed* and epoch, the same for
    any threads and ranks. Epochs count up by themselves after each whole pass; set_epoch says which one is next.
    *threads*: that decode; None for one each core, at most 4. *prefetch*: batches decoded ahead; prefetch + 1 slots of
    memory. *drop_last*: leave out a last batch that is not full. *device*: copy each batch there before it is handed
    out, from pinned memory for CUDA.

    Errors of a thread are raised by the iteration, DamageFound naming the trial. A second iteration ends the first.
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
    ) -> None:
        if dataset.transform is not None:
            raise ValueError("TrialLoader hands out batches: apply the transform to the batch, not in the dataset")
        if prefetch < 0 or (threads is not None and threads < 1):
            raise ValueError(f"prefetch {prefetch}, threads {threads}: expected at least 0 and 1")
        self.dataset = dataset
        self.order = TrialOrder(len(dataset), batch_size, shuffle, seed, rank, world_size, drop_last)
        self.threads = threads or min(4, os.cpu_count() or 1)
        self.copy = copy
        self.device = torch.device(device) if device is not None else None
        self._slots = prefetch + 1
        self._memory: list[torch.Tensor] = []
        self._stats = LoaderStats()
        self._epoch = self._done = self._resume_at = 0
        self._running: Iterator[Sample] | None = None

    def __len__(self) -> int:
        """Steps of an epoch."""
        return self.order.steps

    def __iter__(self) -> Iterator[Sample]:
        if self._running is not None:
            self._running.close()  # type: ignore[attr-defined]
        self._done, self._resume_at = self._resume_at, 0
        self._running = self._iterate(self._done)
        return self._running

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next, from 0. Of the epoch that a state was loaded for, the place is kept."""
        if epoch != self._epoch:
            self._epoch, self._done, self._resume_at = epoch, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Where this loader is: counts batches handed out, not those decoded ahead. The same on every rank."""
        return {"seed": self.order.seed, "epoch": self._epoch, "batches": self._done, "fingerprint": self._fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind the last batch that was handed out when *state* was taken, also at another world size.

        Raises ResumeRefused when it is of another store, selection, seed or global batch.
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
        """Where the time of the latest iteration went; "limited_by" names what to improve."""
        return describe_stats(self._stats)

    @property
    def _fingerprint(self) -> str:
        selection = self.dataset.selection
        chosen = "all" if selection is None else make_digest(np.ascontiguousarray(selection))
        order = self.order
        text = f"{self.dataset.store.fingerprint} {chosen} {order.batch_size} {order.shuffle} {order.drop_last}"
        text += self.dataset.request.describe(self.dataset.store)
        return make_digest(text.encode())

    def _iterate(self, first_step: int) -> Iterator[Sample]:
        if not self._memory:
            pinned = self.device is not None and self.device.type == "cuda"
            shape = (self.order.rows,)
            self._memory = [self.dataset.make_slot(shape, pinned=pinned) for _ in range(self._slots)]
        self._stats = LoaderStats()
        loader = BatchLoader(self.dataset.reader, self.dataset.selection, self.order, self.threads)
        views = [view_slot(slot) for slot in self._memory]
        for batch in loader.iterate(views, self._epoch, first_step, self._stats):
            self._done += 1
            yield self._make(batch)
        self._epoch, self._done = self._epoch + 1, 0

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
        if self.copy and self.device is None:
            made["betas"] = made["betas"].clone()
        if self.device is not None:
            made = {name: tensor.to(self.device, copy=self.copy) for name, tensor in made.items()}
        return made | ({"scale": self.dataset.scale} if self.dataset.raw else {})


def to_percent(batch: Sample) -> Sample:
    """A batch (or sample) of counts, from raw=True, as float32 percent signal change, on the device where it is.

    Bit-equal to the host's division for all int16 codes. Returns a new dict without "scale".
    """
    counts = batch["betas"]
    # A tensor on the device, not a number: by a number, CUDA multiplies with the reciprocal, which is not bit-equal.
    scale = torch.as_tensor(batch["scale"], dtype=torch.float32).reshape(-1)[:1].to(counts.device)
    percent = counts.to(torch.float32).div_(scale)
    return {name: value for name, value in batch.items() if name != "scale"} | {"betas": percent}


def view_slot(slot: torch.Tensor) -> np.ndarray:
    """The memory of a CPU tensor as an array; bfloat16, which NumPy does not have, as uint16."""
    view = slot.view(torch.int16).numpy().view(np.uint16) if slot.dtype == torch.bfloat16 else slot.numpy()
    return np.asarray(view)
