"""A real server of objects, started once; a proxy that counts and breaks, for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("obstore")

from nsd_zarr.conversion import lock as locks
from servers.proxy import Proxy, run_proxy
from servers.seaweed import BUCKET, Server, run_seaweed

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with run_seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with run_proxy(server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def url() -> str:
    """A prefix of this test's own."""
    return f"s3://{BUCKET}/test{next(_numbers)}"


@pytest.fixture
def options(server: Server, proxy: Proxy) -> dict[str, Any]:
    """storage_options of the owner, through the proxy."""
    return server.options(endpoint=proxy.endpoint)


@pytest.fixture
def uploaded(server: Server, url: str, volumes: Any) -> Any:
    """The store of `volumes` on the server: its URL."""
    return server.upload(volumes.path, f"{url}/subj01.zarr")


@pytest.fixture
def local(source: Path, convert: Any) -> dict[str, bytes]:
    """What the store of `source` must be: the files of the local one."""
    folder = convert(source, "here.zarr")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that was left is taken over sooner."""
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.6)
    monkeypatch.setattr(locks, "LOOK_AGAIN_SECONDS", 0.1)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials of whoever runs the tests."""
    import os

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
