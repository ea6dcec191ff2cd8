"""Peers' ways of saying and changing the same policy, for comparison."""

from collections.abc import Sequence

from reyes.net import Family, service_families
from reyes.netfilter.ipset import IPSet, create_text, ip_set
from reyes.netfilter.iptables import Chain, Goto, Rule, SourceSet, Verdict, render_chain
from reyes.policy import Allow, HostPolicy


def linear_sets(policy: HostPolicy, family: Family = Family.V4) -> tuple[IPSet, ...]:
    """Return one set for each group that a rule names."""
    by_name = {allow.peer.name: allow.peer for allow in _allows(policy)}
    return tuple(ip_set(family, peer.label, peer.addresses) for _, peer in sorted(by_name.items()))


def linear_rules(policy: HostPolicy, family: Family = Family.V4) -> list[str]:
    """Write one rule after the other, as every peer does it: service, set, verdict."""
    rules = []
    for allow in _allows(policy):
        if family in service_families(allow.service):
            entry = ip_set(family, allow.peer.label, allow.peer.addresses)
            comment = f"{allow.group.id} rule {allow.rule}"
            rule = Rule((allow.service, SourceSet(entry.name)), Verdict.RETURN, comment)
            rules.append(_line("judge", rule))
    return rules


def linear_text(policy: HostPolicy, family: Family = Family.V4) -> str:
    """Write the whole table in the linear form."""
    known = "-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    judge = _line("INPUT", Rule((), Goto("judge"), "judged"))
    head = ("*filter", ":INPUT ACCEPT [0:0]", ":judge - [0:0]", known, judge)
    return "\n".join((*head, *linear_rules(policy, family), "-A judge -j DROP", "COMMIT", ""))


def _line(chain: str, rule: Rule) -> str:
    ((_, line),) = render_chain(Chain(chain, (rule,)), Family.V4)
    return line


def recreate_text(sets: Sequence[IPSet]) -> str:
    """Write the input that fills every set anew beside the old one, and swaps them."""
    text = ""
    for entry in sets:
        spare = IPSet("spare", entry.family, entry.members)
        text += f"{create_text((spare,))}swap spare {entry.name}\ndestroy spare\n"
    return text


def _allows(policy: HostPolicy) -> list[Allow]:
    return [allow for interface in policy.interfaces for allow in interface.allows]
