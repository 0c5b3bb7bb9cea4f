"""The root document of a tree: written again whenever one of its groups was finished or changed."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from pathlib import Path

from nsd_zarr.conversion.lock import hold_lock
from nsd_zarr.conversion.turns import take_turn
from nsd_zarr.errors import ConfigError, StoreError
from nsd_zarr.places.choose import choose_place, is_remote
from nsd_zarr.places.durable import PARTIAL_SUFFIX, make_folder
from nsd_zarr.store.check import MAX_ROOT_BYTES
from nsd_zarr.store.format import METADATA_NAME
from nsd_zarr.store.root import is_store, is_vacant
from nsd_zarr.store.tree.document import make_tree_root
from nsd_zarr.store.tree.groups import find_subjects, find_tree, is_tree, locate_group


def create_tree(path: Path) -> None:
    """Make an empty tree at *path*, or leave the one that is there; its root document is right when this returns.

    Raises StoreError where something else is there, ConfigError behind a URL.
    """
    check_place(path)
    update_root(path)


def check_place(path: Path) -> None:
    """Refuse what is neither a tree nor vacant. Writes nothing. Raises StoreError, ConfigError."""
    if is_remote(path):
        raise ConfigError(
            "several subjects in one store behind a URL",
            hint="Convert each to a URL of its own, or all to a disk and copy the store.",
            path=path,
        )
    if looks_like_tree(path) or is_vacant(path):
        return
    what = "the store of one subject" if is_store(path, kind=None) else "something else"
    raise StoreError(
        f"{what} stands where the store of several subjects shall be",
        hint="Choose another path for it, or move away what is there.",
        path=path,
    )


def looks_like_tree(path: Path) -> bool:
    """Whether a tree is at *path*, also one whose root document is lost or damaged: then stores of subjects alone."""
    if is_remote(path):
        return False
    if is_tree(path):
        return True
    if not os.path.isdir(path) or is_store(path, kind=None):  # Never raises: who may not look is told later why.
        return False
    groups = [locate_group(path, subject) for subject in find_subjects(path)]
    names = {entry.name for entry in path.iterdir() if not entry.name.endswith(PARTIAL_SUFFIX)}
    return any(map(is_store, groups)) and names <= {METADATA_NAME, *(group.name for group in groups)}


def update_root_above(store: Path) -> None:
    """Bring the root document above the store at *store* up to date, where that is a group of a tree.

    For who has just written the root document of the group. Raises StoreError or DoesNotFit.
    """
    tree = find_tree(store)
    if tree is not None:
        update_root(tree)


def update_root(tree: Path) -> bool:
    """Write the root document of a tree, unless it is right; whether it was written. Raises StoreError or DoesNotFit.

    Several processes may finish groups at once: each writes what it finds once it holds the tree's lock, so that the
    last one has seen all of them.
    """
    if is_right(tree) and not _list_leftovers(tree):
        return False
    with ExitStack() as stack:
        lock = take_turn(stack, lambda: hold_lock(tree), lambda error: error.found is not None)
        place = choose_place(tree)
        place.remove(*_list_leftovers(tree))
        is_wrong = not is_right(tree)
        if is_wrong:
            make_folder(tree)
            lock.cover_folder()
            place.write(METADATA_NAME, make_tree_root(tree))
        return is_wrong


def is_right(tree: Path) -> bool:
    """Whether the root document is, byte for byte, that of the groups that are there."""
    with suppress(OSError, ValueError):
        return choose_place(tree).read(METADATA_NAME, MAX_ROOT_BYTES) == make_tree_root(tree)
    return False


def _list_leftovers(tree: Path) -> list[str]:
    """What killed writers of the root document left; groups look after their own."""
    with suppress(OSError):
        return [entry.name for entry in tree.iterdir() if entry.name.endswith(PARTIAL_SUFFIX)]
    return []
