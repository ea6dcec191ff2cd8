"""Every attack of the trust design, one test each: it is refused and leaves no trace.

Whoever mounts them controls the store and the network. Where a key is at fault, too, the test
says so. The ring of the victim deliberately holds a key that is not pinned.
"""

import json
import resource
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from reyes.adapters.gpg import KEYRING_FILE
from reyes.cli import main
from reyes.config import MAX_VALIDITY
from reyes.envelope import MAX_ENVELOPE_BYTES, MAX_PAYLOAD_BYTES
from reyes.errors import (
    ExpiredError,
    ImplausibleError,
    ReplayError,
    ReyesError,
    SignatureError,
)
from reyes.ruleset import Region, count
from reyes.state import State
from tests.fakes.memory_kernel import MemoryKernel
from tests.gnupg_home import LONG_AGO, GnupgHome, gnupg_home
from tests.worlds import document, shrunk, small_world

MINUTE = 60


class Attacker:
    """The store's master, with keys that a victim may or may not trust."""

    def __init__(self, home: GnupgHome) -> None:
        self.home = home
        self.leader = home.generate("Leader")
        self.spare = home.generate("Spare")
        self.unpinned = home.generate("In the ring, not pinned")
        self.outsider = home.generate("Not in the ring")
        self.expired = home.generate("Expired", *LONG_AGO, expire="1d")
        self.revoked = home.generate("Revoked")
        self.stolen = home.sign(document(int(time.time())), self.revoked)
        home.revoke(self.revoked)
        self.rsa = home.generate("Rsa", algorithm="rsa2048")
        self.pins = (self.leader, self.spare, self.expired, self.revoked, self.rsa)
        home.export(home.path / KEYRING_FILE, *self.pins, self.unpinned)

    def sign(self, payload: bytes, *options: str, key: str | None = None) -> bytes:
        return self.home.sign(payload, key or self.leader, *options)


class Victim:
    """A host whose follower has applied one ruleset a moment ago."""

    def __init__(self, directory: Path, keyring: Path, pins: tuple[str, ...]) -> None:
        self.now = int(time.time())
        self.baseline = document(self.now)
        self.kernel = MemoryKernel()
        self._object = directory / "ruleset.gpg"
        self._state = directory / "state"
        self._config = directory / "config.yaml"
        self._config.write_text(
            json.dumps(
                {
                    "environment": "production",
                    "s3": {"bucket": "acme-reyes", "key": "ruleset.gpg", "region": "us-west-2"},
                    "signing": {
                        "keyring_directory": str(keyring),
                        "signing_key": pins[0],
                        "trusted_keys": pins,
                    },
                    "follower": {
                        "instance_id": "i-0000000a",
                        "region": "us-west-2",
                        "state_directory": str(self._state),
                        "disable_file": str(directory / "disabled"),
                        "rehearsal": False,
                    },
                }
            )
        )

    def attempt(self, blob: bytes) -> tuple[int, str]:
        """Offer an object to the follower, and return its exit code and what it says."""
        self._object.write_bytes(blob)
        result = CliRunner().invoke(
            main, ["follower", "--config", str(self._config), "--ruleset", str(self._object)]
        )
        assert isinstance(result.exception, SystemExit | None), result.exception
        return result.exit_code, result.output

    def traces(self) -> tuple[dict[str, bytes], int]:
        """Everything that an accepted ruleset changes: files of state, and commits.

        That a ruleset looked implausible is noted on purpose, and nothing else of it. What the
        last run ended with is told for people, and believed by nobody.
        """
        files = {path.name: path.read_bytes() for path in self._state.glob("*")}
        files.pop("status.json", None)
        if "state.json" in files:
            state = msgspec.json.decode(files["state.json"], type=State)
            files["state.json"] = msgspec.json.encode(replace(state, implausible=()))
        return files, len(self.kernel.executed)


@pytest.fixture(scope="module")
def attacker() -> Iterator[Attacker]:
    with gnupg_home() as home:
        yield Attacker(home)


@pytest.fixture
def victim(attacker: Attacker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Victim:
    victim = Victim(tmp_path, attacker.home.path, attacker.pins)
    monkeypatch.setattr("reyes.cli.wiring.Kernel", lambda: victim.kernel)
    before = victim.traces()
    accepted(victim, attacker.sign(victim.baseline))
    assert victim.traces()[0].keys() >= {"lock", "state.json", "last-good.gpg"}
    assert victim.traces() != before
    return victim


def accepted(victim: Victim, blob: bytes) -> None:
    code, said = victim.attempt(blob)
    assert code == 0, said
    assert victim.traces()[0]["last-good.gpg"] == blob


def refused(victim: Victim, blob: bytes, error: type[ReyesError], reason: str) -> None:
    before = victim.traces()
    code, said = victim.attempt(blob)
    assert (code, reason in said) == (error.exit_code, True), said
    assert victim.traces() == before


def later(victim: Victim, seconds: int = 1, **changes: Any) -> bytes:
    """A ruleset that would be accepted but for the changes."""
    return document(victim.now + seconds, **changes)


def altered(victim: Victim, **changes: Any) -> bytes:
    """The text of a later ruleset with top-level keys set as no leader would."""
    raw = {**json.loads(later(victim)), **changes}
    return json.dumps(raw, separators=(",", ":"), ensure_ascii=False).encode()


# What is no attack.


def test_later_ruleset_is_accepted(attacker: Attacker, victim: Victim) -> None:
    files, _ = victim.traces()
    accepted(victim, attacker.sign(later(victim)))
    assert victim.traces()[0] != files


def test_second_pinned_key_is_accepted(attacker: Attacker, victim: Victim) -> None:
    accepted(victim, attacker.sign(later(victim), key=attacker.spare))


def test_same_ruleset_again_is_accepted(attacker: Attacker, victim: Victim) -> None:
    accepted(victim, attacker.sign(victim.baseline))


# Arbitrary installation.


def test_signed_by_an_unpinned_key_of_the_ring(attacker: Attacker, victim: Victim) -> None:
    blob = attacker.sign(later(victim), key=attacker.unpinned)
    refused(victim, blob, SignatureError, attacker.unpinned)


def test_signed_by_a_key_outside_the_ring(attacker: Attacker, victim: Victim) -> None:
    blob = attacker.sign(later(victim), key=attacker.outsider)
    refused(victim, blob, SignatureError, "no public key")


def test_unsigned_text(victim: Victim) -> None:
    refused(victim, later(victim), SignatureError, "no binary OpenPGP message")


def test_unsigned_literal(attacker: Attacker, victim: Victim) -> None:
    blob = attacker.home.run("--store", stdin=later(victim))
    refused(victim, blob, SignatureError, "signature expected but not found")


def test_clear_signed(attacker: Attacker, victim: Victim) -> None:
    blob = attacker.home.sign(later(victim), attacker.leader, form="--clear-sign")
    refused(victim, blob, SignatureError, "no binary OpenPGP message")


def test_armored(attacker: Attacker, victim: Victim) -> None:
    blob = attacker.sign(later(victim), "--armor")
    refused(victim, blob, SignatureError, "no binary OpenPGP message")


def test_empty_object(victim: Victim) -> None:
    refused(victim, b"", SignatureError, "no binary OpenPGP message")


def test_truncated(attacker: Attacker, victim: Victim) -> None:
    blob = attacker.sign(later(victim), "-z", "0")
    for length in (1, 10, len(blob) // 2, len(blob) - 1):
        refused(victim, blob[:length], SignatureError, "signature refused")


def test_flipped_bit(attacker: Attacker, victim: Victim) -> None:
    text = later(victim)
    blob = attacker.sign(text, "-z", "0")
    start = blob.index(text[:100])
    for position in range(start, start + len(text), len(text) // 20):
        flipped = bytearray(blob)
        flipped[position] ^= 1
        refused(victim, bytes(flipped), SignatureError, "signature refused")


def test_two_signatures(attacker: Attacker, victim: Victim) -> None:
    blob = attacker.sign(later(victim), "--local-user", attacker.spare)
    refused(victim, blob, SignatureError, "signature refused")


def test_copies_of_the_good_signature(attacker: Attacker, victim: Victim) -> None:
    blob = attacker.sign(later(victim), "-z", "0")
    announced = blob[: 2 + blob[1]]
    (signature,) = (
        blob[start:]
        for start in range(len(blob) - 200, len(blob) - 1)
        if (blob[start], start + 2 + blob[start + 1]) == (0x88, len(blob))
    )
    refused(victim, announced + blob + signature, SignatureError, "there are 2 signatures")


def test_foreign_signature_beside_the_good_one(attacker: Attacker, victim: Victim) -> None:
    for first, second in (
        (attacker.leader, attacker.outsider),
        (attacker.outsider, attacker.leader),
    ):
        blob = attacker.sign(later(victim), "--local-user", second, key=first)
        refused(victim, blob, SignatureError, "signature refused")


def test_unsigned_message_before_a_good_one(attacker: Attacker, victim: Victim) -> None:
    bare = attacker.home.run("--store", stdin=later(victim, 2))
    refused(victim, bare + attacker.sign(later(victim)), SignatureError, "signature refused")


def test_sha1_signature(attacker: Attacker, victim: Victim) -> None:
    blob = attacker.sign(later(victim), "--digest-algo", "SHA1", key=attacker.rsa)
    refused(victim, blob, SignatureError, "signature refused")


# Key compromise: the thief has a key that was withdrawn.


def test_revoked_key(attacker: Attacker, victim: Victim) -> None:
    refused(victim, attacker.stolen, SignatureError, "was revoked")


def test_expired_key(attacker: Attacker, victim: Victim) -> None:
    blob = attacker.sign(later(victim), *LONG_AGO, key=attacker.expired)
    refused(victim, blob, SignatureError, "has expired")


# Rollback and equivocation.


def test_rollback_within_the_validity(attacker: Attacker, victim: Victim) -> None:
    blob = attacker.sign(document(victim.now - 30 * MINUTE))
    refused(victim, blob, ReplayError, "rollback")


def test_rollback_to_an_expired_ruleset_is_called_a_rollback(
    attacker: Attacker, victim: Victim
) -> None:
    blob = attacker.sign(document(victim.now - 600 * MINUTE))
    refused(victim, blob, ReplayError, "rollback")


def test_same_serial_with_another_content(attacker: Attacker, victim: Victim) -> None:
    other = document(victim.now, replace(small_world(), group_matching="id"))
    refused(victim, attacker.sign(other), ReplayError, "equivocation")


# Indefinite freeze.


def test_freeze_ends_with_not_after(attacker: Attacker, victim: Victim) -> None:
    blob = attacker.sign(later(victim, not_after=victim.now - 1, generated_at=victim.now - 60))
    refused(victim, blob, ExpiredError, "expired")


def test_validity_of_ten_years(attacker: Attacker, victim: Victim) -> None:
    blob = attacker.sign(later(victim, not_after=victim.now + 3650 * 86_400))
    refused(victim, blob, SignatureError, "valid for 3649 days")


def test_validity_just_above_the_bound(attacker: Attacker, victim: Victim) -> None:
    blob = attacker.sign(later(victim, not_after=victim.now + 1 + MAX_VALIDITY + 1))
    refused(victim, blob, SignatureError, "valid for")


# Fast-forward: one serial from the future would make all honest ones a rollback.


def test_leaders_clock_an_hour_ahead(attacker: Attacker, victim: Victim) -> None:
    refused(victim, attacker.sign(later(victim, 60 * MINUTE)), ReplayError, "future")


def test_huge_serial(attacker: Attacker, victim: Victim) -> None:
    refused(victim, attacker.sign(later(victim, serial=2**60)), ReplayError, "future")


def test_serial_beyond_every_clock(attacker: Attacker, victim: Victim) -> None:
    blob = attacker.sign(altered(victim, serial=2**64))
    refused(victim, blob, SignatureError, "not a ruleset")


# Wrong software: a good signature on something meant for others.


def test_ruleset_of_another_environment(attacker: Attacker, victim: Victim) -> None:
    blob = attacker.sign(later(victim, environment="staging"))
    refused(victim, blob, ReplayError, "environment")


def test_ruleset_of_the_gems_version(attacker: Attacker, victim: Victim) -> None:
    blob = attacker.sign(altered(victim, format_version=2))
    refused(victim, blob, SignatureError, "format_version is 2")


def test_other_signed_text(attacker: Attacker, victim: Victim) -> None:
    refused(victim, attacker.sign(b"release notes"), SignatureError, "not a ruleset")


def test_signed_emptiness(attacker: Attacker, victim: Victim) -> None:
    refused(victim, attacker.sign(b""), SignatureError, "empty")


# A second meaning in one signed text.


def test_duplicate_key(attacker: Attacker, victim: Victim) -> None:
    text = later(victim, environment="staging")
    double = text.replace(b'"serial"', b'"environment":"production","serial"', 1)
    refused(victim, attacker.sign(double), SignatureError, "canonical")


def test_unknown_key(attacker: Attacker, victim: Victim) -> None:
    refused(victim, attacker.sign(altered(victim, extra=1)), SignatureError, "extra")


def test_wrong_content_digest(attacker: Attacker, victim: Victim) -> None:
    blob = attacker.sign(altered(victim, content_sha256="0" * 64))
    refused(victim, blob, SignatureError, "content_sha256")


def test_counts_that_lie(attacker: Attacker, victim: Victim) -> None:
    counts = replace(count(small_world(), sources=2), members=1_000_000)
    refused(victim, attacker.sign(later(victim, counts=counts)), SignatureError, "claims")


def test_deeply_nested_text(attacker: Attacker, victim: Victim) -> None:
    refused(victim, attacker.sign(b"[" * 200_000), SignatureError, "not a ruleset")


# A world that vanished, signed by a misled leader.


def test_world_without_interfaces(attacker: Attacker, victim: Victim) -> None:
    content = replace(small_world(), regions=(Region(name="us-west-2"),))
    blob = attacker.sign(later(victim, content=content))
    refused(victim, blob, ImplausibleError, "no network interface")


def test_world_without_instances(attacker: Attacker, victim: Victim) -> None:
    blob = attacker.sign(later(victim, content=shrunk(small_world())))
    refused(victim, blob, ImplausibleError, "instances fell from 3 to 0")


# Endless data.


def test_object_above_the_bound(attacker: Attacker, victim: Victim) -> None:
    blob = attacker.sign(later(victim)) + bytes(MAX_ENVELOPE_BYTES)
    refused(victim, blob, SignatureError, str(MAX_ENVELOPE_BYTES))


def bomb(size: int, head: bytes = b"\xafb\0\0\0\0\0", packets: int = 1) -> bytes:
    """Compressed packets of `size` zeros: a literal of unknown length, unsigned (RFC 4880)."""
    piece = bytes(2**24)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = deflate.compress(head) + deflate.flush(zlib.Z_FULL_FLUSH)
    repeated = deflate.compress(piece) + deflate.flush(zlib.Z_FULL_FLUSH)
    packet = start + repeated * (size // len(piece))
    return b"\xa3\x01" + packet * packets + deflate.flush()


def test_decompression_bomb_unsigned(victim: Victim) -> None:
    blob = bomb(2**30)
    assert len(blob) < 2 * 2**20
    tracemalloc.start()
    try:
        refused(victim, blob, SignatureError, "")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * MAX_PAYLOAD_BYTES


def test_decompression_bomb_signed(attacker: Attacker, victim: Victim) -> None:
    blob = attacker.sign(bytes(MAX_PAYLOAD_BYTES + 1), "-z", "1")
    assert len(blob) < MAX_ENVELOPE_BYTES
    refused(victim, blob, SignatureError, "signature refused")


def test_packets_that_gpg_skips_for_ever(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reyes.adapters.gpg.VERIFY_SECONDS", 1)
    size = 255 * 2**24
    blob = bomb(size, b"\xfc\xff" + size.to_bytes(4), packets=3)  # of a private kind
    refused(victim, blob, SignatureError, "did not come to an end with the object within 1 s")


def test_signatures_that_gpg_keeps_without_end(
    victim: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = 64 * 2**20
    monkeypatch.setattr("reyes.adapters.gpg.VERIFY_BYTES", bound)
    hidden = b"\xff\0\0\x27\x01d" + bytes(9984)  # a subpacket of a private kind
    area = len(hidden).to_bytes(2) + hidden
    text = b"\x04\0\x01\x08" + area + area + b"\0\0\x20\0\x80" + bytes(1023)
    signature = b"\xc2\xff" + len(text).to_bytes(4) + text
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    many = b"".join(deflate.compress(signature) for _ in range(10_000))
    blob = b"\xa3\x01" + many + deflate.flush()
    assert len(blob) < 2**20
    before = most_memory()
    refused(victim, blob, SignatureError, "")
    code = 2**24  # of gpg and its libraries, at most
    assert most_memory() <= max(before, bound + code)


def most_memory() -> int:
    """The most bytes that any child of this process has had."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
