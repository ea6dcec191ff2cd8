"""All that Reyes may ever write to `ipset restore` and `iptables-restore`, line by line.

Written by hand from the manuals of both, not from the code. Text of others has no place in it:
comments hold identifiers, networks, numbers and our own words.
"""

import re

from reyes.net import Family
from reyes.netfilter.compiler import compile_policy
from reyes.netfilter.live import LiveKernel, LiveTable
from reyes.netfilter.plan import FilterTable, RestoreSets, RestoreTable, plan_commit
from reyes.policy import HostPolicy

V4 = r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?:/(?:[0-9]|[12][0-9]|3[012]))?"
V6 = r"[0-9a-f:]{2,39}(?:/(?:[0-9]{1,2}|1[01][0-9]|12[0-8]))?"
SET = {
    Family.V4: r"r4:[A-Za-z0-9_.-]{1,7}:[A-Za-z0-9_-]{20}",
    Family.V6: r"r6:[A-Za-z0-9_.-]{1,7}:[A-Za-z0-9_-]{20}",
}
SERVICES = {family: entry.replace("r", "s", 1) for family, entry in SET.items()}
PORTS = {family: entry.replace("r", "p", 1) for family, entry in SET.items()}
PORT = "[0-9]{1,5}"
ASKED = f"--packets-lt {PORT} --bytes-lt {PORT}"
SIZE = "hashsize [0-9]+ maxelem [0-9]+"
ICMP = "[0-9]{1,3}/[0-9]{1,3}"
SET_LINE = re.compile(
    rf"create {SET[Family.V4]} hash:net family inet {SIZE}"
    rf"|create {SET[Family.V6]} hash:net family inet6 {SIZE}"
    rf"|create {SERVICES[Family.V4]} hash:net,port family inet {SIZE}"
    rf"|create {SERVICES[Family.V6]} hash:net,port family inet6 {SIZE}"
    rf"|create {PORTS[Family.V4]} hash:net family inet {SIZE} counters"
    rf"|create {PORTS[Family.V6]} hash:net family inet6 {SIZE} counters"
    rf"|add {SET[Family.V4]} {V4}"
    rf"|add {SET[Family.V6]} {V6}"
    rf"|add {PORTS[Family.V4]} {V4} packets {PORT} bytes {PORT}"
    rf"|add {PORTS[Family.V6]} {V6} packets {PORT} bytes {PORT}"
    rf"|add {SERVICES[Family.V4]} {V4},(?:1:{ICMP}|[0-9]{{1,3}}:0)"
    rf"|add {SERVICES[Family.V6]} {V6},58:{ICMP}"
)
CHAIN = r"reyes-[a-z0-9-]{1,22}"
INTERFACE = r"[A-Za-z0-9_.@-]{1,14}[A-Za-z0-9_.@+-]?"
COMMENT = r'"[A-Za-z0-9 .,:/()+@_-]{1,233} #[A-Za-z0-9_-]{20}"'


def table_line(family: Family) -> re.Pattern[str]:
    network, icmp = (V4, "icmp") if family is Family.V4 else (V6, "icmpv6")
    module = icmp.replace("v6", "6")
    rejection = "icmp-admin-prohibited" if family is Family.V4 else "icmp6-adm-prohibited"
    match = "|".join(
        (
            rf"-i {INTERFACE}",
            rf"-[sd] {network}",
            rf"-m set --match-set {SET[family]} src",
            rf"-m set --match-set {SERVICES[family]} src,dst",
            rf"-m set --match-set {PORTS[family]} src ! --update-counters {ASKED}",
            r"-m conntrack --ctstate ESTABLISHED,RELATED(?: --ctdir REPLY)?",
            r"-m policy --dir in --pol ipsec",
            r"-m limit --limit 3/min --limit-burst 10",
            r"-p tcp -m tcp --dport [0-9]{1,5}:[0-9]{1,5}",
            r"-p udp -m udp --dport [0-9]{1,5}:[0-9]{1,5}",
            rf"-p {icmp}(?: -m {module} --{icmp}-type [0-9]{{1,3}}(?:/[0-9]{{1,3}})?)?",
            r"-p [0-9]{1,3}",
        )
    )
    target = "|".join(
        (
            r"-j RETURN",
            r"-j DROP",
            rf"-g {CHAIN}",
            rf"-j REJECT --reject-with {rejection}",
            r'-j LOG --log-prefix "reyes-(?:accept|drop|audit): "',
        )
    )
    return re.compile(
        r"\*filter|COMMIT"
        rf"|:{CHAIN} - \[0:0\]"
        r"|:(?:INPUT|FORWARD|OUTPUT) ACCEPT \[0:0\]"
        r"|-I INPUT 1 -j reyes-input|-A INPUT -j reyes-input"
        rf"|-A {CHAIN}(?: (?:{match}))* -m comment --comment {COMMENT} (?:{target})"
    )


TABLE_LINE = {family: table_line(family) for family in Family}


def check_payloads(policy: HostPolicy) -> int:
    """Compile and render a policy as for an empty kernel; return how many lines that makes."""
    live = LiveKernel(tuple(LiveTable(family) for family in Family))
    written = 0
    ways: tuple[FilterTable, ...] = ("shared", "exclusive")
    for filter_table in ways:
        for step in plan_commit(compile_policy(policy), live, filter_table).steps:
            if isinstance(step, RestoreSets):
                written += _check(step.text, SET_LINE)
            elif isinstance(step, RestoreTable):
                written += _check(step.text, TABLE_LINE[step.family])
    return written


def _check(text: str, line: re.Pattern[str]) -> int:
    # Whatever some program may take for the end of a line counts as one.
    lines = text.splitlines()
    assert text == "".join(f"{one}\n" for one in lines)
    for one in lines:
        assert line.fullmatch(one), ascii(one)
    return len(lines)
