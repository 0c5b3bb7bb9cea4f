"""How much memory a run takes: by its configuration, and by what the page cache holds of its sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nsd_zarr.buffers import BufferPool
from nsd_zarr.config import Config, is_cluster
from nsd_zarr.conversion.memory import (
    EXPERIMENT_BYTES,
    FEW_SESSIONS,
    MemoryPlan,
    Need,
    hold_less,
    make_memory_plan,
    make_need,
    make_worker_plan,
)
from nsd_zarr.conversion.settings import Settings
from nsd_zarr.places.choose import is_remote
from nsd_zarr.places.page_cache import is_file_cached
from nsd_zarr.source.protocol import SourcePart

OnMemory = Callable[[Settings, MemoryPlan], None]
"""Is told how much is held at a time, as soon as that is known."""


def ignore_memory(settings: Settings, memory: MemoryPlan) -> None:
    """Prepare nothing."""


def plan_memory(
    settings: Settings,
    sources: Sequence[SourcePart],
    todo: Sequence[SourcePart],
    config: Config,
    has_experiment: bool,
    store: Path,
) -> tuple[MemoryPlan, Need]:
    """How sessions share threads and memory, where *todo* of the *sources* are left to do. Raises DoesNotFit."""
    need = make_need(settings.geometry, sources, EXPERIMENT_BYTES * has_experiment, store)
    if is_cluster(config.scheduler):
        # Each worker plans by its own limits; without --memory this says what one pass takes there.
        return make_worker_plan(need, config.effective_workers, config.memory), need
    memory = make_memory_plan(need, max(1, len(todo)), config.effective_workers, config.effective_memory)
    if len(todo) <= FEW_SESSIONS and all(map(_is_cached, todo)):
        memory = hold_less(memory, need)
    return memory, need


def touch_block(blocks: BufferPool, config: Config, settings: Settings, memory: MemoryPlan) -> None:
    """Take memory for the first block, where it is filled in this process: planning leaves a core to do it."""
    if not is_cluster(config.scheduler):
        blocks.begin_touching((memory.trials_per_pass, settings.geometry.voxels), settings.dtype)


def _is_cached(info: SourcePart) -> bool:
    return not is_remote(info.path) and is_file_cached(info.path, unknown=False)
