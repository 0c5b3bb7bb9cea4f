"""Statistics of sessions, for z-scores of trials as they are read."""

from __future__ import annotations

from typing import Any

import numpy as np

from nsd_zarr.buffers import BufferPool
from nsd_zarr.errors import ConfigError, StoreError
from nsd_zarr.layout import COUNTS_PER_PERCENT
from nsd_zarr.science.zscore import Moments, Statistics, make_factor
from nsd_zarr.store.root import Store
from nsd_zarr.store.small import read_chunk
from nsd_zarr.store.zarr_reader import AnyReader

MEAN, STD = "session_mean", "session_std"
"""Arrays of the store: mean and standard deviation (ddof 0) of every session, in percent signal change."""
KEPT_BYTES = 24 * 2**20
"""Of stored statistics, how much is kept by default: all 40 sessions of nsdgeneral, or one or two of whole volumes."""


class SessionScores:
    """What trials of each session are z-scored by: the store's statistics, or those of some trials.

    Thread-safe: threads may at worst read the same session twice. Picklable and fork-safe; statistics stay behind.
    """

    def __init__(
        self,
        reader: AnyReader,
        *,
        voxels: np.ndarray | None = None,
        trials: np.ndarray | None = None,
        keep_bytes: int | None = KEPT_BYTES,
    ) -> None:
        """*voxels*: flat indices in a volume, None for all. *trials*: to take the statistics from, None for all.

        *keep_bytes*: of stored statistics; None keeps all. Those of given trials are dear, and all kept.
        """
        if trials is None:
            check_statistics(reader.store)
        self.reader = reader
        self.voxels = voxels
        self.trials = trials
        self.keep_bytes = keep_bytes
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}

    def gather(self, voxels: np.ndarray) -> SessionScores:
        """The same for some of the voxels: *voxels* counts among those of this one."""
        chosen = voxels if self.voxels is None else self.voxels[voxels]
        return SessionScores(self.reader, voxels=chosen, trials=self.trials, keep_bytes=self.keep_bytes)

    def get(self, trial: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean in percent and factor (see make_factor) of trial *trial*'s session; float, one a voxel (or a volume).

        Raises DamageFound; ConfigError when none of the given trials is of that session.
        """
        position = trial // self.reader.store.geometry.trials_per_session
        found = self._kept.get(position)
        if found is None:
            statistics = self._read(position) if self.trials is None else self._compute(position)
            found = statistics.mean, make_factor(statistics.std)
            self._make_room(found[0].nbytes + found[1].nbytes)
            self._kept[position] = found
        return found

    def _make_room(self, needed: int) -> None:
        if self.keep_bytes is None or self.trials is not None:
            return
        most = max(1, self.keep_bytes // max(1, needed))
        while len(self._kept) >= most:
            # Of a copy, which is made in one step: other threads may change the dictionary meanwhile.
            self._kept.pop(next(iter(list(self._kept)), -1), None)

    def _read(self, position: int) -> Statistics:
        return Statistics(*(self._choose(read_chunk(self.reader.store, name, position)) for name in (MEAN, STD)))

    def _choose(self, chunk: np.ndarray) -> np.ndarray:
        chosen: np.ndarray = chunk[0] if self.voxels is None else chunk.reshape(-1)[self.voxels]
        return chosen

    def _compute(self, position: int) -> Statistics:
        geometry = self.reader.store.geometry
        assert self.trials is not None
        mine = np.unique(self.trials[self.trials // geometry.trials_per_session == position])
        if not mine.size:
            raise ConfigError(
                "none of the trials that the z-score's statistics are to be taken from is of this session",
                hint="Give trials of every session that is read.",
                session=geometry.sessions[position],
            )
        moments = Moments(geometry.volume_shape if self.voxels is None else self.voxels.shape, self.reader.dtype)
        with BufferPool().borrow(geometry.volume_shape, self.reader.dtype) as counts:
            for trial in mine.tolist():
                self.reader.read_into(trial, counts)
                moments.add(counts if self.voxels is None else counts.reshape(-1)[self.voxels])
        return moments.finish(COUNTS_PER_PERCENT if self.reader.dtype.kind in "iu" else 1)


def check_statistics(store: Store) -> None:
    """Refuse a store without the statistics of its sessions. Raises StoreError."""
    if missing := {MEAN, STD} - set(store.members):
        raise StoreError(
            f"the store has no {min(missing)}, which z-scores are made by",
            hint='Convert again with this version, or compute them: ds.nsd.zscore("session", trials=slice(None)).',
            path=store.path,
        )
