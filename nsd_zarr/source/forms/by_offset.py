"""Trials that lie one behind the other in a file, read by their byte offset."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial

import numpy as np

from nsd_zarr.retry import read_again
from nsd_zarr.source.hdf5.gather import ShortRead
from nsd_zarr.source.hdf5.reader import explain_read_errors
from nsd_zarr.source.protocol import OnRead, OnRows, SourcePart, ignore_read

PIECE_BYTES = 8 * 2**20
"""Bytes read between two looks at the stop signal."""


class TrialFile:
    """An open file whose trials begin at *first_byte*; big-endian where *is_swapped*. One thread at a time."""

    by_offset, can_hand_rows, how = True, False, "by offset"

    def __init__(self, part: SourcePart, descriptor: int, first_byte: int, *, is_swapped: bool = False) -> None:
        self._part, self._descriptor = part, descriptor
        self._first_byte, self._is_swapped = first_byte, is_swapped

    def read_into(
        self,
        trials: range,
        out: np.ndarray,
        executor: Executor,
        check_stop: Callable[[], None] = lambda: None,
        on_rows: OnRows | None = None,
        on_read: OnRead = ignore_read,
    ) -> None:
        """As PartReader.read_into. Touches the bytes of *trials* alone; *executor* and *on_rows* are not used."""
        with explain_read_errors(f"trials {trials.start} to {trials.stop - 1}", self._part):
            for trial, row in zip(trials, out, strict=True):
                self._read(memoryview(row).cast("B"), self._first_byte + trial * self._part.trial_bytes, check_stop)
                if self._is_swapped:
                    row.byteswap(inplace=True)
                on_read(row.size)

    def _read(self, view: memoryview, offset: int, check_stop: Callable[[], None]) -> None:
        while view:
            check_stop()
            piece = [view[:PIECE_BYTES]]
            count = read_again(partial(os.preadv, self._descriptor, piece, offset), f"reading at byte {offset}")
            if count == 0:
                raise ShortRead(f"the file ends at byte {offset}, inside a trial")
            view, offset = view[count:], offset + count
