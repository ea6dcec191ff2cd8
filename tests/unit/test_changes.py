"""The difference between a live kernel and a dataplane, in words."""

from reyes.net import Family
from reyes.netfilter.changes import describe_changes
from reyes.netfilter.compiler import Dataplane
from reyes.netfilter.plan import FilterTable, plan_commit
from tests.commits import BOTH_RULES, FOREIGN, WANTED, WEB, dataplane, in_force, rule_of, spoil
from tests.fakes.memory_kernel import MemoryKernel
from tests.worlds import allow, icmp, tcp


def told(wanted: Dataplane, kernel: MemoryKernel, mode: FilterTable = "shared") -> tuple[str, ...]:
    return describe_changes(wanted, kernel.read(), kernel.read_members(), mode)


def test_nothing_to_tell_where_nothing_is_to_be_done() -> None:
    assert told(WANTED, in_force()) == ()
    assert told(WANTED, in_force(mode="exclusive"), "exclusive") == ()


def test_everything_is_new_on_an_empty_kernel() -> None:
    lines = told(WANTED, MemoryKernel([Family.V4]))
    assert all(line.startswith("+ ") for line in lines)
    assert lines[0] == "+ IPv4 INPUT: jump to reyes-input as the first rule"
    assert "+ IPv4 reyes-input: not judged: own VPC vpc-0a1b2c3d 10.1.0.0/16" in lines
    assert f"+ IPv4 reyes-ingress: sg-0000000a rule 1: tcp 443 from {WEB}" in lines
    assert "+ r4:web: 10.2.0.10" in lines


def test_rules_are_told_by_what_they_are_for() -> None:
    wanted = dataplane(BOTH_RULES[0], allow(tcp(22), "10.2.0.0/16"))
    assert told(wanted, in_force()) == (
        "- IPv4 reyes-ingress: sg-0000000a rule 2: udp 53 from cidrs",
        "+ IPv4 reyes-ingress: sg-0000000a rule 2: tcp 22 from 10.2.0.0/16",
        "- r4:cidrs: 10.2.0.0/16",
        "- r4:cidrs: 10.3.0.0/16",
    )


def test_members_are_told_and_not_the_names_that_change_with_them() -> None:
    wanted = dataplane(*BOTH_RULES, members="10.2.0.11 fd00:2::10")
    assert told(wanted, in_force()) == ("- r4:web: 10.2.0.10", "+ r4:web: 10.2.0.11")


def test_a_member_that_moves_between_sets_of_one_label_is_told() -> None:
    def hosts(*lists: str) -> Dataplane:
        return dataplane(*(allow(tcp(n), *own.split()) for n, own in enumerate(lists, start=80)))

    three = ["10.2.0.1 10.2.0.2 10.2.0.3", "10.2.0.4 10.2.0.5", "10.2.0.6 10.2.0.7"]
    moved = ["10.2.0.1 10.2.0.2", "10.2.0.3 10.2.0.4 10.2.0.5", "10.2.0.6 10.2.0.7"]
    assert told(hosts(*moved), in_force(hosts(*three))) == (
        "- r4:cidrs: 10.2.0.3",
        "+ r4:cidrs: 10.2.0.3",
    )


def test_a_set_that_parts_in_two_loses_and_gains_the_same() -> None:
    whole = allow(tcp(80), "10.2.0.1", "10.2.0.2", "10.2.0.3", "10.2.0.4")
    parts = [allow(tcp(80), "10.2.0.1", "10.2.0.2"), allow(tcp(81), "10.2.0.3", "10.2.0.4")]
    lines = [
        line for line in told(dataplane(*parts), in_force(dataplane(whole))) if "r4:cidrs" in line
    ]
    assert [line[0] for line in lines] == ["-", "-", "+", "+"]
    assert [line[1:] for line in lines[:2]] == [line[1:] for line in lines[2:]]


def test_drifted_members_are_told() -> None:
    kernel = in_force()
    (web,) = (name for name in kernel.sets if name.startswith("r4:web:"))
    kernel.sets[web].members = {"10.66.6.6": ""}
    assert told(WANTED, kernel) == ("- r4:web: 10.66.6.6", "+ r4:web: 10.2.0.10")


def test_a_set_that_nothing_names_holds_nobody_yet() -> None:
    kernel = in_force(dataplane())
    held = in_force()
    kernel.sets = held.sets
    assert "+ r4:web: 10.2.0.10" in told(WANTED, kernel)


def test_a_chain_that_goes_is_told() -> None:
    kernel = in_force(dataplane(*BOTH_RULES, second=True))
    gone = "- IPv4 reyes-eni-0000001a: "
    assert told(WANTED, kernel) == (
        "- IPv4 reyes-ingress: to eni-0000001a",
        f"{gone}accepted: icmp destination unreachable",
        f"{gone}accepted: icmp time exceeded",
        f"{gone}accepted: icmp parameter problem",
        f"{gone}denied: no rule of eni-0000001a allows it",
    )


def test_foreign_rules_are_told_where_they_are_discarded_only() -> None:
    kernel = in_force(foreign=FOREIGN)
    assert told(WANTED, kernel) == ()
    lines = told(WANTED, kernel, "exclusive")
    assert "- IPv4 not of Reyes, discarded: -P INPUT DROP" in lines
    assert "- IPv4 not of Reyes, discarded: -N f2b-sshd" in lines
    assert "- IPv6 not of Reyes, discarded: -A f2b-sshd -s 2001:db8::1/128 -j DROP" in lines
    assert len(lines) == 2 * len(kernel.read().tables[0].foreign)


def test_a_strangers_rule_in_our_chain_is_told_in_full() -> None:
    kernel = in_force()
    spoil(kernel, "-A reyes-ingress -s 10.66.6.6 -j ACCEPT")
    assert told(WANTED, kernel) == (
        "- IPv4 reyes-ingress: -A reyes-ingress -s 10.66.6.6/32 -j ACCEPT",
    )


def test_whatever_is_done_to_the_jump_is_told() -> None:
    for spoiling in (
        "-D INPUT -j reyes-input",
        "-A INPUT -j reyes-input",
        "-I INPUT 1 -j ACCEPT",
        "-D INPUT -j reyes-input\n-A INPUT -g reyes-input",
        "-D INPUT -j reyes-input\n-A INPUT -i eth0 -j reyes-input",
    ):
        kernel = in_force()
        spoil(kernel, spoiling)
        assert plan_commit(WANTED, kernel.read(), "shared").steps
        assert told(WANTED, kernel) == ("+ IPv4 INPUT: jump to reyes-input as the first rule",)


def test_another_order_of_our_rules_is_told() -> None:
    kernel = in_force()
    rule = rule_of(kernel, "tcp 443")
    moved = rule.replace("-A reyes-ingress", "-I reyes-ingress 1")
    spoil(kernel, rule.replace("-A", "-D", 1) + "\n" + moved)
    assert told(WANTED, kernel) == ("+ IPv4 reyes-ingress: the rules in their right order",)


def test_a_family_that_the_kernel_lacks_is_not_told_of() -> None:
    kernel = MemoryKernel([Family.V4])
    assert not [line for line in told(WANTED, kernel) if "IPv6" in line]


def test_of_sources_with_services_a_type_with_all_codes_is_one_line() -> None:
    types = [allow(icmp(kind), "10.2.0.10", "10.2.0.11") for kind in range(30, 49)]
    kernel = in_force(dataplane(*types, allow(icmp(49), "10.2.0.10")))
    changed = dataplane(*types, allow(icmp(77), "10.2.0.10"), allow(icmp(78, 1), "10.2.0.12"))
    assert [line for line in told(changed, kernel) if "s4:" in line] == [
        "- s4:service: 10.2.0.10,1:49",
        "+ s4:service: 10.2.0.10,1:77",
        "+ s4:service: 10.2.0.12,1:78/1",
    ]


def test_of_sources_with_ports_the_ports_are_told() -> None:
    others = [allow(tcp(5000 + 2 * n), "10.2.0.11") for n in range(17)]
    ranges = [allow(tcp(1000, 1999), "10.2.0.11"), allow(tcp(1200, 2999), "10.2.0.12")]
    kernel = in_force(dataplane(*ranges, allow(tcp(1500, 2499), "10.2.0.13"), *others))
    changed = dataplane(*ranges, allow(tcp(1500, 2399), "10.2.0.13"), *others)
    assert [line for line in told(changed, kernel) if "p4:" in line] == [
        "- p4:tcp: 10.2.0.13 to 1500-2499",
        "+ p4:tcp: 10.2.0.13 to 1500-2399",
    ]


def test_a_rule_less_in_a_tree_is_one_line_and_how_its_form_changes() -> None:
    ports = [allow(tcp(1000 + 2 * n), "10.2.0.0/16") for n in range(40)]
    kernel = in_force(dataplane(*ports))
    del ports[9]
    assert told(dataplane(*ports), kernel) == (
        "- IPv4 reyes-ingress: sg-0000000a rule 10: tcp 1018 from 10.2.0.0/16",
        "+ IPv4 reyes-ingress: rules with another number in their group: 30",
        "- IPv4 reyes-ingress: ways to its rules: 3",
        "+ IPv4 reyes-ingress: ways to its rules: 3",
    )


def test_a_way_that_is_gone_is_told() -> None:
    kernel = in_force(dataplane(*(allow(tcp(1000 + 2 * n), "10.2.0.0/16") for n in range(40))))
    wanted = dataplane(*(allow(tcp(1000 + 2 * n), "10.2.0.0/16") for n in range(40)))
    way = next(line for line in kernel.read().tables[0].rules["reyes-ingress"] if "0:" in line)
    spoil(kernel, way.replace("-A", "-D", 1))
    assert told(wanted, kernel) == ("+ IPv4 reyes-ingress: ways to its rules: 1",)


def test_of_two_rules_that_become_one_with_another_number_one_is_told() -> None:
    before = [allow(tcp(22), "10.2.0.0/16"), allow(tcp(22), "10.2.0.0/16")]
    after = [allow(tcp(port), "10.3.0.0/16") for port in (80, 81)]
    lines = told(dataplane(*after, before[0]), in_force(dataplane(*before)))
    assert [line for line in lines if "tcp 22" in line] == [
        "- IPv4 reyes-ingress: sg-0000000a rule 2: tcp 22 from 10.2.0.0/16"
    ]
    assert "+ IPv4 reyes-ingress: rules with another number in their group: 1" in lines


def test_of_two_rules_that_differ_by_their_number_alone_one_that_goes_is_told() -> None:
    twice = [allow(tcp(22), "10.2.0.0/16"), allow(tcp(22), "10.2.0.0/16"), allow(tcp(80), WEB)]
    assert told(dataplane(*twice[1:]), in_force(dataplane(*twice)))[:1] == (
        "- IPv4 reyes-ingress: sg-0000000a rule 2: tcp 22 from 10.2.0.0/16",
    )
