"""One pass over memory where NumPy takes several: compiled with numba, where it is installed.

Values are bit-equal to NumPy's for every int16 code, with and without. numba takes half a second to import, so it is
loaded by those who read many trials (`load`), never by importing this package or by reading one. Its machine code is
kept between processes.

Measured, one thread of a busy machine, processor time of one trial of 150 x 150 x 100: int16 to float32 0.30 ms, NumPy
0.74; to bfloat16 0.36, NumPy 2.7; to float16 0.98 by a table of all codes, NumPy 6.4. At 83 x 104 x 81: 0.08 and 0.17,
0.10 and 0.75, 0.28 and 1.9. `python benchmarks/kernels.py` repeats it.
"""

from __future__ import annotations

import _thread
import importlib.util
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Any

import numpy as np

from nsd_zarr.layout import COUNTS_PER_PERCENT

Convert = Callable[[np.ndarray, np.ndarray], None]
"""Converts int16 counts, shape (value,), to an array of the same shape: convert(counts, out)."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """Compiled conversions of int16 counts to percent signal change. None holds the interpreter's lock."""

    to_float32: Convert
    """To float32."""
    to_bfloat16: Convert
    """To the bits of bfloat16, uint16; rounded from float32 to nearest, ties to even."""
    to_float16: Convert
    """To float16, rounded likewise."""

    def find(self, form: str) -> Convert | None:
        """The conversion to "float32", "bfloat16" or "float16"; None for another."""
        found: Convert | None = getattr(self, f"to_{form}", None)
        return found


_lock = Lock()
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
    if _loaded is None and not _lock.locked() and importlib.util.find_spec("numba") is not None:
        # In a thread of its own: an interrupt inside Thread.start would leave a thread that waits for ever.
        _thread.start_new_thread(_start, ())


def _start() -> None:
    with suppress(RuntimeError):  # No thread can be started: NumPy does as well.
        Thread(target=load, name="kernels of nsd-zarr").start()


def _begin_fork() -> None:
    global _lock, _cut_off
    _cut_off, _lock = _lock.locked(), Lock()


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


def _compile() -> Kernels | None:
    try:
        import numba
    except ImportError:  # installed, and not for this version of NumPy
        return None
    scale = np.float32(COUNTS_PER_PERCENT)
    table = (np.arange(2**16, dtype=np.uint16).view(np.int16).astype(np.float32) / scale).astype(np.float16)

    def to_float32(counts, out):  # type: ignore[no-untyped-def]
        for place in range(counts.size):
            out[place] = np.float32(counts[place]) / scale

    def to_bfloat16(counts, out):  # type: ignore[no-untyped-def]
        for place in range(counts.size):
            bits = np.float32(np.float32(counts[place]) / scale).view(np.uint32)
            even = (bits >> np.uint32(16)) & np.uint32(1)
            out[place] = (bits + even + np.uint32(0x7FFF)) >> np.uint32(16)

    def look_up(counts, values, out):  # type: ignore[no-untyped-def]
        for place in range(counts.size):
            out[place] = values[np.uint16(counts[place])]

    def compile_for(signature: str, function: Any) -> Any:
        return numba.njit(f"void({signature})", nogil=True, cache=True)(function)

    taken, halves = compile_for("int16[::1], uint16[::1], uint16[::1]", look_up), table.view(np.uint16)

    def to_float16(counts: np.ndarray, out: np.ndarray) -> None:
        taken(counts, halves, out.view(np.uint16))

    return Kernels(
        compile_for("int16[::1], float32[::1]", to_float32),
        compile_for("int16[::1], uint16[::1]", to_bfloat16),
        to_float16,
    )
