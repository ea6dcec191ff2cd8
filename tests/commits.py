"""Dataplanes, kernels in which they are in force, and what may happen to them there."""

from reyes.host import Host, VpcScope
from reyes.net import Family, parse_network
from reyes.netfilter.compiler import Dataplane, compile_policy
from reyes.netfilter.live import LiveKernel
from reyes.netfilter.plan import CommitPlan, FilterTable, RestoreTable, Step, plan_commit
from reyes.policy import resolve
from reyes.ruleset import Ingress, Region
from tests.fakes.memory_kernel import MemoryKernel
from tests.worlds import EU_VPC, WEST_VPC, allow, group, interface, tcp, udp, verified, vpc, world

V4, V6 = Family.V4, Family.V6
HOST, APP, WEB, WEB_EU = "i-0000000a", "sg-0000000a", "sg-0000000b", "sg-000000e0"
MODES: list[FilterTable] = ["shared", "exclusive"]
BOTH_RULES = (allow(tcp(443), WEB), allow(udp(53), "10.2.0.0/16", "10.3.0.0/16"))
FOREIGN = """*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:f2b-sshd - [0:0]
-A INPUT -p tcp -m tcp --dport 22 -j f2b-sshd
-A INPUT -i docker0 -j ACCEPT
-A FORWARD -o docker0 -j ACCEPT
-A f2b-sshd -s 192.0.2.1 -j DROP
COMMIT
"""


def dataplane(
    *ingress: Ingress, members: str = "10.2.0.10 fd00:2::10", second: bool = False
) -> Dataplane:
    """What a host with these rules should have; `second` gives it an interface without groups."""
    own = [interface("0000000a", "10.1.0.10 fd00:1::10", APP, HOST)]
    if second:
        own.append(interface("0000001a", "10.1.0.11", "", HOST, device=1))
    west = Region(
        name="us-west-2",
        vpcs=(vpc(WEST_VPC, "10.1.0.0/16"),),
        groups=(group(APP, "app", *ingress), group(WEB, "web")),
        interfaces=tuple(own),
    )
    eu = Region(
        name="eu-west-1",
        vpcs=(vpc(EU_VPC, "10.2.0.0/16"),),
        groups=(group(WEB_EU, "web", vpc=EU_VPC),),
        interfaces=(interface("000000e0", members, WEB_EU, vpc=EU_VPC),),
    )
    scope = VpcScope((parse_network("10.0.0.0/8"), parse_network("fd00::/8")))
    host = Host(instance_id=HOST, region="us-west-2", scope=scope)
    return compile_policy(resolve(verified(world(eu, west)), host))


WANTED = dataplane(*BOTH_RULES)


def in_force(
    wanted: Dataplane = WANTED, mode: FilterTable = "shared", foreign: str | None = None
) -> MemoryKernel:
    """A kernel in which a dataplane was put in force."""
    kernel = MemoryKernel()
    if foreign:
        for family in Family:
            text = foreign if family is V4 else foreign.replace("192.0.2.1", "2001:db8::1")
            kernel.restore(family, text)
    kernel.execute(plan_commit(wanted, kernel.read(), mode))
    return kernel


def kinds(plan: CommitPlan) -> list[type[Step]]:
    return [type(step) for step in plan.steps]


def foreign_part(kernel: MemoryKernel) -> list[tuple[str, ...]]:
    return [table.foreign for table in kernel.read().tables]


def state(kernel: MemoryKernel) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """All that is in force, in words; where chains stand in the text means nothing."""
    saved = [
        "\n".join(sorted(heads)) + "\n".join(rules)
        for family in kernel.tables
        for heads, rules in [split(kernel.save(family))]
    ]
    return saved, kernel.read_members()


def split(text: str) -> tuple[list[str], list[str]]:
    """Heads and rules of a table's text; rules by chain."""
    lines = text.splitlines()
    rules = [line for line in lines if line.startswith("-A")]
    return [line for line in lines if line.startswith(":")], sorted(
        rules, key=lambda line: line.split()[1]
    )


def spoil(kernel: MemoryKernel, lines: str, family: Family = V4) -> None:
    kernel.restore(family, f"*filter\n{lines}\nCOMMIT\n")


def undo(kernel: MemoryKernel, plan: CommitPlan) -> None:
    """Take back all tables of a plan."""
    for step in plan.steps:
        if isinstance(step, RestoreTable):
            mode: FilterTable = "exclusive" if step.flush else "shared"
            kernel.revert(LiveKernel((step.before,)), mode)


def rule_of(kernel: MemoryKernel, part: str) -> str:
    """The one rule of reyes-ingress with this in it."""
    (found,) = (r for r in kernel.read().tables[0].rules["reyes-ingress"] if part in r)
    return found
