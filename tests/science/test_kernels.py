"""Compiled conversions against NumPy, for every int16 code; and what happens without numba."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from nsd_zarr.read.percent import PercentReader, RoundedReader, scale_into
from nsd_zarr.read.view import ViewReader
from nsd_zarr.science import kernels
from nsd_zarr.science.zscore import make_factor, zscore_into
from nsd_zarr.store.reader import TrialReader
from nsd_zarr.store.root import open_store

CODES = np.arange(-(2**15), 2**15).astype(np.int16)
PERCENT = np.float32(CODES) / np.float32(300)


@pytest.fixture
def loaded(monkeypatch):
    """Kernels for this test alone: others read by NumPy."""
    pytest.importorskip("numba")
    monkeypatch.setattr(kernels, "_loaded", None)
    assert kernels.load() is kernels.get()
    return kernels.get()


def to_bits(values):
    return values.view({2: np.uint16, 4: np.uint32}[values.itemsize])


@pytest.mark.parametrize("form", ["float32", "float16"])
def test_kernel_equals_numpy_for_every_code(loaded, form):
    out = np.empty(2**16, form)
    assert kernels.convert(CODES, out, form)
    assert (to_bits(out) == to_bits(PERCENT.astype(form))).all()


def test_kernel_rounds_to_bfloat16_as_torch_does_for_every_code(loaded):
    torch = pytest.importorskip("torch")
    out = np.empty(2**16, np.uint16)
    assert kernels.convert(CODES, out, "bfloat16")
    expected = torch.from_numpy(PERCENT.copy()).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    assert (out == expected).all()


@pytest.mark.parametrize("form", ["float32", "float16", "bfloat16"])
def test_readers_deliver_the_same_with_kernels_and_without(loaded, volumes, form, monkeypatch):
    reader = RoundedReader(PercentReader(TrialReader(open_store(volumes.path))), form)
    found = []
    for each in (loaded, None):
        monkeypatch.setattr(kernels, "_loaded", each)
        out = np.empty(volumes.stored.shape[1:], reader.dtype)
        reader.read_into(17, out)
        found.append(out)
    assert (to_bits(found[0]) == to_bits(found[1])).all()


def test_kernel_scores_every_code_as_numpy_does(loaded):
    rng = np.random.default_rng(0)
    mean, std = rng.normal(0, 3, 2**16).astype(np.float32), rng.gamma(1, 1, 2**16).astype(np.float32)
    factor = make_factor(np.where(rng.random(2**16) < 0.1, 0, std), rng.random(2**16) < 0.1)
    expected, out = PERCENT.copy(), np.empty(2**16, np.float32)
    zscore_into(expected, mean, factor)
    assert kernels.score(CODES, mean, factor, out)
    assert 0 < np.isnan(out).sum() < 2**15
    assert (np.isnan(out) == np.isnan(expected)).all()
    known = ~np.isnan(out)
    assert (to_bits(out[known]) == to_bits(expected[known])).all()
    assert not kernels.score(CODES, mean.astype(np.float64), factor, out)
    assert not kernels.score(CODES[::2], mean[::2], factor[::2], out[::2])
    assert not kernels.score(CODES[:8], mean[:1], factor[:1], out[:8])


@pytest.mark.parametrize("voxels", [None, np.array([3, 5, 8])])
def test_views_score_the_same_with_kernels_and_without(loaded, experiment, voxels, monkeypatch):
    view = ViewReader(TrialReader(open_store(experiment.path)), voxels=voxels).score()
    found = []
    for each in (loaded, None):
        monkeypatch.setattr(kernels, "_loaded", each)
        found.append([np.empty(view.shape, view.dtype) for _ in range(len(experiment.session))])
        for trial, out in enumerate(found[-1]):
            view.read_into(trial, out)
    np.testing.assert_array_equal(found[0], found[1], strict=True)


def test_arrays_that_no_kernel_takes_are_scaled_by_numpy(loaded):
    counts, out = np.arange(24, dtype=np.int16).reshape(4, 6), np.empty((4, 12), np.float32)
    scale_into(counts, out[:, ::2])
    assert (out[:, ::2] == np.float32(counts) / np.float32(300)).all()
    wide = np.empty((4, 6), np.float32)
    scale_into(counts.astype(np.int32), wide)
    assert (wide == np.float32(counts) / np.float32(300)).all()


def test_without_numba_nothing_is_loaded_and_values_are_the_same():
    code = """
import sys
sys.modules["numba"] = None
import numpy as np
from nsd_zarr.read import percent
from nsd_zarr.science import kernels
kernels.load_soon()
out = np.empty(3, np.float32)
percent.scale_into(np.array([1, -300, 32767], np.int16), out)
print(kernels.load(), (out == np.float32([1, -300, 32767]) / np.float32(300)).all())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "None True\n", done.stderr


# In a process of its own: loading is once for all.
FORK = """
import os, sys, threading
from nsd_zarr.science import kernels

compiling, end, real = threading.Event(), threading.Event(), kernels._compile

def compile_slowly():
    compiling.set()
    end.wait()
    return real()

kernels._compile = compile_slowly
kernels.load_soon()
compiling.wait()
child = os.fork()
if child == 0:
    os._exit(0 if kernels.load() is None and kernels.get() is None else 1)
end.set()
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.exit(code or kernels.load() is None)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_process_that_forks_while_kernels_are_loaded_leaves_a_child_that_goes_on_without():
    pytest.importorskip("numba")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


# The thread begins to load when the main thread has come to its end, and numba registers what it does at the end of a
# process.
END = """
import time
from nsd_zarr.science import kernels

real = kernels.load

def load():
    time.sleep(0.3)
    print("loaded", real() is not None, flush=True)

kernels.load = load
kernels.load_soon()
"""


def test_process_that_ends_while_kernels_are_loaded_waits_for_them(tmp_path):
    pytest.importorskip("numba")
    for number in range(3):
        fresh = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / str(number))}
        done = subprocess.run([sys.executable, "-c", END], capture_output=True, text=True, timeout=120, env=fresh)
        assert (done.returncode, done.stdout, done.stderr) == (0, "loaded True\n", "")
