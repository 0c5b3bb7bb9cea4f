"""A conversion on a Dask cluster: the same function, the same bytes, and errors as they were raised."""

from __future__ import annotations

import json
import os
import threading

import h5py
import pytest

import nsd_zarr
from nsd_zarr.conversion import cluster as cluster_module
from nsd_zarr.conversion.events import WaitingForWorkers
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


def test_workers_that_are_too_small_are_refused(source, cluster, address, convert):
    """By a worker, which knows its own limit: the client's plan has no say."""
    from nsd_zarr.conversion import cluster as module

    name = module.__name__

    def change(share):
        import importlib

        importlib.import_module(name).WORKER_SHARE = share

    with cluster.get_client() as client:
        client.run(change, 0.01)
        try:
            with pytest.raises(DoesNotFit, match=r"a worker of the cluster has 1\.07 GB, .* and it needs 1\d\d MB"):
                convert(source, scheduler=address)
        finally:
            client.run(change, module.WORKER_SHARE)


def test_memory_and_threads_are_those_of_the_worker(source, cluster, address, convert, monkeypatch, tmp_path):
    """A client that hardly has any memory itself plans nothing for the workers."""
    from nsd_zarr import resources

    monkeypatch.setattr(resources, "read_available_memory", lambda *_: 2**20)
    log = tmp_path / "units.txt"

    def watch(path):
        from nsd_zarr.conversion import cluster as module

        run = module.run_unit

        def noted(unit, context):
            with open(path, "a") as file:
                file.write(f"{unit.trials_per_pass} {unit.threads}\n")
            return run(unit, context)

        module.run_unit = noted
        return run

    def restore(run=None):
        from nsd_zarr.conversion import cluster as module
        from nsd_zarr.conversion import unit

        module.run_unit = unit.run_unit

    with cluster.get_client() as client:
        client.run(watch, str(log))
        convert(source, scheduler=address)
        client.run(restore)
    assert log.read_text().split("\n")[:-1] == ["6 1"] * 3


def test_client_object_and_scheduler_file_name_a_cluster_too(source, cluster, convert, digest_tree, tmp_path):
    expected = digest_tree(convert(source, "here.zarr"))
    with cluster.get_client() as client:
        assert digest_tree(convert(source, "client.zarr", scheduler=client)) == expected
        assert client.status == "running"
    (tmp_path / "scheduler.json").write_text(json.dumps({"address": cluster.scheduler_address}))
    assert digest_tree(convert(source, "file.zarr", scheduler=str(tmp_path / "scheduler.json"))) == expected


def test_worker_of_many_threads_holds_one_session_at_a_time(make_source, convert, digest_tree):
    from distributed import LocalCluster

    source = make_source(sessions=range(1, 7))
    held, most = [], []
    real = cluster_module.run_unit

    def watched(unit, context):
        held.append(unit.source.session)
        most.append(len(held))
        try:
            return real(unit, context)
        finally:
            held.remove(unit.source.session)

    with (
        LocalCluster(n_workers=3, threads_per_worker=4, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(cluster_module, "run_unit", watched)
        patch.setattr(cluster_module, "BUSY_SECONDS", 0.01)
        store = convert(source, scheduler=cluster.scheduler_address)
    # All of them are threads of this process, which holds one session at a time.
    assert len(most) == 6
    assert max(most) == 1
    assert digest_tree(store) == digest_tree(convert(source, "here.zarr"))


def test_cluster_that_starts_without_workers_is_waited_for_and_grows(make_source, convert, digest_tree):
    from distributed import LocalCluster

    source, events = make_source(sessions=range(1, 5)), []
    with LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster:
        cluster.adapt(minimum=0, maximum=2, interval="100ms")
        store = convert(source, scheduler=cluster.scheduler_address, on_event=events.append)
    assert digest_tree(store) == digest_tree(convert(source, "here.zarr"))


def test_cluster_that_gets_no_worker_is_given_up(source, convert, monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr(cluster_module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(cluster_module, "WAIT_SECONDS", 0.2)
    events = []
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        pytest.raises(ConfigError, match="the Dask cluster has no workers, after"),
    ):
        convert(source, scheduler=cluster.scheduler_address, on_event=events.append)
    assert any(isinstance(event, WaitingForWorkers) for event in events)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "tls://127.0.0.1:9", "nonsense://host"])
def test_scheduler_that_does_not_answer_is_refused(address, source, tmp_path, run_cli, monkeypatch):
    monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 0.3)
    outcome = run_cli("convert", source, tmp_path / "subj01.zarr", "--scheduler", address)
    assert outcome.code == 2
    assert outcome.paragraph.startswith(f"no Dask scheduler answers at {address}")


def test_scheduler_file_that_is_not_there_is_refused(source, tmp_path, run_cli):
    outcome = run_cli("convert", source, tmp_path / "subj01.zarr", "--scheduler", tmp_path / "none.json")
    assert outcome.code == 2
    assert outcome.paragraph.startswith("no such scheduler file")
