"""Many trials at once: by threads, each trial once, within bounded memory."""

import json
import subprocess
import sys
import threading

import numpy as np
import pytest

import nsd_zarr
from nsd_zarr.errors import DamageFound
from nsd_zarr.read import bulk
from nsd_zarr.read.bulk import read_rows


@pytest.fixture
def many_cores(monkeypatch):
    monkeypatch.setattr(bulk, "count_cores", lambda: 16)


def test_rows_are_read_once_by_several_threads(many_cores):
    wanted = [5, 3, 3, 9, 5, *range(20, 60), 5]
    out, calls, threads = np.zeros(len(wanted), int), [], set()
    meet = threading.Barrier(bulk.MAX_THREADS, timeout=20)

    def read(trial, row):
        if len(threads) < bulk.MAX_THREADS and threading.current_thread() not in threads:
            threads.add(threading.current_thread())
            meet.wait()
        calls.append(trial)
        out[row] = trial

    read_rows(read, wanted, out)
    assert out.tolist() == wanted
    assert sorted(calls) == sorted(set(wanted))
    assert len(threads) == bulk.MAX_THREADS
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nsd-zarr bulk")]


def test_threads_of_others_are_not_multiplied(many_cores):
    names, out = set(), np.zeros(50)

    def work():
        read_rows(lambda trial, row: names.add(threading.current_thread().name), range(50), out)

    thread = threading.Thread(target=work, name="theirs")
    thread.start()
    thread.join()
    assert names == {"theirs"}


def test_error_of_a_thread_is_raised_and_stops_the_others(many_cores):
    calls = []

    def read(trial, row):
        calls.append(trial)
        if trial == 3:
            raise KeyError(trial)

    with pytest.raises(KeyError):
        read_rows(read, range(100_000), np.zeros(100_000))
    assert len(calls) < 100_000
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nsd-zarr bulk")]


def test_damage_is_reported_by_a_bulk_read(experiment, tmp_path, many_cores):
    store = experiment.store.copy_to(tmp_path / "subj01.zarr")
    store.shard_path(24).unlink()
    with pytest.raises(DamageFound, match=r"trial 2\d .*in betas shard 3"):
        nsd_zarr.open_dataset(store.path).nsd.roi("nsdgeneral").load()


def test_bulk_read_by_threads_equals_trial_by_trial(experiment, many_cores):
    ds = nsd_zarr.open_dataset(experiment.path, cache=False)
    for view in (ds, ds.nsd.roi("nsdgeneral"), ds.nsd.roi("V2d").nsd.zscore().nsd.average_repeats()):
        one_by_one = np.stack([view.betas[row].values for row in range(len(view.betas))])
        assert np.array_equal(view.betas.values, one_by_one)
        assert np.array_equal(view.betas[:, ..., 1].values, one_by_one[..., 1])


# Loads what it is asked for, while a thread looks every ms at what the process has of anonymous and shared memory.
pytestmark = pytest.mark.xdist_group("bulk")

MEASURE = """
import json, sys, threading
import numpy as np
import nsd_zarr

ds = nsd_zarr.open_dataset(sys.argv[1])
ds.betas[0].values
view = eval(sys.argv[2])

def held():
    with open("/proc/self/status") as file:
        return sum(1024 * int(line.split()[1]) for line in file if line.startswith(("RssAnon", "RssShmem")))

before, peak, stop = held(), 0, threading.Event()

def watch():
    global peak
    while not stop.wait(0.001):
        peak = max(peak, held())

thread = threading.Thread(target=watch)
thread.start()
result = view.betas.values if hasattr(view, "betas") else view()
stop.set()
thread.join()
print(json.dumps([peak - before, result.nbytes]))
"""


@pytest.fixture(scope="module")
def large(make_store, make_experiment):
    """Four sessions of 200 trials of 150,000 voxels: 240 MB of counts."""
    rng = np.random.default_rng(3)
    values = rng.integers(-999, 999, (800, 30, 50, 100), np.int16)
    names = ["nsd_id", "session_mean", "session_std", "roi_nsdgeneral", "brainmask", "affine"]
    made = make_experiment(make_store(values, sessions=(1, 2, 3, 4), trials_per_shard=50), names)
    return made.path


VIEWS = {
    "region": 'ds.nsd.roi("nsdgeneral")',
    "brain, z-scored": 'ds.nsd.roi("brainmask").nsd.zscore()',
    "leak-free": 'ds.nsd.roi("nsdgeneral").nsd.zscore(trials=np.arange(800) % 7 > 1)',
    "mean over repeats": 'ds.nsd.roi("nsdgeneral").nsd.zscore().nsd.average_repeats()',
    "ncsnr": "lambda: ds.nsd.compute_ncsnr().values",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VIEWS)
def test_measured_peak_is_the_result_and_at_most_64_mib(large, name):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(large), VIEWS[name]], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    taken, result = json.loads(done.stdout)
    assert result <= taken + 2**20
    assert taken <= result + 64 * 2**20
