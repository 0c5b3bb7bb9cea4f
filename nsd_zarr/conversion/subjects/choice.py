"""Which subjects are meant, and what of the options goes to each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from nsd_zarr.config import Config
from nsd_zarr.conversion.subjects.root import looks_like_tree
from nsd_zarr.errors import ConfigError, StoreError
from nsd_zarr.layout import IMAGES
from nsd_zarr.options import SourceWords
from nsd_zarr.store.root import read_kind
from nsd_zarr.store.tree.document import read_listed_subjects
from nsd_zarr.store.tree.groups import find_subjects, is_tree

OF_ONE_SUBJECT = ("trial_table", "brainmask", "ncsnr", "valid", "roi")
"""Options that name files of one subject."""


def choose_one(config: Config, subject: int) -> Config:
    """The options for one of several subjects."""
    return config.model_copy(update={"subject": subject, "subjects": None})


def check_options_of_several(config: Config) -> None:
    """Refuse options that are meant for one subject. Raises ConfigError."""
    if config.subject is not None:
        raise ConfigError(
            f"subject = {config.subject}, and several subjects",
            hint="In a store with a group for each subject say --subjects alone.",
            found=config.subject,
        )
    named = [name for name in OF_ONE_SUBJECT if getattr(config, name)]
    if named and (config.subjects is None or len(config.subjects) > 1):
        raise ConfigError(
            f"{named[0]} names a file of one subject, and there are several",
            hint="Leave it out, so that each subject's is found in the NSD root; or choose one: --subjects N.",
            found=named,
        )


def check_source_of_several(source: SourceWords | None, subjects: Sequence[int]) -> None:
    """Refuse session files by name where several subjects are meant: whose they are is not in them.

    Raises ConfigError.
    """
    words = [source] if isinstance(source, (str, os.PathLike)) else list(source or ())
    if len(subjects) > 1 and (len(words) > 1 or any(Path(word).is_file() for word in words)):
        raise ConfigError(
            "files as SOURCE, and several subjects",
            hint="Give the NSD root: each subject's sessions are found below it.",
            found=words,
        )


def choose_subjects(path: Path, config: Config) -> tuple[int, ...] | None:
    """Which groups of the tree at *path* are meant: those of the options, else all; None where it is no tree.

    Raises ConfigError where subjects are chosen of what is no tree, StoreError where a tree has none.
    """
    if not looks_like_tree(path):
        if config.subjects is not None and read_kind(path) != IMAGES:  # Of images: what subjects saw.
            raise ConfigError(
                "subjects are chosen, and the store is not one with a group for each subject",
                hint="Leave out --subjects; nsd-zarr convert NSD_ROOT STORE --subjects 1-8 makes such a store.",
                path=path,
                found=config.subjects,
            )
        return None
    check_options_of_several(config)
    found = set(find_subjects(path))
    found |= set(read_listed_subjects(path)) if is_tree(path) else set()
    if not found and config.subjects is None:
        raise StoreError(
            "no subject is in the store yet",
            hint="Convert some: nsd-zarr convert NSD_ROOT STORE --subjects 1-8.",
            path=path,
        )
    return config.subjects or tuple(sorted(found))
