"""EC2 and S3 on loopback, with replies that cost nothing to make.

EC2 hands out pages that were written before. S3 knows one object: it answers 304 to who has it,
and takes whatever is put. A socket stays in the namespace where it was made, so that a server
can be made for a host in a namespace of its own.
"""

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from reyes.demo.namespaces import Namespace
from tests.bench.replies import Pages

NO_INSTANCES = [b"<DescribeInstancesResponse><reservationSet/></DescribeInstancesResponse>"]


class AwsServer(ThreadingHTTPServer):
    """`regions` are EC2's pages, `delay` is how long it takes for one; `blob` is S3's object."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.regions: Mapping[str, Pages] = {}
        self.delay = 0.0
        self.blob: bytes | None = None
        self.puts = 0
        self.url = f"http://127.0.0.1:{self.server_port}"

    def environment(self) -> dict[str, str]:
        """Return what leads the tools of AWS here."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": "us-west-2",
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
        }


@contextmanager
def aws_server(namespace: Namespace | None = None) -> Iterator[AwsServer]:
    """Serve on a free port of a namespace's loopback, by default of this process's."""
    server = namespace.call(AwsServer) if namespace else AwsServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the body waits 40 ms for the headers' acknowledgement
    server: AwsServer

    def do_POST(self) -> None:
        asked = parse_qs(self._body().decode())
        # The scope reads key, date, region, service.
        region = self.headers["Authorization"].partition("Credential=")[2].split("/")[2]
        pages = self.server.regions[region][asked["Action"][0]]
        if asked.get("Filter.1.Name") == ["instance-state-name"]:
            pages = NO_INSTANCES  # all are running, and who filters asks for those that are not
        time.sleep(self.server.delay)
        self._answer(200, pages[int(asked.get("NextToken", ["0"])[0])])

    def do_GET(self) -> None:
        blob = self.server.blob
        if blob is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        elif self.headers.get("If-None-Match") == _tag(blob):
            self._answer(304, b"", _tag(blob))
        else:
            self._answer(200, blob, _tag(blob))

    def do_PUT(self) -> None:
        body = self._body()
        self.server.puts += 1
        if not self.path.startswith("/acme-reyes/archive/"):
            self.server.blob = body
        self._answer(200, b"", _tag(body))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Stay silent."""

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def _answer(self, status: int, body: bytes, tag: str | None = None) -> None:
        self.send_response(status)
        if tag:
            self.send_header("ETag", tag)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _tag(blob: bytes) -> str:
    return f'"{hashlib.md5(blob).hexdigest()}"'
