"""The digests of a store's trials, by which readers know a trial's values: read once, for all readers of a store."""

from __future__ import annotations

from weakref import WeakValueDictionary

import numpy as np

from nsd_zarr.errors import DamageFound
from nsd_zarr.store.digest import make_raw_digest
from nsd_zarr.store.format import make_chunk_key
from nsd_zarr.store.root import Store
from nsd_zarr.store.small import read_array

_DIGEST_BYTES = 16
OTHER_VALUES = "its values are those of another trial, or of another version of the store: they do not match its digest"
"""What is wrong with a trial whose chunk is whole, and whose values have another digest."""


class TrialDigests:
    """xxh3-128 of the stored values of each trial, or image, of one store: 16 bytes each."""

    __slots__ = ("__weakref__", "_digests")

    def __init__(self, digests: bytes) -> None:
        self._digests = digests

    def match(self, trial: int, values: np.ndarray) -> bool:
        """Whether *values* (stored dtype, C order) are those of *trial* (0-based, in the store), bit for bit."""
        place = _DIGEST_BYTES * trial
        return self._digests[place : place + _DIGEST_BYTES] == make_raw_digest(values)


_known: WeakValueDictionary[tuple[str, str], TrialDigests] = WeakValueDictionary()
"""Digests that some reader in this process holds, by location and fingerprint of their store."""


def find_digests(store: Store) -> TrialDigests | None:
    """The digests of *store*: read from its array `trial_digest` (`image_digest`) unless another reader has them.

    None where values are checked in another way: the store is not finished and has no digests yet, or another tool
    wrote it. Raises DamageFound where a store of this package has lost them: no value is given out that cannot be
    checked.
    """
    if not store.is_complete or not _has_digests(store):
        return None
    # The fingerprint of a store that another tool wrote says nothing of its values.
    key = (store.location, store.fingerprint) if store.manifest else None
    found = None if key is None else _known.get(key)
    if found is None:
        found = _read_digests(store)
        if key is not None:
            _known[key] = found
    return found


def _has_digests(store: Store) -> bool:
    """Whether values of *store* are checked by digests.

    Always where its root document is this package's own. Of a copy by another tool, which has our attributes, counts
    are: floats may be percent that somebody computed from them.
    """
    if store.manifest or not store.zarr_location:
        return True
    is_copy = store.attributes.format != "" and store.geometry.kind.digests in store.members
    return is_copy and np.dtype(store.geometry.dtype).kind in "iu"


def _read_digests(store: Store) -> TrialDigests:
    name, trials = store.geometry.kind.digests, store.geometry.trials
    try:
        texts = read_array(store, name).tolist()
        digests = bytes.fromhex("".join(texts))
        if len(texts) != trials or len(digests) != _DIGEST_BYTES * trials:
            raise ValueError(f"it has {len(texts)} digests of {len(digests)} bytes in all, expected {trials} of 16")
        return TrialDigests(digests)
    except (LookupError, TypeError, ValueError) as error:
        problem = error.problem if isinstance(error, DamageFound) else f"array {name} is lost or damaged: {error}"
        raise DamageFound(
            f"values cannot be checked, and none is given out: {problem}",
            hint="Copy the store again."
            if store.zarr_location
            else f"Make it again from the source: nsd-zarr repair {store.path} --source SOURCE.",
            path=store.path / make_chunk_key(name, (0,)),
        ) from error
