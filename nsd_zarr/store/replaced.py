"""Whether another store has taken the place of the one that was opened, as after an extension."""

from __future__ import annotations

from pathlib import Path

from nsd_zarr.errors import StoreError
from nsd_zarr.store.check import MAX_ROOT_BYTES
from nsd_zarr.store.format import METADATA_NAME, decode_root_metadata
from nsd_zarr.store.root import Store


def is_replaced(store: Store) -> bool:
    """Whether a whole root document that is not *store*'s lies at its place by now. Never raises.

    One small file is read, once: ask where something of the store is not as its manifest says.
    """
    if store.zarr_location:
        return False
    try:
        found = decode_root_metadata(store.place.read(METADATA_NAME, MAX_ROOT_BYTES))
    except (OSError, ValueError):
        return False
    return bool(found["checksum"] != store.fingerprint)


def explain_replacement(store: Store, where: str, path: Path, session: int | None = None) -> StoreError | None:
    """What to raise of *where* in file *path*; None where *store* is the one that lies there: then it is damaged."""
    if not is_replaced(store):
        return None
    return StoreError(
        f"{where} is of a store that is no longer there: another one has taken its place since it was opened",
        hint="Open it again: it was extended, or made anew.",
        path=path,
        session=session,
    )
