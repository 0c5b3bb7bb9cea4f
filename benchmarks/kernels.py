"""Counts to percent and z-scores by kernels and by NumPy: processor time of a trial, medians of alternating rounds.

    python benchmarks/kernels.py [--rounds 21]

Needs numba (pip install "nsd-zarr[speed]").
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from nsd_zarr.read.percent import round_to_bfloat16
from nsd_zarr.science import kernels
from nsd_zarr.science.zscore import zscore_into

SHAPES = ((150, 150, 100), (83, 104, 81))


def scale(counts: np.ndarray, out: np.ndarray) -> None:
    np.copyto(out, counts, casting="same_kind")
    np.divide(out, np.float32(300), out=out)


def measure(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median processor time of each function in ms, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            started = time.process_time()
            function()
            times[name].append(time.process_time() - started)
    return {name: 1000 * statistics.median(each[1:]) for name, each in times.items()}


def make_functions(shape: tuple[int, ...]) -> dict[str, Callable[[], object]]:
    counts = np.random.default_rng(0).integers(-3000, 3000, shape).astype(np.int16)
    wide, half, bits = (np.empty(shape, dtype) for dtype in (np.float32, np.float16, np.uint16))
    mean, factor = (np.random.default_rng(1).normal(1, 0.1, shape).astype(np.float32) for _ in range(2))

    def score() -> None:
        scale(counts, wide)
        zscore_into(wide, mean, factor)

    def to_half() -> None:
        scale(counts, wide)
        np.copyto(half, wide, casting="same_kind")

    def to_bfloat16() -> None:
        scale(counts, wide)
        round_to_bfloat16(wide, bits)

    return {
        "float32, NumPy": lambda: scale(counts, wide),
        "float32, kernel": lambda: kernels.convert(counts, wide, "float32"),
        "z-score, NumPy": score,
        "z-score, kernel": lambda: kernels.score(counts, mean, factor, wide),
        "bfloat16, NumPy": to_bfloat16,
        "bfloat16, kernel": lambda: kernels.convert(counts, bits, "bfloat16"),
        "float16, NumPy": to_half,
        "float16, kernel": lambda: kernels.convert(counts, half, "float16"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args()
    if kernels.load() is None:
        raise SystemExit('numba is not installed: pip install "nsd-zarr[speed]"')
    for shape in SHAPES:
        for name, milliseconds in measure(make_functions(shape), options.rounds).items():
            print(f"{shape!s:16} {name:18} {milliseconds:.3f} ms")


if __name__ == "__main__":
    main()
