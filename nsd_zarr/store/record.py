"""A file of a store, with its size and its digest: in the manifest, and in the records of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from nsd_zarr.store.digest import make_digest


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of a store. The only type for this."""

    key: str
    """Path inside the store."""
    size: int
    """Bytes."""
    digest: str
    """xxh3-128, hexadecimal."""
    tail: str = field(default="", compare=False, kw_only=True)
    """Of a shard: digest of its end, see index.make_shard_tail; empty for other files. Follows from the file's digest,
    by which records are compared."""

    def list_values(self) -> list[int | str]:
        """As the manifest has it: size, digest, and of a shard its tail."""
        return [self.size, self.digest, *([self.tail] if self.tail else [])]


@dataclass(frozen=True, slots=True)
class ShardRecord(FileRecord):
    """One shard, with what was written into it."""

    trial_digests: tuple[str, ...] = ()
    """xxh3-128 of each trial's values before they were compressed, hexadecimal."""


def make_file_record(key: str, data: bytes) -> FileRecord:
    """The record of file *key* with the bytes *data*."""
    return FileRecord(key, len(data), make_digest(data))
