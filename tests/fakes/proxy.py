"""A proxy on loopback that forwards to a server, and now and then misbehaves."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """A reply of the proxy's own, in place of the server's."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


Trick = Answer | Literal["drop", "cut", "forward"]
"""What a request gets: an own reply, none at all, half of the server's, or all of it."""


@dataclass
class Proxy:
    """Plays the tricks of each method in order, then forwards."""

    url: str = ""
    tricks: dict[str, list[Trick]] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    callers: set[int] = field(default_factory=set)
    """The ports that requests came from, one for each connection."""

    def play(self, method: str, *tricks: Trick) -> None:
        self.tricks[method] = list(tricks)

    def next_trick(self, method: str) -> Trick:
        self.seen.append(method)
        pending = self.tricks.get(method)
        return pending.pop(0) if pending else "forward"


@contextmanager
def proxy_to(target: str) -> Iterator[Proxy]:
    """Forward from a free port of loopback to `target`."""
    proxy = Proxy()
    server = _Server(urlsplit(target).netloc, proxy)
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, target: str, proxy: Proxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = target
        self.proxy = proxy


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two packets
    server: _Server

    def do_GET(self) -> None:
        self.relay()

    def do_HEAD(self) -> None:
        self.relay()

    def do_PUT(self) -> None:
        self.relay()

    def relay(self) -> None:
        self.server.proxy.callers.add(self.client_address[1])
        trick = self.server.proxy.next_trick(self.command)
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if isinstance(trick, Answer):
            self.answer(trick.status, [*trick.headers], trick.body, len(trick.body))
            return
        status, headers, reply = self.forward(body)
        self.close_connection = trick != "forward"
        if trick != "drop":
            sent = reply[: len(reply) // 2] if trick == "cut" else reply
            self.answer(status, headers, sent, len(reply))

    def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.server.target)
        connection.request(self.command, self.path, body, dict(self.headers))
        response = connection.getresponse()
        reply = response.read()
        connection.close()
        return response.status, response.getheaders(), reply

    def answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, length: int
    ) -> None:
        own = {"content-length", "connection", "server", "transfer-encoding"}
        self.send_response_only(status)
        for name, value in {"Date": self.date_time_string(), **dict(headers)}.items():
            if value and name.lower() not in own:
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Stay silent."""
