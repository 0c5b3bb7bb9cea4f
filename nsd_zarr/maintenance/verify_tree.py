"""What is above the groups of a store of several subjects: its root document, and files that are not of the store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from nsd_zarr.conversion.subjects.root import is_right
from nsd_zarr.maintenance.damage import Damage
from nsd_zarr.nsd import find_subject_name
from nsd_zarr.store.format import METADATA_NAME
from nsd_zarr.store.tree.groups import find_subjects


def check_tree(tree: Path) -> Iterator[Damage]:
    """Damage of the root document above the groups: it is the one of the groups that are there, byte for byte."""
    if not is_right(tree):
        is_there = (tree / METADATA_NAME).exists()
        yield Damage(METADATA_NAME, "it does not say what the groups hold" if is_there else "missing")


def find_untracked_in_tree(tree: Path, below: Mapping[int, Iterable[str]]) -> Iterator[str]:
    """Files that are not of the store, by their path inside it. *below*: those of each group, by subject."""
    ours = {METADATA_NAME, *map(find_subject_name, find_subjects(tree)), *map(find_subject_name, below)}
    for name in sorted(os.listdir(tree)):
        if name not in ours:
            path = tree / name
            found = sorted(each for each in path.rglob("*") if not each.is_dir()) if path.is_dir() else [path]
            yield from (each.relative_to(tree).as_posix() for each in found)
    for subject, names in below.items():
        yield from (f"{find_subject_name(subject)}/{name}" for name in names)
