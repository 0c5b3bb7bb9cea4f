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
from typing import Any, Unpack

import numpy as np

from nsd_zarr.config import make_config
from nsd_zarr.conversion.contents import Contents, SmallArray
from nsd_zarr.conversion.events import Listener, ignore_event
from nsd_zarr.conversion.finish import make_attributes, make_root, make_sources, write_while_held
from nsd_zarr.conversion.image_plan import make_image_plan
from nsd_zarr.conversion.ledger import SessionRecord
from nsd_zarr.conversion.lock import HeldLock, check_free, hold_lock
from nsd_zarr.conversion.plan import Plan
from nsd_zarr.conversion.resume import TargetState
from nsd_zarr.conversion.root_copy import write_root
from nsd_zarr.conversion.run import carry_out
from nsd_zarr.conversion.settings import ImageSettings
from nsd_zarr.layout import IMAGES
from nsd_zarr.nsd import IMAGES_DATASET
from nsd_zarr.options import ImagesOptions, SubjectWords, check_options
from nsd_zarr.places.choose import make_path
from nsd_zarr.progress import draw_progress
from nsd_zarr.store.attributes import COMPLETE
from nsd_zarr.store.format import NSD_ID, STIMULUS_ID, make_shard_key
from nsd_zarr.store.root import open_store
from nsd_zarr.tasks import explain_lack_of_threads

_ABOUT_IDS = {
    NSD_ID: "0-based 73k id (73KID - 1), the row of the stimulus file",
    STIMULUS_ID: "image among the 284 of nsdsynthetic, counted from 0 (masterordering - 1)",
}
"""`long_name` of the array of the images' ids."""


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


@explain_lack_of_threads()
def convert_images(
    source: str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    subject: int | None = None,
    subjects: SubjectWords | None = None,
    trial_table: str | os.PathLike[str] | None = None,
    dataset: str = IMAGES_DATASET,
    images_per_shard: int | None = None,
    experiment: str | None = None,
    on_event: Listener = ignore_event,
    progress: bool = False,
    **options: Unpack[ImagesOptions],
) -> ImagesReport:
    """Convert stimulus images to a Zarr store with one image a chunk; go on where an interrupted run was.

    The store holds `images`, uint8 (image, row, column, channel), lossless; `nsd_id`, the 0-based 73k id of each,
    ascending (of nsdsynthetic `stimulus_id`, as its betas have it); `image_digest`. A finished store is left as it is.

    Parameters
    ----------
    source
        nsd_stimuli.hdf5, nsdsynthetic_stimuli.hdf5, or an NSD root.
    store
        The store's folder, made here.
    subject
        From 1: only the images that it saw, by its trial table in the NSD root, or by *trial_table*. Without both,
        all images. Of nsdsynthetic: the 220 images that all subjects saw, and with *subject* the 64 in its colors.
    subjects
        The images that any of these subjects saw ("1-8", [1, 2, 5, 7]).
    trial_table
        responses.tsv of the subject.
    dataset
        Name in the file; uint8 (image, row, column, 3) RGB, row = 0-based 73k id. No chunk of it is read twice.
    images_per_shard
        Images in a shard; None for up to 128 MiB.
    experiment
        "nsd" or "nsdsynthetic": whose images, of an NSD root. Default: as the file's name says, else "nsd".
    on_event
        Called with RunStarted, TrialsRead, TrialsDone and SessionDone, from any thread; a block of images is a
        session there.
    progress
        Whether to draw a bar, in a notebook or on standard error: by tqdm where it is installed, else by rich.
    **options
        See ImagesOptions.

    Returns
    -------
    ImagesReport
        What this call did; no blocks where the store was finished.

    Raises
    ------
    ConfigError, SourceError, StoreError, ResumeRefused, DoesNotFit
        After any of them, and after a kill, the same call goes on.

    Examples
    --------
    >>> report = nsd_zarr.convert_images("nsd", "images.zarr")
    >>> report.images, report.shape
    (73000, (8, 8, 3))
    """
    named = ("subject", "subjects", "trial_table", "dataset", "images_per_shard", "experiment", "on_event", "progress")
    check_options("convert_images", options, ImagesOptions, others=named)
    started = time.perf_counter()
    table = None if trial_table is None else Path(trial_table)
    config = make_config(None, subject=subject, subjects=subjects, trial_table=table, dataset=dataset, **options)
    path = make_path(store, config.access)
    check_free(path)
    plan = make_image_plan(Path(source), path, config, images_per_shard, experiment)
    done = 0
    if plan.progress.state is not TargetState.FINISHED or plan.doubtful:
        with hold_lock(path) as lock:
            # Once more: another run may have come between the plan and the lock.
            plan = make_image_plan(Path(source), path, config, images_per_shard, experiment)
            with draw_progress(progress, on_event, IMAGES) as listen:
                done = len(carry_out(plan, lock, listen, finish_images))
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


def finish_images(plan: Plan, records: Sequence[SessionRecord], lock: HeldLock) -> None:
    """Write what lies beside the shards, then the root with manifest and status `complete`, after a copy of it.

    Depends on plan and records alone, so that it may be done again after any interruption.
    """
    assert isinstance(plan.settings, ImageSettings)
    contents = Contents(partial(write_while_held, plan.store, lock))
    root = lay_out_images(contents, plan.settings, records, plan.image_ids)
    write_root(plan.store, root, lock)


def lay_out_images(
    contents: Contents, settings: ImageSettings, records: Sequence[SessionRecord], ids: Sequence[int]
) -> bytes:
    """Every file of a finished store of images: all but shards are given to *contents*, the root is returned."""
    contents.add_metadata(IMAGES.array, settings.make_metadata())
    for record in records:
        contents.add_files(record.shards)
    digests = [digest for record in records for digest in record.trial_digests]
    about = _ABOUT_IDS[settings.id_array]
    hashed = "xxh3-128 of the image's values (C order), hexadecimal"
    arrays = [
        SmallArray(settings.id_array, np.array(ids, np.int32), (IMAGES.item,), {"long_name": about}),
        SmallArray(IMAGES.digests, np.array(digests, np.str_), (IMAGES.item,), {"long_name": hashed}),
    ]
    contents.add_arrays(arrays, settings.blosc)
    sources = make_sources(settings, records)
    return make_root(make_attributes(settings, COMPLETE) | {"sources": sources}, contents)
