"""The options of the public functions, typed: a function takes those that it uses, and refuses the rest.

What a value has to look like is checked in `config`; here are the names and what a type checker may hold users to.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from nsd_zarr.errors import ConfigError

AnyPath = str | os.PathLike[str]
SourceWords = AnyPath | Sequence[AnyPath]
"""A folder with session files, an NSD root, a glob, or a list of files."""
SessionWords = int | str | Iterable[int]
"""A session number, text such as "1-3,5", or numbers."""

SubjectWords = int | str | Iterable[int]
"""A subject number, text such as "1-8" or "1,2,5,7", or numbers."""


class RemoteOptions(TypedDict, total=False):
    """How URLs are reached, of sources and of the store. Default: as the environment says."""

    profile: str | None
    """Profile of ~/.aws."""
    anonymous: bool | None
    """Without credentials: a public bucket."""
    endpoint_url: str | None
    """A server of one's own."""
    region: str | None
    """Region of the bucket."""
    storage_options: Mapping[str, Any] | None
    """As pandas and xarray take them; of one URL under its name. Wins over those above."""
    scratch: AnyPath | None
    """Folder for session files that are fetched. Default: memory where they fit, else the system's own."""


class SourceOptions(TypedDict, total=False):
    """Which betas are meant below an NSD root. Every option here and below may be None: as if it were not given."""

    subject: int | None
    """Subject, from 1."""
    space: str | None
    """Space, such as func1pt8mm."""
    betas: str | None
    """Betas version, such as betas_fithrf_GLMdenoise_RR."""
    form: str | None
    """Form of the session files: hdf5, nifti, nativesurface or fsaverage. Default: the first of these that is there."""
    hemisphere: str | None
    """Of surfaces "lh" or "rh" alone. Default: both, and a session without one is refused."""


class SubjectsOptions(TypedDict, total=False):
    """Which subjects, of a store with a group for each."""

    subjects: SubjectWords | None
    """Subjects, such as "1-8" or [1, 2, 5, 7]. Default: all that the store has."""


class LimitOptions(TypedDict, total=False):
    """What a call may use of the machine."""

    workers: int | None
    """Threads of this process. Default: one for each core that it may use."""
    memory: int | str | None
    """For the whole call, in bytes, or such as "8GiB". Default: half of what is free."""


class ExperimentOptions(TypedDict, total=False):
    """The files of the experiment, named by hand. Default: those at the dataset's own places around the betas."""

    trial_table: AnyPath | None
    """responses.tsv."""
    expdesign: AnyPath | None
    """nsd_expdesign.mat."""
    stim_info: AnyPath | None
    """nsd_stim_info_merged.csv."""
    brainmask: AnyPath | None
    """brainmask.nii.gz."""
    ncsnr: AnyPath | None
    """ncsnr.nii.gz."""
    valid: str | None
    """Folder or glob of valid_sessionBB.nii.gz."""
    roi: AnyPath | Sequence[AnyPath] | None
    """Region volumes, beside those that are found."""
    skip_roi: str | Sequence[str] | None
    """Names of sets of regions to leave out."""
    no_trial_table: bool | None
    """Attach masks and regions, but no trial table."""
    no_experiment: bool | None
    """Attach none of it."""


class VerifyOptions(SourceOptions, SubjectsOptions, RemoteOptions, LimitOptions, total=False):
    """Options of nsd_zarr.verify.

    >>> limits: nsd_zarr.VerifyOptions = {"workers": 2, "memory": "2GiB"}
    >>> nsd_zarr.verify("subj01.zarr", **limits).is_whole
    True
    """


class AttachOptions(SourceOptions, SubjectsOptions, RemoteOptions, LimitOptions, ExperimentOptions, total=False):
    """Options of nsd_zarr.attach.

    >>> which: nsd_zarr.AttachOptions = {"subject": 1, "space": "func1pt8mm"}
    >>> nsd_zarr.attach("subj01.zarr", "nsd", **which).computed_statistics
    False
    """


class RepairOptions(SourceOptions, SubjectsOptions, RemoteOptions, LimitOptions, ExperimentOptions, total=False):
    """Options of nsd_zarr.repair.

    >>> which: nsd_zarr.RepairOptions = {"subject": 1, "space": "func1pt8mm"}
    >>> nsd_zarr.repair("subj01.zarr", "nsd", **which).rewritten
    ()
    """


class ConvertOptions(SourceOptions, RemoteOptions, LimitOptions, ExperimentOptions, total=False):
    """Options of nsd_zarr.convert and nsd_zarr.plan.

    >>> small: nsd_zarr.ConvertOptions = {"subject": 1, "codec": "zstd", "sessions": "1-2"}
    >>> nsd_zarr.plan("nsd", "small.zarr", **small).settings.codec
    'zstd'
    """

    sessions: SessionWords | None
    """Sessions to convert. Default: all that are there, without a gap."""
    dataset: str | None
    """Name of the dataset in each session file. Default: betas."""
    trials_per_shard: int | None
    """Must divide the trials of a session. Default: up to 128 MiB a shard."""
    codec: str | None
    """lz4 (fast), zstd (small), lz4hc, blosclz or zlib. Default: lz4."""
    clevel: int | None
    """Compression level, 0 to 9. Default: 5, of zstd and zlib 3."""
    scheduler: Any
    """threads, synchronous, or the address of a Dask scheduler. Default: threads."""
    fresh: bool | None
    """Forget an unfinished run of this store and start again."""
    replace_session: SessionWords | None
    """Sessions of a finished store to take from their files again: these were delivered anew."""
    part: str | None
    """Convert part i of n of the sessions alone, "3/8", as a task of an array job does; without it all that is left."""


class ImagesOptions(RemoteOptions, LimitOptions, total=False):
    """Options of nsd_zarr.convert_images.

    >>> small: nsd_zarr.ImagesOptions = {"codec": "zstd", "workers": 2}
    >>> nsd_zarr.convert_images("nsd", "images.zarr", **small).shape
    (8, 8, 3)
    """

    codec: str | None
    """As of convert."""
    clevel: int | None
    """As of convert."""
    fresh: bool | None
    """Forget an unfinished run of this store and start again."""


class ExportOptions(TypedDict, total=False):
    """Options of nsd_zarr.export.

    >>> what: nsd_zarr.ExportOptions = {"roi": ["V1v", "V1d"], "zscore": "session", "split": "shared1000"}
    >>> nsd_zarr.export("subj01.zarr", "v1", "hdf5", **what).files[:2]
    ('train/betas.hdf5', 'test/betas.hdf5')
    """

    layout: str | None
    """plain, mindeye2 (of hdf5) or algonauts (of npy). Default: plain."""
    roi: str | Sequence[str] | None
    """Names of regions or labels, put together. Default: whole volumes; of the other layouts nsdgeneral."""
    split: str | None
    """shared1000 or shared515: two folders, train and test. train, test: one side of shared1000. Default: all."""
    zscore: str | None
    """session: z-scored within each session, ddof 0."""
    average: bool | None
    """The mean over the showings of each image, images as they first come."""
    raw: bool | None
    """Stored counts instead of percent signal change."""
    missing: str | None
    """Voxels without data in a session: drop (of all), nan, zero. Default: as the store has them."""
    order: str | None
    """zyx, or xyz: the order of voxels of code that masks nibabel's arrays. Default: zyx."""
    sessions: SessionWords | None
    """Sessions to take. Default: all."""
    memory: int | str | None
    """For the whole call, in bytes, or such as "8GiB". Default: half of what is free."""
    fresh: bool | None
    """Forget an unfinished export in this folder and start again."""


SUBJECTS_EXAMPLE = "1-8 or 1,2,5,7"


def parse_numbers(value: Any, what: str, example: str) -> tuple[int, ...]:
    """Numbers of *what*, ascending, from words such as *example*, a number, or an iterable of numbers.

    Raises ValueError.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str, Iterable)):
        raise ValueError(f"expected {what} numbers such as {example}")
    parts = value.split(",") if isinstance(value, str) else [value] if isinstance(value, int) else list(value)
    numbers: set[int] = set()
    for part in parts:
        match = re.fullmatch(r"\s*(\d{1,4})\s*(?:-\s*(\d{1,4})\s*)?", str(part))
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last:
            raise ValueError(f"expected {what} numbers such as {example}, counted from 1")
        numbers.update(range(first, last + 1))
    if not numbers:
        raise ValueError(f"expected at least one {what}")
    return tuple(sorted(numbers))


def parse_subjects(value: SubjectWords) -> tuple[int, ...]:
    """Subject numbers, as `subjects` is given, ascending. Raises ConfigError."""
    try:
        return parse_numbers(value, "subject", SUBJECTS_EXAMPLE)
    except ValueError as error:
        raise ConfigError(f"subjects = {value!r}: {error}", hint="Say subjects=[1, 2], for example.") from error


def check_options(function: str, options: Mapping[str, Any], *taken: type, others: Iterable[str] = ()) -> None:
    """Refuse an option that *function* does not take, naming the nearest that it takes. Raises ConfigError.

    *taken*: the TypedDicts of its options; *others*: names of its other keyword arguments.
    """
    known = [*others, *(name for each in taken for name in each.__annotations__)]
    for name in options:
        if name not in known:
            # An option of another function is not misspelled.
            hint = f"Known are {', '.join(known)}." if name in ConvertOptions.__annotations__ else suggest(name, known)
            raise ConfigError(f"{function}: unknown option {name!r}", hint=hint, found=name)


def suggest(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest of *known*, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(name.replace("-", "_"), known, 1, 0.5)
    return f"Did you mean {near[0]}?" if near else f"Known are {', '.join(known)}."
