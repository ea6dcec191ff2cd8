"""Who this host is, asked of a metadata service that may lie, hang, drip, redirect or flood."""

import gzip
import json
import socket
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from reyes.adapters.deadline import deadline
from reyes.adapters.metadata import MAX_REPLY_BYTES, instance_and_region
from reyes.errors import SourceError
from tests.fakes.metadata_server import (
    DOCUMENT,
    TOKEN,
    MetadataService,
    Reply,
    endless,
    hanging,
    identity,
    metadata_service,
)

ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetadataService]:
    with metadata_service() as running:
        monkeypatch.setenv(ENDPOINT, running.url)
        yield running


def refused() -> str:
    with pytest.raises(SourceError) as caught:
        instance_and_region()
    assert "follower.instance_id" in (caught.value.hint or "")
    assert len(caught.value.message) < 500
    return caught.value.message


def test_it_is_asked_with_a_token(service: MetadataService) -> None:
    assert instance_and_region() == ("i-0a1b2c3d", "us-west-2")
    assert service.asked == [("PUT", "/latest/api/token", None), ("GET", DOCUMENT, TOKEN)]


def test_no_service_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{unheard.getsockname()[1]}")
        assert "refused" in refused()


def test_a_service_that_takes_no_connection_is_told_the_same_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{full.getsockname()[1]}")
        stack.enter_context(socket.create_connection(full.getsockname()))
        said = refused()
    assert "timed out" in said
    assert " at 0x" not in said


@pytest.mark.parametrize(
    "endpoint",
    ["http://", "http://[::1", "file:///etc/passwd", "http://a:99999", "http://a..b"],
)
def test_an_endpoint_that_is_none_is_said(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, endpoint)
    refused()


@pytest.mark.parametrize("status", [403, 404, 405, 500])
def test_a_service_without_tokens_is_not_asked_without_one(
    service: MetadataService, status: int
) -> None:
    service.token = Reply(status=status)
    assert f"HTTP {status}" in refused()
    assert [method for method, _, _ in service.asked] == ["PUT"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("request_", ["token", "document"])
def test_a_redirect_is_not_followed(service: MetadataService, status: int, request_: str) -> None:
    with metadata_service() as elsewhere:
        body = [TOKEN.encode()] if request_ == "token" else identity().body
        headers = {"Location": f"{elsewhere.url}{DOCUMENT}"}
        setattr(service, request_, Reply(body, status=status, headers=headers))
        assert f"HTTP {status}" in refused()
        assert elsewhere.asked == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>captive portal</html>",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"i-0a1b2c3d"',
        b"7",
        b"{}",
        b'{"instanceId": "i-0a1b2c3d"}',
        b'{"instanceId": NaN, "region": "us-west-2"}',
        b"[" * 60_000,
        b'{"instanceId": 1' + b"0" * 5000 + b"}",
    ],
)
def test_a_document_that_is_none_is_refused(service: MetadataService, body: bytes) -> None:
    service.document = Reply([body])
    assert "does not tell who this host is" in refused()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("instanceId", "i-0a1b2c3d\n"),
        ("instanceId", "i-0A1B2C3D"),
        ("instanceId", "--force"),
        ("instanceId", "i-" + "a" * 60_000),
        ("instanceId", ["i-0a1b2c3d"]),
        ("instanceId", None),
        ("region", "us-west-2 "),
        ("region", "../us-west-2"),
        ("region", ""),
        ("region", 7),
        ("region", {}),
    ],
)
def test_a_lie_that_is_no_identity_is_refused(
    service: MetadataService, field: str, value: object
) -> None:
    service.document = identity(**{field: value})
    assert "it calls this host" in refused()


@pytest.mark.parametrize("token", [b"two\r\nlines: x", b"\xff", "\N{FIRE}".encode()])
def test_a_token_that_is_no_header_is_refused(service: MetadataService, token: bytes) -> None:
    service.token = Reply([token])
    refused()
    assert len(service.asked) == 1


@pytest.mark.parametrize("request_", ["token", "document"])
def test_a_flood_is_not_read(service: MetadataService, request_: str) -> None:
    setattr(service, request_, endless(b"x" * 65_536))
    tracemalloc.start()
    try:
        assert f"more than {MAX_REPLY_BYTES} bytes" in refused()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 * MAX_REPLY_BYTES


def test_a_compressed_flood_is_not_inflated(service: MetadataService) -> None:
    bomb = gzip.compress(json.dumps({"x": "x" * 2**24}).encode())
    assert len(bomb) < MAX_REPLY_BYTES
    service.document = Reply([bomb], headers={"Content-Encoding": "gzip"})
    tracemalloc.start()
    try:
        refused()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**23


def test_half_a_document_is_refused(service: MetadataService) -> None:
    service.document = Reply([b'{"instanceId":'], headers={"Content-Length": "100"})
    refused()


def test_silence_ends_by_itself(service: MetadataService) -> None:
    service.document = hanging()
    started = time.monotonic()
    assert "timed out" in refused()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("request_", ["token", "document"])
def test_a_drip_ends_with_the_run(service: MetadataService, request_: str) -> None:
    setattr(service, request_, endless(b" ", pause=0.01))
    with pytest.raises(SourceError, match="within"), deadline(0.5):
        instance_and_region()
    assert service.sent > 1
