"""Stores on a real server: the same bytes as on a disk, one writer, and a run that goes on after anything."""

import json
import time
from contextlib import contextmanager

import h5py
import numpy as np
import pytest
from builders import make_values
from builders.runs import Recorder
from obstore.store import S3Store

import nsd_zarr
from nsd_zarr.conversion import lock as locks
from nsd_zarr.conversion.remote import generations
from nsd_zarr.errors import ConfigError, StoreError
from nsd_zarr.loading.images import open_images
from nsd_zarr.places.choose import choose_place, make_path
from nsd_zarr.simulate import Simulation, simulate_root
from servers.contest import count_winners
from servers.proxy import BODIES
from servers.seaweed import READER

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("servers"), pytest.mark.usefixtures("short_patience")]

OPTIONS = {"trials_per_shard": 2, "workers": 2}


@pytest.fixture
def store(url):
    return f"{url}/subj01.zarr"


def test_store_on_a_server_has_the_bytes_of_the_local_one(source, store, options, server, local):
    report = nsd_zarr.convert(source, store, storage_options=options, **OPTIONS)
    assert str(report.store) == store
    assert server.read_all(store) == local
    assert nsd_zarr.convert(source, store, storage_options=options, **OPTIONS).sessions == ()
    assert nsd_zarr.verify(store, source, storage_options=options).is_whole


def test_each_shard_is_one_request_and_the_root_is_first_and_last(source, store, options, proxy):
    nsd_zarr.convert(source, store, storage_options=options, **OPTIONS)
    puts = [asked.path for asked in proxy.asked if asked.method == "PUT" and ".run/" not in asked.path]
    assert sum("/betas/c/" in path for path in puts) == 9
    # The root document and the metadata of betas twice, everything else once.
    assert len(set(puts)) == len(puts) - 2
    assert puts[0].endswith("subj01.zarr/zarr.json")
    assert puts[-1].endswith("subj01.zarr/zarr.json")
    assert proxy.count("POST", "uploads") == 0


def test_from_server_to_server(source, url, store, options, server, local):
    nsd_zarr.convert(server.upload(source, f"{url}/betas"), store, storage_options=options, **OPTIONS)
    assert server.read_all(store) == local


def stop():
    raise KeyboardInterrupt


@pytest.mark.parametrize("at_trial", [1, 7, 17])
def test_interrupted_run_goes_on_and_is_unfinished_meanwhile(source, store, options, server, local, at_trial):
    with pytest.raises(KeyboardInterrupt):
        nsd_zarr.convert(source, store, storage_options=options, on_event=Recorder(at_trial, stop), **OPTIONS)
    with pytest.raises(StoreError, match="has not finished"):
        nsd_zarr.open_dataset(store, storage_options=options)
    recorder = Recorder()
    report = nsd_zarr.convert(source, store, storage_options=options, on_event=recorder, **OPTIONS)
    assert len(report.sessions) + report.finished_before == 3
    assert server.read_all(store) == local


def test_fresh_forgets_an_unfinished_run(source, store, options, server, local):
    with pytest.raises(KeyboardInterrupt):
        nsd_zarr.convert(
            source, store, storage_options=options, on_event=Recorder(9, stop), **OPTIONS | {"codec": "zstd"}
        )
    nsd_zarr.convert(source, store, storage_options=options, fresh=True, **OPTIONS)
    assert server.read_all(store) == local


@pytest.mark.parametrize("fault", ["cut", "500", "503", "lost"])
def test_faults_change_nothing(source, store, options, server, proxy, local, fault):
    proxy.fault = lambda asked, before: fault if before % 5 == 2 else ""
    nsd_zarr.convert(source, store, storage_options=options, **OPTIONS)
    proxy.fault = lambda asked, before: ""
    assert server.read_all(store) == local


def test_lost_and_damaged_objects_are_found_and_repaired(source, store, options, server, local):
    nsd_zarr.convert(source, store, storage_options=options, **OPTIONS)
    client, prefix = server.connect(), store.removeprefix("s3://bkt/")
    client.delete(f"{prefix}/betas/c/1/0/0/0")
    client.put(f"{prefix}/betas/c/4/0/0/0", local["betas/c/4/0/0/0"][:-1] + b"?")
    client.delete(f"{prefix}/session/c/0")
    client.put(f"{prefix}/stray", b"not of the store")
    report = nsd_zarr.verify(store, storage_options=options)
    assert {damage.path for damage in report.damages} == {"betas/c/1/0/0/0", "betas/c/4/0/0/0", "session/c/0"}
    assert report.untracked_files == ("stray",)
    assert nsd_zarr.verify(store, quick=True, storage_options=options).damages != ()
    assert nsd_zarr.repair(store, source, storage_options=options).is_whole
    client.delete(f"{prefix}/stray")
    assert server.read_all(store) == local
    client.delete(f"{prefix}/zarr.json")
    assert not nsd_zarr.verify(store, storage_options=options).is_whole
    assert nsd_zarr.repair(store, source, storage_options=options).is_whole
    assert server.read_all(store) == local


# -- one writer --------------------------------------------------------------------------------------------------


@contextmanager
def held(store, options):
    with locks.hold_lock(make_path(store, options)) as lock:
        yield lock


def test_store_in_use_is_refused_with_its_holder(source, store, options):
    with held(store, options), pytest.raises(StoreError, match=r"in use by a live run: process \d+ on "):
        nsd_zarr.convert(source, store, storage_options=options, **OPTIONS)
    nsd_zarr.convert(source, store, storage_options=options, **OPTIONS)


def test_lock_that_was_left_is_taken_over_and_its_holder_has_lost(source, store, options):
    first = generations.take_lock(make_path(store, options), 0.6, 0.05)
    assert not first.is_lost()
    second = generations.take_lock(make_path(store, options), 0.6, 0.05)
    assert (first.is_lost(), second.is_lost()) == (True, False)
    assert second.number == first.number + 1


def test_run_that_lost_its_lock_completes_nothing(source, store, options, server):
    def take_over():
        place = choose_place(make_path(f"{store}.run", options))
        latest = generations.find_latest(place)
        place.create(f"lock/{latest + 1:08d}", json.dumps({"token": "other"}).encode())
        time.sleep(0.2)

    with pytest.raises(StoreError, match="no longer held"):
        nsd_zarr.convert(source, store, storage_options=options, on_event=Recorder(5, take_over), **OPTIONS)
    assert json.loads(server.read_all(store)["zarr.json"])["attributes"]["status"] == "incomplete"


def test_of_many_who_take_a_free_lock_one_alone_has_it(store, options):
    assert count_winners(make_path(store, options)) == 1


def test_lost_answer_of_the_creation_is_not_a_lost_race(store, options, proxy):
    proxy.fault = lambda asked, before: (
        "lost"
        if asked.method == "PUT" and asked.path.endswith("lock/00000001") and proxy.count("PUT", "00000001") == 1
        else ""
    )
    lock = generations.take_lock(make_path(store, options), 0.6, 0.05)
    assert isinstance(lock, generations.ObjectLock)
    assert not lock.is_lost()


def test_server_that_ignores_conditions_is_refused(source, store, options, server, monkeypatch):
    class Ignoring:
        def __init__(self, client):
            self.client = client

        def put(self, *words, mode="overwrite", **options):
            return self.client.put(*words, mode="overwrite", **options)

        def __getattr__(self, name):
            return getattr(self.client, name)

    from nsd_zarr.places.objects import place

    original = place.connect
    monkeypatch.setattr(place, "connect", lambda *words: Ignoring(original(*words)))
    with pytest.raises(StoreError, match="cannot tell which of two writers was first"):
        nsd_zarr.convert(source, store, storage_options=options, **OPTIONS)
    assert server.read_all(store) == {}
    assert isinstance(server.connect(), S3Store)


# -- what is refused ---------------------------------------------------------------------------------------------


def test_read_only_user_is_told_so_in_one_paragraph(run_cli, source, store, server, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER[1])
    done = run_cli("convert", source, store, "--endpoint-url", server.endpoint)
    assert done.code == 4
    assert "cannot write: access is denied" in done.paragraph
    assert READER[1] not in done.err


def test_missing_bucket_is_refused_before_anything_is_read(run_cli, source, server):
    done = run_cli(
        "convert", source, "s3://no-such-bucket/subj01.zarr", "--endpoint-url", server.endpoint, "--anonymous"
    )
    assert done.code == 4
    assert any(text in done.paragraph for text in ("no such bucket", "access is denied"))


def test_something_else_below_the_url_is_left_alone(source, store, options, server):
    server.connect().put(store.removeprefix("s3://bkt/") + "/notes.txt", b"mine")
    with pytest.raises(StoreError, match="something else stands"):
        nsd_zarr.convert(source, store, storage_options=options, **OPTIONS)


def test_command_line_shows_plan_and_contents(run_cli, source, store, server, options, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", options["key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", options["secret"])
    where = ["--endpoint-url", server.endpoint]
    assert f"store       {store} (new)" in run_cli("plan", source, store, *where).out
    assert run_cli("convert", source, store, *where).code == 0
    assert f"store      {store}: complete" in run_cli("info", store, *where).out
    assert run_cli("verify", store, *where).code == 0
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    assert np.array_equal(nsd_zarr.open_dataset(store, raw=True).betas[0].values, make_values(1, 6, (5, 7, 11))[0])


# -- what else commands do ---------------------------------------------------------------------------------------


def read_files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_attach_gives_the_bytes_of_the_local_store(tmp_path, store, options, server):
    root = simulate_root(tmp_path, Simulation(sessions=2, shape=(750, 7, 5, 3))).root
    words = {"subject": 1, "space": "func1pt8mm"}
    nsd_zarr.convert(root, tmp_path / "here.zarr", trials_per_shard=375, **words)
    expected = read_files(tmp_path / "here.zarr")
    nsd_zarr.convert(root, store, storage_options=options, trials_per_shard=375, no_experiment=True, **words)
    assert server.read_all(store) != expected
    nsd_zarr.attach(store, root, storage_options=options, **words)
    assert server.read_all(store) == expected
    dataset = nsd_zarr.open_dataset(store, storage_options=options)
    assert "nsd_id" in dataset.coords


def test_images_go_to_a_server_and_are_read_from_it(tmp_path, store, options, server):
    values = np.arange(11 * 7 * 5 * 3, dtype=np.uint8).reshape(11, 7, 5, 3)
    with h5py.File(tmp_path / "nsd_stimuli.hdf5", "w") as file:
        file["imgBrick"] = values
    words = {"images_per_shard": 4}
    nsd_zarr.convert_images(tmp_path / "nsd_stimuli.hdf5", tmp_path / "images.zarr", **words)
    nsd_zarr.convert_images(tmp_path / "nsd_stimuli.hdf5", store, storage_options=options, **words)
    assert server.read_all(store) == read_files(tmp_path / "images.zarr")
    there, image = open_images(make_path(store, options)), np.empty((7, 5, 3), np.uint8)
    there.read_into(9, image)
    assert np.array_equal(image, values[9])


def test_several_subjects_in_one_store_behind_a_url_are_refused(source, store, options):
    with pytest.raises(ConfigError, match="behind a URL"):
        nsd_zarr.convert(source, store, storage_options=options, subjects="1-2")


@pytest.mark.parametrize(("code", "text"), [("ExpiredToken", "have expired"), ("RequestTimeTooSkewed", "clock")])
def test_expired_credentials_say_so(source, store, options, proxy, monkeypatch, code, text):
    monkeypatch.setitem(BODIES, "400", f"<Error><Code>{code}</Code></Error>".encode())
    proxy.fault = lambda asked, before: "400"
    with pytest.raises(StoreError, match=text):
        nsd_zarr.convert(source, store, storage_options=options, **OPTIONS)


def test_server_that_is_not_there_is_reported_soon(source, store, options):
    started = time.monotonic()
    with pytest.raises(StoreError, match="does not answer"):
        nsd_zarr.convert(source, store, storage_options=options | {"endpoint_url": "http://127.0.0.1:9"}, **OPTIONS)
    assert time.monotonic() - started < 60


def test_store_on_a_server_is_kept_and_not_extended(make_source, source, store, options, server, local):
    nsd_zarr.convert(source, store, storage_options=options, **OPTIONS | {"codec": "zstd"})
    before = server.read_all(store)
    assert nsd_zarr.convert(source, store, storage_options=options).sessions == ()  # With the store's own settings.
    (source / "betas_session01.hdf5").unlink()
    assert nsd_zarr.convert(source, store, storage_options=options).kept == (1,)
    with pytest.raises(StoreError, match="cannot be extended: its objects cannot be replaced") as caught:
        nsd_zarr.convert(make_source((1, 2, 3, 4), "more"), store, storage_options=options)
    assert "nsd-zarr convert SOURCE NEW_STORE" in str(caught.value)
    with pytest.raises(ConfigError, match="part, and a store behind a URL"):
        nsd_zarr.convert(source, f"{store}2", part="1/2", storage_options=options)
    assert server.read_all(store) == before
