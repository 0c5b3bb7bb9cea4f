"""Who sends the bill for requests to a URL."""

from __future__ import annotations

import pytest

from nsd_zarr.places.choose import find_biller, is_fetched_to_disk, make_path, set_scratch


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch, tmp_path):
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_PROFILE", "AWS_SKIP_SIGNATURE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.mark.parametrize(
    ("url", "options", "biller"),
    [
        ("s3://lab-data/betas", {}, "s3"),
        ("s3://lab-data/betas", {"key": "a", "secret": "b", "region": "us-east-2"}, "s3"),
        ("s3://natural-scenes-dataset", {"anon": True}, "nobody"),
        ("s3://lab-data/betas", {"endpoint_url": "https://ceph.lab.example"}, "somebody"),
        ("https://lab.example/betas_session01.hdf5", {}, "nobody"),
        ("gs://lab-data/betas", {}, "somebody"),
        ("az://lab-data/betas", {}, "somebody"),
    ],
)
def test_biller_is_told_by_url_and_options(url, options, biller):
    assert find_biller(make_path(url, options)) == biller


def test_endpoint_of_environment_or_profile_is_not_s3(monkeypatch, tmp_path):
    path = make_path("s3://lab-data/betas")
    (tmp_path / "config").write_text("[profile lab]\nendpoint_url = https://ceph.lab.example\n")
    assert find_biller(make_path("s3://lab-data/betas", {"profile": "lab"})) == "somebody"
    assert find_biller(path) == "s3"
    assert find_biller(make_path("s3://lab-data/betas", {"profile": "unknown"})) == "somebody"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://ceph.lab.example")
    assert find_biller(path) == "somebody"


def test_url_is_fetched_to_the_folder_that_was_set():
    path = make_path("s3://lab-data/betas/betas_session01.hdf5")
    assert not is_fetched_to_disk(path)
    assert is_fetched_to_disk(set_scratch(path, ""))
    assert is_fetched_to_disk(set_scratch(path, "/scratch"))
