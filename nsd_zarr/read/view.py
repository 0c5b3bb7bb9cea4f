"""Trials as they are asked for: which voxels, percent or z-score, the mean over repeats. Evaluated in one place.

A view says what is wanted; reading decodes a trial into a buffer that is used again, takes the voxels while the
trial is in cache, and scales and scores only those, straight into the caller's row.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from nsd_zarr.buffers import BufferPool
from nsd_zarr.errors import ConfigError
from nsd_zarr.read.percent import PercentReader, scale_into
from nsd_zarr.read.score import KEPT_BYTES, SessionMissing, SessionScores
from nsd_zarr.science import kernels
from nsd_zarr.science.repeats import NONE, average_into
from nsd_zarr.science.zscore import zscore_into
from nsd_zarr.store.foreign.reader import AnyReader
from nsd_zarr.store.reader import StageSeconds


class ViewReader:
    """Reads trials of one store as a view of them. Thread-safe, fork-safe, picklable. As PercentReader where whole."""

    def __init__(
        self,
        reader: AnyReader,
        *,
        voxels: np.ndarray | None = None,
        scores: SessionScores | None = None,
        raw: bool = False,
        missing: SessionMissing | None = None,
        fill: float = np.nan,
    ) -> None:
        """*voxels*: flat C-order indices in a volume, None for all. *scores*: to z-score by. *raw*: stored counts.

        *missing*: voxels that are *fill* in the trials of a session in which they have no data.
        """
        self.reader = reader
        self.voxels = voxels
        self.scores = scores
        self.raw = raw
        self.missing = missing
        self.fill = fill
        self._buffers = BufferPool()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_buffers"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._buffers = BufferPool()

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32, or the stored dtype of a float source or with raw."""
        return self.reader.dtype if self.raw or self.reader.dtype.kind == "f" else np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one trial: (voxel,), or that of the volume."""
        return self.reader.volume_shape if self.voxels is None else self.voxels.shape

    def gather(self, voxels: np.ndarray) -> ViewReader:
        """The same for some of the voxels: *voxels* counts, in C order, among those of this one."""
        chosen = voxels if self.voxels is None else self.voxels[voxels]
        scores = None if self.scores is None else self.scores.gather(voxels)
        missing = None if self.missing is None else self.missing.gather(voxels)
        return ViewReader(self.reader, voxels=chosen, scores=scores, raw=self.raw, missing=missing, fill=self.fill)

    def score(self, trials: np.ndarray | None = None, *, zeros: bool = False, **options: Any) -> ViewReader:
        """The same, z-scored within each session, by the store's statistics or those of *trials* (of the store).

        Voxels without data are NaN, with *zeros* 0. *options*: as SessionScores takes them. Raises ConfigError with
        raw, or when it is z-scored already; StoreError without statistics.
        """
        if self.raw:
            raise ConfigError("counts cannot be z-scored", hint="Leave out raw=True: percent signal change can.")
        if self.scores is not None:
            raise ConfigError("these trials are z-scored already", hint="Leave out one of the two.")
        options = {"keep_bytes": KEPT_BYTES} | options
        factor = 0.0 if zeros else np.nan
        scores = SessionScores(self.reader, voxels=self.voxels, trials=trials, missing_factor=factor, **options)
        made = ViewReader(self.reader, voxels=self.voxels, scores=scores)
        # A factor of 0 leaves NaN as it is.
        return made.fill_missing(0.0) if zeros and self.reader.dtype.kind == "f" else made

    def fill_missing(self, value: float) -> ViewReader:
        """The same with *value*, NaN or 0, where a voxel has no data in the trial's session."""
        missing = SessionMissing(self.reader, voxels=self.voxels, with_zeros=bool(np.isnan(value)))
        return ViewReader(
            self.reader, voxels=self.voxels, scores=self.scores, raw=self.raw, missing=missing, fill=value
        )

    def read_into(self, trial: int, out: np.ndarray, stages: StageSeconds | None = None) -> None:
        """Trial *trial* (0-based, in the store) into *out*, of `dtype` and `shape`, C-contiguous.

        Raises IndexError, DamageFound as TrialReader.read_into. Beside *out* it takes one trial as stored.
        """
        scores = None if self.scores is None else self.scores.get(trial)
        if self.voxels is None and self.dtype == self.reader.dtype:
            self.reader.read_into(trial, out, stages)
            started = time.perf_counter()
        else:
            with self._buffers.borrow(self.reader.volume_shape, self.reader.dtype) as stored:
                self.reader.read_into(trial, stored, stages)
                started = time.perf_counter()
                if self.voxels is None and scores is not None and kernels.score(stored, *scores, out):
                    scores = None
                else:
                    self._choose_into(stored, out)
        if scores is not None:
            zscore_into(out, *scores)
        if self.missing is not None:
            self.missing.fill(trial, out, self.fill)
        if stages is not None:
            stages.cast += time.perf_counter() - started

    def _choose_into(self, stored: np.ndarray, out: np.ndarray) -> None:
        if self.voxels is None:
            scale_into(stored, out)
        elif out.dtype == stored.dtype:
            _take(stored, self.voxels, out)
        else:
            with self._buffers.borrow(out.shape, stored.dtype) as counts:
                _take(stored, self.voxels, counts)
                scale_into(counts, out)


class AverageReader:
    """Reads images: the mean over the trials that showed them. Thread-safe, fork-safe, picklable."""

    def __init__(self, view: ViewReader, trials: np.ndarray) -> None:
        """*trials*: of the store, shape (image, most showings), NONE behind an image's last."""
        if view.raw:
            raise ConfigError("counts cannot be averaged", hint="Leave out raw=True: percent signal change can.")
        # Showings without data do not count: NaN in z-scores, and here.
        self.view = view if view.scores is not None or view.missing is not None else view.fill_missing(np.nan)
        self.trials = trials
        self._buffers = BufferPool()

    def __getstate__(self) -> tuple[ViewReader, np.ndarray]:
        return self.view, self.trials

    def __setstate__(self, state: tuple[ViewReader, np.ndarray]) -> None:
        self.view, self.trials = state
        self._buffers = BufferPool()

    @property
    def dtype(self) -> np.dtype[Any]:
        """As the view's."""
        return self.view.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """As the view's."""
        return self.view.shape

    def gather(self, voxels: np.ndarray) -> AverageReader:
        """The same for some of the voxels: *voxels* counts among those of this one."""
        return AverageReader(self.view.gather(voxels), self.trials)

    def score(self, trials: np.ndarray | None = None, **options: Any) -> AverageReader:
        """Refused: a mean over repeats is of no one session. Raises ConfigError."""
        raise ConfigError("means over repeats are of several sessions", hint="Z-score first, then average.")

    def read_into(self, image: int, out: np.ndarray, stages: StageSeconds | None = None) -> None:
        """The mean of image *image* (0-based, in the order given) into *out*. Errors as ViewReader."""
        showings = self.trials[image]
        with self._buffers.borrow(out.shape, out.dtype) as values:
            average_into(self._read_each(showings[showings != NONE], values, stages), out)

    def _read_each(self, showings: np.ndarray, values: np.ndarray, stages: StageSeconds | None) -> Iterator[np.ndarray]:
        for trial in showings.tolist():
            self.view.read_into(trial, values, stages)
            yield values


def make_view(reader: Any) -> ViewReader | AverageReader:
    """The view that a reader of whole trials is."""
    if isinstance(reader, (ViewReader, AverageReader)):
        return reader
    if isinstance(reader, PercentReader):
        return ViewReader(reader.reader)
    return ViewReader(reader, raw=True)


def _take(stored: np.ndarray, voxels: np.ndarray, out: np.ndarray) -> None:
    # "clip", because "raise" would go through a buffer; the indices were made from the volume's own shape.
    np.take(stored.reshape(-1), voxels, out=out, mode="clip")
