"""What a conversion of stimulus images will do, found out by reading metadata and the trial table only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nsd_zarr.config import Config
from nsd_zarr.conversion.experiment.files import ExperimentReport
from nsd_zarr.conversion.memory import MemoryPlan, make_image_memory_plan
from nsd_zarr.conversion.plan import Plan
from nsd_zarr.conversion.resume import find_progress
from nsd_zarr.conversion.settings import ImageSettings
from nsd_zarr.conversion.space import make_image_space_plan
from nsd_zarr.conversion.subjects.choice import check_options_of_several, choose_one
from nsd_zarr.errors import ConfigError
from nsd_zarr.image_sets import NSDSYNTHETIC
from nsd_zarr.layout import Geometry, choose_images_per_shard
from nsd_zarr.source.bounded import MAX_TABLE_BYTES, read_whole
from nsd_zarr.source.images import make_blocks, share_chunks
from nsd_zarr.source.protocol import SourcePart
from nsd_zarr.source.stimuli import StimulusInfo, choose_experiment, find_files, find_trial_table
from nsd_zarr.source.trial_table import parse_trial_table
from nsd_zarr.store.digest import make_digest

ALL = "all"
"""Settings' selection of a store of all images."""


def make_image_plan(
    source: Path, store: Path, config: Config, images_per_shard: int | None = None, experiment: str | None = None
) -> Plan:
    """Plan a conversion of images. Reads metadata and the trial table; writes nothing.

    *experiment*: whose images, where the names of the files do not say it.

    Raises SourceError, ConfigError, StoreError, ResumeRefused or DoesNotFit where it could not run to its end.
    """
    chosen = choose_experiment(source, experiment)
    files = find_files(source, chosen, config.subject, config.dataset)
    ids = find_wanted(files, config)
    settings = _make_settings(files, ids, config, images_per_shard)
    blocks = make_blocks(files, ids, settings.images_per_shard)
    progress = find_progress(store, settings, blocks, fresh=config.fresh)
    pending = [block for block in blocks if block.session not in progress.done - progress.doubtful]
    shared = {block.session: block for block in share_chunks(pending)}
    left = sum(block.trials for block in blocks if block.session not in progress.done)
    return Plan(
        store=store,
        settings=settings,
        sources=tuple(shared.get(block.session, block) for block in blocks),
        progress=progress,
        memory=plan_block_memory(settings.geometry, blocks[0], max(1, len(pending)), config),
        space=make_image_space_plan(store, settings, left),
        scheduler="threads",
        fresh=config.fresh,
        worker_memory_bytes=None,
        experiment=None,
        experiment_report=ExperimentReport(),
        image_ids=ids,
    )


def plan_block_memory(geometry: Geometry, block: SourcePart, blocks: int, config: Config) -> MemoryPlan:
    """How *blocks* blocks such as *block* are read side by side. Raises DoesNotFit."""
    limit, chunk_images = config.effective_memory, block.chunk_bytes // block.trial_bytes
    return make_image_memory_plan(geometry, chunk_images, blocks, config.effective_workers, limit)


def find_wanted(files: Sequence[StimulusInfo], config: Config) -> Sequence[int]:
    """0-based ids, ascending, that the configuration means: all of the files, or those that subjects saw."""
    file = files[0]
    if file.experiment == NSDSYNTHETIC:
        if config.subjects is not None or config.trial_table is not None:
            raise ConfigError(
                "of nsdsynthetic each subject saw all images, some of them in its own colors",
                hint="Make a store for each subject: --subject N.",
            )
        return range(files[-1].last + 1)
    if config.subjects is not None:
        check_options_of_several(config)
        each = (find_wanted(files, choose_one(config, subject)) for subject in config.subjects)
        return tuple(sorted({number for ids in each for number in ids}))
    if config.subject is None and config.trial_table is None:
        return range(file.shape[0])
    path = config.trial_table or find_trial_table(file.path, config.subject or 0)
    table = parse_trial_table(read_whole(path, MAX_TABLE_BYTES), path)
    if config.subject not in (None, table.subject):
        raise ConfigError(
            f"subject {config.subject}, and a trial table of subject {table.subject}",
            hint="Leave out --subject, or name the table of that subject.",
            path=path,
            expected=config.subject,
            found=table.subject,
        )
    return tuple((np.unique(table.count("73KID")) - 1).tolist())


def _make_settings(
    files: Sequence[StimulusInfo], ids: Sequence[int], config: Config, images_per_shard: int | None
) -> ImageSettings:
    file, is_synthetic = files[0], files[0].experiment == NSDSYNTHETIC
    if images_per_shard is not None and images_per_shard < 1:
        raise ConfigError(f"images_per_shard = {images_per_shard}", hint="Give a number from 1.")
    chosen = images_per_shard or choose_images_per_shard(len(ids), file.image_bytes, file.chunk_images)
    if len(files) > 1:
        chosen = _fit_files(files, chosen, images_per_shard)
    return ImageSettings(
        dataset=config.dataset,
        selection=ALL if isinstance(ids, range) else make_digest(np.array(ids, "<i4")),
        images_per_shard=min(chosen, len(ids)),
        codec=config.codec,
        clevel=config.effective_clevel,
        shape=(len(ids), *file.shape[1:]),
        experiment=file.experiment if is_synthetic else None,
        subject=config.subject if is_synthetic else None,
    )


def _fit_files(files: Sequence[StimulusInfo], chosen: int, asked: int | None) -> int:
    """At most *chosen* images a shard, so that no shard has images of two files. Raises ConfigError."""
    first = files[1].first
    if asked is not None and first % asked:
        raise ConfigError(
            f"images_per_shard = {asked}, and image {first} begins another file",
            hint=f"Give a divisor of {first}.",
            found=asked,
        )
    return max(number for number in range(1, min(chosen, first) + 1) if first % number == 0)
