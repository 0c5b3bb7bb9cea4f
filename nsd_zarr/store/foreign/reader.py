"""Arrays of stores of another layout or place, read through zarr-python.

The decode engine (reader.py) knows one layout on one kind of disk: ours. Whatever else holds `betas` (open.py) is
read here with the same values, at zarr-python's speed. zarr-python fills what is missing with zeros, as Zarr says;
where the store carries our manifest, each file is looked for first, so that what is lost raises there too.
"""

from __future__ import annotations

import time
from typing import Any, TypeAlias

import numpy as np

from nsd_zarr.errors import DamageFound, NsdZarrError
from nsd_zarr.store.foreign.group import open_array, read_size
from nsd_zarr.store.format import BETAS, make_shard_key
from nsd_zarr.store.reader import StageSeconds, TrialReader
from nsd_zarr.store.root import Store
from nsd_zarr.store.trial_digests import OTHER_VALUES, TrialDigests, find_digests

AnyReader: TypeAlias = "TrialReader | ZarrReader"
"""What reads trials as they are stored."""


def make_reader(store: Store) -> AnyReader:
    """What reads trials of *store*: the decode engine where it knows the layout, else zarr-python's slices."""
    return ZarrReader(store) if store.zarr_location else TrialReader(store)


class ZarrReader:
    """Reads trials through zarr-python, in stored values. Thread-safe, fork-safe, picklable; as TrialReader."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._array: Any = None
        self._seen: set[int] = set()
        self._digests: TrialDigests | None = None
        self._has_looked = False

    def __getstate__(self) -> Store:
        return self.store

    def __setstate__(self, store: Store) -> None:
        self.__init__(store)  # type: ignore[misc]

    @property
    def requests_at_once(self) -> int:
        """0: zarr-python makes several requests by itself."""
        return 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored dtype, in this machine's byte order."""
        return np.dtype(self.store.geometry.dtype)

    @property
    def volume_shape(self) -> tuple[int, ...]:
        """Shape of one trial."""
        return self.store.geometry.volume_shape

    def read_into(self, trial: int, out: np.ndarray, stages: StageSeconds | None = None) -> None:
        """Trial *trial* (0-based, in the store) into *out*: stored dtype, shape of a trial.

        Raises IndexError outside the store; DamageFound, naming the trial, when zarr-python cannot read it.
        """
        session, _ = self.store.geometry.locate_trial(trial)
        started = time.perf_counter()
        try:
            self._check_file(trial)
            if self._array is None:
                self._array = open_array(self.store.zarr_location, self.store.path, BETAS)
            np.copyto(out, self._array[int(trial)], casting="equiv")
            self._check_values(trial, out)
        except NsdZarrError:
            raise
        except Exception as error:  # The border to stores of all kinds: each has errors of its own.
            raise DamageFound(
                f"trial {trial} cannot be read: {error or type(error).__name__}",
                hint="It is read through zarr-python, because the store's place or layout is not the package's own.",
                path=self.store.zarr_location,
                session=session,
            ) from error
        if stages is not None:
            stages.decode += time.perf_counter() - started

    def close(self) -> None:
        """Let go of the array. It is opened again when it is needed."""
        self._array = None

    def _check_values(self, trial: int, values: np.ndarray) -> None:
        """Compare with the trial's digest, where the store brings the package's own. Raises DamageFound."""
        if not self._has_looked:
            self._digests, self._has_looked = find_digests(self.store), True
        if self._digests is not None and not self._digests.match(trial, values):
            raise DamageFound(
                f"trial {trial} is lost or damaged: {OTHER_VALUES}",
                hint=f"Copy the store again; where its values were changed on purpose, remove the array "
                f"{self.store.geometry.kind.digests} from the copy.",
                path=self.store.zarr_location,
                session=self.store.geometry.locate_trial(trial)[0],
            )

    def _check_file(self, trial: int) -> None:
        """Once for each shard of a store with our manifest: that it is there, with its size."""
        shard = trial // self.store.geometry.trials_per_shard
        key = make_shard_key(self.store.geometry, shard)
        if shard in self._seen or key not in self.store.manifest:
            return
        size, expected = read_size(self.store.zarr_location, self.store.path, key), self.store.manifest[key].size
        if size != expected:
            found = "missing" if size is None else f"of {size} bytes"
            raise DamageFound(
                f"trial {trial} is lost or damaged: its shard is {found}, expected {expected} bytes",
                path=f"{self.store.zarr_location}/{key}",
                session=self.store.geometry.locate_trial(trial)[0],
            )
        self._seen.add(shard)
