"""A conversion on a Dask cluster: the same function, the same bytes, and errors as they were raised."""

from __future__ import annotations

import os
import threading

import h5py
import pytest

import nsd_zarr
from nsd_zarr.errors import ConfigError, DoesNotFit, ResumeRefused, SourceError

# Raised while a cluster of processes goes down, in threads and loops of distributed's own.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes of one thread each."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", memory_limit="1GiB"
    ) as cluster:
        yield cluster


@pytest.fixture
def address(cluster):
    return cluster.scheduler_address


def test_store_made_by_a_cluster_is_byte_identical(source, address, convert, digest_tree, make_recorder):
    recorder = make_recorder()
    store = convert(source, scheduler=address, on_event=recorder)
    assert digest_tree(store) == digest_tree(convert(source, "here.zarr"))
    assert (recorder.sessions, recorder.trials) == ([1, 2, 3], 18)


def test_error_of_a_worker_is_raised_as_it_was_and_gone_on_from(
    source, address, convert, digest_tree, make_recorder, recorded_sessions, tmp_path
):
    path = source / "betas_session03.hdf5"

    def cut():
        os.truncate(path, path.stat().st_size - 4000)

    kept = path.read_bytes()
    with pytest.raises(SourceError) as caught:
        convert(source, scheduler=address, on_event=make_recorder(6, cut))
    assert (caught.value.session, caught.value.path) == (3, path)
    recorded = recorded_sessions(tmp_path / "subj01.zarr")
    assert 3 not in recorded
    path.write_bytes(kept)
    recorder = make_recorder()
    store = convert(source, scheduler=address, on_event=recorder)
    assert recorder.sessions == sorted({1, 2, 3} - set(recorded))
    assert digest_tree(store) == digest_tree(convert(source, "here.zarr"))


def test_conversion_on_a_cluster_interrupted_goes_on_in_threads(
    source, address, interrupt, convert, digest_tree, recorded_sessions
):
    store = interrupt(source, at_trial=6, scheduler=address)
    assert recorded_sessions(store)
    assert digest_tree(convert(source)) == digest_tree(convert(source, "here.zarr"))


def test_two_conversions_at_once_on_one_cluster_do_not_mix(source, make_source, address, convert, digest_tree):
    other = make_source(folder="other", volume=(7, 3, 13))
    failed = []

    def convert_other():
        try:
            convert(other, "other.zarr", scheduler=address)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=convert_other)
    thread.start()
    store = convert(source, scheduler=address)
    thread.join()
    assert failed == []
    assert nsd_zarr.verify(store, source).is_whole
    assert nsd_zarr.verify(store.with_name("other.zarr"), other).is_whole


def test_finished_store_is_compared_by_the_cluster(source, address, convert, make_recorder):
    convert(source)
    path = source / "betas_session02.hdf5"
    os.utime(path, ns=(1, 1))
    recorder = make_recorder()
    convert(source, scheduler=address, on_event=recorder)
    assert recorder.sessions == [2]
    with h5py.File(path, "r+") as file:
        file["betas"][3, 2, 1, 5] += 1
    with pytest.raises(ResumeRefused, match="session 02: the source changed since it was converted"):
        convert(source, scheduler=address)


def test_workers_that_are_too_small_are_refused(source, address, convert, monkeypatch):
    from nsd_zarr.conversion import memory

    monkeypatch.setattr(memory, "BASE_BYTES", 2 * 2**30)
    with pytest.raises(DoesNotFit, match=r"a worker of the cluster has 1\.07 GB"):
        convert(source, scheduler=address)


def test_cluster_without_workers_is_refused(source, convert):
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        pytest.raises(ConfigError, match="has no workers"),
    ):
        convert(source, scheduler=cluster.scheduler_address)


def test_scheduler_that_does_not_answer_is_refused(source, tmp_path, run_cli, monkeypatch):
    from nsd_zarr.conversion import cluster

    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.3)
    outcome = run_cli("convert", source, tmp_path / "subj01.zarr", "--scheduler", "tcp://127.0.0.1:9")
    assert outcome.code == 2
    assert outcome.paragraph.startswith("no Dask scheduler answers at tcp://127.0.0.1:9")
