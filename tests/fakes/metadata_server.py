"""An instance metadata service on loopback that answers what a test wants, byte by byte."""

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import repeat
from typing import Any

TOKEN = "AQAEAHK9-token=="
DOCUMENT = "/latest/dynamic/instance-identity/document"


@dataclass(frozen=True)
class Reply:
    """What one request gets: status, headers, and a body in pieces with pauses between them.

    Before the first piece there is a pause, too; a body may be endless.
    """

    body: Iterable[bytes] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    pause: float = 0


def identity(**fields: Any) -> Reply:
    """A good document, or one with other fields."""
    document = {"instanceId": "i-0a1b2c3d", "region": "us-west-2", "version": "2017-09-30"}
    return Reply([json.dumps({**document, **fields}).encode()])


def endless(piece: bytes, pause: float = 0) -> Reply:
    return Reply(repeat(piece), pause=pause)


def hanging() -> Reply:
    return Reply(pause=3600)


@dataclass
class MetadataService:
    """Its replies to the request for a token and to the one for the document, and who asked."""

    url: str = ""
    token: Reply = field(default_factory=lambda: Reply([TOKEN.encode()]))
    document: Reply = field(default_factory=identity)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    sent: int = 0
    closing: threading.Event = field(default_factory=threading.Event)


@contextmanager
def metadata_service() -> Iterator[MetadataService]:
    """Serve on a free port of loopback; whatever still hangs at the end is let go."""
    service = MetadataService()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.answer(service.token)

        def do_GET(self) -> None:
            self.answer(service.document)

        def answer(self, reply: Reply) -> None:
            token = self.headers.get("X-aws-ec2-metadata-token")
            service.asked.append((self.command, self.path, token))
            if service.closing.wait(reply.pause):
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for piece in reply.body:
                    self.wfile.write(piece)
                    service.sent += len(piece)
                    if service.closing.wait(reply.pause):
                        return
            except ConnectionError:
                return

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield service
    finally:
        service.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
