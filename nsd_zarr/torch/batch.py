"""A batch as it is handed out: tensors over the memory that threads filled, and what is known of each row."""

from __future__ import annotations

import numpy as np
import torch

from nsd_zarr.loading.loader import TrialBatch
from nsd_zarr.loading.order import PADDING, GroupedOrder, TrialOrder
from nsd_zarr.loading.subjects import LIST, SubjectsTrials
from nsd_zarr.loading.trials import StoreTrials
from nsd_zarr.torch.dataset import Sample, TrialDataset

_SHAPES = "shapes of rows"
"""Where a batch keeps, until it is handed out, the shape of each row that becomes a tensor of its own."""


def make_order(
    source: StoreTrials | SubjectsTrials,
    trials: np.ndarray,
    batch_size: int,
    shuffle: bool,
    seed: int,
    rank: int,
    world_size: int,
    drop_last: bool,
) -> TrialOrder:
    """The order of samples whose trials are *trials*: of all together, or by subject."""
    options = (len(trials), batch_size, shuffle, seed, rank, world_size, drop_last)
    if source.batch_by is None or isinstance(source, StoreTrials):
        return TrialOrder(*options)
    return GroupedOrder(*options, groups=source.find_parts(trials))


def make_batch(dataset: TrialDataset, batch: TrialBatch) -> Sample:
    """Tensors over the memory of *batch*, and what is known of the trial of each row."""
    source, trials, valid = dataset.source, batch.trials, batch.valid
    # Views are made of the tensor: those of the array would not hold on to the memory that was lent.
    betas = torch.from_numpy(batch.memory.betas)
    betas = betas.view(torch.bfloat16) if dataset.dtype is torch.bfloat16 else betas
    made: Sample = {"betas": betas}
    if isinstance(source, SubjectsTrials):
        made = {"betas": source.find_rows(betas, batch.group), **_describe_rows(source, trials)}
    for name, column in source.table.items():
        padding = False if column.dtype == bool else PADDING
        made[name] = torch.from_numpy(np.where(valid, column[trials], padding))
    made["valid"] = torch.from_numpy(valid)
    if batch.memory.images is not None:
        made["image"] = torch.from_numpy(batch.memory.images)
    return made | ({"scale": dataset.scale} if dataset.raw else {})


def _describe_rows(source: SubjectsTrials, trials: np.ndarray) -> Sample:
    """What is said of rows of unequal length."""
    if source.form == LIST:
        return {_SHAPES: [source.find_shape(trial) if trial >= 0 else (0,) for trial in trials.tolist()]}
    return {"mask": torch.from_numpy(source.make_mask(trials))} if source.has_mask else {}


def split_betas(source: StoreTrials | SubjectsTrials, batch: Sample) -> Sample:
    """The batch with a list of tensors as its betas, each of its own shape, where that was asked for."""
    if isinstance(source, StoreTrials) or source.form != LIST:
        return batch
    shapes, betas = batch.pop(_SHAPES), batch["betas"]
    rows = [row.reshape(-1)[: int(np.prod(shape))].reshape(shape) for row, shape in zip(betas, shapes, strict=True)]
    return batch | {"betas": rows}
