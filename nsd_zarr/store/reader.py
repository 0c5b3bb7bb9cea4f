"""Single trials out of a store, at the cost of pread and decode.

A shard's index is read once and kept (16 bytes a trial); a trial is then one preadv into a buffer that is
reused, a decode straight into the caller's array, and a comparison of what was decoded with the trial's digest, which
shows a chunk of another trial or version as well as a changed bit. Trials are read without a lock: the few shared
dictionaries are touched by single operations, so a reader may be used from any thread, and goes through fork and
pickle. What all threads need is read by one while the others wait (tasks.Once).

From an object store an index and a trial are one request each. Many are worth making side by side, and no more trials
are decoded at once than there are cores.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from nsd_zarr.buffers import BufferPool
from nsd_zarr.errors import DamageFound, NsdZarrError, StoreError
from nsd_zarr.layout import TRIALS
from nsd_zarr.places.place import OpenObject
from nsd_zarr.resources import count_cores
from nsd_zarr.retry import may_pass, read_again
from nsd_zarr.store.codec import ChunkError, check_crc, decode_chunk, decode_unchecked
from nsd_zarr.store.digest import CRC_BYTES
from nsd_zarr.store.format import make_shard_key
from nsd_zarr.store.index import decode_shard_index, make_shard_tail, shard_index_bytes
from nsd_zarr.store.replaced import explain_replacement
from nsd_zarr.store.root import Store
from nsd_zarr.store.trial_digests import OTHER_VALUES, TrialDigests, find_digests
from nsd_zarr.tasks import Once

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class StageSeconds:
    """Where the time of reading trials went, for one thread."""

    read: float = 0.0
    """Opening shards and pread."""
    decode: float = 0.0
    """Decompression, and the digest of the values."""
    cast: float = 0.0
    """To the dtype that is delivered."""


@dataclass(frozen=True, slots=True)
class _Shard:
    """A shard and its index, which is kept; the file may be closed, and opened again, meanwhile."""

    file: OpenObject
    entries: np.ndarray
    """Offset and length of each chunk, int64 of shape (trials, 2)."""


class TrialReader:
    """Reads trials of one store, in stored counts. Thread-safe, fork-safe, picklable."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._start()

    def _start(self) -> None:
        self._shards: dict[int, _Shard] = {}
        self._buffers = BufferPool()
        self._digests: TrialDigests | None = None
        self._has_looked = False
        self._once = Once()
        self._decoding: AbstractContextManager[Any] = nullcontext()
        if self.requests_at_once:
            self.limit_decoding(threading.BoundedSemaphore(count_cores()))

    @property
    def requests_at_once(self) -> int:
        """Trials worth reading side by side because each waits for an answer; 0: as many as there are cores."""
        return self.store.place.requests_at_once

    def limit_decoding(self, decoding: threading.BoundedSemaphore) -> None:
        """Decode at most as many trials at once as *decoding* lets, however many threads and readers use it."""
        self._decoding = decoding

    def __getstate__(self) -> Store:
        return self.store

    def __setstate__(self, store: Store) -> None:
        self.store = store
        self._start()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored dtype."""
        return np.dtype(self.store.geometry.dtype)

    @property
    def volume_shape(self) -> tuple[int, ...]:
        """Shape of one trial."""
        return self.store.geometry.volume_shape

    def read_into(self, trial: int, out: np.ndarray, stages: StageSeconds | None = None) -> None:
        """Decode trial *trial* (0-based, in the store) into *out*: stored dtype, one trial's size, C-contiguous.

        *stages* is added up. Raises IndexError outside the store; DamageFound, naming trial and shard, when the chunk
        is lost or damaged or holds other values; StoreError when another store has taken its place, or when the file
        cannot be read for another reason. *out* may hold anything then.
        """
        geometry = self.store.geometry
        if not 0 <= trial < geometry.trials:
            raise IndexError(f"trial {trial} is outside the store's {geometry.trials} trials")
        if not self._has_looked:
            # Known with the first reading: opening reads no chunk.
            self._find_digests()
        trial = int(trial)
        shard = trial // geometry.trials_per_shard
        try:
            self._read_kept(trial, shard, out, stages)
        except (OSError, ValueError) as error:
            raise self._explain(trial, shard, error) from error

    def _find_digests(self) -> None:
        with self._once.hold("digests"):
            if not self._has_looked:
                self._digests, self._has_looked = find_digests(self.store), True

    def _read_kept(self, trial: int, shard: int, out: np.ndarray, stages: StageSeconds | None) -> None:
        """Read; where the copy of a shard on this machine is damaged, from another copy. Raises OSError, ValueError."""
        try:
            try:
                self._read(trial, shard, out, stages)
            except OSError as error:
                if not may_pass(error):
                    raise
                self._read_again(trial, shard, out, error)
        except ValueError as error:
            key = make_shard_key(self.store.geometry, shard)
            with self._once.hold(shard):
                if not self.store.place.drop_copy(key):
                    raise
                self._shards.pop(shard, None)
            logger.warning("%s: the copy on this machine is fetched again: %s", self._locate(shard), str(error))
            self._read(trial, shard, out, stages)

    def _read(self, trial: int, shard: int, out: np.ndarray, stages: StageSeconds | None = None) -> None:
        started = time.perf_counter()
        opened = self._shards.get(shard) or self._open_once(shard)
        offset, length = opened.entries[trial - shard * self.store.geometry.trials_per_shard].tolist()
        with self._buffers.borrow((length,), np.uint8) as chunk:
            if opened.file.read_into(chunk.data, offset) != length:
                raise ChunkError("the file ends inside it")
            read = time.perf_counter()
            with self._decoding:
                self._decode(trial, chunk, out)
        if stages is not None:
            stages.read += read - started
            stages.decode += time.perf_counter() - read

    def _decode(self, trial: int, chunk: np.ndarray, out: np.ndarray) -> None:
        """Decode, and check the values by their digest; by the chunk's crc32c where the store has no digests yet.

        Raises ChunkError: of the crc32c where that is wrong too, for then the chunk itself changed.
        """
        if self._digests is None:
            decode_chunk(chunk, out)
            return
        try:
            decode_unchecked(chunk, out)
            if self._digests.match(trial, out):
                return
            raise ChunkError(OTHER_VALUES)
        except ChunkError:
            check_crc(chunk)
            raise

    def _read_again(self, trial: int, shard: int, out: np.ndarray, error: OSError) -> None:
        """Read once more, at once and then as retry.py says, each time from a file that is opened anew.

        A stale handle stays stale for as long as it is open. Raises OSError, ValueError.
        """
        where = self._locate(shard)

        def read() -> None:
            self._shards.pop(shard, None)
            self._read(trial, shard, out)

        logger.warning("%s: %s; it is opened again", where, str(error))
        read_again(read, where)

    def _locate(self, shard: int) -> str:
        return self.store.place.locate(make_shard_key(self.store.geometry, shard))

    def find_index_problem(self, shard: int) -> str:
        """What is wrong with the size or the index of shard *shard*; empty when nothing is. Decodes no trial."""
        try:
            read_again(partial(self._open_shard, shard), self._locate(shard))
        except (OSError, ValueError) as error:
            return str(error)
        return ""

    def close(self) -> None:
        """Close the open shards. They are opened again when they are needed."""
        self._shards = {}

    def _open_once(self, shard: int) -> _Shard:
        with self._once.hold(shard):
            return self._shards.get(shard) or self._open_shard(shard)

    def _open_shard(self, shard: int) -> _Shard:
        key = make_shard_key(self.store.geometry, shard)
        record = self.store.manifest.get(key)
        file = self.store.place.open(key, None if record is None else record.size)
        slots, size = self.store.geometry.trials_per_shard, file.size
        if record is not None and size != record.size:
            raise ChunkError(f"the shard has {size} bytes, expected {record.size}")
        length, trials = shard_index_bytes(slots), len(self.store.geometry.shard_trials(shard))
        if size < CRC_BYTES + length:
            raise ChunkError(f"the shard has {size} bytes, too few for its index")
        tail = file.read_range(size - length - CRC_BYTES, CRC_BYTES + length)
        last_crc, index = tail[:CRC_BYTES], tail[CRC_BYTES:]
        entries = decode_shard_index(index, trials, size, self.store.geometry.trial_bytes, slots)
        if record is not None and record.tail not in ("", make_shard_tail(last_crc, index)):
            raise ChunkError("the shard is not the one that was written here: its end is not the manifest's")
        file.expect_end(index[-CRC_BYTES:])
        self._shards[shard] = opened = _Shard(file, entries)
        return opened

    def _explain(self, trial: int, shard: int, error: Exception) -> NsdZarrError:
        """What to raise: that the store was replaced, damage, or that the file system does not let us read it.

        The last is for too many files, permissions and I/O.
        """
        kind, key = self.store.geometry.kind, make_shard_key(self.store.geometry, shard)
        session, where = None, f"row {trial} of {kind.array} (in shard {shard})"
        if kind == TRIALS:
            session, inside = self.store.geometry.locate_trial(trial)
            where = f"trial {trial} (trial {inside} of its session, in {kind.array} shard {shard})"
        path = self.store.path / key
        if (replaced := explain_replacement(self.store, where, path, session)) is not None:
            return replaced
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            return StoreError(f"{where} cannot be read: {error.strerror or error}", path=path, session=session)
        return DamageFound(
            f"{where} is lost or damaged: {error}",
            hint=f"See what else is: nsd-zarr verify {self.store.path}.",
            path=path,
            session=session,
        )
