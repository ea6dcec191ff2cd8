"""Denied packets of a log, equal ones together and explained by the ruleset of today."""

from ipaddress import ip_address

from reyes.denied import Tally, explain_denial
from reyes.netfilter.compiler import compile_policy
from reyes.netfilter.evaluate import Packet
from reyes.netfilter.log import LoggedPacket
from tests.machine import Machine
from tests.worlds import small_world


def logged(source: str, port: int = 5432, *, audit: bool = False, at: float = 0) -> LoggedPacket:
    packet = Packet(
        source=ip_address(source), destination=ip_address("10.1.0.11"), protocol=6, port=port
    )
    return LoggedPacket(packet, audit, at)


def test_equal_packets_count_together_and_the_newest_comes_first() -> None:
    tally = Tally()
    for one in (
        logged("10.2.0.7", at=1),
        logged("10.2.0.8", at=2),
        logged("10.2.0.7", at=3),
        logged("10.2.0.7", at=4, audit=True),
        logged("10.2.0.7", 22, at=5),
    ):
        tally.add(one)
    assert [
        (str(d.packet.source), d.packet.port, d.audit, d.count, d.last)
        for d in tally.newest_first()
    ] == [
        ("10.2.0.7", 22, False, 1, 5),
        ("10.2.0.7", 5432, True, 1, 4),
        ("10.2.0.7", 5432, False, 2, 3),
        ("10.2.0.8", 5432, False, 1, 2),
    ]


def test_the_group_that_a_sender_lacks_is_a_near_miss() -> None:
    policy = Machine().prepare().policy
    denial = Tally().add(logged("10.2.0.99"))
    explanation = explain_denial(policy, compile_policy(policy), small_world(), denial)
    assert (explanation.decision, explanation.source_is) == ("denied", ())
    (miss,) = explanation.near_misses
    assert (miss.group_name, miss.rule, miss.source_label) == ("db", 2, "web")
    assert explanation.omitted == ()


def test_what_the_ruleset_allows_by_now_is_said() -> None:
    policy = Machine().prepare().policy
    denial = Tally().add(logged("10.2.0.10"))
    explanation = explain_denial(policy, compile_policy(policy), small_world(), denial)
    assert explanation.decision == "accepted"
    assert [member.group_name for member in explanation.source_is] == ["web"]


def test_a_packet_that_was_denied_in_scope_ipsec_came_out_of_ipsec() -> None:
    policy = Machine(traffic="ipsec").prepare().policy
    denial = Tally().add(logged("10.2.0.99"))
    explanation = explain_denial(policy, compile_policy(policy), small_world(), denial)
    assert explanation.decision == "denied"
