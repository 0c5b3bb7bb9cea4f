"""What a store takes on disk, and what there is."""

from __future__ import annotations

import errno
import math
import os
from dataclasses import dataclass
from pathlib import Path

from nsd_zarr.conversion.settings import ImageSettings, Settings
from nsd_zarr.errors import DoesNotFit, NsdZarrError, StoreError
from nsd_zarr.layout import format_bytes
from nsd_zarr.places.choose import is_remote
from nsd_zarr.places.durable import explain_write_error
from nsd_zarr.places.free import FreeSpace, find_unwritable, is_read_only, read_free_space

EXPECTED_RATIO = {"lz4": 2.0, "zstd": 2.4, "lz4hc": 2.1, "blosclz": 1.7, "zlib": 2.2}
"""Compression to expect of int16 betas, a little below what realistic ones gave (lz4 2.02 to 2.07, zstd 2.56)."""
SMALL_FILES = 12
"""Files of a store beside its shards: the root, the metadata of betas and of the statistics, metadata and chunk of
each small array but the count of rails."""
SMALL_INODES = 35
"""Inodes of a store beside its shards: its small files and their folders, and the run beside it without
records: its folder, lock, sources and the copy of the root document."""
INODES_PER_FILE = 4
"""At most, of a file that an experiment brings: a chunk of a volume is in folders of its own."""
STATISTICS_PER_SESSION = 2
"""Volumes of each session: its mean and its standard deviation; as inodes of a shard each."""
IMAGE_FILES = 6
"""Files of a store of images beside its shards: the root, the metadata of three arrays, two chunks."""
INODES_PER_SHARD = 4
"""A shard of a volume is a file in three folders of its own: c/3/0/0/0."""


@dataclass(frozen=True, slots=True)
class SpacePlan:
    """Disk space and inodes."""

    expected_bytes: int
    """Bytes that sessions still to do will take, as far as that is known without reading them."""
    files: int
    """Files of the finished store."""
    inodes: int
    """Inodes that are still to be made, at most: files, folders, and the run beside the store."""
    free_bytes: int | None
    """Bytes free for this user where the store lies; None where nobody knows, behind a URL."""
    free_inodes: int | None
    """Inodes free there; None where the file system does not count them."""


def make_space_plan(store: Path, settings: Settings, sessions_left: int, experiment_files: int = 0) -> SpacePlan:
    """Compare what *sessions_left* sessions, and an experiment of so many files in the store, take with what is free.

    Raises DoesNotFit.
    """
    free = find_free_space(store)
    plan = SpacePlan(
        expect_bytes(settings, sessions_left),
        count_files(settings, experiment_files),
        count_inodes(settings, sessions_left, experiment_files),
        *_split(free),
    )
    check_space(plan, store, "--trials-per-shard")
    return plan


def expect_bytes(settings: Settings, sessions: int) -> int:
    """Bytes that *sessions* sessions will take in a store, as far as that is known without reading them."""
    geometry = settings.geometry
    ratio = EXPECTED_RATIO[settings.codec] if geometry.dtype == "int16" else 1.1
    ratio = ratio if settings.clevel else 1.0
    return math.ceil(sessions * geometry.trials_per_session * geometry.trial_bytes / ratio)


def count_files(settings: Settings, experiment_files: int = 0) -> int:
    """Files of the finished store."""
    geometry = settings.geometry
    small = SMALL_FILES + 2 * (geometry.dtype == "int16") + 4 * (geometry.vertices is not None)
    return geometry.shards + STATISTICS_PER_SESSION * len(geometry.sessions) + small + experiment_files


def count_inodes(settings: Settings, sessions_left: int, experiment_files: int = 0) -> int:
    """Inodes that a run makes at most which has *sessions_left* sessions to convert."""
    # Each session has a record in the run, too.
    per_session = (settings.geometry.shards_per_session + STATISTICS_PER_SESSION) * INODES_PER_SHARD + 1
    beside = SMALL_INODES + INODES_PER_FILE * experiment_files
    return sessions_left * per_session + beside if sessions_left else 0


def make_image_space_plan(store: Path, settings: ImageSettings, images_left: int) -> SpacePlan:
    """Compare what *images_left* images still to be stored take with what is free. Raises DoesNotFit."""
    geometry = settings.geometry
    free = find_free_space(store)
    left = -(-images_left // geometry.trials_per_shard)
    # Lossless, and some photographs do not shrink; see ImageSettings.blosc.
    inodes = left * (INODES_PER_SHARD + 1) + 2 * IMAGE_FILES if left else 0
    plan = SpacePlan(images_left * geometry.trial_bytes, geometry.shards + IMAGE_FILES, inodes, *_split(free))
    check_space(plan, store, "--images-per-shard")
    return plan


def find_free_space(store: Path) -> FreeSpace | None:
    """What is free where *store* lies; None behind a URL. Raises OSError."""
    return None if is_remote(store) else read_free_space(store)


def _split(free: FreeSpace | None) -> tuple[int | None, int | None]:
    return (None, None) if free is None else (free.bytes, free.inodes)


def check_space(plan: SpacePlan, store: Path, option: str) -> None:
    """Refuse what does not fit, or may not be written; *option* makes shards larger. Raises DoesNotFit, StoreError."""
    if is_remote(store):
        return
    if plan.inodes and (unwritable := find_unwritable(store)) is not None:
        raise _explain_unwritable(unwritable)
    if plan.free_inodes is not None and plan.free_inodes < plan.inodes:
        raise DoesNotFit(
            f"inodes: {plan.free_inodes} free, and the store needs {plan.inodes}",
            hint=f"Remove files, or make fewer and larger shards with {option}.",
            path=store,
            expected=plan.inodes,
            found=plan.free_inodes,
        )
    if plan.free_bytes is not None and plan.free_bytes < plan.expected_bytes:
        raise DoesNotFit(
            f"disk: {format_bytes(plan.free_bytes)} free, and about {format_bytes(plan.expected_bytes)} are needed",
            hint="Make room, put the store elsewhere, or compress harder with --codec zstd.",
            path=store,
            expected=plan.expected_bytes,
            found=plan.free_bytes,
        )


def _explain_unwritable(folder: Path) -> NsdZarrError:
    if is_read_only(folder):
        return explain_write_error(OSError(errno.EROFS, os.strerror(errno.EROFS)), folder)
    return StoreError(
        "this user may not write in the folder of the store",
        hint="Put the store elsewhere, or have the folder's permissions changed.",
        path=folder,
    )
