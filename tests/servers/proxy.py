"""Between a client and a server: counts requests, lets answers wait, and breaks them as a test says."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    range: str | None
    condition: str | None = None


Fault = Callable[[Asked, int], str]
"""What goes wrong with a request, given how many came before: "" nothing, "cut" (half of the body, then the connection
ends), "lost" (done, and the connection ends before the answer), or one of BODIES: that answer, and nothing done."""
BODIES = {
    "500": b"<Error><Code>InternalError</Code></Error>",
    "503": b"<Error><Code>SlowDown</Code></Error>",
    "412": b"<Error><Code>PreconditionFailed</Code></Error>",
    "301": b"<Error><Code>PermanentRedirect</Code></Error>",
}


@dataclass
class Proxy:
    """What the proxy does, and has seen. Changed while it runs."""

    upstream: str
    latency: float = 0.0
    fault: Fault = lambda asked, before: ""
    asked: list[Asked] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    endpoint: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, method: str, part: str = "") -> int:
        """Requests of a method whose path holds *part*."""
        return sum(asked.method == method and part in asked.path for asked in self.asked)

    def forget(self) -> None:
        """Count from here."""
        with self.lock:
            self.asked.clear()
            self.most_in_flight = 0

    @contextlib.contextmanager
    def note(self, asked: Asked) -> Iterator[int]:
        with self.lock:
            self.asked.append(asked)
            before = len(self.asked) - 1
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            yield before
        finally:
            with self.lock:
                self.in_flight -= 1


class Handler(BaseHTTPRequestHandler):
    """One connection of a client, and one to the server behind it."""

    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.upstream = http.client.HTTPConnection(urlsplit(self.proxy.upstream).netloc, timeout=30)

    def finish(self) -> None:
        self.upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def handle_one(self) -> None:
        asked = Asked(self.command, self.path, self.headers.get("Range"), self.headers.get("If-Match"))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.proxy.note(asked) as before:
            time.sleep(self.proxy.latency)
            fault = self.proxy.fault(asked, before)
            if fault in BODIES:
                self.answer(int(fault), [("Content-Length", str(len(BODIES[fault])))], BODIES[fault])
                return
            status, headers, data = self.forward(body)
            if fault == "lost":
                self.close_connection = True
                return
            if fault == "cut":
                self.close_connection = True
                data = data[: len(data) // 2]
            self.answer(status, headers, data)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = handle_one

    def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        for _ in range(2):  # The server may have closed a connection that was idle.
            try:
                self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    self.upstream.putheader(name, value)
                self.upstream.endheaders(body or None)
                response = self.upstream.getresponse()
                return response.status, response.getheaders(), response.read()
            except (OSError, http.client.HTTPException):
                self.upstream.close()
        raise ConnectionError("the server behind the proxy is gone")

    def answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        if "content-length" not in {name.lower() for name, _ in headers}:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(b"" if self.command == "HEAD" else data)

    def log_message(self, *_: Any) -> None:
        pass


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """Clients that go away are nothing to speak of."""


@contextlib.contextmanager
def run_proxy(upstream: str) -> Iterator[Proxy]:
    """A proxy before *upstream*, until the block ends."""
    proxy = Proxy(upstream)
    server = QuietServer(("127.0.0.1", 0), type("Bound", (Handler,), {"proxy": proxy}))
    proxy.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
