"""Batches on the device where a model is."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from nsd_zarr.loading.loader import LoaderStats

Sample = dict[str, Any]
Begun = TypeVar("Begun")


def to_percent(batch: Sample) -> Sample:
    """A batch (or sample) of counts, from raw=True, as float32 percent signal change, on the device where it is.

    Bit-equal to the host's division for all int16 codes.

    Parameters
    ----------
    batch
        A sample or batch with "betas", int16 counts, and "scale", counts in one percent.

    Returns
    -------
    dict
        A new one without "scale"; "betas" are float32, everything else is as it was.

    Raises
    ------
    KeyError
        For a batch without "scale": it was not read with raw=True.

    Examples
    --------
    >>> counts = TrialDataset("subj01.zarr", raw=True)[0]
    >>> counts["betas"].dtype, to_percent(counts)["betas"].dtype
    (torch.int16, torch.float32)
    """
    counts = batch["betas"]
    # A tensor on the device, not a number: by a number, CUDA multiplies with the reciprocal, which is not bit-equal.
    scale = torch.as_tensor(batch["scale"], dtype=torch.float32).reshape(-1)[:1].to(counts.device)
    percent = counts.to(torch.float32).div_(scale)
    return {name: value for name, value in batch.items() if name != "scale"} | {"betas": percent}


def move(batch: Sample, device: torch.device, *, non_blocking: bool = False) -> Sample:
    """A batch with its tensors on *device*; what is no tensor stays."""
    return {
        name: value.to(device, non_blocking=non_blocking) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }


class Copier(Protocol[Begun]):
    """Copies batches to a device while the host goes on."""

    def begin(self, batch: Sample) -> Begun:
        """Begin to copy *batch*, which must stay as it is until `finish`."""

    def finish(self, begun: Begun) -> Sample:
        """Wait for a copy. The host's memory is free again; the device's batch is the caller's own."""


@dataclass(frozen=True, slots=True)
class CudaCopy:
    """A copy on its way."""

    batch: Sample
    """Tensors on the device."""
    done: torch.cuda.Event
    """Recorded behind the last of them."""


class CudaCopier:
    """Copies from pinned memory on a stream of its own, so that kernels and the host run meanwhile."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def begin(self, batch: Sample) -> CudaCopy:
        """Queue the copies of *batch*: "betas" are pinned already, the small rest is pinned here.

        A copy from pageable memory would make the host wait for the device's queue.
        """
        pinned = {
            name: value.pin_memory() if isinstance(value, torch.Tensor) and not value.is_pinned() else value
            for name, value in batch.items()
        }
        with torch.cuda.stream(self.stream):
            moved = move(pinned, self.device, non_blocking=True)
            done = torch.cuda.Event()
            done.record(self.stream)
        return CudaCopy(moved, done)

    def finish(self, begun: CudaCopy) -> Sample:
        """Wait for the copies. The memory goes back only when the consumer's stream has done with it."""
        begun.done.synchronize()
        for value in begun.batch.values():
            if isinstance(value, torch.Tensor):
                value.record_stream(torch.cuda.current_stream(self.device))
        return begun.batch


def copy_ahead(
    batches: Generator[Sample, None, None], copier: Copier[Any], stats: LoaderStats
) -> Generator[Sample, None, None]:
    """Each of *batches* on the device, the copy of the next one under way while one is used.

    Each of *batches* is valid until the next one is asked for; so its copy is finished before that.
    """
    with closing(batches):
        begun = _begin_next(batches, copier, stats)
        while begun is not None:
            started = time.perf_counter()
            ready = copier.finish(begun)
            stats.copy_seconds += time.perf_counter() - started
            begun = _begin_next(batches, copier, stats)
            try:
                yield ready
            except GeneratorExit:
                if begun is not None:
                    copier.finish(begun)  # Before the host's memory is let go.
                raise


def _begin_next(batches: Generator[Sample, None, None], copier: Copier[Any], stats: LoaderStats) -> Any:
    batch = next(batches, None)
    if batch is None:
        return None
    started = time.perf_counter()
    begun = copier.begin(batch)
    stats.copy_seconds += time.perf_counter() - started
    return begun
