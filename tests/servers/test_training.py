"""Training from stores on a real server: requests counted, batches as from the local store, copies kept on request."""

import multiprocessing
import pickle
import time

import pytest

torch = pytest.importorskip("torch")

from nsd_zarr.errors import ConfigError, DamageFound, NsdZarrError  # noqa: E402
from nsd_zarr.store import reader  # noqa: E402
from nsd_zarr.torch import TrialDataset, TrialLoader  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("servers")]


def read_epoch(loader):
    found = {}
    for batch in loader:
        for row in range(len(batch["trial"])):
            if batch["valid"][row]:
                found[int(batch["trial"][row])] = batch["betas"][row].numpy().copy()
    return found


def check_right(found, made):
    assert sorted(found) == list(range(made.trials))
    assert all((values == made.percent[trial]).all() for trial, values in found.items())


def list_copies(folder):
    return sorted(path for path in folder.rglob("*.object"))


def test_loader_makes_one_request_a_trial_and_one_a_shard(volumes, uploaded, options, proxy):
    loader = TrialLoader(TrialDataset(uploaded, storage_options=options), 8, shuffle=True)
    proxy.forget()
    check_right(read_epoch(loader), volumes)
    shards = volumes.trials // volumes.trials_per_shard
    assert proxy.count("GET", "betas/c") == volumes.trials + shards
    assert proxy.count("GET", "trial_digest") == 1
    # And the standard deviation of each session, which says that no voxel lacks data.
    assert len(proxy.asked) == volumes.trials + shards + 1 + len(volumes.sessions)


def test_requests_in_flight_are_apart_from_threads(volumes, uploaded, options, proxy):
    dataset = TrialDataset(uploaded, storage_options=options)
    proxy.latency = 0.02
    most = {}
    for requests in (2, 16):
        loader = TrialLoader(dataset, 4, threads=1, requests=requests)
        proxy.forget()
        check_right(read_epoch(loader), volumes)
        most[requests] = proxy.most_in_flight
    assert most[2] == 2
    assert 8 <= most[16] <= 16
    with pytest.raises(ConfigError, match="at most 64"):
        TrialLoader(dataset, 4, requests=65)


def test_decoding_of_several_subjects_is_limited_together(whole_tree, server, url, options, monkeypatch):
    decoding, most, decode = [], [], reader.decode_unchecked

    def count(*words, **more):
        decoding.append(1)
        most.append(len(decoding))
        time.sleep(0.002)
        try:
            return decode(*words, **more)
        finally:
            decoding.pop()

    there = server.upload(whole_tree, f"{url}/nsd.zarr")
    local = TrialDataset(whole_tree, roi="nsdgeneral")
    expected = [local[place]["betas"] for place in range(len(local))]
    loader = TrialLoader(TrialDataset(there, storage_options=options, roi="nsdgeneral"), 9, shuffle=True, threads=2)
    monkeypatch.setattr(reader, "decode_unchecked", count)
    seen = 0
    for batch in loader:
        for row in range(int(batch["valid"].sum())):
            place = (batch["subject"][row] == 2) * 36 + batch["trial"][row]
            assert torch.equal(batch["betas"][row], expected[int(place)])
            seen += 1
    assert seen == len(local)
    assert max(most) == 2


def test_dataset_goes_to_workers_that_are_spawned(volumes, uploaded, options):
    dataset = pickle.loads(pickle.dumps(TrialDataset(uploaded, storage_options=options, roi=[3, 5])))
    assert dataset[4]["betas"].tolist() == volumes.percent[4].reshape(-1)[[3, 5]].tolist()
    workers = torch.utils.data.DataLoader(dataset, 7, num_workers=1, multiprocessing_context="spawn")
    assert torch.cat([batch["trial"] for batch in workers]).tolist() == list(range(volumes.trials))


def read_forked(dataset, answers):
    try:
        dataset[0]
    except NsdZarrError as error:
        answers.put(str(error))


def test_process_that_was_forked_off_is_told_what_to_do(uploaded, options):
    dataset = TrialDataset(uploaded, storage_options=options)
    dataset[0]
    dataset.reader.reader.close()
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=read_forked, args=(dataset, answers))
    child.start()
    assert "forkserver" in answers.get(timeout=30)
    child.join()


def test_shard_replaced_while_a_loader_runs_is_named(volumes, uploaded, options, server):
    loader = TrialLoader(TrialDataset(uploaded, storage_options=options), 2, requests=1, prefetch=0)
    batches = iter(loader)
    next(batches)
    key = uploaded.removeprefix("s3://bkt/") + "/betas/c/1/0/0/0"
    server.connect().put(key, volumes.shard_path(0).read_bytes())
    with pytest.raises(NsdZarrError, match=r"betas shard 1.*betas/c/1/0/0/0\]"):
        for _ in batches:
            pass


# -- copies ------------------------------------------------------------------------------------------------------


def test_cache_fetches_each_shard_once_and_then_nothing(volumes, uploaded, options, proxy, tmp_path):
    shards = volumes.trials // volumes.trials_per_shard
    cached = {"cache": tmp_path / "cache", "cache_limit": "1GB"}
    loader = TrialLoader(TrialDataset(uploaded, storage_options=options, **cached), 8, shuffle=True)
    proxy.forget()
    check_right(read_epoch(loader), volumes)
    assert proxy.count("GET", "betas/c") == shards
    proxy.forget()
    check_right(read_epoch(loader), volumes)
    assert proxy.asked == []
    again = TrialLoader(TrialDataset(uploaded, storage_options=options, **cached), 8)
    check_right(read_epoch(again), volumes)
    assert proxy.count("GET", "betas/c") == 0


def test_cache_that_is_too_small_keeps_what_fits_and_reads_the_rest_by_ranges(
    volumes, uploaded, options, proxy, tmp_path
):
    limit = int(2.5 * volumes.shard_path(0).stat().st_size)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/mine").write_bytes(b"x" * limit)
    dataset = TrialDataset(uploaded, storage_options=options, cache=tmp_path / "cache", cache_limit=limit)
    loader = TrialLoader(dataset, 8, shuffle=True)
    for _ in range(2):
        check_right(read_epoch(loader), volumes)
    copies = list_copies(tmp_path / "cache")
    assert len(copies) == 2
    assert sum(path.stat().st_size for path in copies) <= limit
    assert (tmp_path / "cache/mine").exists()
    assert [path for path in (tmp_path / "cache").rglob("*.fetching")] == []


def test_copy_that_was_damaged_is_fetched_again_once(volumes, uploaded, options, proxy, tmp_path):
    cached = {"cache": tmp_path / "cache", "cache_limit": "1GB"}
    TrialDataset(uploaded, storage_options=options, **cached)[0]
    (copy,) = list_copies(tmp_path / "cache")
    for damage in (lambda data: data[:-7], lambda data: bytes(len(data)), lambda data: data[:40] + b"?" + data[41:]):
        copy.write_bytes(damage(copy.read_bytes()))
        dataset = TrialDataset(uploaded, storage_options=options, **cached)
        proxy.forget()
        assert (dataset[0]["betas"].numpy() == volumes.percent[0]).all()
        assert proxy.count("GET", "betas/c") == 1


def test_damage_on_the_server_raises_with_a_cache_too(volumes, uploaded, options, server, tmp_path):
    data = bytearray(volumes.shard_path(0).read_bytes())
    data[20] ^= 1
    server.connect().put(uploaded.removeprefix("s3://bkt/") + "/betas/c/0/0/0/0", bytes(data))
    dataset = TrialDataset(uploaded, storage_options=options, cache=tmp_path / "cache", cache_limit="1GB")
    with pytest.raises(DamageFound, match="trial 0 "):
        dataset[0]


def touch_all(path, options, cache, start):
    start.wait()
    dataset = TrialDataset(path, storage_options=options, cache=cache, cache_limit="1GB")
    for trial in range(len(dataset)):
        dataset[trial]


def test_processes_share_a_cache_and_fetch_each_shard_once(volumes, uploaded, options, proxy, tmp_path):
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    words = (uploaded, options, str(tmp_path / "cache"), start)
    children = [context.Process(target=touch_all, args=words) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert proxy.count("GET", "betas/c") == volumes.trials // volumes.trials_per_shard


def test_store_that_nobody_uses_makes_room_for_another(volumes, uploaded, options, server, url, tmp_path):
    folder = tmp_path / "cache/nsd-zarr-cache" / ("0" * 32)
    folder.mkdir(parents=True)
    size = volumes.shard_path(0).stat().st_size
    (folder / "betas.c.0.0.0.0.object").write_bytes(bytes(size))
    (folder / "notes.txt").write_text("somebody else's")
    dataset = TrialDataset(uploaded, storage_options=options, cache=tmp_path / "cache", cache_limit=size + 100)
    dataset[0]
    assert [path.parent.name == "0" * 32 for path in list_copies(tmp_path / "cache")] == [False]
    assert (folder / "notes.txt").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"cache_limit": "1GB"}, "without a cache"),
        ({"cache": "c", "cache_limit": "1 parsec"}, "such as 100GB"),
    ],
)
def test_odd_cache_options_are_refused(uploaded, options, words, text):
    with pytest.raises(ConfigError, match=text):
        TrialDataset(uploaded, storage_options=options, **words)


def test_cache_that_cannot_be_written_says_so(uploaded, options, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    dataset = TrialDataset(uploaded, storage_options=options, cache=tmp_path / "file", cache_limit=1)
    with pytest.raises(NsdZarrError, match="cache cannot be written"):
        dataset[0]
