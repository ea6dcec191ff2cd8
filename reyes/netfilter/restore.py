"""What `iptables-restore` is fed: text that puts chains in force, tries them or reverts them."""

from collections.abc import Iterable, Iterator

from reyes.netfilter.iptables import Table
from reyes.netfilter.live import BUILTIN_CHAINS, JUMP, LiveTable


def exclusive_text(table: Table) -> str:
    """Write the text that makes a table ours alone: it discards the rules of others."""
    builtin = (f":{chain} ACCEPT [0:0]" for chain in BUILTIN_CHAINS)
    declared = (f":{chain} - [0:0]" for chain in table.rendered)
    return _transaction((*builtin, *declared, JUMP, *_lines(table, table.rendered)))


def shared_text(table: Table, live: LiveTable, written: Iterable[str]) -> str:
    """Write the text that makes these chains anew, and removes those of ours not in the table."""
    stale = [chain for chain in live.own_chains if chain not in table.rendered]
    declared = (f":{chain} - [0:0]" for chain in (*written, *stale))
    removed = (f"-X {chain}" for chain in stale)
    return _transaction((*declared, *_jump_lines(live), *_lines(table, written), *removed))


def rehearsal_text(table: Table, chains: Iterable[str]) -> str:
    """Write the text that tries these chains of a table, the others being empty."""
    declared = (f":{chain} - [0:0]" for chain in table.rendered)
    return _transaction((*declared, JUMP, *_lines(table, chains)))


def revert_text(before: LiveTable, now: LiveTable, *, flush: bool) -> str | None:
    """Write the text that brings back what was, None if it is there.

    With `flush` it is the whole table, else our chains and jumps in it.
    """
    if flush:
        return None if now == before else _live_text(before)
    if (before.own_chains, before.jumps) == (now.own_chains, now.jumps):
        return None
    lines = [f":{chain} - [0:0]" for chain in sorted({*before.own_chains, *now.own_chains})]
    lines += map(_deletion, now.jumps.values())
    # iptables refuses a position behind the end, and others may have removed rules since.
    others = len(now.rules.get("INPUT", ())) - len(now.jumps)
    for number, (position, line) in enumerate(before.jumps.items()):
        place = min(position, others + number) + 1
        lines.append(line.replace("-A INPUT", f"-I INPUT {place}", 1))
    lines += [line for rules in before.own_chains.values() for line in rules]
    lines += [f"-X {chain}" for chain in now.own_chains if chain not in before.policies]
    return _transaction(lines)


def removal_text(live: LiveTable) -> str | None:
    """Write the text that takes our chains and jumps out, None if there are none.

    A chain that somebody else's rule leads into cannot go: it stays, empty.
    """
    lines = [f":{chain} - [0:0]" for chain in live.own_chains]
    lines += map(_deletion, live.jumps.values())
    lines += [f"-X {chain}" for chain in live.own_chains if chain not in live.entered_by_others]
    return _transaction(lines) if lines else None


def _lines(table: Table, chains: Iterable[str]) -> Iterator[str]:
    return (line for chain in chains for _, line in table.rendered[chain])


def _jump_lines(live: LiveTable) -> list[str]:
    """Put the one jump first, by value: positions may shift while we look."""
    if live.jump_in_place:
        return []
    return [*map(_deletion, live.jumps.values()), JUMP.replace("-A INPUT", "-I INPUT 1")]


def _live_text(live: LiveTable) -> str:
    """Write a whole live table; counters start anew."""
    chains = [f":{chain} {policy} [0:0]" for chain, policy in live.policies.items()]
    return _transaction([*chains, *(line for rules in live.rules.values() for line in rules)])


def _deletion(line: str) -> str:
    return line.replace("-A ", "-D ", 1)


def _transaction(lines: Iterable[str]) -> str:
    return "\n".join(("*filter", *lines, "COMMIT", ""))
