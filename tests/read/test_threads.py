import os
import subprocess
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import nsd_zarr
from nsd_zarr.places import open_files

FORK = """
import os, signal, sys, threading
import numpy as np
import nsd_zarr

path, expected = sys.argv[1], np.load(sys.argv[2])

def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

for before in (lambda work: None, lambda work: work(), in_thread):
    betas = nsd_zarr.open_dataset(path, cache=False).betas
    before(lambda: betas[:9].values)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        right = np.array_equal(betas.values, expected)
        in_thread(lambda: betas[30].values)
        os._exit(not right)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(betas.values, expected)
print("right")
"""


@pytest.fixture
def few_open_shards(monkeypatch):
    monkeypatch.setattr(open_files, "_open", OrderedDict())  # What other tests left open is not counted.
    monkeypatch.setattr("nsd_zarr.places.open_files.count_allowed", lambda: 2)


def count_descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.usefixtures("few_open_shards")
def test_open_shards_stay_within_their_bound(volumes):
    dataset = nsd_zarr.open_dataset(volumes.path, cache=False)
    before = count_descriptors()
    for trial in np.random.default_rng(1).permutation(42).tolist():
        assert np.array_equal(dataset.betas[trial].values, volumes.percent[trial])
        assert count_descriptors() <= before + 2
    assert count_descriptors() == before + 2
    dataset.close()
    assert count_descriptors() == before


def test_closing_happens_when_the_dataset_is_let_go(volumes):
    before = count_descriptors()
    betas = nsd_zarr.open_dataset(volumes.path, cache=False).betas
    assert betas.values.shape == volumes.stored.shape
    assert count_descriptors() == before + 6
    del betas
    assert count_descriptors() == before


@pytest.mark.usefixtures("few_open_shards")
def test_many_threads_read_random_trials_at_once(volumes):
    betas = nsd_zarr.open_dataset(volumes.path, cache=False).betas
    before = count_descriptors()

    def read(seed):
        wanted = np.random.default_rng(seed).integers(0, 42, 150).tolist()
        return all(np.array_equal(betas.isel(trial=trial).values, volumes.percent[trial]) for trial in wanted)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # provoke what threads can do to the shared dictionary of open shards
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert count_descriptors() <= before + 2 + 8


def test_child_made_by_fork_reads_with_and_without_a_decode_before(volumes, tmp_path):
    np.save(tmp_path / "expected.npy", volumes.percent)
    # Blosc's threads make Python 3.12 and newer warn of any fork.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, volumes.path, tmp_path / "expected.npy"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert (result.stdout, result.stderr) == ("right\n", "")


def test_process_ends_quietly_with_open_shards(volumes):
    code = "import sys, nsd_zarr; ds = nsd_zarr.open_dataset(sys.argv[1]); ds.betas[3].values; print('read')"
    command = [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", code, volumes.path]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (result.stdout, result.stderr) == ("read\n", "")
