"""Memory of a loop over TrialLoader at the reference shape: the ring, and little beside it."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

import nsd_zarr

pytest.importorskip("torch")

BATCH, PREFETCH, TRIALS, SHAPE = 8, 2, 24, (150, 150, 100)

LOOP = """
import sys
import torch
from nsd_zarr.science import kernels
from nsd_zarr.torch import TrialDataset, TrialLoader

def find_anonymous_bytes():
    (line,) = (each for each in open("/proc/self/status") if each.startswith("RssAnon"))
    return 1024 * int(line.split()[1])

kernels.load()  # numba itself takes 43 MB, once a process.
dataset = TrialDataset(sys.argv[1])
before = largest = find_anonymous_bytes()
loader = TrialLoader(dataset, int(sys.argv[2]), shuffle=True, threads=4, prefetch=int(sys.argv[3]))
for epoch in range(4):
    for batch in loader:
        largest = max(largest, find_anonymous_bytes())
print(largest - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_loop_in_the_default_mode_stays_under_the_ring_and_64_megabytes(tmp_path):
    values = np.random.default_rng(0).integers(-3000, 3000, (TRIALS, *SHAPE), "i2")
    (tmp_path / "source").mkdir()
    with h5py.File(tmp_path / "source/betas_session01.hdf5", "w") as file:
        file.create_dataset("betas", data=values, chunks=(1, *SHAPE))  # Fast to write and to read.
    nsd_zarr.convert(tmp_path / "source", tmp_path / "subj01.zarr", trials_per_shard=TRIALS)
    words = [sys.executable, "-c", LOOP, str(tmp_path / "subj01.zarr"), str(BATCH), str(PREFETCH)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=600)
    ring = (PREFETCH + 1) * BATCH * int(np.prod(SHAPE)) * 4
    assert int(done.stdout) <= ring + 64_000_000, f"{(int(done.stdout) - ring) / 1e6:.1f} MB beside the ring"
