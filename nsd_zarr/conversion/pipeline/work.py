"""What there is to do in a run: one session a unit, and in which passes over its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nsd_zarr.conversion.events import Listener, RunStarted
from nsd_zarr.conversion.settings import AnySettings
from nsd_zarr.source.protocol import SourcePart
from nsd_zarr.store.format import make_shard_key
from nsd_zarr.store.record import ShardRecord


@dataclass(frozen=True, slots=True)
class Unit:
    """One session to convert, or to compare with what was recorded. Picklable: travels to where it is done."""

    store: Path
    """The store's folder; must exist."""
    settings: AnySettings
    """What affects values or bytes."""
    source: SourcePart
    """The session, or the block of images."""
    trials_per_pass: int
    """Trials held at a time; whole shards."""
    threads: int
    """Threads that read and compress."""
    expected_digests: tuple[str, ...] = ()
    """Compare these with the source's trials instead of writing; empty: convert."""
    shards: tuple[ShardRecord, ...] = ()
    """Of a finished store: compare or write just these, as they were recorded; empty: all, and record them."""

    @property
    def wanted(self) -> list[int]:
        """Numbers of the shards that are compared or written, ascending."""
        geometry, keys = self.settings.geometry, {shard.key for shard in self.shards}
        numbers = geometry.session_shards(self.source.session)
        return [number for number in numbers if not keys or make_shard_key(geometry, number) in keys]

    @property
    def threads_beside_reading(self) -> int:
        """Threads that compress. One that unpacks a stream keeps a core busy: more of them would take that from it."""
        is_unpacked = self.source.in_order and not self.source.by_offset
        return max(1, self.threads - is_unpacked)

    @property
    def block_shape(self) -> tuple[int, int, int]:
        """Shape of what is read at a time: (shard, trial, voxel)."""
        geometry = self.settings.geometry
        return self.trials_per_pass // geometry.trials_per_shard, geometry.trials_per_shard, geometry.voxels

    @property
    def passes(self) -> list[tuple[list[int], range]]:
        """What is read at a time: numbers of wanted shards, and trials (in the session) from the first to the last."""
        geometry, wanted, passes = self.settings.geometry, self.wanted, []
        first = geometry.session_shards(self.source.session).start
        most = self.trials_per_pass // geometry.trials_per_shard
        while wanted:
            numbers = [number for number in wanted if number < wanted[0] + most]
            start, stop = (geometry.trials_per_shard * (place - first) for place in (numbers[0], numbers[-1] + 1))
            # The last shard of a store of images may be short.
            passes.append((numbers, range(start, min(stop, self.source.trials))))
            wanted = wanted[len(numbers) :]
        return passes


def announce(step: str, units: Sequence[Unit], listen: Listener, finished: int = 0) -> None:
    """Report what *units* are going to read and do."""
    trials = sum(len(unit.settings.geometry.shard_trials(number)) for unit in units for number in unit.wanted)
    # Of a cluster's units the passes are made by the workers; a whole session is read once, however many these are.
    reads = sum(sum(len(trials) for _, trials in unit.passes) if unit.shards else unit.source.trials for unit in units)
    trial_bytes = units[0].settings.geometry.trial_bytes if units else 0
    listen(RunStarted(len(units), trials, trial_bytes, finished, reads, step))
