"""A tree is a store with a group for each subject, each a store of its own: is it one, and which groups are there."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

from nsd_zarr.errors import StoreError
from nsd_zarr.nsd import find_subject_name
from nsd_zarr.places.choose import choose_place, is_remote
from nsd_zarr.retry import read_again
from nsd_zarr.store.check import MAX_ROOT_BYTES
from nsd_zarr.store.format import METADATA_NAME, read_root_attributes

TREE_FORMAT = "nsd_zarr subjects"
"""Root attribute `format` of a tree."""
_GROUP = re.compile(r"subj(\d\d)")


def is_tree(path: Path) -> bool:
    """Whether the root document at *path* is that of a tree. Never raises."""
    try:
        if is_remote(path):
            return says_tree(read_tree_root(path))
        status = os.stat(path / METADATA_NAME)
        return _said_tree(path, status.st_ino, status.st_size, status.st_mtime_ns)
    except (OSError, ValueError):
        return False


def says_tree(data: bytes) -> bool:
    """Whether a root document is that of a tree. Never raises."""
    try:
        return read_root_attributes(data).get("format") == TREE_FORMAT
    except ValueError:
        return False


@lru_cache(maxsize=16)
def _said_tree(path: Path, *looks: int) -> bool:
    """Asked often, of a document of a megabyte: read again only where the file looks different."""
    return says_tree(read_tree_root(path))


def read_tree_root(path: Path) -> bytes:
    """The root document at *path*, whatever it is. Raises ValueError (larger than any, no regular file), OSError."""
    place = choose_place(path)
    return read_again(lambda: place.read(METADATA_NAME, MAX_ROOT_BYTES), place.locate(METADATA_NAME))


def find_tree(store: Path) -> Path | None:
    """The tree of which the store at *store* is a group, once links are followed; None where it is none's."""
    real = Path(os.path.realpath(store))
    return real.parent if parse_group(real.name) is not None and is_tree(real.parent) else None


def locate_group(tree: Path, subject: int) -> Path:
    """Path of a subject's group; it need not exist."""
    return tree / find_subject_name(subject)


def find_subjects(tree: Path) -> tuple[int, ...]:
    """Subjects whose groups are there, finished or not, ascending. Raises StoreError."""
    try:
        names = [entry.name for entry in tree.iterdir() if (entry / METADATA_NAME).exists()]
    except OSError as error:
        raise StoreError(f"cannot list the folder: {error.strerror or error}", path=tree) from error
    return tuple(sorted(subject for subject in map(parse_group, names) if subject is not None))


def parse_group(name: str) -> int | None:
    """The subject whose group has this name; None for other names."""
    match = _GROUP.fullmatch(name)
    return None if match is None else int(match[1])


def explain_tree(path: Path) -> StoreError:
    """The error for a tree where the store of one subject is expected."""
    subjects = () if is_remote(path) else find_subjects(path)
    one = locate_group(path, subjects[0] if subjects else 1)
    return StoreError(
        "a store with a group for each subject, expected the store of one",
        hint=f'Name one, such as "{one}", or open them all: nsd_zarr.open_tree; commands take --subjects.',
        path=path,
        expected="the store of one subject",
        found=subjects,
    )
