"""The unit of work: one session, wherever it is run, as often as it is run."""

from __future__ import annotations

import os
import pickle
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from nsd_zarr.buffers import BufferPool
from nsd_zarr.config import make_config
from nsd_zarr.conversion import unit as module
from nsd_zarr.conversion.context import RunContext
from nsd_zarr.conversion.ledger import Ledger
from nsd_zarr.conversion.plan import make_plan
from nsd_zarr.conversion.run import make_units
from nsd_zarr.conversion.unit import run_unit
from nsd_zarr.errors import SourceError
from nsd_zarr.places.durable import DurableFile


@pytest.fixture
def unit(source, interrupt):
    """Session 2 of a run that was stopped in it."""
    store = interrupt(source, at_trial=9)
    plan = make_plan(source, store, make_config(trials_per_shard=2))
    return make_units(plan, Ledger(store))[0]


def test_unit_goes_through_pickle_and_gives_the_same_bytes(unit, digest_tree):
    assert unit.source.session == 2
    done = run_unit(unit)
    before, record = digest_tree(unit.store), Ledger(unit.store).read_session(2)
    assert done.stored_bytes == sum(shard.size for shard in record.shards)
    assert run_unit(pickle.loads(pickle.dumps(unit))).how == "by offset"
    assert digest_tree(unit.store) == before
    assert Ledger(unit.store).read_session(2) == record


def test_unit_that_is_stopped_leaves_no_record(unit):
    context = RunContext()
    context.stop.set()
    with pytest.raises(module.Stopped):
        run_unit(unit, context)
    assert Ledger(unit.store).read_session(2) is None


def test_unit_whose_source_is_gone_names_session_and_file(unit):
    unit.source.path.unlink()
    with pytest.raises(SourceError, match="session 02: cannot read the file: No such file") as caught:
        run_unit(unit)
    assert caught.value.path == unit.source.path
    assert Ledger(unit.store).had_fault(2)


def test_many_shards_need_few_open_files(make_source, convert, monkeypatch):
    commit, most = DurableFile.commit, []

    def slow_commit(self, **options):
        most.append(len(os.listdir("/proc/self/fd")))
        commit(self, **options)

    folder = make_source(sessions=(1,), trials=180, volume=(2, 3, 1))
    opened = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(DurableFile, "commit", slow_commit)
    convert(folder, trials_per_shard=1, workers=4)
    assert len(most) > 180
    assert max(most) <= opened + module.MAX_UNCOMMITTED + 4 + 12


# The import of distributed takes 0.3 s, and what is converted here has no use for it.
WITHOUT_CLUSTER = """
import atexit, sys
atexit.register(lambda: print("distributed" if "distributed" in sys.modules else "", file=sys.stderr))
"""


def test_many_shards_convert_under_a_low_limit_of_open_files(make_source, run_child, tmp_path):
    folder = make_source(sessions=(1,), trials=180, volume=(2, 3, 1))
    outcome = run_child(
        *("convert", folder, tmp_path / "subj01.zarr", "--trials-per-shard", 1),
        before=f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)){WITHOUT_CLUSTER}",
    )
    assert (outcome.code, outcome.err.count("done"), outcome.err.count("distributed")) == (0, 1, 0)


def test_block_is_handed_on_to_the_next_session():
    pool = BufferPool()
    with pool.borrow((6, 35), "int16") as first:
        pass
    with pool.borrow((6, 35), "int16") as second:
        assert np.shares_memory(second, first)
        with pool.borrow((6, 35), "int16") as third:
            assert not np.shares_memory(third, first)
    with pool.borrow((4, 35), "float32") as other:
        assert (other.shape, other.dtype) == ((4, 35), "float32")


def test_session_is_opened_while_a_profiler_looks(source, tmp_path):
    # Each worker of a Dask cluster has a thread that holds the frames of the others for a moment.
    stop = threading.Event()

    def look():
        while not stop.wait(0.0002):
            frames = list(sys._current_frames().values())
        del frames

    profiler = threading.Thread(target=look)
    profiler.start()
    try:
        for _ in range(100):
            make_plan(source, tmp_path / "subj01.zarr", make_config())
    finally:
        stop.set()
        profiler.join()


@pytest.mark.parametrize(
    ("in_order", "by_offset", "threads", "beside"),
    [(True, False, 4, 3), (True, False, 1, 1), (True, True, 4, 4), (False, True, 4, 4), (False, False, 2, 2)],
)
def test_thread_that_unpacks_a_stream_is_one_of_those_planned(unit, in_order, by_offset, threads, beside):
    source = SimpleNamespace(in_order=in_order, by_offset=by_offset)
    assert replace(unit, source=source, threads=threads).threads_beside_reading == beside
