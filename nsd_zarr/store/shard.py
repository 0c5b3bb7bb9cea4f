"""Writing one shard: whole, once, nothing read back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from nsd_zarr.places.choose import choose_place
from nsd_zarr.places.place import NewObject
from nsd_zarr.store.codec import BloscCodec
from nsd_zarr.store.digest import make_digest
from nsd_zarr.store.index import encode_shard_index, make_shard_tail
from nsd_zarr.store.record import ShardRecord


@dataclass(frozen=True, slots=True)
class PendingShard:
    """A shard that is written, and not yet on disk."""

    record: ShardRecord
    """What was written."""
    file: NewObject
    """Where; to be committed."""

    def commit(self) -> ShardRecord:
        """Put it on disk, under its name. Raises StoreError or DoesNotFit."""
        self.file.commit(keep_cached=False)
        return self.record


def write_shard(
    store: Path,
    key: str,
    trials: np.ndarray,
    codec: BloscCodec,
    on_trial: Callable[[], None],
    slots: int | None = None,
) -> PendingShard:
    """Compress and write one shard; commit it to have it on disk.

    *trials*: shape (trials in shard, voxels), C order, little-endian. *on_trial* is called before each trial, and may
    raise to stop. *slots*: chunks that a shard has room for, where these are fewer. Run it off the main thread (see
    BloscCodec.encode). Raises StoreError or DoesNotFit.
    """
    file_digest = xxhash.xxh3_128()
    lengths: list[int] = []
    trial_digests: list[str] = []
    with choose_place(store).begin(key) as file:
        for values in trials:
            on_trial()
            trial_digests.append(make_digest(values))
            lengths.append(0)
            for part in codec.encode(values):
                file.write(part)
                file_digest.update(part)
                lengths[-1] += len(part)
        index = encode_shard_index(lengths, slots)
        file.write(index)
        file_digest.update(index)
    record = ShardRecord(
        key=key,
        size=sum(lengths) + len(index),
        digest=file_digest.hexdigest(),
        trial_digests=tuple(trial_digests),
        tail=make_shard_tail(part, index),
    )
    return PendingShard(record, file)
