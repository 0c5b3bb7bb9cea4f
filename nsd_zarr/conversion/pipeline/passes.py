"""Sessions whose file holds one voxel after the other: as many trials at a time as were planned, pass by pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor

import numpy as np

from nsd_zarr.conversion.context import RunContext
from nsd_zarr.conversion.events import ReadCounter
from nsd_zarr.conversion.pipeline.work import Unit
from nsd_zarr.errors import ResumeRefused
from nsd_zarr.source.protocol import OnRows, PartReader
from nsd_zarr.store.digest import make_digest
from nsd_zarr.tasks import map_all


def compare_session(unit: Unit, reader: PartReader, executor: Executor, context: RunContext) -> None:
    """Compare each trial's values with the digest that was recorded. Raises ResumeRefused, naming the first."""
    found = digest_session(unit, reader, executor, context)
    differing = [trial for trial, digest in found.items() if digest != unit.expected_digests[trial]]
    if differing:
        raise ResumeRefused(
            f"the source changed since it was converted: {unit.source.describe_trial(differing[0])} and "
            f"{len(differing) - 1} others of {len(found)} have other values",
            hint=f"Put the former file back, or replace it in a finished one: --replace-session {unit.source.session}.",
            path=unit.source.path,
            session=unit.source.error_session,
        )


def digest_session(unit: Unit, reader: PartReader, executor: Executor, context: RunContext) -> dict[int, str]:
    """Digest of the values of each trial that is wanted, by its place in the session."""
    geometry = unit.settings.geometry
    found: dict[int, str] = {}
    first = geometry.first_trial(unit.source.session)

    def digest(values: np.ndarray) -> str:
        context.count_trial()
        return make_digest(values)

    for numbers, span in read_passes(unit, reader, executor, context):
        trials = [trial - first for number in numbers for trial in geometry.shard_trials(number)]
        values = [trial for part in choose_shards(unit, span, numbers) for trial in part]
        found |= dict(zip(trials, map_all(executor, digest, values), strict=True))
    return found


def read_passes(
    unit: Unit,
    reader: PartReader,
    executor: Executor,
    context: RunContext,
    on_rows: OnRows | None = None,
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Numbers of wanted shards, and the trials from the first to the last: as many at a time as were planned.

    Of shape (shard, trial, voxel), in a block that the next ones use again. *on_rows* is given every row once, whole.
    """
    geometry, passes = unit.settings.geometry, unit.passes
    counter = ReadCounter(geometry.voxels, context.listen)
    with context.blocks.borrow(unit.block_shape, unit.source.dtype) as block:
        for numbers, trials in passes:
            span = block[: numbers[-1] - numbers[0] + 1]
            rows = span.reshape(-1, geometry.voxels)[: len(trials)]
            reader.read_into(trials, rows, executor, context.check_stop, on_rows, counter.add)
            on_rows = None
            if numbers[-1] == passes[-1][0][-1]:
                context.opener.begin_next(unit.source, context.trial_cache, context.read_ahead, context.check_stop)
            yield numbers, span


def choose_shards(unit: Unit, span: np.ndarray, numbers: Sequence[int]) -> list[np.ndarray]:
    """Of the shards in *span* those of *numbers*, of which it begins with the first."""
    geometry = unit.settings.geometry
    return [span[number - numbers[0], : len(geometry.shard_trials(number))] for number in numbers]
