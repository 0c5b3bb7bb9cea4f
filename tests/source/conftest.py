"""Session files of every kind, read twice: plainly by the library, and by the code under test."""

from __future__ import annotations

import contextlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import builders
import h5py
import numpy as np
import pytest

from nsd_zarr.errors import SourceError
from nsd_zarr.source.session import inspect_session


@pytest.fixture(scope="session")
def make_session():
    """make_session(path, **odd) creates a session file: builders.create_session."""
    return builders.create_session


@pytest.fixture(scope="session")
def make_values():
    """make_values(session, trials, shape, dtype): what a file without missing chunks must hold."""
    return builders.make_values


@pytest.fixture(scope="session")
def executor():
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest.fixture(scope="session")
def read_plainly():
    """The oracle: read_plainly(file, dataset) through h5py alone, native byte order, shape (trial, ...)."""

    def read(file, dataset="betas"):
        # HDF5 looks for external files in the working directory.
        with contextlib.chdir(file.path.parent), h5py.File(file.path, "r", locking=False) as hdf5:
            values = hdf5[dataset][...]
        return values.astype(values.dtype.newbyteorder("="))

    return read


@pytest.fixture(scope="session")
def read_session(executor):
    """read_session(file, dataset, trials, trust_offsets) -> (values of shape (trial, voxel), whether by offset)."""

    def read(file, dataset="betas", trials=None, trust_offsets=True):
        info = inspect_session(file, dataset)
        trials = range(info.trials) if trials is None else trials
        # Whatever the reader does not write shows as this pattern.
        out = np.frombuffer(b"\xa5" * (len(trials) * info.trial_bytes), info.dtype).reshape(len(trials), -1).copy()
        with info.open(trust_offsets=trust_offsets) as reader:
            reader.read_into(trials, out, executor)
            return out, reader.by_offset

    return read


@pytest.fixture(scope="session")
def refuse(read_session):
    """refuse(file, *words, dataset=...): the SourceError, which names session, file, what to do, and the *words*."""

    def check(file, *words, dataset="betas", read=read_session):
        with pytest.raises(SourceError) as caught:
            read(file, dataset)
        error = caught.value
        assert type(error) is SourceError
        assert error.session == file.session
        assert Path(error.path).resolve().parent == file.path.resolve().parent
        assert error.hint
        text = str(error)
        assert re.match(rf"session {file.session:02d}: \S.*\. {re.escape(error.hint)} \[.*\]$", text, re.DOTALL)
        for word in words:
            assert word in text
        # A traceback keeps frames, and these their datasets, open.
        del caught
        return error.with_traceback(None)

    return check


@pytest.fixture(autouse=True)
def no_session_file_stays_open():
    yield
    names = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            names.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    assert [name for name in names if name.split(" (")[0].endswith((".hdf5", ".h5", ".raw"))] == []
