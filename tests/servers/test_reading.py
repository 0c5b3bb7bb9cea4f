"""Reading and training from stores on a real server: what is read, by how many requests, and what is refused."""

import pickle

import numpy as np
import pytest
import xarray as xr

import nsd_zarr
from nsd_zarr.errors import ConfigError, DamageFound, NsdZarrError, StoreError
from servers.seaweed import OWNER, PUBLIC, READER

pytestmark = pytest.mark.xdist_group("servers")


def test_dataset_behind_url_has_the_values_of_the_local_one(volumes, uploaded, options):
    ds = nsd_zarr.open_dataset(uploaded, storage_options=options)
    assert ds.equals(nsd_zarr.open_dataset(volumes.path))
    assert np.array_equal(ds.betas.values, volumes.percent)
    assert ds.encoding["source"] == uploaded


def test_opening_is_one_request_and_each_trial_one_more(volumes, uploaded, options, proxy):
    ds = nsd_zarr.open_dataset(uploaded, storage_options=options)
    assert proxy.count("GET", "zarr.json") == 1
    assert proxy.count("GET", "betas/c") == 0
    proxy.forget()
    assert np.array_equal(ds.betas[5:9].values, volumes.percent[5:9])
    # Trials 5 to 8 lie in two shards: an index each.
    assert proxy.count("GET", "betas/c") == 4 + 2
    assert proxy.count("HEAD") == 0


def test_xarray_opens_url_by_the_environment_alone(volumes, uploaded, server, monkeypatch):
    for name, value in {
        "AWS_ACCESS_KEY_ID": OWNER[0],
        "AWS_SECRET_ACCESS_KEY": OWNER[1],
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    assert np.array_equal(xr.open_dataset(uploaded).betas[3].values, volumes.percent[3])


def test_public_bucket_is_read_without_credentials(volumes, server, options):
    url = server.upload(volumes.path, f"s3://{PUBLIC}/subj01.zarr")
    ds = nsd_zarr.open_dataset(url, storage_options={"anon": True, "endpoint_url": server.endpoint})
    assert np.array_equal(ds.betas[0].values, volumes.percent[0])


def test_profile_is_read_from_the_files_of_the_aws_command(volumes, uploaded, server, tmp_path):
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(
        f"[lab]\naws_access_key_id = {READER[0]}\naws_secret_access_key = {READER[1]}\n"
    )
    (tmp_path / ".aws/config").write_text(f"[profile lab]\nregion = us-east-1\nendpoint_url = {server.endpoint}\n")
    ds = nsd_zarr.open_dataset(uploaded, storage_options={"profile": "lab"})
    assert np.array_equal(ds.betas[0].values, volumes.percent[0])
    with pytest.raises(ConfigError, match="no profile 'other'"):
        nsd_zarr.open_dataset(uploaded, storage_options={"profile": "other"})


def test_dataset_goes_to_another_process_with_its_credentials_and_shows_none(volumes, uploaded, options):
    ds = nsd_zarr.open_dataset(uploaded, storage_options=options)
    again = pickle.loads(pickle.dumps(ds))
    assert np.array_equal(again.betas[7].values, volumes.percent[7])
    assert OWNER[1] not in repr(ds) + repr(ds.betas.variable._data)


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"secret": "x" * 16}, "secret key is not the one"),
        ({"key": "AKIDNOBODY1234567"}, "does not know the access key"),
        ({"anon": True}, "access is denied"),
        ({"key": None, "secret": None}, "there are no credentials"),
        ({"nonsense": "1"}, "these options do not reach"),
    ],
)
def test_wrong_credentials_are_one_paragraph(uploaded, options, change, text):
    with pytest.raises(NsdZarrError, match=text) as caught:
        nsd_zarr.open_dataset(uploaded, storage_options=options | change)
    assert caught.value.exit_code in (2, 4)
    assert "\n" not in str(caught.value)
    assert OWNER[1] not in str(caught.value)


def test_missing_bucket_and_missing_store_are_told_apart(options, url):
    with pytest.raises(StoreError, match="no such bucket"):
        nsd_zarr.open_dataset("s3://no-such-bucket/subj01.zarr", storage_options=options)
    with pytest.raises(StoreError, match="no Zarr store"):
        nsd_zarr.open_dataset(f"{url}/none.zarr", storage_options=options)


def test_wrong_region_says_so(uploaded, options, proxy):
    proxy.fault = lambda asked, before: "301"
    with pytest.raises(StoreError, match="another region: give it with --region"):
        nsd_zarr.open_dataset(uploaded, storage_options=options)


# -- faults ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["cut", "500", "503", "lost"])
def test_faults_that_pass_change_nothing(volumes, uploaded, options, proxy, fault):
    proxy.fault = lambda asked, before: fault if before % 4 == 1 else ""
    ds = nsd_zarr.open_dataset(uploaded, storage_options=options)
    assert np.array_equal(ds.betas.values, volumes.percent)


def test_server_that_refuses_every_condition_is_read_without(volumes, uploaded, options, proxy):
    proxy.fault = lambda asked, before: "412" if asked.condition else ""
    ds = nsd_zarr.open_dataset(uploaded, storage_options=options)
    assert np.array_equal(ds.betas.values, volumes.percent)
    assert any(asked.condition for asked in proxy.asked)


def test_lost_shard_is_named(volumes, uploaded, options, server):
    ds = nsd_zarr.open_dataset(uploaded, storage_options=options)
    key = uploaded.removeprefix("s3://bkt/") + "/betas/c/1/0/0/0"
    server.connect().delete(key)
    with pytest.raises(DamageFound, match=r"trial 7 .*betas shard 1.*there is no such object.*betas/c/1/0/0/0\]"):
        ds.betas[7].load()


def test_cut_shard_is_named(volumes, uploaded, options, server):
    ds = nsd_zarr.open_dataset(uploaded, storage_options=options)
    key = uploaded.removeprefix("s3://bkt/") + "/betas/c/1/0/0/0"
    server.connect().put(key, volumes.shard_path(7).read_bytes()[:-100])
    with pytest.raises(DamageFound, match=r"trial 7 .*bytes, expected"):
        ds.betas[7].load()


@pytest.mark.parametrize("is_open", [False, True])
def test_shard_replaced_by_one_of_the_same_size_is_named(volumes, uploaded, options, server, is_open):
    ds = nsd_zarr.open_dataset(uploaded, storage_options=options)
    if is_open:
        ds.betas[8].load()
    other = bytearray(volumes.shard_path(7).read_bytes())
    other[20] ^= 1
    server.connect().put(uploaded.removeprefix("s3://bkt/") + "/betas/c/1/0/0/0", bytes(other))
    text = "another object has taken its place" if is_open else "lost or damaged"
    with pytest.raises(NsdZarrError, match=rf"trial 7 .*{text}.*betas/c/1/0/0/0\]"):
        ds.betas[7].load()
