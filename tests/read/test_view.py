"""Views of trials: from any thread, through fork and pickle, with the time of each stage."""

import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nsd_zarr.errors import ConfigError
from nsd_zarr.read.percent import PercentReader, RoundedReader
from nsd_zarr.read.view import AverageReader, ViewReader, make_view
from nsd_zarr.store.reader import StageSeconds, TrialReader
from nsd_zarr.store.root import open_store

VOXELS = np.array([3, 164, 70, 4, 9])


@pytest.fixture
def reader(experiment):
    return TrialReader(open_store(experiment.path))


@pytest.fixture
def readers(reader):
    scored = ViewReader(reader, voxels=VOXELS).score()
    return {
        "voxels": ViewReader(reader, voxels=VOXELS),
        "scored": scored,
        "leak-free": ViewReader(reader, voxels=VOXELS).score(np.arange(0, 42, 3)),
        "scored volume": ViewReader(reader).score(),
        "average": AverageReader(scored, np.array([[4, 40, 17], [2, -1, -1], [9, 8, -1]])),
    }


def read(reader, trial):
    out = np.empty(reader.shape, reader.dtype)
    reader.read_into(trial, out)
    return out


@pytest.mark.parametrize("name", ["voxels", "scored", "leak-free", "scored volume", "average"])
def test_view_is_the_same_from_many_threads_and_behind_a_pickle(readers, name):
    view = readers[name]
    trials = np.random.default_rng(5).integers(0, 3 if name == "average" else 42, 200).tolist()
    again = pickle.loads(pickle.dumps(view))
    expected = {trial: read(pickle.loads(pickle.dumps(view)), trial) for trial in set(trials)}
    with ThreadPoolExecutor(8) as executor:
        for each in (view, again):
            for trial, found in zip(
                trials, executor.map(lambda trial, each=each: read(each, trial), trials), strict=True
            ):
                assert np.array_equal(found, expected[trial], equal_nan=True)


def test_pickle_of_a_view_leaves_statistics_behind(readers):
    before = len(pickle.dumps(readers["scored volume"]))
    read(readers["scored volume"], 20)
    assert len(pickle.dumps(readers["scored volume"])) == before


def read_in_child(view, queue):
    queue.put(read(view, 20))


# Python 3.12 and newer warn of any fork of a process with threads; Blosc has some.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_view_goes_through_a_fork(readers):
    expected = read(readers["leak-free"], 20)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=read_in_child, args=(readers["leak-free"], queue))
    child.start()
    assert np.array_equal(queue.get(), expected, equal_nan=True)
    child.join(20)


def test_stages_are_timed(readers):
    stages = StageSeconds()
    out = np.empty(readers["average"].shape, np.float32)
    readers["average"].read_into(0, out, stages)
    assert min(stages.read, stages.decode, stages.cast) > 0


def test_views_of_views_count_among_their_own_voxels(reader, experiment):
    view = ViewReader(reader, voxels=VOXELS).score().gather(np.array([1, 0]))
    assert np.array_equal(view.voxels, [164, 3])
    assert np.array_equal(read(view, 30), read(ViewReader(reader, voxels=VOXELS).score(), 30)[[1, 0]])


def test_every_reader_is_a_view(reader, experiment):
    assert read(make_view(reader), 3).dtype == np.int16
    assert np.array_equal(read(make_view(PercentReader(reader)), 3), experiment.percent[3])
    view = ViewReader(reader)
    assert make_view(view) is view


def test_rounded_view_is_rounded_once(reader, experiment):
    view = ViewReader(reader, voxels=VOXELS)
    out = np.empty(5, np.float16)
    RoundedReader(view, "float16").read_into(7, out)
    assert np.array_equal(out, experiment.percent[7].reshape(-1)[VOXELS].astype(np.float16))


def test_views_that_make_no_sense_are_refused(reader, readers):
    with pytest.raises(ConfigError, match="already"):
        readers["scored"].score()
    with pytest.raises(ConfigError, match="Z-score first"):
        readers["average"].score()
    with pytest.raises(ConfigError, match="raw=True"):
        ViewReader(reader, raw=True).score()
    with pytest.raises(ConfigError, match="session 03: none of the trials"):
        read(ViewReader(reader).score(np.arange(5)), 20)
