"""Servers of objects beside SeaweedFS, as tests/servers/others.sh starts them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from servers.seaweed import BUCKET, OWNER, find_free_ports

SCRIPT = Path(__file__).with_name("others.sh")
PROGRAMS = {"azurite": "azurite-blob", "rclone": "rclone", "nanio": "nanio", "ceph": "radosgw"}
"""Servers, and the program of each."""
ACCOUNT, ACCOUNT_KEY = (
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
)
"""What every Azurite has."""


@dataclass(frozen=True)
class OtherServer:
    """A server that runs."""

    name: str
    port: int

    @property
    def url(self) -> str:
        """Its bucket."""
        return f"{'az' if self.name == 'azurite' else 's3'}://{BUCKET}"

    @property
    def options(self) -> dict[str, Any]:
        """storage_options of the owner."""
        endpoint = f"http://127.0.0.1:{self.port}"
        if self.name == "azurite":
            return {"account_name": ACCOUNT, "account_key": ACCOUNT_KEY, "endpoint": f"{endpoint}/{ACCOUNT}"}
        return {"endpoint_url": endpoint, "region": "us-east-1", "key": OWNER[0], "secret": OWNER[1]}

    def connect(self) -> Any:
        """obstore's client of the bucket: the second opinion of tests."""
        from obstore.store import AzureStore, S3Store

        options, http_ok = self.options, {"allow_http": True}
        if self.name == "azurite":
            return AzureStore(BUCKET, **options, client_options=http_ok)
        where = {"endpoint": options["endpoint_url"], "region": options["region"]}
        return S3Store(BUCKET, **where, access_key_id=OWNER[0], secret_access_key=OWNER[1], client_options=http_ok)

    def upload(self, folder: Path, url: str) -> str:
        """Put the files of a folder below a URL; returns it."""
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            key = f"{url.removeprefix(self.url + '/')}/{path.relative_to(folder).as_posix()}"
            self.connect().put(key, path.read_bytes(), use_multipart=False)
        return url

    def read_all(self, url: str) -> dict[str, bytes]:
        """Every object below a URL, by its key there."""
        client, prefix = self.connect(), url.removeprefix(f"{self.url}/")
        found = [meta["path"] for batch in client.list(prefix=f"{prefix}/") for meta in batch]
        return {key.removeprefix(f"{prefix}/"): bytes(client.get(key).bytes()) for key in found}


@contextlib.contextmanager
def run_other(name: str, folder: Path) -> Iterator[OtherServer]:
    """Server *name* with its data in *folder*, until the block ends. Skips where it is not installed."""
    top = os.environ.get("OTHER_SERVERS", ".")
    path = os.pathsep.join((f"{top}/node_modules/.bin", f"{top}/venv/bin", os.environ["PATH"]))
    if shutil.which(PROGRAMS[name], path=path) is None:
        pytest.skip(f"{name} is not installed: tests/servers/others.sh install FOLDER, and OTHER_SERVERS=FOLDER")
    server = OtherServer(name, find_free_ports(1)[0])
    started = subprocess.run(
        [SCRIPT, "start", name, folder, str(server.port)], capture_output=True, text=True, timeout=120
    )
    try:
        assert started.returncode == 0, started.stderr[-2000:]
        _wait(server.port)
        if name == "azurite":
            _make_container(server.port)
        yield server
    finally:
        subprocess.run([SCRIPT, "stop", name, folder], check=True)


def _wait(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return
        except OSError:
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.05)


def _make_container(port: int) -> None:
    """obstore makes none."""
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    signed = "".join(f"{name}:{value}\n" for name, value in headers.items())
    words = "PUT" + "\n" * 12 + signed + f"/{ACCOUNT}/{ACCOUNT}/{BUCKET}\nrestype:container"
    signature = hmac.new(base64.b64decode(ACCOUNT_KEY), words.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("PUT", f"/{ACCOUNT}/{BUCKET}?restype=container", headers=headers)
    response = connection.getresponse()
    assert response.status == 201, response.read()
    connection.close()
