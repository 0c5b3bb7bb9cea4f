"""Sessions straight from a real server: the same store as from local files, each request bound to one version."""

import math
import os

import pytest
from builders import digest_tree, make_values
from builders.sessions import create_session

import nsd_zarr
from nsd_zarr.errors import DoesNotFit, ResumeRefused, SourceError
from nsd_zarr.places.choose import make_path
from nsd_zarr.places.objects import fetch
from nsd_zarr.simulate import Simulation, simulate_root
from servers.seaweed import PUBLIC

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("servers")]


@pytest.fixture
def sessions_url(server, url, source):
    """The three sessions of `source` on the server."""
    return server.upload(source, f"{url}/betas")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nsd")
    return simulate_root(folder, Simulation(sessions=2, shape=(750, 7, 5, 3))).root


def test_folder_behind_url_converts_to_the_store_of_the_local_one(source, sessions_url, options, convert):
    here = convert(source, "here.zarr")
    there = convert(sessions_url, "there.zarr", storage_options=options)
    assert digest_tree(there) == digest_tree(here)
    assert nsd_zarr.verify(there, sessions_url, storage_options=options).is_whole


def test_each_session_is_fetched_once_in_ranges(source, sessions_url, options, convert, proxy, monkeypatch):
    monkeypatch.setattr(fetch, "RANGE_BYTES", 4096)
    convert(sessions_url, storage_options=options)
    sizes = [path.stat().st_size for path in sorted(source.iterdir())]
    ranges = [asked.range for asked in proxy.asked if asked.method == "GET" and asked.range]
    whole = [each for each in ranges if int(each.partition("=")[2].split("-")[1]) != fetch.BLOCK_BYTES - 1]
    assert len(whole) == sum(math.ceil(size / 4096) for size in sizes)
    # Planned twice, before and under the lock: what describes a session is one block each time.
    assert len(ranges) - len(whole) == 2 * len(sizes)


def test_faults_on_the_way_change_nothing(source, sessions_url, options, convert, proxy, monkeypatch):
    monkeypatch.setattr(fetch, "RANGE_BYTES", 4096)
    faults = ["cut", "500", "503", "lost"]
    proxy.fault = lambda asked, before: faults[before // 3 % 4] if before % 3 == 1 else ""
    there = convert(sessions_url, "there.zarr", storage_options=options)
    assert digest_tree(there) == digest_tree(convert(source, "here.zarr"))


def test_nsd_root_behind_url_brings_its_experiment(root, server, url, options, convert):
    there = server.upload(root, f"{url}/nsd")
    words = {"subject": 1, "space": "func1pt8mm", "trials_per_shard": 375}
    here = convert(root, "here.zarr", **words)
    assert digest_tree(convert(there, "there.zarr", storage_options=options, **words)) == digest_tree(here)
    assert "nsd_id" in nsd_zarr.open_dataset(here).coords


@pytest.mark.parametrize("words", [("betas_session0[13].hdf5",), ("betas_session03.hdf5", "betas_session01.hdf5")])
def test_files_and_globs_behind_urls_are_sources(source, sessions_url, options, convert, words):
    there = convert([f"{sessions_url}/{word}" for word in words], storage_options=options, sessions=[1, 3])
    assert nsd_zarr.open_dataset(there).session_number.values.tolist() == [1, 3]


def test_file_behind_https_is_a_source(source, server, convert):
    server.upload(source, f"s3://{PUBLIC}/betas")
    files = [f"{server.endpoint}/{PUBLIC}/betas/betas_session0{n}.hdf5" for n in (1, 2, 3)]
    assert digest_tree(convert(files, "there.zarr")) == digest_tree(convert(source, "here.zarr"))


@pytest.mark.parametrize("layout", ["contiguous", "gzip"])
def test_other_layouts_are_read_through_h5py(server, url, options, convert, tmp_path, layout):
    create_session(tmp_path / "other/betas_session01.hdf5", session=1, layout=layout)
    there = server.upload(tmp_path / "other", f"{url}/other")
    assert digest_tree(convert(there, "there.zarr", storage_options=options)) == digest_tree(
        convert(tmp_path / "other", "here.zarr")
    )


@pytest.mark.parametrize("layout", ["virtual", "external"])
def test_values_in_other_objects_are_refused(server, url, options, convert, tmp_path, layout):
    create_session(tmp_path / "other/betas_session01.hdf5", session=1, layout=layout)
    there = server.upload(tmp_path / "other", f"{url}/other")
    with pytest.raises(SourceError, match="session 01"):
        convert(there, storage_options=options)


# -- memory and scratch ------------------------------------------------------------------------------------------


def list_open_files():
    names = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    return [os.readlink(name) for name in names if os.path.islink(name)]


def test_sessions_are_fetched_into_memory_or_into_the_scratch_folder(
    source, sessions_url, options, convert, tmp_path, monkeypatch
):
    seen = []
    original = fetch._open_scratch
    monkeypatch.setattr(fetch, "_open_scratch", lambda folder: seen.append(folder) or original(folder))
    convert(sessions_url, "memory.zarr", storage_options=options)
    assert set(seen) == {None}
    (tmp_path / "scratch").mkdir()
    seen.clear()
    convert(sessions_url, "scratch.zarr", storage_options=options, scratch=tmp_path / "scratch")
    assert seen.count(str(tmp_path / "scratch")) == 3
    assert list((tmp_path / "scratch").iterdir()) == []
    assert not any("memfd:nsd-zarr" in name or str(tmp_path / "scratch") in name for name in list_open_files())


def test_plan_counts_what_is_fetched_into_memory(server, url, source, sessions_url, options, tmp_path):
    here = nsd_zarr.plan(source, tmp_path / "new.zarr", workers=1)
    there = nsd_zarr.plan(sessions_url, tmp_path / "new.zarr", storage_options=options, workers=1)
    size = max(path.stat().st_size for path in source.iterdir())
    assert there.memory.peak_bytes == here.memory.peak_bytes + 2 * size
    with pytest.raises(SourceError, match="no such folder"):
        nsd_zarr.plan(sessions_url, tmp_path / "new.zarr", storage_options=options, scratch=tmp_path / "none")


def test_scratch_without_room_is_refused(sessions_url, options, tmp_path, monkeypatch):
    from nsd_zarr.conversion.remote import fetching
    from nsd_zarr.places.free import FreeSpace

    monkeypatch.setattr(fetching, "read_free_space", lambda folder: FreeSpace(100, None))
    with pytest.raises(DoesNotFit, match="scratch: 100 bytes free"):
        nsd_zarr.plan(sessions_url, tmp_path / "new.zarr", storage_options=options, scratch=tmp_path)


# -- objects that change -----------------------------------------------------------------------------------------


def test_object_uploaded_again_goes_on_where_values_agree(server, sessions_url, options, interrupt, convert, source):
    interrupt(sessions_url, storage_options=options)
    key = sessions_url.removeprefix("s3://bkt/") + "/betas_session01.hdf5"
    # Other parts, another ETag, the same values; a byte more behind what HDF5 reads.
    server.connect().put(key, (source / "betas_session01.hdf5").read_bytes() + b"\0")
    there = convert(sessions_url, storage_options=options)
    assert nsd_zarr.verify(there, source).is_whole


def test_object_with_other_values_is_refused(server, sessions_url, options, interrupt, convert, tmp_path):
    interrupt(sessions_url, storage_options=options)
    other = create_session(tmp_path / "other.hdf5", values=make_values(9, 6, (5, 7, 11))).path
    server.upload(other, f"{sessions_url}/betas_session01.hdf5")
    with pytest.raises(ResumeRefused, match="session 01: the source changed"):
        convert(sessions_url, storage_options=options)


def test_object_replaced_between_two_ranges_is_refused(
    server, source, sessions_url, options, convert, proxy, monkeypatch, tmp_path
):
    monkeypatch.setattr(fetch, "RANGE_BYTES", 4096)
    other = create_session(tmp_path / "other.hdf5", values=make_values(9, 6, (5, 7, 11))).path.read_bytes()
    client, key = server.connect(), sessions_url.removeprefix("s3://bkt/") + "/betas_session02.hdf5"

    def replace(asked, before):
        if asked.range == "bytes=4096-8191" and "session02" in asked.path:
            client.put(key, other)
        return ""

    proxy.fault = replace
    with pytest.raises((OSError, ValueError), match=r"another object has taken its place|bytes, expected"):
        fetch.FetchedObject(make_path(f"{sessions_url}/betas_session02.hdf5", options), whole=True)
    server.upload(source, sessions_url)
    # The one that was fetched ahead is fetched once more, and is not the one that was planned.
    with pytest.raises(SourceError, match=r"session 02: .* was replaced by another since it was inspected"):
        convert(sessions_url, storage_options=options)


# -- the command line --------------------------------------------------------------------------------------------


def test_command_line_reaches_a_public_bucket(run_cli, server, source, tmp_path):
    there = server.upload(source, f"s3://{PUBLIC}/sessions")
    words = ["--anonymous", "--endpoint-url", server.endpoint, "--scratch", tmp_path]
    done = run_cli("convert", there, tmp_path / "subj01.zarr", *words)
    assert done.code == 0, done.err
    assert run_cli("verify", tmp_path / "subj01.zarr", "--source", there, *words).code == 0
    (tmp_path / "subj01.zarr/betas/c/0/0/0/0").unlink()
    assert run_cli("repair", tmp_path / "subj01.zarr", "--source", there, *words).code == 0
    assert run_cli("verify", tmp_path / "subj01.zarr", "--source", source).code == 0


def test_command_line_says_what_is_wrong_in_one_paragraph(run_cli, sessions_url, server, tmp_path):
    where = ["--endpoint-url", server.endpoint]
    for words, text in (
        ([sessions_url], "there are no credentials"),
        ([sessions_url, "--anonymous"], "access is denied"),
        (["s3://no-such-bucket/betas", "--anonymous"], "no such bucket|access is denied"),
        ([f"s3://{PUBLIC}/nothing", "--anonymous"], "no such object"),
    ):
        done = run_cli("plan", words[0], tmp_path / "subj01.zarr", *words[1:], *where)
        assert done.code == 3
        assert any(each in done.paragraph for each in text.split("|"))


def test_run_records_hold_no_credentials(sessions_url, options, interrupt):
    store = interrupt(sessions_url, storage_options=options)
    texts = [path.read_bytes() for path in store.with_name(store.name + ".run").iterdir() if path.is_file()]
    assert not any(options["secret"].encode() in text or options["key"].encode() in text for text in texts)
