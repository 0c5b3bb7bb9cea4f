"""Trials of a store as PyTorch's map-style dataset, for the stock DataLoader and for ours."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from nsd_zarr.errors import ConfigError
from nsd_zarr.layout import COUNTS_PER_PERCENT
from nsd_zarr.loading.images import PairedImages
from nsd_zarr.loading.subjects import SubjectsTrials, open_trials
from nsd_zarr.loading.trials import Asked, StoreTrials, check_same
from nsd_zarr.options import SubjectWords
from nsd_zarr.places.choose import find_remote, keep_copies
from nsd_zarr.science import kernels
from nsd_zarr.science.shared_images import SharedImages
from nsd_zarr.store.root import Store

Sample = dict[str, Any]
_SEVERAL = 'Give a store with a group for each subject: TrialDataset("nsd.zarr", subjects=[1, 2]).'
_FORMS = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


class TrialDataset(Dataset[Sample]):
    """Trials of one store, or of several subjects in one, as tensors.

    `dataset[i]` is a dict: "betas", float32 tensor of percent signal change, shape (z, y, x) ((vertex,) for surfaces;
    float sources keep their dtype); "trial", the trial in the store, from 0; "session", from 1; "trial_in_session",
    from 0; where the store has its trial table also "nsd_id" (0-based 73k id), "image_10k" (from 1), "repeat" (0 to 2)
    and "shared1000". All but "betas" are Python numbers, which a DataLoader collates to tensors. With *images* also
    "image", uint8 tensor (row, column, channel), RGB, (425, 425, 3) in the dataset.

    Of a store with a group for each subject samples are numbered behind each other, the first subject's first, and have
    "subject"; "trial" is that in the subject's own store. Regions of unequal length are padded with 0 to the longest,
    and "mask", bool (voxel,), says which voxels are the subject's own.

    Picklable, without open files or data: give it to any number of workers, started by fork, spawn or forkserver.

    Parameters
    ----------
    store
        Path or URL of a finished store, or of one with a group for each subject.
    trials
        Which ones, as booleans over all trials, as trial numbers (in that order, repeats allowed), or "train" (images
        that are not shared), "test" (shared1000) or "shared515"; None for all.
    roi
        "betas" are the voxels (voxel,) of a ROI or label, of several, of {ROI: labels}, of a mask (z, y, x), or of
        flat voxel indices in C order; see ds.nsd.roi.
    hemisphere
        "lh" or "rh", of names alone: what the file of that hemisphere labels.
    zscore
        "session" for z-scores by the store's statistics, which are kept once read, two numbers a voxel and session;
        see ds.nsd.zscore.
    zscore_trials
        Take them from these trials of each session alone, given as *trials* are ("train": nothing of the test images
        leaks); the first read of a session then reads these trials too.
    missing
        What a voxel is in a session in which it has no data (see ds.nsd.missing): "zero", after scaling or z-score;
        "nan"; or "drop", with *roi*: voxels that lack data in a session of the selection leave the region;
        `dataset.voxels` are those that stay. How many lack how many is logged once (logger `nsd_zarr`).
    raw
        "betas" are the stored counts, int16, as they were delivered, and "scale" says how many make one percent; see
        to_percent.
    dtype
        torch.float16, torch.bfloat16 (rounded once from float32) or torch.float32, as it is.
    images
        Path of a store of images (nsd-zarr images), or of the stimulus HDF5 file; each trial's is found by its
        nsd_id, so the store must have its trial table (of nsdsynthetic its stimulus_id, and the design).
    transform
        Called with each sample, returns what is handed out.
    storage_options
        How a URL is reached, as pandas and xarray take them: key, secret, endpoint_url, region, anon, profile.
    cache
        A local folder that keeps whole shards of a store behind a URL once they were touched. Several processes may
        share it; what others put there is left alone.
    cache_limit
        Bytes of all shards in it, or such as "100GB"; those beyond it are read trial by trial. None for 90 % of what
        is free.
    subjects
        Of a store with a group for each: which ([1, 2, 5, 7], "1-8"); None for all that are finished. What is given as
        numbers or masks (*trials*, *zscore_trials*, *roi*) is given by subject then: {1: ..., 2: ...}.
    batch_by
        "subject": each batch of a TrialLoader is of one subject, "betas" in its own shape; also whole volumes.
    unequal
        Of subjects in mixed batches: "pad", or "list": "betas" of a batch are a list of tensors of their own shapes,
        also whole volumes.

    Raises
    ------
    StoreError, DamageFound
        As nsd_zarr.open_dataset; StoreError for an image that is not there.
    ConfigError
        For an unknown ROI or word.
    ValueError
        For a dtype that is none of these, or one together with *raw*.
    IndexError
        For trials outside the store.

    Examples
    --------
    >>> train = TrialDataset("subj01.zarr", trials="train", roi="nsdgeneral", zscore="session")
    >>> train[0]["betas"].dtype, train[0]["session"]
    (torch.float32, 1)
    >>> batches = torch.utils.data.DataLoader(train, batch_size=32, shuffle=True)
    >>> next(iter(batches))["nsd_id"].dtype
    torch.int64
    >>> stimuli = "nsd/nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    >>> TrialDataset("subj01.zarr", images=stimuli)[0]["image"].shape  # (425, 425, 3) in the dataset
    torch.Size([8, 8, 3])
    >>> from nsd_zarr import convert
    >>> TrialDataset(convert("nsd", "nsd.zarr", subjects=[1]).store, roi="nsdgeneral")[0]["subject"]
    1
    """

    def __init__(
        self,
        store: str | os.PathLike[str],
        *,
        trials: Any = None,
        roi: Any = None,
        hemisphere: str | None = None,
        zscore: str | None = None,
        zscore_trials: Any = None,
        missing: str = "zero",
        raw: bool = False,
        dtype: torch.dtype | None = None,
        images: str | os.PathLike[str] | None = None,
        transform: Callable[[Sample], Any] | None = None,
        subjects: SubjectWords | None = None,
        batch_by: str | None = None,
        unequal: str = "pad",
        storage_options: Mapping[str, Any] | None = None,
        cache: str | os.PathLike[str] | None = None,
        cache_limit: int | str | None = None,
    ) -> None:
        if dtype not in (None, *_FORMS) or (raw and dtype is not None):
            raise ValueError(
                f"dtype {dtype}{' with raw' if raw else ''}: expected float32, float16 or bfloat16, or raw"
            )
        form = _FORMS[dtype] if dtype else None
        asked = Asked(trials, roi, hemisphere, zscore, zscore_trials, missing, raw, form)
        self.raw = raw
        self.dtype = dtype
        self.transform = transform
        location = keep_copies(store, storage_options, cache, cache_limit)
        source = open_trials(location, asked, subjects, batch_by, unequal)
        self._attach(source, images and (find_remote(images, storage_options) or images))

    def _attach(self, source: StoreTrials | SubjectsTrials, images: str | os.PathLike[str] | None) -> None:
        self.source = source
        self.reader, self.sample_shape, self.selection = source.reader, source.row_shape, source.selection
        self.images = None if images is None else source.pair(images)

    def __getstate__(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in ("source", "raw", "dtype", "transform")}
        return state | {"images": None if self.images is None else self.images.describe()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        images, source = state.pop("images"), state.pop("source")
        self.__dict__.update(state)
        self._attach(source, None if images is None else images["path"])
        if self.images is not None:
            check_same(self.images.images.fingerprint, images["fingerprint"], images["path"])

    def __repr__(self) -> str:
        dtype = str(self.dtype or np.dtype(self.reader.dtype)).removeprefix("torch.")
        parts = [f"{len(self)} trials of {self.source.format()} {dtype}"]
        parts += self.source.request.format_options()
        parts += ["raw=True"] if self.raw else []
        parts += [f"batch_by={self.source.batch_by!r}"] if self.source.batch_by else []
        parts += [f"images='{self.images.images.path}'"] if self.images is not None else []
        return f"{type(self).__name__}('{self.source.location}': {', '.join(parts)})"

    def __len__(self) -> int:
        return self.source.count if self.selection is None else len(self.selection)

    def __getitem__(self, index: int) -> Any:
        """Sample *index* of the selection, negative from its end. Raises IndexError; DamageFound, naming the trial."""
        return self._make_sample(self._find_trial(index), {})

    def _make_sample(self, trial: int, shown: dict[int, torch.Tensor]) -> Any:
        """The sample of *trial*; *shown*: images of this batch that are there already, by their id."""
        betas = self._make_slot(self.source.find_shape(trial))
        self.reader.read_into(trial, view_slot(betas))
        sample: Sample = {"betas": betas}
        if isinstance(self.source, SubjectsTrials) and self.source.has_mask:
            sample["mask"] = torch.from_numpy(self.source.make_mask(np.array(trial)))
        sample |= {name: column[trial].item() for name, column in self.source.table.items()}
        sample |= {} if self.images is None else {"image": self._read_image(self.images, trial, shown)}
        sample |= {"scale": self.scale} if self.raw else {}
        return sample if self.transform is None else self.transform(sample)

    def _read_image(self, images: PairedImages, trial: int, shown: dict[int, torch.Tensor]) -> torch.Tensor:
        nsd_id, image = int(images.ids[trial]), self.make_image_slot(())
        if nsd_id in shown:
            return image.copy_(shown[nsd_id])
        images.read_into(trial, image.numpy())
        # A transform may change what it is given.
        shown[nsd_id] = image if self.transform is None else image.clone()
        return image

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Samples of a batch, in the order of *indices*, read in the order in which they lie in the store.

        A repeated image is read once, and each sample has its own copy. Of a subclass with a __getitem__ of its
        own: what that makes, one after the other.
        """
        if type(self).__getitem__ is not TrialDataset.__getitem__:
            return [self[index] for index in indices]  # A subclass makes its samples by itself.
        if self.is_scaled and get_worker_info() is not None:
            kernels.load()  # A worker process reads many batches.
        shown: dict[int, torch.Tensor] = {}
        order = sorted(range(len(indices)), key=lambda position: self._find_trial(indices[position]))
        samples: list[Any] = [None] * len(indices)
        for position in order:
            samples[position] = self._make_sample(self._find_trial(indices[position]), shown)
        return samples

    @property
    def store(self) -> Store:
        """The store of one subject. Raises ConfigError where there are several."""
        if isinstance(self.source, SubjectsTrials):
            raise ConfigError("the dataset has a store for each of several subjects", hint="See dataset.source.parts.")
        return self.source.store

    @property
    def voxels(self) -> Any:
        """Flat C-order indices of the voxels of "betas", intp; None for whole volumes; by subject where are several."""
        if isinstance(self.source, SubjectsTrials):
            return {subject: part.find_voxels() for subject, part in self.source.parts.items()}
        return self.source.find_voxels()

    def find_shared_images(self) -> SharedImages:
        """The images of which each of several subjects has trials here, and which samples show them.

        >>> from nsd_zarr import convert
        >>> shared = TrialDataset(convert("nsd", "nsd.zarr", subjects=[1]).store).find_shared_images()
        >>> shared.subjects, shared.samples.shape == (len(shared), 1, 3)
        ((1,), True)
        """
        if isinstance(self.source, SubjectsTrials):
            return self.source.find_shared_images()
        raise ConfigError("images are joined across subjects, and the dataset is of one store", hint=_SEVERAL)

    @property
    def scale(self) -> int:
        """Stored counts that make one percent signal change: 300 for integers, 1 for float sources."""
        return COUNTS_PER_PERCENT if self.source.dtype.kind in "iu" else 1

    @property
    def is_scaled(self) -> bool:
        """Whether "betas" are made of int16 counts, which compiled kernels convert faster."""
        return not self.raw and self.source.dtype == np.int16

    def make_slot(self, rows: tuple[int, ...], *, pinned: bool = False) -> torch.Tensor:
        """An empty tensor for *rows* trials, of the dtype that is delivered."""
        return self._make_slot((*rows, *self.sample_shape), pinned=pinned)

    def _make_slot(self, shape: tuple[int, ...], *, pinned: bool = False) -> torch.Tensor:
        if pinned:
            dtype = self.dtype or torch.from_numpy(np.empty(0, self.reader.dtype)).dtype
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        # NumPy's memory, because it comes in huge pages: 288 MB are touched in 0.06 s, those of torch.empty in 0.24 s.
        slot = torch.from_numpy(np.empty(shape, self.reader.dtype))
        return slot.view(torch.bfloat16) if self.dtype is torch.bfloat16 else slot

    def make_image_slot(self, rows: tuple[int, ...], *, pinned: bool = False) -> torch.Tensor:
        """An empty uint8 tensor for the images of *rows* trials. Only with images."""
        assert self.images is not None
        shape = (*rows, *self.images.shape)
        if pinned:
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        return torch.from_numpy(np.empty(shape, np.uint8))

    def _find_trial(self, index: int) -> int:
        position = operator.index(index) + (len(self) if index < 0 else 0)
        if not 0 <= position < len(self):
            raise IndexError(f"sample {index} is outside the dataset's {len(self)} trials")
        return position if self.selection is None else int(self.selection[position])


def view_slot(slot: torch.Tensor) -> np.ndarray:
    """The memory of a CPU tensor as an array; bfloat16, which NumPy does not have, as uint16."""
    view = slot.view(torch.int16).numpy().view(np.uint16) if slot.dtype == torch.bfloat16 else slot.numpy()
    return np.asarray(view)
