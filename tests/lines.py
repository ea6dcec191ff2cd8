"""A dataplane's rules as people would write them down."""

import re

from reyes.net import Family
from reyes.netfilter import names
from reyes.netfilter.compiler import Dataplane
from reyes.netfilter.iptables import render_chain

_COMMENT = re.compile(r' -m comment --comment "[^"]*"')
_SET = re.compile(r"-m set --match-set (\S+) (src|dst)(?!,)")


def chain_lines(dataplane: Dataplane, family: Family, chain: str) -> list[str]:
    """A chain's rules without `-A CHAIN` and comments; a set is `from label{members}`, or `to`."""
    members = {entry.name: entry.members for entry in dataplane.sets}

    def written_out(found: re.Match[str]) -> str:
        label = names.set_label(found[1]).partition(":")[2]
        return f"{'from' if found[2] == 'src' else 'to'} {label}{{{' '.join(members[found[1]])}}}"

    table = next(table for table in dataplane.tables if table.family is family)
    wanted = next(one for one in table.chains if one.name == chain)
    lines = (_COMMENT.sub("", line) for _, line in render_chain(wanted, family))
    return [_SET.sub(written_out, line.removeprefix(f"-A {chain} ")) for line in lines]


def comments(dataplane: Dataplane, family: Family, chain: str) -> list[str]:
    table = next(table for table in dataplane.tables if table.family is family)
    return [rule.comment for one in table.chains if one.name == chain for rule in one.rules]


def chain_names(dataplane: Dataplane, family: Family) -> list[str]:
    table = next(table for table in dataplane.tables if table.family is family)
    return [chain.name for chain in table.chains]
