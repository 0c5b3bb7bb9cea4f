"""The copy of a finished store's root document, in its run folder: written with it, and from which it comes back.

Every file that the copy lists is on disk before the copy is written, and the copy is written before the root document.
So a kill between the two leaves a copy of a whole store, whatever the root document says then. It is removed before a
run writes into a store that is not finished.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from nsd_zarr.conversion.ledger import make_run_folder
from nsd_zarr.conversion.lock import HeldLock
from nsd_zarr.conversion.subjects.root import update_root_above
from nsd_zarr.errors import DamageFound, NsdZarrError, StoreError
from nsd_zarr.places.choose import choose_place
from nsd_zarr.store.check import MAX_ROOT_BYTES
from nsd_zarr.store.digest import digest_object
from nsd_zarr.store.format import METADATA_NAME, make_chunk_key, make_shard_key
from nsd_zarr.store.root import Store, check_complete, make_store, read_root

COPY_NAME = "root.json"
"""Name of the copy in the run folder."""


def write_root(store: Path, root: bytes, lock: HeldLock | None = None) -> None:
    """Write the copy of a root document, then the root document; every file that it lists must be on disk.

    Both are durable when this returns; then the root document above them is brought up to date, where the store is one
    subject's of several. Nothing is written where readers would refuse the document, a file that it lists
    is not there with its size, or *lock*, the store's, is no longer held. Raises StoreError or DoesNotFit.
    """
    _check_root(store, root)
    if lock is not None:
        lock.check()
    _write_copy(store, root)
    choose_place(store).write(METADATA_NAME, root)
    update_root_above(store)


def _check_root(store: Path, root: bytes) -> None:
    problem = f"it has {len(root)} bytes, expected at most {MAX_ROOT_BYTES}" if len(root) > MAX_ROOT_BYTES else ""
    try:
        manifest = make_store(store, root).manifest
    except DamageFound as error:
        problem, manifest = problem or error.problem, {}
    if problem:
        raise StoreError(
            f"readers would refuse the store: {problem}",
            hint="Give other sources: what is odd in them is in the text above.",
            path=store,
        )
    sizes = choose_place(store).measure_all(manifest)
    for key, record in manifest.items():
        if sizes.get(key) != record.size:
            raise StoreError(
                f"{key} is not in the store as it was written: expected a file of {record.size} bytes",
                hint="Another program moved or changed it. Run nsd-zarr repair on a finished store; otherwise run the "
                "same command again.",
                path=store,
            )


def remove_copy(store: Path) -> None:
    """Remove the copy, before files that it may list are written again. For who holds the store's lock."""
    choose_place(make_run_folder(store)).remove(COPY_NAME)


def add_copy(store: Path) -> None:
    """Make the copy that of the root document, where this is whole and fits the files of the store.

    For stores that earlier versions made, and for copies that were lost. For who holds the store's lock.
    """
    try:
        root = read_root(store)
        opened = make_store(store, root)
        check_complete(opened, allow_unfinished=False)
    except (OSError, ValueError):  # Errors of ours among them: what is no whole root document has no copy.
        return
    with suppress(OSError, ValueError):
        if choose_place(make_run_folder(store)).read(COPY_NAME, MAX_ROOT_BYTES) == root:
            return
    if not find_misfit(opened):
        _write_copy(store, root)


def read_copy(store: Path, error: DamageFound) -> tuple[Store, bytes]:
    """The store and its root document, from the copy, where the root document is damaged as *error* says.

    The copy is trusted only where its checksum holds, readers would take it, and it fits the files of the store.
    Raises StoreError with the way out.
    """
    folder = make_run_folder(store)
    try:
        root = choose_place(folder).read(COPY_NAME, MAX_ROOT_BYTES)
        opened = make_store(store, root)
        check_complete(opened, allow_unfinished=False)
        problem = find_misfit(opened)
    except FileNotFoundError:
        problem = "missing"
    except NsdZarrError as second:
        problem = second.problem
    except (OSError, ValueError) as second:
        problem = str(second)
    if problem:
        raise StoreError(
            f"{error.problem.rstrip('.')}; it comes back from its copy, {folder.name}/{COPY_NAME}, which cannot be "
            f"used: {problem}",
            hint="Restore zarr.json from a backup, or move the store away and convert again.",
            path=store,
        ) from error
    return opened, root


def find_misfit(store: Store) -> str:
    """Why the files at *store*'s path are not those of its root document; empty where they are.

    Some may be lost or damaged. One shard, or the digests of all trials, must be there byte for byte, and no shard
    that the manifest does not list.
    """
    geometry = store.geometry
    shards = [make_shard_key(geometry, number) for number in range(geometry.shards)]
    digests = make_chunk_key(geometry.kind.digests, (0,))
    if not any(_is_as_listed(store, key) for key in (digests, *shards)):
        return "no shard in the store is one that it lists"
    keys = store.place.list_keys(f"{geometry.kind.array}/c")
    return next((f"it does not list {key}" for key in keys if key not in store.manifest), "")


def _is_as_listed(store: Store, key: str) -> bool:
    try:
        return digest_object(store.place.open(key)) == store.manifest[key].digest
    except (OSError, ValueError, KeyError):
        return False


def _write_copy(store: Path, root: bytes) -> None:
    choose_place(make_run_folder(store)).write(COPY_NAME, root)
