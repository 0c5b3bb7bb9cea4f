"""Other servers than SeaweedFS: `OTHER_SERVERS=FOLDER pytest -m other_servers tests/servers/test_others.py`.

tests/servers/others.sh installs them into FOLDER and starts them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from builders.runs import Recorder

import nsd_zarr
from nsd_zarr.errors import NsdZarrError, StoreError
from nsd_zarr.places.choose import make_path
from servers.contest import count_winners
from servers.others import ACCOUNT, ACCOUNT_KEY, OtherServer, run_other

pytestmark = [
    pytest.mark.other_servers,
    pytest.mark.slow,
    pytest.mark.xdist_group("servers"),
    pytest.mark.usefixtures("short_patience"),
]
OPTIONS = {"trials_per_shard": 2, "workers": 2}
_numbers = itertools.count()


def _run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherServer]:
    if "other_servers" not in request.config.getoption("markexpr"):
        pytest.skip("servers that have to be installed: asked for by -m other_servers")
    with run_other(request.param, tmp_path_factory.mktemp(request.param)) as server:
        yield server


@pytest.fixture(scope="module", params=["azurite", "ceph"])
def good(request, tmp_path_factory):
    """A server that honours conditions."""
    yield from _run(request, tmp_path_factory)


@pytest.fixture(scope="module", params=["rclone", "nanio"])
def gateway(request, tmp_path_factory):
    """A server that ignores conditions."""
    yield from _run(request, tmp_path_factory)


def _name(server: OtherServer) -> str:
    return f"{server.url}/test{next(_numbers)}"


def test_store_has_the_bytes_of_the_local_one(good, source, local):
    store = f"{_name(good)}/subj01.zarr"
    nsd_zarr.convert(source, store, storage_options=good.options, **OPTIONS)
    assert good.read_all(store) == local
    assert nsd_zarr.convert(source, store, storage_options=good.options, **OPTIONS).sessions == ()
    assert nsd_zarr.verify(store, source, storage_options=good.options).is_whole


def test_from_server_to_server(good, source, local):
    top = _name(good)
    nsd_zarr.convert(good.upload(source, f"{top}/betas"), f"{top}/subj01.zarr", storage_options=good.options, **OPTIONS)
    assert good.read_all(f"{top}/subj01.zarr") == local


@pytest.mark.parametrize("at_trial", [1, 7, 17])
def test_interrupted_run_goes_on(good, source, local, at_trial):
    def stop():
        raise KeyboardInterrupt

    store = f"{_name(good)}/subj01.zarr"
    with pytest.raises(KeyboardInterrupt):
        nsd_zarr.convert(source, store, storage_options=good.options, on_event=Recorder(at_trial, stop), **OPTIONS)
    nsd_zarr.convert(source, store, storage_options=good.options, **OPTIONS)
    assert good.read_all(store) == local


def test_lost_and_damaged_objects_are_found_and_repaired(good, source, local):
    store = f"{_name(good)}/subj01.zarr"
    nsd_zarr.convert(source, store, storage_options=good.options, **OPTIONS)
    client, prefix = good.connect(), store.removeprefix(f"{good.url}/")
    client.delete(f"{prefix}/betas/c/1/0/0/0")
    client.put(f"{prefix}/betas/c/4/0/0/0", local["betas/c/4/0/0/0"][:-1] + b"?")
    damages = nsd_zarr.verify(store, storage_options=good.options).damages
    assert {damage.path for damage in damages} == {"betas/c/1/0/0/0", "betas/c/4/0/0/0"}
    assert nsd_zarr.repair(store, source, storage_options=good.options).is_whole
    assert good.read_all(store) == local


def test_of_many_who_take_a_free_lock_one_alone_has_it(good):
    for _ in range(10):
        assert count_winners(make_path(f"{_name(good)}/subj01.zarr", good.options)) == 1


def test_trials_are_those_that_were_uploaded(good, volumes):
    store = good.upload(volumes.path, f"{_name(good)}/subj01.zarr")
    betas = nsd_zarr.open_dataset(store, storage_options=good.options).betas
    assert np.array_equal(betas.values, volumes.percent)
    good.connect().delete(f"{store.removeprefix(f'{good.url}/')}/betas/c/1/0/0/0")
    with pytest.raises(NsdZarrError, match="is lost or damaged"):
        nsd_zarr.open_dataset(store, storage_options=good.options).load()


def test_what_is_not_there_is_one_paragraph(good):
    scheme = good.url.partition("://")[0]
    with pytest.raises(StoreError, match="no such bucket"):
        nsd_zarr.open_dataset(f"{scheme}://no-such-bucket/subj01.zarr", storage_options=good.options)
    with pytest.raises(StoreError, match="no Zarr store"):
        nsd_zarr.open_dataset(f"{good.url}/none.zarr", storage_options=good.options)


def test_account_of_azure_is_given_by_a_connection_string_too(good, source, local, monkeypatch):
    if good.name != "azurite":
        pytest.skip("of Azure alone")
    store, account = f"{_name(good)}/subj01.zarr", good.options
    words = f"AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint={account['endpoint']};"
    nsd_zarr.convert(source, store, storage_options={"connection_string": words}, **OPTIONS)
    assert good.read_all(store) == local
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", words)
    assert nsd_zarr.verify(store).is_whole
    with pytest.raises(StoreError, match=r"access is denied.* AZURE_STORAGE_ACCOUNT_KEY") as caught:
        nsd_zarr.open_dataset(store, storage_options=account | {"account_key": f"AAAA{ACCOUNT_KEY[4:]}"})
    assert ACCOUNT_KEY[4:] not in str(caught.value)


def test_gateway_that_ignores_conditions_is_refused_and_nothing_is_left(gateway, source):
    store = f"{_name(gateway)}/subj01.zarr"
    with pytest.raises(StoreError, match="cannot tell which of two writers was first"):
        nsd_zarr.convert(source, store, storage_options=gateway.options, **OPTIONS)
    assert gateway.read_all(store) == {}
    assert gateway.read_all(f"{store}.run") == {}
