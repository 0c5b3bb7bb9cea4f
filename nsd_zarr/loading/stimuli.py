"""Single images out of the stimulus HDF5 files, through h5py."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nsd_zarr.errors import SourceError
from nsd_zarr.hdf5 import open_hdf5
from nsd_zarr.image_sets import ID_WORDS, NSD, NSDSYNTHETIC, SYNTHETIC_IMAGES, locate_colors
from nsd_zarr.nsd import IMAGES_DATASET
from nsd_zarr.store.reader import StageSeconds

if TYPE_CHECKING:
    import h5py


class StimulusImages:
    """Reads images of the stimulus file. Thread-safe, fork-safe.

    The file is opened by each process that reads, when it first reads. h5py has one lock for all files of a process, so
    threads take turns; where a chunk of the file holds many images, each image costs its whole chunk.
    """

    subject: int | None = None
    """Its images are the same for all subjects."""

    def __init__(self, path: Path, experiment: str = NSD, first: int = 0) -> None:
        """Looks at the file and closes it again. *first*: id of its first image.

        Raises SourceError where it is none of images.
        """
        self.path, self.experiment, self._first = path, experiment, first
        self._open: dict[int, h5py.Dataset] = {}
        try:
            self._size = os.stat(path).st_size
            with open_hdf5(path) as file:
                data = file[IMAGES_DATASET]
                shape, dtype = tuple(data.shape), data.dtype
        except (OSError, KeyError, AttributeError, RuntimeError) as error:
            raise SourceError(
                f"neither a store of images nor a stimulus file: {error}",
                hint="Give nsd_stimuli.hdf5, or what nsd-zarr images made of it.",
                path=path,
            ) from error
        if len(shape) != 4 or dtype != np.uint8:
            raise SourceError(
                f"{IMAGES_DATASET} is {dtype.name} of shape {shape}, expected uint8 (image, row, column, channel)",
                hint="Give nsd_stimuli.hdf5, or what nsd-zarr images made of it.",
                path=path,
                expected="uint8 (image, row, column, channel)",
                found=(dtype.name, shape),
            )
        self.count: int = shape[0]
        """Images in the file."""
        self.shape: tuple[int, ...] = shape[1:]
        """Shape of one image: (row, column, channel)."""

    @property
    def fingerprint(self) -> str:
        """What distinguishes this file from others: name and size. Its 40 GB are not read for more."""
        return f"{self.path.name} {self._size}"

    def holds(self, ids: np.ndarray) -> np.ndarray:
        """Whether each of *ids* (0-based) is in the file, bool."""
        held: np.ndarray = (ids >= self._first) & (ids < self._first + self.count)
        return held

    def read_into(self, nsd_id: int, out: np.ndarray, stages: StageSeconds | None = None) -> None:
        """Read an image (0-based id) into *out*, uint8 (row, column, channel), C-contiguous.

        Raises SourceError, naming the image, when it cannot be read, or when the file has changed its size.
        """
        started, row = time.perf_counter(), nsd_id - self._first
        try:
            self._find_data().read_direct(out[np.newaxis], np.s_[row : row + 1])
            # HDF5 reads zeros past the end of a file that was cut short.
            if os.stat(self.path).st_size != self._size:
                raise ValueError(f"the file has changed its size, it had {self._size} bytes")
        except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
            raise SourceError(
                f"image {nsd_id} ({ID_WORDS[self.experiment]}) cannot be read: {error}",
                hint="Check the file.",
                path=self.path,
            ) from error
        if stages is not None:
            stages.read += time.perf_counter() - started

    def _find_data(self) -> Any:
        """The open dataset of this process. One that was opened before a fork stays unused, and open, in the child."""
        process = os.getpid()
        if process not in self._open:
            # In one step, so that no lock can be held when a process forks; opened twice does no harm.
            self._open.setdefault(process, open_hdf5(self.path)[IMAGES_DATASET])
        return self._open[process]


class SyntheticImages:
    """Reads images of nsdsynthetic: of the file that all subjects share, and of a subject's colors beside it."""

    experiment = NSDSYNTHETIC

    def __init__(self, path: Path, subject: int | None) -> None:
        """*path*: nsdsynthetic_stimuli.hdf5. *subject*: None, or no file of its colors: these are not held.

        Raises SourceError where a file is none of images, or their images differ in shape.
        """
        self.path, self.subject = path, None
        self._parts = [StimulusImages(path, NSDSYNTHETIC)]
        colors = None if subject is None else locate_colors(path, subject)
        if colors is not None and colors.is_file():
            self._parts.append(StimulusImages(colors, NSDSYNTHETIC, SYNTHETIC_IMAGES))
            self.subject = subject
        shapes = {part.shape for part in self._parts}
        if self._parts[0].count != SYNTHETIC_IMAGES or len(shapes) > 1:
            raise SourceError(
                f"{self._parts[0].count} images, of shapes {shapes} with the colors beside it, expected "
                f"{SYNTHETIC_IMAGES} of one shape",
                hint="Give nsdsynthetic_stimuli.hdf5, its colors beside it, or what nsd-zarr images made of them.",
                path=path,
            )
        self.shape: tuple[int, ...] = self._parts[0].shape
        """Shape of one image: (row, column, channel)."""

    @property
    def count(self) -> int:
        """Images in the files."""
        return sum(part.count for part in self._parts)

    @property
    def fingerprint(self) -> str:
        """What distinguishes these files from others: names and sizes."""
        return ", ".join(part.fingerprint for part in self._parts)

    def holds(self, ids: np.ndarray) -> np.ndarray:
        """Whether each of *ids* (0-based) is in the files, bool."""
        held: np.ndarray = np.any([part.holds(ids) for part in self._parts], axis=0)
        return held

    def read_into(self, stimulus_id: int, out: np.ndarray, stages: StageSeconds | None = None) -> None:
        """Read an image (0-based id) into *out*, uint8 (row, column, channel), C-contiguous. Raises SourceError."""
        self._parts[stimulus_id >= SYNTHETIC_IMAGES].read_into(stimulus_id, out, stages)
