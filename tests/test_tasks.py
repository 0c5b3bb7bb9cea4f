"""What several threads ask for at once is made once."""

import os
import pickle
import threading

import numpy as np
import pytest

from nsd_zarr.read import score
from nsd_zarr.read.score import SessionMissing, SessionScores
from nsd_zarr.store.foreign.reader import make_reader
from nsd_zarr.store.root import open_store
from nsd_zarr.tasks import Once


def test_locks_of_a_fork_are_its_own():
    once = pickle.loads(pickle.dumps(Once()))
    with once.hold("key"):
        child = os.fork()
        if not child:  # The lock is taken, by a thread of the parent.
            with once.hold("key"):
                os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.parametrize(("kind", "key"), [(SessionScores, 0), (SessionMissing, 0)])
def test_threads_that_ask_at_once_read_the_statistics_of_a_session_once(experiment, monkeypatch, kind, key):
    read, names, meet = score.read_chunk, [], threading.Barrier(6)
    monkeypatch.setattr(score, "read_chunk", lambda store, name, chunk: names.append(name) or read(store, name, chunk))
    found = kind(make_reader(open_store(experiment.path)))
    results = []

    def ask():
        meet.wait(20)
        results.append(found.get(key))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(results) == 6
    assert len(names) == len(set(names)) > 0
    for each in results:
        assert np.array_equal(np.asarray(each), np.asarray(results[0]), equal_nan=True) if each is not None else True
