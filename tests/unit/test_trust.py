"""Every check of `trust`, each wrong alone."""

import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import reyes
from reyes import trust
from reyes.config import MAX_VALIDITY
from reyes.envelope import MAX_PAYLOAD_BYTES, SignatureReport
from reyes.errors import (
    ExpiredError,
    ImplausibleError,
    ReplayError,
    ReyesError,
    SignatureError,
)
from reyes.ruleset import Content, Counts, count, encode
from reyes.trust import (
    MAX_CLOCK_SKEW,
    Accepted,
    Genuine,
    VerifiedRuleset,
    admit,
    authenticate,
    readmit,
)
from tests.worlds import document, header_for, shrunk, small_world

NOW = 1_795_000_000
PIN = "0123456789ABCDEF0123456789ABCDEF01234567"
OTHER = "F" * 40


def good_report(**changes: Any) -> SignatureReport:
    facts: dict[str, Any] = {
        "payload": document(NOW),
        "valid": True,
        "returncode": 0,
        "status": "signature valid",
        "key_status": None,
        "problems": 0,
        "signatures": 1,
        "primary_fingerprint": PIN,
        "key_expires_at": NOW + 86_400,
    }
    return SignatureReport(**{**facts, **changes})


def genuine(content: Content | None = None, now: int = NOW, **changes: Any) -> Genuine:
    return authenticate(good_report(payload=document(now, content, **changes)), frozenset({PIN}))


def expectation(**changes: Any) -> dict[str, Any]:
    return {"environment": "production", "now": NOW, "accepted": None, **changes}


def is_admitted(found: Genuine, expectation: dict[str, Any]) -> bool:
    return admit(found, **expectation).digest == found.digest


def accepted(of: Genuine, **changes: Any) -> Accepted:
    header = of.ruleset.header
    facts = {"serial": header.serial, "digest": of.digest, "counts": header.counts}
    return Accepted(**{**facts, **changes})


def test_good_report_becomes_the_ruleset_with_its_signer_and_digest() -> None:
    found = authenticate(good_report(), frozenset({PIN, OTHER}))
    assert found.ruleset.content == small_world()
    assert found.signer == PIN
    assert found.digest == "".join(re.findall("[0-9a-f]{64}", found.digest))
    assert found.key_expires_at == NOW + 86_400


@pytest.mark.parametrize("pins", [{PIN.lower()}, {OTHER, PIN}])
def test_pins_may_be_several_and_of_either_case(pins: set[str]) -> None:
    assert authenticate(good_report(), frozenset(pins)).signer == PIN


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"valid": False}, "does not call it valid"),
        ({"valid": 1}, "does not call it valid"),
        ({"returncode": 1}, "exit code 1"),
        ({"returncode": 2}, "exit code 2"),
        ({"status": "signature good"}, "'signature good'"),
        ({"status": "signature bad"}, "'signature bad'"),
        ({"status": "None"}, "'None'"),
        ({"key_status": "signing key has expired"}, "the signing key has expired"),
        ({"key_status": "signing key was revoked"}, "the signing key was revoked"),
        ({"key_status": ""}, "signature refused"),
        ({"problems": 1}, "1 problems"),
        ({"signatures": 0}, "0 signatures"),
        ({"signatures": 2}, "2 signatures"),
        ({"primary_fingerprint": None}, "without fingerprint"),
        ({"primary_fingerprint": OTHER}, OTHER),
        ({"primary_fingerprint": PIN[-16:]}, PIN[-16:]),
        ({"payload": b""}, "empty"),
        ({"payload": b" " * (MAX_PAYLOAD_BYTES + 1)}, str(MAX_PAYLOAD_BYTES)),
        ({"payload": b"{}"}, "not a ruleset"),
        ({"payload": document(NOW) + b"\n"}, "canonical"),
    ],
)
def test_report_with_one_wrong_fact_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SignatureError, match=re.escape(message)):
        authenticate(good_report(**changes), frozenset({PIN}))


def test_without_pins_nobody_is_trusted() -> None:
    with pytest.raises(SignatureError, match="not trusted here"):
        authenticate(good_report(), frozenset())
    with pytest.raises(SignatureError, match="not trusted here"):
        authenticate(good_report(primary_fingerprint=None), frozenset())


@pytest.mark.parametrize(
    "field", ["vpcs", "groups", "rules", "interfaces", "instances", "members"]
)
def test_counts_that_are_not_the_contents_are_refused(field: str) -> None:
    counts = count(small_world(), sources=2)
    wrong = replace(counts, **{field: getattr(counts, field) + 1})
    with pytest.raises(SignatureError, match="claims"):
        genuine(counts=wrong)


@pytest.mark.parametrize("validity", [0, -1, -3600, MAX_VALIDITY + 1, 10 * 365 * 86_400])
def test_impossible_validity_is_refused(validity: int) -> None:
    with pytest.raises(SignatureError):
        genuine(not_after=NOW + validity)


@pytest.mark.parametrize("validity", [1, MAX_VALIDITY])
def test_possible_validity_is_accepted(validity: int) -> None:
    assert genuine(not_after=NOW + validity).ruleset.header.not_after == NOW + validity


def test_fresh_ruleset_is_admitted_on_first_sight() -> None:
    found = genuine()
    verified = admit(found, **expectation())
    assert (verified.ruleset, verified.digest, verified.signer, verified.key_expires_at) == (
        found.ruleset,
        found.digest,
        found.signer,
        found.key_expires_at,
    )


def test_same_ruleset_again_is_admitted() -> None:
    found = genuine()
    assert admit(found, **expectation(accepted=accepted(found))).digest == found.digest


def test_higher_serial_is_admitted() -> None:
    before = accepted(genuine())
    assert is_admitted(genuine(serial=NOW * 1000 + 1), expectation(accepted=before))


@pytest.mark.parametrize("environment", ["staging", "Production", "production ", ""])
def test_ruleset_of_another_environment_is_a_replay(environment: str) -> None:
    with pytest.raises(ReplayError, match="environment"):
        admit(genuine(environment=environment), **expectation())


@pytest.mark.parametrize(
    "changes",
    [
        {"generated_at": NOW + MAX_CLOCK_SKEW + 1},
        {"serial": (NOW + MAX_CLOCK_SKEW + 1) * 1000},
        {"serial": 2**60},
        {"generated_at": 2**61, "not_after": 2**61 + 60},
    ],
)
def test_ruleset_from_the_future_is_a_replay(changes: dict[str, Any]) -> None:
    with pytest.raises(ReplayError, match="future"):
        admit(genuine(**changes), **expectation())


def test_clocks_may_differ_a_little() -> None:
    ahead = NOW + MAX_CLOCK_SKEW
    assert is_admitted(genuine(generated_at=ahead, serial=ahead * 1000), expectation())


def test_lower_serial_is_a_rollback() -> None:
    before = accepted(genuine(), serial=NOW * 1000 + 1)
    with pytest.raises(ReplayError, match="rollback"):
        admit(genuine(), **expectation(accepted=before))


def test_same_serial_with_another_digest_is_equivocation() -> None:
    before = accepted(genuine(), digest="0" * 64)
    with pytest.raises(ReplayError, match="equivocation"):
        admit(genuine(), **expectation(accepted=before))


def test_ruleset_counts_until_the_second_of_not_after() -> None:
    found = genuine()
    assert is_admitted(found, expectation(now=NOW + 3600))
    with pytest.raises(ExpiredError, match=r"expired 1 second ago \(not_after 2026-11-18T"):
        admit(found, **expectation(now=NOW + 3601))


def test_ruleset_accepted_before_expires_too() -> None:
    found = genuine()
    with pytest.raises(ExpiredError, match="12 minutes ago"):
        admit(found, **expectation(now=NOW + 3600 + 750, accepted=accepted(found)))


EMPTY = replace(small_world(), regions=())


def test_world_without_interfaces_is_implausible() -> None:
    with pytest.raises(ImplausibleError, match="no network interface"):
        admit(genuine(EMPTY), **expectation())


def larger(**changes: int) -> Counts:
    return replace(count(small_world(), sources=2), **changes)


@pytest.mark.parametrize(
    ("before", "what"),
    [
        ({"groups": 31}, "security groups"),
        ({"instances": 31}, "instances"),
        ({"members": 81}, "group members"),
    ],
)
def test_world_that_fell_below_a_tenth_is_implausible(before: dict[str, int], what: str) -> None:
    was = accepted(genuine(now=NOW - 60), counts=larger(**before))
    with pytest.raises(ImplausibleError, match=f"{what} fell from"):
        admit(genuine(), **expectation(accepted=was))


def test_world_of_exactly_a_tenth_is_plausible() -> None:
    counts = count(small_world(), sources=2)
    was = larger(
        groups=10 * counts.groups, instances=10 * counts.instances, members=10 * counts.members
    )
    assert is_admitted(
        genuine(), expectation(accepted=accepted(genuine(now=NOW - 60), counts=was))
    )


def test_force_admits_the_implausible_and_nothing_else() -> None:
    assert is_admitted(genuine(EMPTY), expectation(force=True))
    for changes, error in (
        ({"environment": "staging"}, ReplayError),
        ({"generated_at": NOW + 600}, ReplayError),
        ({"generated_at": NOW - 7200, "not_after": NOW - 3600}, ExpiredError),
    ):
        with pytest.raises(error):
            admit(genuine(**changes), **expectation(force=True))


def test_what_was_forced_in_stays_without_force() -> None:
    forced = genuine(EMPTY)
    was = accepted(forced, counts=larger())
    assert is_admitted(forced, expectation(accepted=was))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        # Each also has every fault of the lines below it.
        ({"environment": "staging", "generated_at": NOW + 600, "serial": 1}, "environment"),
        ({"generated_at": NOW + 600, "serial": 1}, "future"),
        ({"serial": 1}, "rollback"),
        ({}, "equivocation"),
        ({"serial": NOW * 1000 + 1}, "expired"),
    ],
)
def test_an_attack_is_never_reported_as_something_milder(
    changes: dict[str, Any], error: str
) -> None:
    was = accepted(genuine(), digest="0" * 64, counts=larger(instances=1000))
    content = shrunk(small_world())
    times = {"generated_at": NOW - 60, "not_after": NOW - 1}
    if "generated_at" in changes:
        times = {"not_after": changes["generated_at"] + 1}
    fields = {**times, "serial": NOW * 1000, **changes}
    with pytest.raises(ReyesError, match=error):
        admit(genuine(content, **fields), **expectation(accepted=was))


@pytest.mark.parametrize("was", [{}, {"digest": "0" * 64, "serial": NOW * 1000 - 1}])
def test_what_was_kept_is_readmitted_though_it_has_expired(was: dict[str, Any]) -> None:
    kept = genuine(generated_at=NOW - 7200, not_after=NOW - 3600)
    assert readmit(kept, "production", accepted(kept, **was)).digest == kept.digest


@pytest.mark.parametrize("serial", [NOW * 1000, NOW * 1000 + 1])
def test_another_than_what_was_accepted_is_not_readmitted_unless_it_is_newer(serial: int) -> None:
    was = accepted(genuine(), digest="0" * 64, serial=serial)
    with pytest.raises(ReplayError, match="not the one that was accepted last"):
        readmit(genuine(), "production", was)


def test_nothing_is_readmitted_from_elsewhere() -> None:
    with pytest.raises(ReplayError, match="environment"):
        readmit(genuine(), "staging", accepted(genuine()))


def test_only_trust_makes_a_verified_ruleset() -> None:
    package = Path(reyes.__file__).parent
    makers = {
        path.name
        for path in package.rglob("*.py")
        if re.search(r"\b(VerifiedRuleset|Genuine)\(\n?\s*\w", path.read_text())
    }
    assert makers == {"trust.py"}
    assert VerifiedRuleset.__module__ == Genuine.__module__ == trust.__name__


def test_every_refusal_tells_what_to_do() -> None:
    with pytest.raises(SignatureError) as caught:
        authenticate(good_report(valid=False), frozenset({PIN}))
    assert caught.value.hint
    with pytest.raises(ExpiredError) as late:
        admit(genuine(), **expectation(now=NOW + 10_000))
    assert late.value.hint


def test_header_and_content_survive_the_way_through() -> None:
    content = small_world()
    header = header_for(content, NOW)
    found = authenticate(good_report(payload=encode(header, content)), frozenset({PIN}))
    assert (found.ruleset.header, found.ruleset.content) == (header, content)
