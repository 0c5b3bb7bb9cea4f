"""Mean, standard deviation and rails of each voxel over one session, taken while its trials are in memory."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nsd_zarr.conversion.settings import Settings
from nsd_zarr.layout import COUNTS_PER_PERCENT, SessionNumber
from nsd_zarr.science.moments import Moments
from nsd_zarr.store.format import SESSION_MEAN, SESSION_STD, make_chunk_key
from nsd_zarr.store.record import FileRecord
from nsd_zarr.store.volume import write_volume
from nsd_zarr.tasks import map_all

RESULT_BYTES_PER_VOXEL = 2 * 4 + 2 * 4
"""Mean and standard deviation, and both compressed."""


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """What is known of each voxel over one session."""

    mean: np.ndarray
    """Percent signal change, float32 of shape (voxel,)."""
    std: np.ndarray
    """Percent signal change, ddof 0, float32 of shape (voxel,); exactly 0 where all trials are equal."""
    rail_count: int | None
    """Voxels that reach an int16 rail in any trial; None where the stored dtype is another."""


def make_session_moments(voxels: int, dtype: str) -> Moments:
    """What the trials of a session are added to; of int16 it notes rails, where values saturate: -109.23 and 109.22 %.

    Both rails occur in the dataset.
    """
    return Moments((voxels,), dtype, note_limits=dtype == "int16")


def make_session_statistics(moments: Moments, trials: int) -> SessionStatistics:
    """The statistics of a session, of whose *trials* each was added once."""
    found = moments.finish(COUNTS_PER_PERCENT if moments.dtype.kind in "iu" else 1, trials=trials)
    rails = int(np.count_nonzero(moments.at_limit)) if moments.dtype == np.int16 else None
    return SessionStatistics(found.mean.astype(np.float32, copy=False), found.std.astype(np.float32, copy=False), rails)


def write_statistics(
    store: Path, settings: Settings, session: SessionNumber, statistics: SessionStatistics, executor: Executor
) -> tuple[FileRecord, ...]:
    """The chunks of session_mean and session_std of one session, on disk when this returns."""
    place = (settings.sessions.index(session), *(0 for _ in settings.geometry.volume_shape))
    names, volumes = (SESSION_MEAN, SESSION_STD), (statistics.mean, statistics.std)

    def write(name: str, values: np.ndarray) -> FileRecord:
        return write_volume(store, make_chunk_key(name, place), values, settings.blosc)

    return tuple(map_all(executor, write, names, volumes))
