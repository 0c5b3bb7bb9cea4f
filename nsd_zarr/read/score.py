"""What readers need to know of sessions: statistics to z-score by, and voxels without data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from nsd_zarr.buffers import BufferPool
from nsd_zarr.errors import ConfigError, StoreError
from nsd_zarr.layout import COUNTS_PER_PERCENT
from nsd_zarr.science.missing import find_missing
from nsd_zarr.science.moments import Moments, correct_std
from nsd_zarr.science.zscore import make_factor
from nsd_zarr.store.foreign.reader import AnyReader
from nsd_zarr.store.root import Store
from nsd_zarr.store.small import read_chunk
from nsd_zarr.tasks import Once

MEAN, STD = "session_mean", "session_std"
"""Arrays of the store: mean and standard deviation (ddof 0) of every session, in percent signal change."""
VALID = "valid"
"""Array of the store: whether the dataset's authors call a voxel valid in a session."""
KEPT_BYTES = 24 * 2**20
"""Of stored statistics, how much is kept by default: all 40 sessions of nsdgeneral, or one or two of whole volumes."""


class SessionScores:
    """What trials of each session are z-scored by: the store's statistics, or those of some trials.

    Thread-safe, picklable and fork-safe; statistics stay behind. One thread at a time reads them: that takes several
    times a trial's memory for a moment.
    """

    def __init__(
        self,
        reader: AnyReader,
        *,
        voxels: np.ndarray | None = None,
        trials: np.ndarray | None = None,
        ddof: int = 0,
        missing_factor: float = np.nan,
        keep_bytes: int | None = KEPT_BYTES,
    ) -> None:
        """*voxels*: flat indices in a volume, None for all. *trials*: to take the statistics from, None for all.

        *ddof*: of the standard deviation. *missing_factor*: NaN or 0, what deviations are multiplied with where a voxel
        has no data. *keep_bytes*: of stored statistics; None keeps all. Those of given trials cost a read of these
        trials, and are all kept.
        """
        if trials is None:
            check_statistics(reader.store)
        self.reader = reader
        self.voxels = voxels
        self.trials = trials
        self.ddof = ddof
        self.missing_factor = missing_factor
        self.keep_bytes = keep_bytes
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._once = Once()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}

    def gather(self, voxels: np.ndarray) -> SessionScores:
        """The same for some of the voxels: *voxels* counts among those of this one."""
        kept = {name: getattr(self, name) for name in ("trials", "ddof", "missing_factor", "keep_bytes")}
        return SessionScores(self.reader, voxels=voxels if self.voxels is None else self.voxels[voxels], **kept)

    def get(self, trial: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean in percent and factor (see make_factor) of trial *trial*'s session; float, one a voxel (or a volume).

        Raises DamageFound; ConfigError when none of the given trials is of that session.
        """
        return self._once.find(self._kept, trial // self.reader.store.geometry.trials_per_session, self._make)

    def _make(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        found = self._read(position) if self.trials is None else self._compute(position)
        self._make_room(found[0].nbytes + found[1].nbytes)
        return found

    def _make_room(self, needed: int) -> None:
        if self.keep_bytes is None or self.trials is not None:
            return
        most = max(1, self.keep_bytes // max(1, needed))
        while len(self._kept) >= most:
            # Of a copy, which is made in one step: other threads may change the dictionary meanwhile.
            self._kept.pop(next(iter(list(self._kept)), -1), None)

    def _read(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        mean, std = (self._choose(read_chunk(self.reader.store, name, position)) for name in (MEAN, STD))
        missing = self._find_missing(position, std)
        std = correct_std(std, self.reader.store.geometry.trials_per_session, self.ddof)
        return mean, make_factor(std, missing, self.missing_factor)

    def _find_missing(self, position: int, std: np.ndarray) -> np.ndarray:
        store = self.reader.store
        valid = self._choose(read_chunk(store, VALID, position)) if VALID in store.members else None
        missing: np.ndarray = find_missing(std, valid)
        return missing

    def _choose(self, chunk: np.ndarray) -> np.ndarray:
        chosen: np.ndarray = chunk[0] if self.voxels is None else chunk.reshape(-1)[self.voxels]
        return chosen

    def _compute(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        store, scale = self.reader.store, get_scale(self.reader)
        trials = store.geometry.session_trials(store.geometry.sessions[position])
        assert self.trials is not None
        mine = np.unique(self.trials[(self.trials >= trials.start) & (self.trials < trials.stop)])
        if not mine.size:
            raise ConfigError(
                "none of the trials that the z-score's statistics are to be taken from is of this session",
                hint="Give trials of every session that is read.",
                session=store.geometry.sessions[position],
            )
        found = compute_moments(self.reader, mine.tolist(), self.voxels).finish(scale, self.ddof)
        if STD in store.members:
            whole = self._choose(read_chunk(store, STD, position))
        else:
            whole = compute_moments(self.reader, trials, self.voxels).finish(scale).std
        return found.mean, make_factor(found.std, self._find_missing(position, whole), self.missing_factor)


class SessionMissing:
    """Voxels without data in each session of a store. Kept as bits once read. Thread-safe, fork-safe, picklable."""

    def __init__(self, reader: AnyReader, *, voxels: np.ndarray | None = None, with_zeros: bool = True) -> None:
        """*voxels*: flat indices in a volume, None for all. *with_zeros*: also those that are 0 in every trial."""
        self.reader = reader
        self.voxels = voxels
        self.with_zeros = with_zeros
        self._kept: dict[int, np.ndarray] = {}
        self._once = Once()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}

    def gather(self, voxels: np.ndarray) -> SessionMissing:
        """The same for some of the voxels: *voxels* counts among those of this one."""
        chosen = voxels if self.voxels is None else self.voxels[voxels]
        return SessionMissing(self.reader, voxels=chosen, with_zeros=self.with_zeros)

    def get(self, position: int) -> np.ndarray | None:
        """Voxels without data in the session at *position* of the store, bool; None where there are none.

        Raises DamageFound.
        """
        bits = self._once.find(self._kept, position, self._make)
        if not bits.size:
            return None
        shape = self.reader.volume_shape if self.voxels is None else self.voxels.shape
        return np.unpackbits(bits, count=int(np.prod(shape))).view(bool).reshape(shape)

    def fill(self, trial: int, out: np.ndarray, value: float) -> None:
        """Write *value* where *out*, a trial of the store, has no data."""
        mask = self.get(trial // self.reader.store.geometry.trials_per_session)
        if mask is not None:
            np.copyto(out, out.dtype.type(value), where=mask)

    def _make(self, position: int) -> np.ndarray:
        mask = self._read(position)
        return np.packbits(mask) if mask.any() else np.zeros(0, np.uint8)

    def _read(self, position: int) -> np.ndarray:
        store = self.reader.store
        if {MEAN, STD} <= set(store.members):
            mean, std = None, read_chunk(store, STD, position)[0]
        else:
            mean, std = self._compute(position)
        valid = read_chunk(store, VALID, position)[0] if VALID in store.members else None
        mask: np.ndarray = find_missing(std, valid)
        if not self.with_zeros and mask.any():
            varies = std != 0
            del std  # Before as much is read again.
            mean = read_chunk(store, MEAN, position)[0] if mean is None else mean
            mask &= varies | (mean != 0)
        return mask if self.voxels is None else mask.reshape(-1)[self.voxels]

    def _compute(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Of a store without statistics: reads all trials of the session."""
        geometry = self.reader.store.geometry
        trials = geometry.session_trials(geometry.sessions[position])
        found = compute_moments(self.reader, trials, None).finish(get_scale(self.reader))
        return found.mean, found.std


def compute_moments(reader: AnyReader, trials: Iterable[int], voxels: np.ndarray | None) -> Moments:
    """Moments of *trials* of a store in the stored unit, for *voxels* (flat indices, None for all). Reads each once."""
    moments = Moments(reader.volume_shape if voxels is None else voxels.shape, reader.dtype)
    with BufferPool().borrow(reader.volume_shape, reader.dtype) as counts:
        for trial in trials:
            reader.read_into(trial, counts)
            moments.add(counts if voxels is None else counts.reshape(-1)[voxels])
    return moments


def count_lacking(reader: AnyReader, voxels: np.ndarray | None, positions: np.ndarray) -> np.ndarray:
    """In how many of the sessions at *positions* each voxel has no data, int64 of the shape of a trial."""
    missing = SessionMissing(reader, voxels=voxels)
    counts = np.zeros(reader.volume_shape if voxels is None else voxels.shape, np.int64)
    for position in positions.tolist():
        mask = missing.get(position)
        if mask is not None:
            counts += mask
    return counts


def get_scale(reader: AnyReader) -> int:
    """Stored numbers for one percent signal change: 300 for counts, 1 for float sources."""
    return COUNTS_PER_PERCENT if reader.dtype.kind in "iu" else 1


def check_statistics(store: Store) -> None:
    """Refuse a store without the statistics of its sessions. Raises StoreError."""
    if missing := {MEAN, STD} - set(store.members):
        raise StoreError(
            f"the store has no {min(missing)}, which z-scores are made by",
            hint='Convert again with this version, or compute them: ds.nsd.zscore("session", trials=slice(None)).',
            path=store.path,
        )
