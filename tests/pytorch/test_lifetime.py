"""Memory and threads of a loader: whose they are, when they are used again, and that none is left behind."""

import gc
import os
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nsd_zarr.loading import loader as loader_module  # noqa: E402
from nsd_zarr.torch import TrialDataset, TrialLoader  # noqa: E402


@pytest.fixture
def no_collector():
    """What is freed is freed by its last reference."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def taken(monkeypatch):
    """Weak references to all memory that loaders take."""
    made = []
    real = loader_module.BatchMemory.__new__

    def make(kind, betas, images=None):
        if betas.base is None or not isinstance(betas.base, np.ndarray):
            made.append(weakref.ref(betas))
        return real(kind, betas, images)

    monkeypatch.setattr(loader_module.BatchMemory, "__new__", make)
    return made


def alive():
    return [thread for thread in threading.enumerate() if thread.name.startswith("nsd-zarr read")]


def count(taken):
    return sum(memory() is not None for memory in taken)


@pytest.mark.parametrize("prefetch", [1, 2, 4])
@pytest.mark.parametrize("reuse", [False, True])
def test_loop_takes_the_memory_of_prefetch_and_one_batches(volumes, taken, prefetch, reuse):
    loader = TrialLoader(TrialDataset(volumes.path), 2, prefetch=prefetch, reuse=reuse, threads=3)
    seen = set()
    for batch in loader:
        seen.add(batch["betas"].data_ptr())
        assert count(taken) <= prefetch + 1
    assert len(seen) <= prefetch + 1
    for batch in loader:  # noqa: B007 - the last batch of the pass before is still held
        assert count(taken) <= prefetch + 1


KEEPERS = {
    "batch": lambda batch: batch,
    "tensor": lambda batch: batch["betas"],
    "part": lambda batch: batch["betas"][1, 2],
    "array": lambda batch: batch["betas"].numpy()[0],
    "detached": lambda batch: batch["betas"].flatten(1).detach(),
    "graph": lambda batch: (batch["betas"] * torch.ones(1, requires_grad=True)).sum(),
}


@pytest.mark.parametrize("keeper", KEEPERS)
def test_what_the_consumer_keeps_stays_as_it_is(volumes, taken, keeper):
    loader = TrialLoader(TrialDataset(volumes.path), 2, threads=3, prefetch=2)
    kept, copies = [], []
    for batch in loader:
        kept.append(KEEPERS[keeper](batch))
        copies.append(batch["betas"].clone())
    if keeper == "graph":
        return  # It holds what the backward pass asks for, if anything: torch's matter.
    for one, copy in zip(kept, copies, strict=True):
        expected = {"batch": copy, "tensor": copy, "part": copy[1, 2], "array": copy[0], "detached": copy.flatten(1)}
        found = torch.as_tensor(one["betas"] if keeper == "batch" else one)
        assert torch.equal(found.nan_to_num(), expected[keeper].nan_to_num())
    assert count(taken) >= len(loader)


def test_consumer_that_keeps_three_batches_has_the_memory_of_three_more(volumes, taken):
    kept = []
    for batch in TrialLoader(TrialDataset(volumes.path), 2, prefetch=2, threads=2):
        kept = [*kept[-2:], batch]
        assert count(taken) <= 2 + 4


@pytest.mark.parametrize("reuse", [False, True])
def test_loader_left_early_frees_threads_and_memory_without_the_collector(volumes, taken, no_collector, reuse):
    loader = TrialLoader(TrialDataset(volumes.path), 2, reuse=reuse, threads=3)
    for batch in loader:
        assert batch["trial"].tolist() == [0, 1]
        break
    assert not alive()
    del batch
    assert count(taken) == 0
    iterator = iter(loader)
    next(iterator)
    dropped = weakref.ref(loader)
    del loader, iterator
    assert dropped() is None
    assert not alive()
    assert count(taken) == 0


def test_loader_that_raises_leaves_nothing(volumes, taken, no_collector, tmp_path):
    store = volumes.copy_to(tmp_path / "damaged.zarr")
    store.shard_path(24).unlink()
    loader = TrialLoader(TrialDataset(store.path), 2, threads=3)
    trials = []
    with pytest.raises(ValueError, match="trial 21 "):
        trials.extend(trial for batch in loader for trial in batch["trial"].tolist())
    assert trials == list(range(20))  # What comes before the damage is handed out.
    assert not alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_iterator_carried_through_a_fork_says_so(volumes):
    iterator = iter(TrialLoader(TrialDataset(volumes.path), 2))
    next(iterator)
    child = os.fork()
    if child == 0:
        try:
            next(iterator)
        except RuntimeError as error:
            os._exit(0 if "iter(loader)" in str(error) else 2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(list(iterator)) == 20


# In processes of their own, forked from one that has imported PyTorch: that is most of their time. The end of an
# interpreter freezes threads that still run.
END = """
import os, sys
from nsd_zarr.torch import TrialDataset, TrialLoader

store, images, *ways = sys.argv[1:]
codes = []
for how in ways:
    child = os.fork()
    if child == 0:
        break
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    print(codes)
    sys.exit()
loader = TrialLoader(TrialDataset(store, images=images), 4, shuffle=True, threads=4, prefetch=3)
iterator = iter(loader)
for batch in iterator:
    if how == "raise":
        raise RuntimeError("shapes do not fit")
    if how == "exit":
        sys.exit(3)
    break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_script_that_ends_with_a_loader_under_way_ends(experiment, stimulus_images, tmp_path):
    (tmp_path / "end.py").write_text(END)
    words = [sys.executable, tmp_path / "end.py", experiment.path, stimulus_images.locate("hdf5")]
    done = subprocess.run([*words, "break", "raise", "exit"], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, "[0, 1, 3]\n"), done.stderr
    assert done.stderr.count("shapes do not fit") == 2  # the line of the script, and the error
    assert "Fatal" not in done.stderr


# Each try in a forked child: afterwards KeyboardInterrupt alone has ended the loop, and no thread is left.
INTERRUPT = """
import faulthandler, os, random, signal, sys, threading, time
import torch
from nsd_zarr.torch import TrialDataset, TrialLoader

torch.set_num_threads(1)
dataset, times = TrialDataset(sys.argv[1]), int(sys.argv[2])
started = time.time()
list(TrialLoader(dataset, 4, threads=4))
longest = 2 * (time.time() - started)


def is_right(number):
    loader = TrialLoader(dataset, 4, shuffle=True, seed=number, threads=4)
    faulthandler.dump_traceback_later(60, exit=True)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        # Again after a while, as people press Ctrl-C again: Python ignores one that meets a callback of its own
        # weak references.
        signal.setitimer(signal.ITIMER_REAL, random.Random(number).uniform(0.0001, longest), 5)
        while True:
            for batch in loader:
                pass
    except KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, 0)
    for _ in range(100):
        if not [thread for thread in threading.enumerate() if thread.name.startswith("nsd-zarr")]:
            return True
        time.sleep(0.05)


wrong = 0
for number in range(times):
    child = os.fork()
    if child == 0:
        code = 9
        try:
            code = 0 if is_right(number) else 8
        finally:
            os._exit(code)
    wrong += os.waitpid(child, 0)[1] != 0
sys.exit(wrong)
"""


@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_interrupts_at_random_moments_leave_no_thread_and_no_hang(volumes, tmp_path, times):
    (tmp_path / "interrupt.py").write_text(INTERRUPT)
    words = [sys.executable, "-W", "ignore", tmp_path / "interrupt.py", volumes.path, str(times)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
