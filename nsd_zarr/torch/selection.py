"""What a loader is given: a TrialDataset, or parts of one as torch makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset, Subset

from nsd_zarr.errors import ConfigError
from nsd_zarr.torch.dataset import TrialDataset

_PARTS = (
    "Give trials= to TrialDataset for parts of a store; of several subjects make one store (convert --subjects) and "
    "give subjects=; for other stores make a loader each, or use DataLoader."
)


@dataclass(frozen=True, slots=True)
class Selection:
    """Trials of one TrialDataset."""

    dataset: TrialDataset
    """What reads them."""
    trials: np.ndarray | None
    """Trial in the store of each sample, int64; None for all trials of the store."""

    @property
    def numbers(self) -> np.ndarray:
        """Trial in the store of each sample, int64."""
        return np.arange(len(self)) if self.trials is None else self.trials

    def __len__(self) -> int:
        return len(self.dataset) if self.trials is None else len(self.trials)


def find_selection(given: Any) -> Selection:
    """The trials of *given*: a TrialDataset, a Subset (random_split makes them), a ConcatDataset of parts of one store.

    Raises ConfigError for anything else, and for a dataset whose samples a loader of batches would not make as it does.
    """
    if isinstance(given, Subset):
        whole = find_selection(given.dataset)
        return Selection(whole.dataset, whole.numbers[np.asarray(given.indices, np.int64)])
    if isinstance(given, ConcatDataset):
        return _join([find_selection(part) for part in given.datasets])
    if not isinstance(given, TrialDataset):
        raise ConfigError(
            f"TrialLoader was given a {type(given).__name__}, expected a TrialDataset, or a Subset or ConcatDataset of "
            "TrialDatasets",
            hint="It reads trials of a store by itself. Use torch.utils.data.DataLoader for datasets of other kinds.",
        )
    _check_samples(given)
    return Selection(given, given.selection)


def _join(parts: list[Selection]) -> Selection:
    first = _describe(parts[0].dataset)
    if any(_describe(part.dataset) != first for part in parts):
        raise ConfigError("TrialLoader was given a ConcatDataset of different stores or options", hint=_PARTS)
    return Selection(parts[0].dataset, np.concatenate([part.numbers for part in parts]))


def _describe(dataset: TrialDataset) -> tuple[Any, ...]:
    """What decides the values of a sample, beside its trial."""
    source, images = dataset.source, dataset.images
    shown = "" if images is None else images.images.fingerprint
    return source.location, source.fingerprint, dataset.raw, dataset.dtype, source.describe(), shown


def _check_samples(dataset: TrialDataset) -> None:
    kind = type(dataset)
    changed = [
        name for name in ("__getitem__", "__getitems__") if getattr(kind, name) is not getattr(TrialDataset, name)
    ]
    if dataset.transform is not None or changed:
        what = "has a transform" if dataset.transform is not None else f"overrides {changed[0]}"
        raise ConfigError(
            f"the {kind.__name__} {what}, but TrialLoader makes batches without making samples first",
            hint="Apply it to each batch in the loop, or use torch.utils.data.DataLoader, which calls it for each "
            "sample.",
        )
