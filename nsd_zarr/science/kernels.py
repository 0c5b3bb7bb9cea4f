"""One pass over memory where NumPy takes several: compiled with numba, where it is installed.

Values are bit-equal to NumPy's for every int16 code, with and without. numba takes half a second to import, so it is
loaded by those who read many trials (`load`), never by importing this package or by reading one. Its machine code is
kept between processes.

Measured, processor time of one trial of 150 x 150 x 100: int16 to float32 0.14 ms, NumPy 0.37; z-scored 0.38, NumPy
0.83; to bfloat16 0.18, NumPy 1.7; to float16 0.48 by a table of all codes, NumPy 3.7. At 83 x 104 x 81: 0.04 and 0.10,
0.09 and 0.21, 0.04 and 0.38, 0.14 and 1.1. `python benchmarks/kernels.py` repeats it. The voxels of a region are left
to NumPy: 0.019 ms for nsdgeneral, 0.012 compiled, where decoding takes 0.8.
"""

from __future__ import annotations

import _thread
import atexit
import importlib.util
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nsd_zarr.science import loops

Convert = Callable[[np.ndarray, np.ndarray], None]
"""Converts int16 counts, shape (value,), to an array of the same shape: convert(counts, out)."""
Score = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]
"""Z-scores int16 counts: score(counts, mean, factor, out), all of shape (value,), the last three float32."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """Compiled conversions of int16 counts to percent signal change. None holds the interpreter's lock."""

    to_float32: Convert
    """To float32."""
    to_bfloat16: Convert
    """To the bits of bfloat16, uint16; rounded from float32 to nearest, ties to even."""
    to_float16: Convert
    """To float16, rounded likewise."""
    score: Score
    """To float32 z-scores: percent less mean, times factor, as nsd_zarr.science.zscore has them."""

    def find(self, form: str) -> Convert | None:
        """The conversion to "float32", "bfloat16" or "float16"; None for another."""
        found: Convert | None = getattr(self, f"to_{form}", None)
        return found


LOAD_SECONDS = 60.0
"""How long the end of a process waits for a thread that loads: compiling takes some seconds, once."""

_lock = threading.Lock()
_under_way: list[_thread.LockType] = []  # One for each thread that loads, held until it is done.
_loaded: Kernels | None = None
_cut_off = False  # Whether this process is a fork of one that was loading: the locks of that import stay taken.


def load() -> Kernels | None:
    """Compile, or fetch what was compiled before; None where numba is not installed. Thread-safe, fork-safe."""
    global _loaded
    with _lock:
        if _loaded is None and not _cut_off and importlib.util.find_spec("numba") is not None:
            _loaded = _compile()
        return _loaded


def load_soon() -> None:
    """Load in a thread, for who goes on meanwhile with NumPy. An interrupt does no harm."""
    if _loaded is not None or _lock.locked() or importlib.util.find_spec("numba") is None:
        return
    done = _thread.allocate_lock()
    done.acquire()
    _under_way.append(done)
    try:
        # Not by Thread.start: an interrupt inside it would leave a thread that waits for ever.
        _thread.start_new_thread(_load_and_say, (done,))
    except BaseException as error:
        _under_way.remove(done)
        if not isinstance(error, RuntimeError):  # No thread can be started: NumPy does as well.
            raise


def _load_and_say(done: _thread.LockType) -> None:
    try:
        load()
    finally:
        done.release()


def _wait() -> None:
    """Let threads that load come to their end: compiling while the interpreter is taken down crashes."""
    for done in _under_way:
        done.acquire(timeout=LOAD_SECONDS)


# Where threads are joined, as concurrent.futures does: functions of atexit come in turn, and those that numba registers
# while it is imported would come before this one.
getattr(threading, "_register_atexit", atexit.register)(_wait)


def _begin_fork() -> None:
    global _lock, _cut_off
    _cut_off, _lock = _lock.locked(), threading.Lock()
    _under_way.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_fork)


def get() -> Kernels | None:
    """The kernels, when somebody has loaded them."""
    return _loaded


def convert(counts: np.ndarray, out: np.ndarray, form: str) -> bool:
    """Convert *counts* into *out* (of the same shape) by a kernel; False where there is none for these arrays."""
    kernels = _loaded
    if kernels is None or counts.dtype != np.int16 or not (counts.flags.c_contiguous and out.flags.c_contiguous):
        return False
    kernel = kernels.find(form)
    if kernel is None:
        return False
    kernel(counts.reshape(-1), out.reshape(-1))
    return True


def score(counts: np.ndarray, mean: np.ndarray, factor: np.ndarray, out: np.ndarray) -> bool:
    """Write z-scores of *counts* into *out* by a kernel; False where there is none for these arrays."""
    kernels, arrays = _loaded, (mean, factor, out)
    if kernels is None or counts.dtype != np.int16 or {array.dtype.name for array in arrays} != {"float32"}:
        return False
    if not all(array.flags.c_contiguous and array.shape == counts.shape for array in (counts, *arrays)):
        return False
    kernels.score(counts.reshape(-1), *(array.reshape(-1) for array in arrays))
    return True


def _compile() -> Kernels | None:
    try:
        import numba
    except ImportError:  # installed, and not for this version of NumPy
        return None

    def compile_for(signature: str, function: Any) -> Any:
        return numba.njit(f"void({signature})", nogil=True, cache=True)(function)

    codes = np.arange(2**16, dtype=np.uint16).view(np.int16)
    halves = (codes.astype(np.float32) / loops.SCALE).astype(np.float16).view(np.uint16)
    take = compile_for("int16[::1], uint16[::1], uint16[::1]", loops.look_up)

    def to_float16(counts: np.ndarray, out: np.ndarray) -> None:
        take(counts, halves, out.view(np.uint16))

    return Kernels(
        compile_for("int16[::1], float32[::1]", loops.to_float32),
        compile_for("int16[::1], uint16[::1]", loops.to_bfloat16),
        to_float16,
        compile_for("int16[::1], float32[::1], float32[::1], float32[::1]", loops.to_score),
    )
