"""NIfTI and MGH files through nibabel: slow, and sharing no code with what reads them for a conversion."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import IO, Any, cast

import numpy as np

from nsd_zarr.source.bounded import GZIP_MAGIC
from nsd_zarr.source.hdf5.reader import explain_read_errors
from nsd_zarr.source.protocol import OnRead, OnRows, SourcePart, ignore_read


class ImageReader:
    """An image that nibabel opened, trials along its last axis. One thread at a time."""

    by_offset, can_hand_rows, how = False, False, "through nibabel"

    def __init__(self, part: SourcePart, values: Any) -> None:
        self._part, self._values = part, values

    def read_into(
        self,
        trials: range,
        out: np.ndarray,
        executor: Executor,
        check_stop: Callable[[], None] = lambda: None,
        on_rows: OnRows | None = None,
        on_read: OnRead = ignore_read,
    ) -> None:
        """As PartReader.read_into, trial by trial."""
        with explain_read_errors(f"trials {trials.start} to {trials.stop - 1}", self._part):
            for trial, row in zip(trials, out, strict=True):
                check_stop()
                row[:] = np.asarray(self._values[..., trial]).T.reshape(-1)
                on_read(row.size)


@contextmanager
def open_image(part: SourcePart) -> Iterator[ImageReader]:
    """The image in a part's file, NIfTI or else MGH, packed or not, open for reading."""
    with part.path.open("rb") as file:
        is_packed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        # One file object for all trials: in order, a packed one is unpacked once.
        plain: IO[bytes] = gzip.GzipFile(fileobj=file) if is_packed else file  # type: ignore[assignment]
        with plain:
            yield ImageReader(part, _parse(plain))


def _parse(file: IO[bytes]) -> Any:
    from nibabel.fileholders import FileHolder
    from nibabel.freesurfer.mghformat import MGHImage
    from nibabel.nifti1 import Nifti1Image

    kind: Any = MGHImage if file.read(4) == b"\0\0\0\1" else Nifti1Image
    file.seek(0)
    holder = FileHolder(fileobj=cast(io.IOBase, file))
    image: Any = kind.from_file_map({"image": holder})
    return image.dataobj
