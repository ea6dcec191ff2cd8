"""Rules as values, and their lines."""

import re
from base64 import b64decode

import pytest
from msgspec.structs import replace

from reyes.net import Everything, Family, Network, Protocol, parse_network, service_text
from reyes.netfilter.iptables import (
    Chain,
    DestinationNetwork,
    Established,
    FromIpsec,
    Goto,
    InInterface,
    Log,
    Match,
    RateLimit,
    Reject,
    Rule,
    SourceNetwork,
    SourceSet,
    Target,
    Verdict,
    render_chain,
)
from reyes.netfilter.live import LiveTable, comment_of
from tests.worlds import icmp, icmpv6, tcp, udp


def network(text: str) -> Network:
    return parse_network(text)


def words(matches: tuple[Match, ...], target: Target, family: Family = Family.V4) -> str:
    """The line without chain and comment."""
    chain = Chain("reyes-x", (Rule(matches, target, "why"),))
    ((_, line),) = render_chain(chain, family)
    return re.sub(r' -m comment --comment "[^"]*"', "", line).removeprefix("-A reyes-x ")


MATCHES: list[tuple[Match, str]] = [
    (InInterface("lo"), "-i lo"),
    (InInterface("tun+"), "-i tun+"),
    (SourceNetwork(network("10.0.0.0/8")), "-s 10.0.0.0/8"),
    (SourceNetwork(network("10.0.0.1/32")), "-s 10.0.0.1"),
    (SourceNetwork(network("::/0")), "-s ::/0"),
    (DestinationNetwork(network("fd00::1")), "-d fd00::1"),
    (SourceSet("r4:w:0123456789abcdefghij"), "-m set --match-set r4:w:0123456789abcdefghij src"),
    (Established(), "-m conntrack --ctstate ESTABLISHED,RELATED"),
    (
        Established(replies_only=True),
        "-m conntrack --ctstate ESTABLISHED,RELATED --ctdir REPLY",
    ),
    (FromIpsec(), "-m policy --dir in --pol ipsec"),
    (RateLimit(), "-m limit --limit 3/min --limit-burst 10"),
    (tcp(443), "-p tcp -m tcp --dport 443:443"),
    (udp(5000, 5100), "-p udp -m udp --dport 5000:5100"),
    (icmp(8, 0), "-p icmp -m icmp --icmp-type 8/0"),
    (icmp(8), "-p icmp -m icmp --icmp-type 8"),
    (icmp(), "-p icmp"),
    (icmpv6(128, 0), "-p icmpv6 -m icmp6 --icmpv6-type 128/0"),
    (icmpv6(), "-p icmpv6"),
    (Protocol(number=50), "-p 50"),
]


@pytest.mark.parametrize(("match", "expected"), MATCHES, ids=[text for _, text in MATCHES])
def test_a_match_in_words(match: Match, expected: str) -> None:
    assert words((match,), Verdict.RETURN) == f"{expected} -j RETURN"


def test_everything_needs_no_words() -> None:
    assert words((Everything(),), Verdict.DROP) == "-j DROP"
    assert words((), Verdict.DROP) == "-j DROP"


@pytest.mark.parametrize(
    ("target", "family", "expected"),
    [
        (Verdict.DROP, Family.V4, "-j DROP"),
        (Verdict.RETURN, Family.V6, "-j RETURN"),
        (Goto("reyes-accept"), Family.V4, "-g reyes-accept"),
        (Reject(), Family.V4, "-j REJECT --reject-with icmp-admin-prohibited"),
        (Reject(), Family.V6, "-j REJECT --reject-with icmp6-adm-prohibited"),
        (Log("reyes-drop:"), Family.V4, '-j LOG --log-prefix "reyes-drop: "'),
    ],
)
def test_a_target_in_words(target: Target, family: Family, expected: str) -> None:
    assert words((), target, family) == expected


RULE = Rule((tcp(443), SourceNetwork(network("10.0.0.0/8"))), Goto("reyes-accept"), "sg-1 rule 1")


def identity(rule: Rule, chain: str = "reyes-x") -> str:
    ((found, _),) = render_chain(Chain(chain, (rule,)), Family.V4)
    return found


@pytest.mark.parametrize(
    "other",
    [
        replace(RULE, matches=(tcp(444), *RULE.matches[1:])),
        replace(RULE, matches=RULE.matches[:1]),
        replace(RULE, target=Verdict.DROP),
        replace(RULE, comment="sg-1 rule 2"),
    ],
)
def test_a_rule_that_says_anything_else_has_another_id(other: Rule) -> None:
    assert identity(other) != identity(RULE)


def test_the_same_rule_elsewhere_has_another_id() -> None:
    assert identity(RULE, "reyes-y") != identity(RULE)


def test_the_id_is_found_again_in_the_line() -> None:
    rendered = render_chain(Chain("reyes-x", (RULE, RULE)), Family.V4)
    live = LiveTable(Family.V4, rules={"reyes-x": tuple(line for _, line in rendered)})
    assert live.identities("reyes-x") == tuple(identity for identity, _ in rendered)
    assert comment_of(rendered[0][1]) == RULE.comment


WAY = Rule((tcp(80),), Goto("reyes-y"), "see reyes-y", commented=False)


def test_an_uncommented_rule_is_known_by_the_chain_it_leads_to() -> None:
    rendered = render_chain(Chain("reyes-x", (WAY, RULE)), Family.V4)
    assert rendered[0] == ("80 reyes-y", "-A reyes-x -p tcp -m tcp --dport 80:80 -g reyes-y")
    live = LiveTable(Family.V4, rules={"reyes-x": tuple(line for _, line in rendered)})
    assert live.identities("reyes-x") == ("80 reyes-y", rendered[1][0])
    assert comment_of(rendered[0][1]) == WAY.comment


@pytest.mark.parametrize(
    ("rule", "known_by"),
    [
        ("-p tcp -m tcp --dport 80 -g reyes-y", "80 reyes-y"),
        ("-p tcp -m tcp --dport 0:80 -g reyes-y", "80 reyes-y"),
        ("-p icmp -m icmp --icmp-type 8 -g reyes-y", "8 reyes-y"),
        ("-p ipv6-icmp -m icmp6 --icmpv6-type 128 -g reyes-y", "128 reyes-y"),
        ("-p udp -g reyes-y", "reyes-y"),
        ("-p tcp -m tcp --dport 0:81 -g reyes-y", "81 reyes-y"),
        ("-g reyes-y", "all reyes-y"),
        ("-s 203.0.113.9/32 -g reyes-y", ""),
        ("-s 203.0.113.9/32 -p tcp -m tcp --dport 0:80 -g reyes-y", ""),
        ("-p tcp -m tcp --dport 0:80 -j reyes-y", ""),
        ("-p tcp -m comment --comment 80 -m tcp --dport 0:80 -g reyes-y", ""),
        ("-j DROP", ""),
    ],
)
def test_a_line_without_an_id_is_known_by_all_that_a_way_says(rule: str, known_by: str) -> None:
    line = f"-A reyes-x {rule}"
    assert LiveTable(Family.V4, rules={"reyes-x": (line,)}).identities("reyes-x") == (known_by,)
    assert comment_of(line) == ("see reyes-y" if known_by else line)


def test_nobody_finds_two_rules_of_one_id() -> None:
    """These two share 40 bits of SHA-256, which were found in ten seconds."""

    def known_by(ports: tuple[int, int], source: str) -> str:
        service = tcp(*ports)
        comment = f"sg-0000000a rule 1: {service_text(service)} from {source}"
        rule = Rule((service, SourceNetwork(network(source))), Goto("reyes-accept"), comment)
        ((identity, _),) = render_chain(Chain("reyes-ingress", (rule,)), Family.V4)
        return identity

    wide, mended = known_by((8, 31682), "10.66.0.0/16"), known_by((9137, 9137), "10.200.15.3")
    assert wide != mended
    assert len(b64decode(wide, altchars="-_")) == 15


def test_the_next_id_is_also_of_uncommented_rules() -> None:
    def last(*rules: Rule) -> str:
        return render_chain(Chain("reyes-x", rules), Family.V4)[-1][0]

    assert len({last(RULE), last(WAY, RULE), last(replace(WAY, matches=(tcp(81),)), RULE)}) == 3
    assert last(WAY, RULE, RULE) == last(RULE)
