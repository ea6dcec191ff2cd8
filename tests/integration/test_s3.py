"""The store over HTTP: moto's S3, and a proxy before it for what goes wrong on the way."""

import itertools
import signal
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import boto3
import msgspec
import pytest

from reyes.adapters import s3
from reyes.adapters.deadline import deadline
from reyes.adapters.s3 import S3Store, make_s3_client
from reyes.cli.sources import StoreSource
from reyes.config import S3Config
from reyes.envelope import MAX_ENVELOPE_BYTES, Envelope
from reyes.errors import ConfigError, SignatureError, SourceError, UnreachableError
from reyes.inventory import Inventory
from reyes.leader import Outcome, Request, publish_pass
from tests.fakes.metadata_server import Reply, metadata_service
from tests.fakes.proxy import Answer, Proxy, Trick, proxy_to
from tests.leaders import PaperSigner, configuration, fleet, reader_of, signed
from tests.worlds import document

KEY = "production/ruleset.gpg"
NOW = 1_795_163_376
BUCKETS = (f"acme-reyes-{number}" for number in itertools.count())


def error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>simulated {code}</Message></Error>".encode()


FORBIDDEN = Answer(403, error("AccessDenied"))
CONFLICT = Answer(409, error("ConditionalRequestConflict"))


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def proxy(
    moto_url: str,
    aws_settings: None,  # noqa: ARG001 - they are needed, not looked at
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Proxy]:
    with proxy_to(moto_url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        yield proxy


@pytest.fixture
def bucket(moto_url: str, proxy: Proxy) -> str:
    """A fresh bucket, made past the proxy."""
    name = next(BUCKETS)
    assert proxy.url
    s3 = boto3.client("s3", region_name="us-east-1", endpoint_url=moto_url)
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def store(bucket: str) -> S3Store:
    return S3Store(S3Config(bucket=bucket, key=KEY, region="us-east-1"))


def etag_of(store: S3Store) -> str:
    current = store.current()
    assert current
    assert current.etag
    return current.etag


def test_what_is_published_is_fetched(store: S3Store) -> None:
    assert store.publish(Envelope(b"\x90first"), None)

    fetched = store.fetch()
    assert fetched
    assert fetched.blob == b"\x90first"
    assert fetched == store.current()


def test_an_unchanged_object_is_not_sent_again(store: S3Store) -> None:
    store.publish(Envelope(b"first"), None)
    tag = etag_of(store)

    assert store.fetch(tag) is None

    store.publish(Envelope(b"second"), tag)
    changed = store.fetch(tag)
    assert changed
    assert changed.blob == b"second"


@pytest.mark.parametrize(
    "tag",
    ["", "*", '"a", "b"', "bare", '"a b"', '"\xe9"', f'"{"a" * 127}"', f'"{"a" * 60_000}"'],
)
def test_what_is_no_tag_of_one_object_is_not_kept(store: S3Store, proxy: Proxy, tag: str) -> None:
    answer = Answer(200, b"first", headers=(("ETag", tag),))
    for read in (store.fetch, store.current):
        proxy.play("GET", answer)
        assert read() == Envelope(b"first", None)


def test_the_longest_tag_is_kept(store: S3Store, proxy: Proxy) -> None:
    tag = f'"{"a" * 126}"'
    proxy.play("GET", Answer(200, b"first", headers=(("ETag", tag),)))
    assert store.fetch() == Envelope(b"first", tag)


def test_only_what_was_read_is_replaced(store: S3Store) -> None:
    assert store.publish(Envelope(b"first"), None)
    first = etag_of(store)
    assert store.publish(Envelope(b"second"), first)

    assert not store.publish(Envelope(b"stale"), first)
    assert not store.publish(Envelope(b"new"), None)

    current = store.current()
    assert current
    assert current.blob == b"second"


def test_an_object_that_is_gone_is_not_replaced(store: S3Store) -> None:
    assert not store.publish(Envelope(b"second"), '"5d41402abc4b2a76b9719d911017c592"')
    assert store.current() is None


def test_the_way_to_the_store_is_tried_by_a_new_connection(bucket: str, proxy: Proxy) -> None:
    config = configuration()
    source = StoreSource(
        msgspec.structs.replace(config, s3=msgspec.structs.replace(config.s3, bucket=bucket))
    )
    S3Store(S3Config(bucket=bucket, key=config.s3.key, region="us-east-1")).publish(
        Envelope(b"\x90first"), None
    )
    proxy.callers.clear()
    first = source.fetch()
    assert first
    assert source.fetch(first.etag) is None
    assert len(proxy.callers) == 1
    assert source.fetch_anew(first.etag) is None
    assert len(proxy.callers) == 2
    assert source.fetch() == first
    assert len(proxy.callers) == 2


def test_a_conflict_is_lost_and_not_repeated_blindly(store: S3Store, proxy: Proxy) -> None:
    proxy.play("PUT", CONFLICT)

    assert not store.publish(Envelope(b"first"), None)
    assert proxy.seen == ["PUT"]


def test_archived_copies_lie_beside(store: S3Store, bucket: str, moto_url: str) -> None:
    store.archive("archive/2026/11/20/1-x", Envelope(b"first"))
    store.archive("archive/2026/11/20/1-x", Envelope(b"second"))

    s3 = boto3.client("s3", region_name="us-east-1", endpoint_url=moto_url)
    copy = s3.get_object(Bucket=bucket, Key="archive/2026/11/20/1-x")
    assert copy["Body"].read() == b"second"
    assert copy["ContentType"] == "application/octet-stream"
    assert store.current() is None


def test_what_is_missing_is_none_for_leaders_and_unavailable_for_followers(
    store: S3Store, bucket: str
) -> None:
    assert store.current() is None
    with pytest.raises(SourceError, match=f"^s3://{bucket}/{KEY}: GetObject failed: NoSuchKey"):
        store.fetch()


def test_a_bucket_that_is_missing_is_unavailable_for_both(proxy: Proxy) -> None:
    assert proxy.url
    store = S3Store(S3Config(bucket="no-such-bucket", key=KEY, region="us-east-1"))

    for read in (store.current, store.fetch):
        with pytest.raises(SourceError, match="NoSuchBucket") as caught:
            read()
        assert caught.value.hint == "mend s3.bucket, or create the bucket"


@pytest.mark.parametrize(
    ("code", "message", "hint"),
    [
        ("RequestTimeTooSkewed", "", "set this machine's clock: "),
        ("ExpiredToken", "", "renew the credentials: "),
        ("InvalidAccessKeyId", "", "renew the credentials: "),
        ("SignatureDoesNotMatch", "", "the secret key is not that of the access key: renew"),
        ("AccessDenied", "not authorized to perform: kms:Decrypt", "allow kms:Decrypt on "),
    ],
)
def test_what_is_forbidden_for_another_reason_is_told_so(
    store: S3Store, proxy: Proxy, code: str, message: str, hint: str
) -> None:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    proxy.play("GET", Answer(403, body))
    with pytest.raises(SourceError, match=code) as caught:
        store.fetch()
    assert caught.value.hint
    assert caught.value.hint.startswith(hint)


def test_what_is_forbidden_is_unavailable_for_both(store: S3Store, proxy: Proxy) -> None:
    proxy.play("GET", FORBIDDEN, FORBIDDEN)
    proxy.play("PUT", FORBIDDEN)

    for read in (store.current, store.fetch):
        with pytest.raises(SourceError, match="GetObject failed: AccessDenied") as caught:
            read()
        assert caught.value.hint
        assert "allow s3:GetObject, and s3:ListBucket" in caught.value.hint
    with pytest.raises(SourceError, match="PutObject failed: AccessDenied") as caught:
        store.publish(Envelope(b"first"), None)
    assert caught.value.hint == "allow s3:PutObject on this key"


@pytest.mark.parametrize(
    "trick", [Answer(503, error("SlowDown")), Answer(500, error("InternalError")), "drop"], ids=str
)
def test_one_failure_is_tried_again_and_two_are_unavailable(
    store: S3Store, proxy: Proxy, trick: Trick
) -> None:
    store.publish(Envelope(b"first"), None)

    proxy.play("GET", trick)
    assert store.fetch()

    proxy.play("GET", trick, trick)
    with pytest.raises(SourceError, match="GetObject failed"):
        store.fetch()


@pytest.mark.parametrize(
    "answer",
    [FORBIDDEN, Answer(404, error("NoSuchKey")), Answer(503, error("SlowDown")), Answer(307)],
    ids=lambda answer: str(answer.status),
)
def test_only_a_store_that_does_not_answer_is_unreachable(
    store: S3Store, proxy: Proxy, answer: Answer
) -> None:
    proxy.play("GET", *[answer] * 1000)
    with pytest.raises(SourceError) as caught:
        store.fetch()
    assert not isinstance(caught.value, UnreachableError)

    proxy.play("GET", "drop", "drop")
    with pytest.raises(UnreachableError):
        store.fetch()


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("nope\n&lt;6&gt;unchanged serial=99\r\n", "nope <6>unchanged serial=99"),
        ("a&#13;b&#133;c&#8232;d&#8238;e&#9;f", "a b c d e f"),
        ("der Schl\u00fcssel", "der Schl\u00fcssel"),
        ("a" * 1000, "a" * 383 + "..."),
        ("a" * 386, "a" * 386),
    ],
)
def test_what_the_store_says_is_one_short_line(
    store: S3Store, bucket: str, proxy: Proxy, message: str, shown: str
) -> None:
    said = f"<Error><Code>AccessDenied</Code><Message>{message}</Message></Error>".encode()
    proxy.play("GET", Answer(403, said))

    with pytest.raises(SourceError) as caught:
        store.fetch()
    failed = f"s3://{bucket}/{KEY}: GetObject failed: "
    assert caught.value.message == f"{failed}AccessDenied: {shown}"


@pytest.mark.parametrize("status", [200, 403, 404, 500])
def test_of_an_endless_answer_without_the_object_little_is_read(
    bucket: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    assert proxy.url
    with metadata_service() as service:
        service.token = service.document = Reply(itertools.repeat(bytes(2**16)), status=status)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", service.url)
        store = S3Store(S3Config(bucket=bucket, key=KEY, region="us-east-1"))
        calls: list[Callable[[], object]] = [lambda: store.publish(Envelope(b"first"), None)]
        if status != 200:
            calls += [store.fetch, store.current]
        for call in calls:
            tracemalloc.start()
            with pytest.raises(SourceError, match=r"Object failed: \S+: "), deadline(5):
                call()
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 2**20


def test_an_answer_that_breaks_off_is_asked_for_again(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with metadata_service() as service:
        broken = {"Transfer-Encoding": "chunked"}
        service.token = service.document = Reply([b"4\r\n<Er"], status=403, headers=broken)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", service.url)
        store = S3Store(S3Config(bucket=bucket, key=KEY, region="us-east-1"))
        for call in (store.fetch, lambda: store.publish(Envelope(b"first"), None)):
            service.asked.clear()
            with pytest.raises(SourceError, match="failed: An error occurred while reading"):
                call()
            assert len(service.asked) == 2


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_store_that_redirects_is_unavailable(
    store: S3Store, bucket: str, proxy: Proxy, status: int
) -> None:
    elsewhere = [Answer(status, headers=(("Location", "https://127.0.0.1/"),))] * 1000
    for method in ("GET", "PUT", "HEAD"):
        proxy.play(method, *elsewhere)

    for call, what in (
        ("GetObject", store.fetch),
        ("GetObject", store.current),
        ("PutObject", lambda: store.publish(Envelope(b"first"), None)),
    ):
        with pytest.raises(SourceError) as caught:
            what()
        said = caught.value.message
        assert said.startswith(f"s3://{bucket}/{KEY}: {call} failed: ")
        assert f"{status}: " in said or "RecursionError" in said
        assert "redirects" in (caught.value.hint or "")


@pytest.mark.parametrize("status", [300, 304, 403, 404, 412, 500])
def test_a_reply_that_botocore_cannot_take_is_unavailable(
    store: S3Store, bucket: str, proxy: Proxy, status: int
) -> None:
    odd = Answer(status, headers=(("x-amz-checksum-crc32", "abc"),))
    for read in (store.current, store.fetch):
        proxy.play("GET", odd, odd)
        with pytest.raises(
            SourceError, match=f"^s3://{bucket}/{KEY}: GetObject failed: ."
        ) as told:
            read()
        assert str(status) in told.value.message or "Error(" in told.value.message


def test_a_deadline_and_own_errors_pass_through_a_call(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise ConfigError("no settings")

    monkeypatch.setattr(store, "_get", lambda **_: signal.pause())
    with pytest.raises(UnreachableError), deadline(0.01):
        store.fetch()
    monkeypatch.setattr(store, "_get", refuse)
    with pytest.raises(ConfigError, match="no settings"):
        store.fetch()


def test_a_reply_that_breaks_off_is_unavailable(store: S3Store, proxy: Proxy) -> None:
    store.publish(Envelope(bytes(100_000)), None)
    proxy.play("GET", "cut")

    with pytest.raises(SourceError, match="GetObject failed"):
        store.fetch()


def test_a_server_that_does_not_answer_in_time_is_unavailable(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        monkeypatch.setattr(s3, "READ_TIMEOUT", 0.2)
        with pytest.raises(SourceError, match="timeout"):
            S3Store(S3Config(bucket="bucket", key=KEY, region="us-east-1")).fetch()
    assert proxy.seen == []


def test_clients_of_the_adapter_do_not_wait_for_ever(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_RETRY_MODE", "legacy")
    client = make_s3_client("eu-west-1")
    settings: Any = client.meta.config

    assert (settings.connect_timeout, settings.read_timeout) == (5, 15)
    assert settings.retries == {"mode": "standard", "total_max_attempts": 2}
    assert settings.user_agent_extra.startswith("reyes/")
    assert client.meta.region_name == "eu-west-1"
    assert proxy.seen == []


def test_an_object_too_large_is_refused_and_can_still_be_replaced(store: S3Store) -> None:
    store.publish(Envelope(bytes(MAX_ENVELOPE_BYTES + 5)), None)

    with pytest.raises(SignatureError, match=f"more than {MAX_ENVELOPE_BYTES} bytes"):
        store.fetch()
    current = store.current()
    assert current
    assert len(current.blob) == MAX_ENVELOPE_BYTES + 1
    assert store.publish(Envelope(b"healed"), current.etag)


def test_the_largest_ruleset_is_fetched(store: S3Store) -> None:
    store.publish(Envelope(bytes(MAX_ENVELOPE_BYTES)), None)

    fetched = store.fetch()
    assert fetched
    assert len(fetched.blob) == MAX_ENVELOPE_BYTES


def run(store: S3Store, now: int, before_reading: Any = lambda: None) -> Outcome:
    def read() -> Sequence[Inventory]:
        before_reading()
        return fleet(3)

    return publish_pass(
        configuration(),
        Request(now=lambda: now, generator="leader"),
        store=store,
        read=reader_of(read),
        signer=PaperSigner(),
    )


@pytest.mark.parametrize("was_published", [False, True])
def test_of_two_leaders_in_a_race_one_publishes_and_the_other_is_superseded(
    store: S3Store, *, was_published: bool
) -> None:
    if was_published:
        run(store, NOW - 300)
    outcomes: list[Outcome] = []

    slow = run(store, NOW, lambda: outcomes.append(run(store, NOW + 10)))

    assert [outcome.status for outcome in outcomes] == ["published"]
    assert slow.status == "superseded"
    current = store.current()
    assert current
    assert current.blob == outcomes[0].envelope.blob


def test_a_lost_answer_is_recognised_as_own_success(store: S3Store, proxy: Proxy) -> None:
    proxy.play("PUT", "drop")

    outcome = run(store, NOW)

    assert outcome.status == "published"
    # Read, write, write again after the lost answer, find the own object there, archive.
    assert proxy.seen == ["GET", "PUT", "PUT", "GET", "PUT"]


def test_a_conflict_without_winner_is_tried_again(store: S3Store, proxy: Proxy) -> None:
    run(store, NOW)
    proxy.play("PUT", CONFLICT)

    assert run(store, NOW + 10).status == "published"


def test_an_object_without_a_tag_is_not_replaced(store: S3Store, proxy: Proxy) -> None:
    published = run(store, NOW).envelope.blob
    proxy.play("GET", *[Answer(200, published, headers=(("ETag", "*"),))] * 4)

    with pytest.raises(SourceError, match="the store refused 3 times"):
        run(store, NOW + 10)

    current = store.current()
    assert current
    assert current.blob == published


def test_a_vandalised_object_is_replaced(store: S3Store) -> None:
    store.publish(Envelope(b"vandalism"), None)

    assert run(store, NOW).status == "published"
    assert run(store, NOW + 10).previous is not None


def test_another_fleet_s_object_stays(store: S3Store) -> None:
    theirs = Envelope(signed(document(NOW, environment="staging")))
    store.publish(theirs, None)

    with pytest.raises(ConfigError, match="staging"):
        run(store, NOW)

    current = store.current()
    assert current
    assert current.blob == theirs.blob


def test_a_failing_archive_leaves_the_ruleset_published(store: S3Store, proxy: Proxy) -> None:
    proxy.play("PUT", "forward", FORBIDDEN)

    outcome = run(store, NOW)

    assert outcome.not_archived
    assert "published, but not archived: s3://" in outcome.not_archived.message
    assert "/archive/2026/" in outcome.not_archived.message
    assert store.current()


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        (70, "this machine's clock is 7[01] seconds ahead of S3's"),
        (-310, "this machine's clock is 5 minutes behind S3's"),
    ],
)
def test_a_leader_with_another_time_than_s3_publishes_nothing(
    store: S3Store,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_there: bool,
    seconds: float,
    message: str,
) -> None:
    if is_there:
        run(store, NOW)
    before = store.current()
    monkeypatch.setattr("reyes.adapters.clock.now", lambda: time.time() + seconds)

    with pytest.raises(ConfigError, match=message):
        run(store, NOW + 300)

    monkeypatch.setattr("reyes.adapters.clock.now", lambda: time.time() + 50)
    assert store.current() == before


def test_a_follower_s_time_is_not_compared(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.publish(Envelope(b"first"), None)
    monkeypatch.setattr("reyes.adapters.clock.now", lambda: 0.0)

    assert store.fetch()


@pytest.mark.parametrize("date", ["", "soon"])
def test_an_answer_without_a_date_tells_no_time(
    store: S3Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, date: str
) -> None:
    monkeypatch.setattr("reyes.adapters.clock.now", lambda: 0.0)
    proxy.play("GET", Answer(200, b"object", (("Date", date),)))

    current = store.current()

    assert current
    assert current.blob == b"object"
