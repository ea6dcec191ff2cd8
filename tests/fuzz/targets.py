"""What must hold for any bytes from outside: a value or a documented error, nothing else.

Each target takes bytes. Hypothesis feeds them in the tests beside this file, libFuzzer in
`python -m tests.fuzz`, both from the seeds given here.
"""

import atexit
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from reyes.adapters.gpg import KEYRING_FILE, Gpg
from reyes.adapters.state import StateDirectory
from reyes.config import Config, parse_config
from reyes.envelope import Envelope, SignatureReport
from reyes.errors import ConfigError, HostUnknownError, KernelError, SignatureError
from reyes.host import Host, InterfaceScope, IpsecScope, Scope, VpcScope
from reyes.net import Family, parse_network
from reyes.netfilter.live import (
    Generation,
    LiveKernel,
    LiveTable,
    comment_of,
    parse_set_headers,
    parse_set_members,
    parse_table,
)
from reyes.netfilter.plan import plan_removal, plan_return
from reyes.netfilter.restore import revert_text
from reyes.policy import Omitted, resolve_content
from reyes.ruleset import Content, DocumentError, count, decode
from reyes.state import State
from reyes.status import Run, Status, status_lines
from reyes.trust import Accepted, authenticate
from tests.configurations import CONTRACT, MINIMAL
from tests.fuzz.grammar import check_payloads
from tests.gnupg_home import gnupg_home, gpg_in
from tests.unit.test_live import SAVED, TERSE
from tests.worlds import document

NOW = 1_795_000_000
SET = "r4:web:0123456789abcdefghij"
SCOPES: tuple[Scope, ...] = (
    VpcScope((parse_network("10.0.0.0/8"), parse_network("fd00::/8"))),
    IpsecScope(),
    InterfaceScope(("wg0", "tun+")),
)
PIN = "0" * 40


def configuration(data: bytes) -> None:
    """The text of a configuration file."""
    text = data.decode(errors="surrogateescape")
    try:
        config = parse_config(text, "c")
    except ConfigError:
        return
    assert isinstance(config, Config)
    msgspec.json.encode(config)  # no text in it that the world outside could not take
    Path(config.follower.state_directory).exists()


def published(data: bytes) -> None:
    """A document as a trusted key has signed it: do with it what a follower does."""
    with suppress(SignatureError):
        genuine = authenticate(_good_report(data), frozenset({PIN}))
        assert genuine.ruleset == decode(data)
    with suppress(DocumentError):
        _resolve(decode(data).content)


def forged(data: bytes) -> None:
    """The content of a document, with all else as it should be."""
    published(forge(data))


def forge(content: bytes) -> bytes:
    """Write the document that a leader would write around a content: counts and digest true."""
    header = json.loads(document(NOW))
    del header["content"]
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        counts = count(msgspec.json.decode(content, type=Content), header["counts"]["sources"])
        header["counts"] = msgspec.to_builtins(counts)
    header["content_sha256"] = hashlib.sha256(content).hexdigest()
    head = json.dumps(header, separators=(",", ":")).encode()
    return head[:-1] + b',"content":' + content + b"}"


def _resolve(content: Content) -> None:
    for scope, region in zip(SCOPES, (None, "us-west-2", "eu-west-1"), strict=True):
        for instance in _instances(content):
            host = Host(instance_id=instance, region=region, scope=scope)
            with suppress(HostUnknownError, SignatureError):
                assert check_payloads(resolve_content(content, host)) > 0


def _instances(content: Content) -> list[str]:
    held = {i.instance for region in content.regions for i in region.interfaces if i.instance}
    return sorted(held)[:5]


def _good_report(payload: bytes) -> SignatureReport:
    return SignatureReport(
        payload=payload,
        valid=True,
        returncode=0,
        status="signature valid",
        key_status=None,
        problems=0,
        signatures=1,
        primary_fingerprint=PIN,
    )


@dataclass(frozen=True)
class Victim:
    """A keyring, and messages that its owner accepts or refuses."""

    gpg: Gpg
    pin: str
    genuine: tuple[bytes, ...]
    refused: tuple[bytes, ...]


TEXTS = (document(NOW), document(NOW + 1))


@cache
def victim() -> Victim:
    """Make keys once, and keep the public ones."""
    keyring = TemporaryDirectory(prefix="reyes-fuzz-")
    atexit.register(keyring.cleanup)
    with gnupg_home() as home:
        leader, stranger = home.generate("Leader"), home.generate("Stranger")
        home.export(Path(keyring.name) / KEYRING_FILE, leader, stranger)
        return Victim(
            gpg=gpg_in(Path(keyring.name), leader),
            pin=leader,
            genuine=tuple(home.sign(text, leader, "-z", z) for text in TEXTS for z in "06"),
            refused=(
                home.sign(TEXTS[1], stranger),
                home.run("--store", stdin=TEXTS[1]),
                home.run("--export", leader),
            ),
        )


def envelope(data: bytes) -> None:
    """An object of the store: what is believed was signed, in every byte."""
    try:
        report = victim().gpg.inspect(Envelope(data))
        genuine = authenticate(report, frozenset({victim().pin}))
    except SignatureError:
        return
    assert genuine.signer == victim().pin
    assert report.payload in TEXTS


STATE_FILES = (
    "state.json",
    "previous.json",
    "trial.json",
    "held.json",
    "last-good.gpg",
    "status.json",
)


def memory(data: bytes) -> None:
    """The files of the state directory."""
    with TemporaryDirectory(prefix="reyes-fuzz-") as name:
        for file in STATE_FILES:
            (Path(name) / file).write_bytes(data)
        directory = StateDirectory(Path(name))
        try:
            assert isinstance(directory.load(), State)
        except ConfigError:
            assert directory.load() == State()
        with suppress(ConfigError):
            generation = directory.generation("previous")
            assert generation is not None
            assert directory.generation("held") == directory.generation("trial") == generation
            with suppress(KernelError):
                plan_return(generation, LiveKernel((LiveTable(Family.V4),)), "shared")
        assert directory.last_good() in {data, None}
        if status := directory.status():
            assert list(status_lines(status, NOW))


def filter_tables(data: bytes) -> None:
    """What iptables-save prints."""
    try:
        table = parse_table(data.decode(errors="replace"), Family.V4)
    except ValueError:
        return
    assert table.referenced_sets is not None
    assert len(table.foreign) >= 0
    for chain, lines in table.rules.items():
        assert len(table.identities(chain)) == len(lines)
        assert all("\n" not in comment_of(line) for line in lines)
    empty = LiveTable(Family.V4)
    for flush in (False, True):
        for before, after in ((table, empty), (empty, table), (table, table)):
            revert_text(before, after, flush=flush)
    plan_removal(LiveKernel((table,)))


def set_headers(data: bytes) -> None:
    """What `ipset list -terse` prints."""
    with suppress(ValueError):
        for name, entry in parse_set_headers(data.decode(errors="replace")).items():
            assert entry.name == name


def set_members(data: bytes) -> None:
    """What `ipset save` prints."""
    with suppress(ValueError):
        for members in parse_set_members(data.decode(errors="replace")).values():
            assert list(members) == sorted(members)


def _state() -> bytes:
    counts = decode(TEXTS[0]).header.counts
    accepted = Accepted(serial=NOW * 1000, digest="0" * 64, counts=counts)
    return msgspec.json.encode(State(accepted=accepted, etag='"1"', not_after=NOW, applied="a"))


def _generation() -> bytes:
    live = LiveKernel((parse_table(SAVED, Family.V4),), parse_set_headers(TERSE))
    return msgspec.json.encode(Generation(live, {SET: ("10.0.0.1",)}))


def _status() -> bytes:
    omitted = Omitted(group="sg-0000000a", rule=1, what="protocol 0", reason="'a b' is excluded")
    run = Run(at=NOW, seconds=0.5, exit_code=21, outcome="failed", message="signature refused")
    return msgspec.json.encode(Status(run=run, last_success=NOW, omitted=(omitted,)))


@dataclass(frozen=True)
class Target:
    """A property of bytes, and what makes the bytes to begin with."""

    check: Callable[[bytes], None]
    seeds: Callable[[], tuple[bytes, ...]]


CONTENT = TEXTS[0].partition(b'"content":')[2][:-1]
MEMBERS = f"create {SET} hash:net family inet\nadd {SET} 10.2.16.0/28\nadd {SET} ::1.2.3.4\n"
MEMBERS += f"add {SET} 10.2.0.1,icmp:echo-request\nadd {SET} 10.2.0.1,gre:0\n"
TARGETS = {
    "configuration": Target(configuration, lambda: (CONTRACT.encode(), MINIMAL.encode())),
    "published": Target(published, lambda: TEXTS),
    "forged": Target(forged, lambda: (CONTENT,)),
    "envelope": Target(envelope, lambda: (*victim().genuine, *victim().refused)),
    "memory": Target(memory, lambda: (_state(), _generation(), _status())),
    "filter_tables": Target(filter_tables, lambda: (SAVED.encode(),)),
    "set_headers": Target(set_headers, lambda: (TERSE.encode(),)),
    "set_members": Target(set_members, lambda: (MEMBERS.encode(),)),
}
