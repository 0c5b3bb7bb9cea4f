"""What an estimate says of requests, against those that a proxy counts."""

import time

import pytest

import nsd_zarr
from nsd_zarr.conversion.estimate.requests import Requests
from nsd_zarr.places.objects import fetch
from nsd_zarr.simulate import Simulation, simulate_root

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("servers")]

OPTIONS = {"trials_per_shard": 2, "workers": 2}


def count(proxy):
    """Requests as they are priced: GET and HEAD, and PUT, POST and LIST."""
    lists = sum("list-type" in asked.path for asked in proxy.asked)
    reads = proxy.count("GET") + proxy.count("HEAD") - lists
    return Requests(reads, proxy.count("PUT") + proxy.count("POST") + lists)


@pytest.mark.parametrize("sessions", [(1,), (1, 2, 3)])
def test_requests_of_a_source_are_those_that_were_estimated(
    make_source, server, url, options, tmp_path, proxy, monkeypatch, sessions
):
    monkeypatch.setattr(fetch, "RANGE_BYTES", 4096)
    sources = server.upload(make_source(sessions), f"{url}/betas")
    estimate = nsd_zarr.plan(sources, tmp_path / "a.zarr", storage_options=options, **OPTIONS).estimate
    proxy.forget()
    nsd_zarr.convert(sources, tmp_path / "a.zarr", storage_options=options, **OPTIONS)
    assert count(proxy) == estimate.requests
    assert estimate.fetched_bytes == sum(path.stat().st_size for path in (tmp_path / "source").iterdir())
    assert (estimate.sent_bytes, estimate.disk_bytes) == (0, 2310 * len(sessions))


@pytest.mark.parametrize("trials_per_shard", [1, 3])
@pytest.mark.parametrize("sessions", [(1,), (1, 2, 3)])
def test_requests_of_a_store_are_those_that_were_estimated(
    make_source, url, options, proxy, sessions, trials_per_shard
):
    words = OPTIONS | {"trials_per_shard": trials_per_shard, "storage_options": options}
    source, store = make_source(sessions), f"{url}/subj01.zarr"
    estimate = nsd_zarr.plan(source, store, **words).estimate
    proxy.forget()
    started = time.monotonic()
    nsd_zarr.convert(source, store, **words)
    found, lock = count(proxy), 3 * (time.monotonic() - started)
    assert found.reads == estimate.requests.reads
    # The lock is renewed and looked at as time goes by: a few requests more than a run of no time makes.
    assert 0 <= found.writes - estimate.requests.writes <= lock
    assert estimate.sent_bytes == 2310 * len(sessions)


def test_requests_of_an_experiment_are_about_those_that_were_estimated(server, url, options, tmp_path, proxy):
    root = simulate_root(tmp_path / "nsd", Simulation(sessions=2, shape=(750, 7, 5, 3))).root
    there, words = server.upload(root, f"{url}/nsd"), {"subject": 1, "storage_options": options}
    estimate = nsd_zarr.plan(there, tmp_path / "a.zarr", **words).estimate
    proxy.forget()
    nsd_zarr.convert(there, tmp_path / "a.zarr", **words)
    assert count(proxy).reads == pytest.approx(estimate.requests.reads, rel=0.1)
    assert count(proxy).writes <= estimate.requests.writes + 4


def test_cost_is_of_s3_alone(source, server, url, options, tmp_path):
    sources = server.upload(source, f"{url}/betas")
    estimate = nsd_zarr.plan(sources, tmp_path / "a.zarr", storage_options=options, **OPTIONS).estimate
    assert estimate.request_dollars is None
    assert "cost        by the prices of whoever runs the server" in list(estimate.format_lines())
