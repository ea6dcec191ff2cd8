"""The leader's pass over a store, a signer and an EC2 in memory."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec.structs import replace

from reyes.config import Config
from reyes.envelope import Envelope
from reyes.errors import (
    ConfigError,
    ExpiredError,
    ImplausibleError,
    SignatureError,
    SourceError,
)
from reyes.inventory import Inventory, View
from reyes.leader import MAX_TRIES, Outcome, Request, publish_pass
from reyes.ruleset import Ruleset, decode
from reyes.trust import MAX_CLOCK_SKEW
from tests.leaders import (
    FOREIGN_KEY,
    KEY,
    PaperSigner,
    configuration,
    fleet,
    reader_of,
    signed,
)
from tests.worlds import document

NOW = 1_795_163_376


@dataclass
class MemoryStore:
    """A bucket with S3's conditional writes, and a log of what was asked of it."""

    there: Envelope | None = None
    archived: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    before_publish: Callable[["MemoryStore"], None] = lambda _: None
    refusals: int = 0
    loses_answer: bool = False
    archive_fails: bool = False

    def put(self, blob: bytes) -> None:
        self.there = Envelope(blob, etag=hashlib.md5(blob).hexdigest())

    def current(self) -> Envelope | None:
        self.calls.append("current")
        return self.there

    def publish(self, envelope: Envelope, replacing: str | None) -> bool:
        self.calls.append("publish")
        self.before_publish(self)
        if self.refusals:
            self.refusals -= 1
            return False
        if (self.there.etag if self.there else None) != replacing:
            return False
        self.put(envelope.blob)
        return not self.loses_answer

    def archive(self, key: str, envelope: Envelope) -> None:
        self.calls.append("archive")
        if self.archive_fails:
            raise SourceError("s3://b/archive: PutObject failed: AccessDenied", "allow it")
        self.archived[key] = envelope.blob


def run(
    store: MemoryStore,
    *,
    instances: int = 10,
    now: float = NOW,
    signer: PaperSigner | None = None,
    config: Config | None = None,
    dry_run: bool = False,
    force: bool = False,
    cidrs: Sequence[str] = ("10.8.0.0/24",),
) -> Outcome:
    def read() -> Sequence[Inventory]:
        store.calls.append("read EC2")
        return fleet(instances, cidrs=cidrs)

    return publish_pass(
        config or configuration(),
        Request(now=lambda: now, generator="leader-a", dry_run=dry_run, force=force),
        store=store,
        read=reader_of(read),
        signer=signer or PaperSigner(),
    )


def published(store: MemoryStore) -> Ruleset:
    assert store.there
    return decode(store.there.blob.partition(b"\n")[2])


@pytest.fixture
def log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.LogCaptureFixture]:
    monkeypatch.setattr(logging.getLogger("reyes"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="reyes"):
        yield caplog


def test_the_first_ruleset_is_published_and_archived() -> None:
    store = MemoryStore()

    outcome = run(store, now=NOW + 0.25)

    header = published(store).header
    assert outcome.status == "published"
    assert outcome.previous is None
    assert outcome.ruleset == published(store)
    assert store.calls == ["current", "read EC2", "publish", "archive"]
    assert (header.environment, header.generator) == ("production", "leader-a")
    assert (header.serial, header.generated_at) == (NOW * 1000 + 250, NOW)
    assert header.not_after == NOW + 3600
    assert (header.counts.sources, header.counts.instances) == (1, 10)
    assert list(store.archived) == [
        f"archive/2026/11/20/{NOW * 1000 + 250}-production/ruleset.gpg"
    ]
    assert store.there
    assert list(store.archived.values()) == [store.there.blob]


def test_time_alone_moves_the_header_and_not_the_content() -> None:
    store = MemoryStore()
    first = run(store)

    second = run(store, now=NOW + 300)

    assert second.previous == first.ruleset
    assert second.ruleset.header.serial == (NOW + 300) * 1000
    assert second.ruleset.content_sha256 == first.ruleset.content_sha256
    assert not second.difference


def test_the_serial_rises_when_this_clock_is_behind() -> None:
    store = MemoryStore()
    first = run(store, now=NOW + MAX_CLOCK_SKEW)

    second = run(store, now=NOW)

    assert second.ruleset.header.serial == first.ruleset.header.serial + 1


def test_a_serial_from_the_future_is_no_yardstick_for_the_serial_but_for_the_guard(
    log: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore()
    run(store, now=NOW + MAX_CLOCK_SKEW + 1)

    with pytest.raises(ImplausibleError):
        run(store, instances=1)
    outcome = run(store)

    assert outcome.ruleset.header.serial == NOW * 1000
    assert "is from the future" in log.text


@pytest.mark.parametrize(
    "blob",
    [b"", b"vandalism", signed(document(NOW), FOREIGN_KEY), signed(b"{}")],
    ids=["empty", "unsigned", "foreign key", "no document"],
)
def test_an_object_that_is_not_genuine_is_replaced_and_told(
    blob: bytes, log: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    store.put(blob)

    outcome = run(store, instances=1)

    assert outcome.status == "published"
    assert outcome.previous is None
    assert published(store) == outcome.ruleset
    assert [record.levelname for record in log.records] == ["ERROR"]
    assert "is not genuine and will be replaced" in log.text


def test_what_is_open_keeps_nobody_from_replacing_what_is_not_genuine() -> None:
    store = MemoryStore()
    with pytest.raises(ImplausibleError, match="open to whole networks, and nothing is published"):
        run(store, cidrs=["10.0.0.0/8"])
    assert store.there is None
    store.put(b"garbage")
    assert run(store, cidrs=["10.0.0.0/8"]).status == "published"


def test_what_other_excluded_names_open_is_not_published_unless_forced() -> None:
    store = MemoryStore()
    run(store, cidrs=["10.0.0.0/8"], config=configuration(excluded_group_names=("web",)))
    before = store.there
    with pytest.raises(ImplausibleError, match="and excluded_group_names changed"):
        run(store, cidrs=["10.0.0.0/8"], now=NOW + 300)
    assert store.there == before
    assert run(store, cidrs=["10.0.0.0/8"], now=NOW + 300, force=True).status == "published"


def test_two_fleets_on_one_key_are_refused() -> None:
    store = MemoryStore()
    store.put(signed(document(NOW, environment="staging")))

    with pytest.raises(ConfigError, match="holds the ruleset of 'staging'") as caught:
        run(store)

    assert "--force replaces" in (caught.value.hint or "")
    assert store.calls == ["current", "read EC2"]


def test_the_ruleset_of_another_fleet_is_replaced_by_force(log: pytest.LogCaptureFixture) -> None:
    store = MemoryStore(refusals=1)
    store.put(signed(document(NOW * 2, environment="staging")))

    outcome = run(store, instances=1, force=True)

    assert outcome.previous is None
    assert published(store).header.environment == "production"
    assert published(store).header.serial == NOW * 1000
    assert "holds the ruleset of 'staging', which will be replaced" in log.text


def test_a_configuration_without_leader_is_refused_before_anything_is_done() -> None:
    store = MemoryStore()

    with pytest.raises(ConfigError, match="no leader section"):
        run(store, config=replace(configuration(), leader=None))

    assert store.calls == []


def test_a_world_that_shrinks_is_not_published_unless_forced() -> None:
    store = MemoryStore()
    run(store, instances=10)
    before = store.there

    with pytest.raises(ImplausibleError, match="instances fell from 10 to 6") as caught:
        run(store, instances=6, now=NOW + 300)
    assert store.there == before
    assert caught.value.hint
    assert "--dry-run --force" in caught.value.hint

    for left in (6, 0):
        assert run(store, instances=left, now=NOW + 300, force=True).status == "published"
        assert published(store).header.counts.instances == left


def test_an_expired_ruleset_is_still_the_yardstick() -> None:
    store = MemoryStore()
    run(store, instances=10)

    with pytest.raises(ImplausibleError):
        run(store, instances=1, now=NOW + 86_400)


def test_what_followers_would_refuse_as_empty_is_not_published() -> None:
    store = MemoryStore()

    with pytest.raises(ImplausibleError, match="followers would refuse this ruleset"):
        run(store, instances=0)

    assert store.there is None


def test_a_failing_read_publishes_nothing() -> None:
    store = MemoryStore()

    def wait() -> list[View]:
        raise SourceError("us-west-2: DescribeVpcs failed")

    with pytest.raises(SourceError, match="DescribeVpcs"):
        publish_pass(
            configuration(),
            Request(now=lambda: NOW, generator="leader-a"),
            store=store,
            read=lambda: nullcontext(wait),
            signer=PaperSigner(),
        )

    assert (store.there, store.archived) == (None, {})


def test_a_signature_of_another_key_does_not_leave_the_host() -> None:
    store = MemoryStore()

    with pytest.raises(SignatureError, match="followers would refuse this ruleset") as caught:
        run(store, signer=PaperSigner(FOREIGN_KEY))

    assert FOREIGN_KEY in caught.value.message
    assert store.there is None


def test_what_is_no_document_does_not_leave_the_host() -> None:
    store = MemoryStore()
    inventory = fleet(1)[0]
    odd: Any = {**inventory.groups[0], "GroupId": "sg-NOT-AN-ID"}

    with pytest.raises(SignatureError, match="sg-"):
        publish_pass(
            configuration(),
            Request(now=lambda: NOW, generator="leader-a"),
            store=store,
            read=reader_of(
                lambda: [
                    Inventory(region="us-west-2", groups=[odd], interfaces=inventory.interfaces)
                ]
            ),
            signer=PaperSigner(),
        )

    assert store.there is None


@pytest.mark.parametrize("days", [0, 29])
def test_a_key_that_ends_soon_is_mentioned(days: int, log: pytest.LogCaptureFixture) -> None:
    run(MemoryStore(), signer=PaperSigner(key_expires_at=NOW + days * 86_400))

    assert f"the signing key {KEY} expires at 2026-1" in log.text


def test_a_key_that_ends_late_is_not_mentioned(log: pytest.LogCaptureFixture) -> None:
    run(MemoryStore(), signer=PaperSigner(key_expires_at=NOW + 31 * 86_400))

    assert "expires" not in log.text


def test_a_dry_run_does_all_but_publish() -> None:
    store = MemoryStore()
    run(store, instances=10)
    before, archived = store.there, dict(store.archived)
    store.calls.clear()

    outcome = run(store, instances=9, now=NOW + 300, dry_run=True)

    assert outcome.status == "dry run"
    assert outcome.envelope.blob.startswith(KEY.encode())
    assert store.calls == ["current", "read EC2"]
    assert (store.there, store.archived) == (before, archived)
    assert list(outcome.difference.lines()) == [
        "~ group web (sg-0000000a) in us-west-2 vpc-0a1b2c3d",
        "  - member 10.1.0.9",
    ]


def test_losing_to_a_fresher_leader_is_superseded() -> None:
    winner = MemoryStore()
    run(winner, now=NOW + 1)
    assert winner.there
    blob = winner.there.blob

    store = MemoryStore(before_publish=lambda store: store.put(blob))
    outcome = run(store)

    assert outcome.status == "superseded"
    assert store.there == winner.there
    assert store.archived == {}


def test_losing_to_what_no_leader_would_have_put_there_is_no_losing() -> None:
    store = MemoryStore()
    run(store, now=NOW - 300)
    run(store, now=NOW)
    first, *_ = store.archived.values()
    future = signed(document(NOW * 2))
    for vandalism in (b"junk", first, future, signed(document(NOW * 2), FOREIGN_KEY)):
        once = iter([vandalism])

        def put(store: MemoryStore, once: Iterator[bytes] = once) -> None:
            for blob in once:
                store.put(blob)

        store.before_publish = put
        outcome = run(store, now=NOW + 300)

        assert outcome.status == "published"
        assert published(store) == outcome.ruleset
        store.put(next(blob for key, blob in store.archived.items() if str(NOW) in key))


def test_the_ruleset_of_another_fleet_that_comes_meanwhile_is_refused() -> None:
    foreign = signed(document(NOW * 2, environment="staging"))
    store = MemoryStore(before_publish=lambda store: store.put(foreign))

    with pytest.raises(ConfigError, match="holds the ruleset of 'staging'"):
        run(store)

    assert store.there
    assert store.there.blob == foreign


def test_a_lost_answer_is_recognised_as_own_success() -> None:
    store = MemoryStore(loses_answer=True)

    outcome = run(store)

    assert outcome.status == "published"
    assert store.calls == ["current", "read EC2", "publish", "current", "archive"]
    assert len(store.archived) == 1


@pytest.mark.parametrize("was_there", [False, True])
def test_a_conflict_that_leaves_no_winner_is_tried_again(was_there: bool) -> None:
    store = MemoryStore()
    if was_there:
        run(store)
    store.refusals = MAX_TRIES - 1

    assert run(store, now=NOW + 1).status == "published"


def test_conflicts_without_end_are_given_up() -> None:
    store = MemoryStore(refusals=MAX_TRIES)

    with pytest.raises(SourceError, match=f"refused {MAX_TRIES} times"):
        run(store)

    assert store.there is None


def test_an_object_that_is_deleted_meanwhile_is_made_anew() -> None:
    def delete(store: MemoryStore) -> None:
        if store.calls.count("publish") == 1:
            store.there = None

    store = MemoryStore()
    run(store)
    store.calls.clear()
    store.before_publish = delete

    assert run(store, now=NOW + 1).status == "published"
    assert published(store).header.serial == (NOW + 1) * 1000


def test_a_failing_archive_says_that_the_ruleset_is_published() -> None:
    store = MemoryStore(archive_fails=True)

    outcome = run(store)

    assert outcome.status == "published"
    assert published(store) == outcome.ruleset
    assert outcome.not_archived
    assert outcome.not_archived.message.startswith("the ruleset is published, but not archived: ")
    assert outcome.not_archived.hint == "allow it"


@pytest.mark.parametrize("bound", ["MAX_PAYLOAD_BYTES", "MAX_ENVELOPE_BYTES"])
def test_a_world_larger_than_followers_take_is_told_before_it_is_published(
    bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    size = len(run(store, dry_run=True).envelope.blob)
    # Signed it is longer by the key.
    most = size - len(signed(b"")) if bound == "MAX_PAYLOAD_BYTES" else size
    monkeypatch.setattr(f"reyes.leader.{bound}", most)
    assert run(store, dry_run=True).status == "dry run"
    monkeypatch.setattr(f"reyes.leader.{bound}", most - 1)

    with pytest.raises(ConfigError, match=rf"would have {most} bytes, and followers take"):
        run(store)

    assert store.there is None


def test_a_ruleset_that_expires_while_ec2_is_read_is_not_published() -> None:
    store, times = MemoryStore(), iter([NOW, NOW + 3601])

    with pytest.raises(ExpiredError, match=r"it is not published: ruleset expired"):
        publish_pass(
            configuration(),
            Request(now=lambda: next(times), generator="leader-a"),
            store=store,
            read=reader_of(lambda: fleet(1)),
            signer=PaperSigner(),
        )

    assert store.there is None
