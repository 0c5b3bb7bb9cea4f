"""Converting stimulus images to a store of their own: planned, carried out and finished by the machinery of betas.

A block of images is what a session is of betas: a unit of work with one record. Each block is one shard.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nsd_zarr.config import Config, make_config
from nsd_zarr.conversion.arrays import Contents, SmallArray
from nsd_zarr.conversion.events import Listener, ignore_event
from nsd_zarr.conversion.experiment import ExperimentReport
from nsd_zarr.conversion.finish import make_attributes, make_root, make_sources, remove_strays
from nsd_zarr.conversion.ledger import SessionRecord
from nsd_zarr.conversion.lock import check_free, hold_lock
from nsd_zarr.conversion.memory import MemoryPlan, make_image_memory_plan, read_available_memory
from nsd_zarr.conversion.plan import Plan, SourceWords, as_words
from nsd_zarr.conversion.run import carry_out
from nsd_zarr.conversion.settings import ImageSettings
from nsd_zarr.conversion.space import make_image_space_plan
from nsd_zarr.conversion.target import TargetState, find_progress
from nsd_zarr.errors import ConfigError, DamageFound, SourceError
from nsd_zarr.layout import IMAGES, Geometry, SessionNumber, choose_images_per_shard
from nsd_zarr.source.stimuli import (
    DATASET,
    ImageBlock,
    StimulusInfo,
    find_stimuli,
    find_trial_table,
    inspect_stimuli,
    make_blocks,
    share_chunks,
)
from nsd_zarr.source.trial_table import parse_trial_table
from nsd_zarr.source.volume import read_whole
from nsd_zarr.store.digest import make_digest
from nsd_zarr.store.durable import write_durably
from nsd_zarr.store.format import METADATA_NAME, NSD_ID, make_shard_key
from nsd_zarr.store.root import COMPLETE, Store, open_store
from nsd_zarr.store.small import read_array
from nsd_zarr.store.volume import write_file

ALL = "all"
"""Settings' selection of a store of all images."""


@dataclass(frozen=True, slots=True)
class ImagesReport:
    """What a conversion of images did.

    >>> report = nsd_zarr.convert_images("nsd", "images.zarr", subject=1)
    >>> report.images == len(set(nsd_zarr.open_dataset("subj01.zarr").nsd_id.values))
    True
    """

    store: Path
    """The store's folder; complete."""
    images: int
    """Images in the store."""
    shape: tuple[int, ...]
    """Shape of one image, (row, column, channel)."""
    blocks: int
    """Blocks that this run converted or read again; 0 when there was nothing to do."""
    finished_before: int
    """Blocks that an earlier run had finished."""
    bytes_in: int
    """Decoded bytes of all images."""
    bytes_out: int
    """Bytes of the shards."""
    seconds: float
    """Wall time of this run."""

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON, for --json."""
        return asdict(self) | {"store": str(self.store)}


def convert_images(
    source: str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    subject: int | None = None,
    trial_table: str | os.PathLike[str] | None = None,
    dataset: str = DATASET,
    images_per_shard: int | None = None,
    on_event: Listener = ignore_event,
    **options: Any,
) -> ImagesReport:
    """Convert stimulus images to a Zarr store with one image a chunk; go on where an interrupted run was.

    *source*: nsd_stimuli.hdf5, or an NSD root. *store*: the store's folder, made here. *subject* (from 1): only the
    images that it saw, by its trial table in the NSD root, or by *trial_table* (responses.tsv); without both, all
    images. *dataset*: in the file, uint8 (image, row, column, 3) RGB, row = 0-based 73k id, whatever its chunking: no
    chunk is read twice. *images_per_shard*: None for up to 128 MiB. *options*: codec, clevel, workers, memory, fresh.

    The store holds `images`, uint8 (image, row, column, channel), lossless; `nsd_id`, the 0-based 73k id of each,
    ascending; `image_digest`. A finished store is left as it is. Raises ConfigError, SourceError, StoreError,
    ResumeRefused, DoesNotFit; after any of them, and after a kill, the same call goes on.

    >>> report = nsd_zarr.convert_images("nsd", "images.zarr")
    >>> report.images, report.shape
    (73000, (8, 8, 3))
    """
    started, path = time.perf_counter(), Path(os.path.abspath(store))
    table = None if trial_table is None else Path(trial_table)
    config = make_config(None, subject=subject, trial_table=table, dataset=dataset, **options)
    check_free(path)
    plan = make_image_plan(Path(source), path, config, images_per_shard)
    done = 0
    if plan.progress.state is not TargetState.FINISHED or plan.doubtful:
        with hold_lock(path):
            # Once more: another run may have come between the plan and the lock.
            plan = make_image_plan(Path(source), path, config, images_per_shard)
            done = len(carry_out(plan, on_event, finish_images))
    geometry, manifest = plan.settings.geometry, open_store(path, kind=IMAGES).manifest
    return ImagesReport(
        store=path,
        images=geometry.trials,
        shape=geometry.volume_shape,
        blocks=done,
        finished_before=len(plan.progress.done - plan.progress.doubtful),
        bytes_in=geometry.trials * geometry.trial_bytes,
        bytes_out=sum(manifest[make_shard_key(geometry, shard)].size for shard in range(geometry.shards)),
        seconds=time.perf_counter() - started,
    )


# -- the plan ----------------------------------------------------------------------------------------------------


def make_image_plan(source: Path, store: Path, config: Config, images_per_shard: int | None = None) -> Plan:
    """Plan a conversion of images. Reads metadata and the trial table; writes nothing.

    Raises SourceError, ConfigError, StoreError, ResumeRefused or DoesNotFit where it could not run to its end.
    """
    file = inspect_stimuli(find_stimuli(source), config.dataset)
    ids = find_wanted(file, config)
    settings = _make_settings(file, ids, config, images_per_shard)
    blocks = make_blocks(file, ids, settings.images_per_shard)
    progress = find_progress(store, settings, blocks, fresh=config.fresh)
    pending = [block for block in blocks if block.session not in progress.done - progress.doubtful]
    shared = {block.session: block for block in share_chunks(pending)}
    left = sum(block.trials for block in blocks if block.session not in progress.done)
    return Plan(
        store=store,
        settings=settings,
        sources=tuple(shared.get(block.session, block) for block in blocks),
        progress=progress,
        memory=plan_block_memory(settings.geometry, file, max(1, len(pending)), config),
        space=make_image_space_plan(store, settings, left),
        scheduler="threads",
        fresh=config.fresh,
        experiment=None,
        experiment_report=ExperimentReport(),
    )


def plan_block_memory(geometry: Geometry, file: StimulusInfo, blocks: int, config: Config) -> MemoryPlan:
    """How *blocks* blocks are read side by side. Raises DoesNotFit."""
    limit = int(config.memory) if config.memory is not None else read_available_memory() // 2
    return make_image_memory_plan(geometry, file.chunk_images, blocks, config.effective_workers, limit)


def find_wanted(file: StimulusInfo, config: Config) -> Sequence[int]:
    """0-based 73k ids, ascending, that the configuration means: all of the file, or those that a subject saw."""
    if config.subject is None and config.trial_table is None:
        return range(file.shape[0])
    path = config.trial_table or find_trial_table(file.path, config.subject or 0)
    table = parse_trial_table(read_whole(path), path)
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
    file: StimulusInfo, ids: Sequence[int], config: Config, images_per_shard: int | None
) -> ImageSettings:
    if images_per_shard is not None and images_per_shard < 1:
        raise ConfigError(f"images_per_shard = {images_per_shard}", hint="Give a number from 1.")
    chosen = images_per_shard or choose_images_per_shard(len(ids), file.image_bytes, file.chunk_images)
    return ImageSettings(
        dataset=config.dataset,
        selection=ALL if isinstance(ids, range) else make_digest(np.array(ids, "<i4")),
        images_per_shard=min(chosen, len(ids)),
        codec=config.codec,
        clevel=config.effective_clevel,
        shape=(len(ids), *file.shape[1:]),
    )


# -- a finished store -------------------------------------------------------------------------------------------


def find_blocks(
    store: Store, source: SourceWords, config: Config, numbers: Sequence[SessionNumber]
) -> Sequence[ImageBlock]:
    """Blocks *numbers* of a store of images, in the stimulus file that *source* means. Raises SourceError."""
    file = _inspect_source(store, source)
    blocks = make_blocks(file, find_ids(store, source, config), store.geometry.trials_per_shard)
    return [block for block in blocks if block.session in numbers]


def _inspect_source(store: Store, source: SourceWords) -> StimulusInfo:
    words, shape = as_words(source), store.geometry.volume_shape
    file = inspect_stimuli(find_stimuli(Path(words[0])), store.attributes["settings"]["dataset"])
    if file.shape[1:] != shape or len(words) > 1:
        raise SourceError(
            f"images of shape {file.shape[1:]} in {len(words)} files, expected one file with images of {shape} as "
            "stored",
            hint="Give the stimulus file from which this store was made.",
            path=file.path,
            expected=shape,
            found=file.shape[1:],
        )
    return file


def find_ids(store: Store, source: SourceWords, config: Config) -> Sequence[int]:
    """0-based 73k ids of a store's images; where it has lost them, as *config* selects them of *source* once more.

    Raises SourceError, ConfigError, and DamageFound where nothing tells them.
    """
    try:
        return tuple(read_array(store, NSD_ID).tolist())
    except DamageFound:
        selection = store.attributes["settings"]["selection"]
        if selection == ALL:
            return range(store.geometry.trials)
        wanted = find_wanted(_inspect_source(store, source), config)
        if make_digest(np.array(wanted, "<i4")) != selection:
            raise
        return wanted


# -- the end -----------------------------------------------------------------------------------------------------


def finish_images(plan: Plan, records: Sequence[SessionRecord]) -> None:
    """Write what lies beside the shards, then the root with manifest and status `complete`: the last write of all.

    Depends on plan and records alone, so that it may be done again after any interruption.
    """
    assert isinstance(plan.settings, ImageSettings)
    contents = Contents(partial(write_file, plan.store))
    ids = [number for block in plan.sources if isinstance(block, ImageBlock) for number in block.ids]
    root = lay_out_images(contents, plan.settings, records, ids)
    write_durably(plan.store / METADATA_NAME, root)
    remove_strays(plan.store, contents.members)


def lay_out_images(
    contents: Contents, settings: ImageSettings, records: Sequence[SessionRecord], ids: Sequence[int]
) -> bytes:
    """Every file of a finished store of images: all but shards are given to *contents*, the root is returned."""
    contents.add_metadata(IMAGES.array, settings.make_metadata())
    for record in records:
        contents.add_shards(record.shards)
    digests = [digest for record in records for digest in record.trial_digests]
    about = "0-based 73k id (73KID - 1), the row of the stimulus file"
    hashed = "xxh3-128 of the image's values (C order), hexadecimal"
    arrays = [
        SmallArray(NSD_ID, np.array(ids, np.int32), (IMAGES.item,), {"long_name": about}),
        SmallArray(IMAGES.digests, np.array(digests, np.str_), (IMAGES.item,), {"long_name": hashed}),
    ]
    contents.add_arrays(arrays, settings.blosc)
    sources = make_sources(settings, records)
    return make_root(make_attributes(settings, COMPLETE) | {"sources": sources}, contents)
