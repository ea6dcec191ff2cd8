"""Put faults into a copy of the package and see the proof find each: `make mutants`.

A mutant is one replaced piece of text. One that survives the tests, and one whose text is no
longer there, end in exit code 1.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
ORACLE = "tests/property/test_oracle.py"
PROOF = "tests/kernel/test_proof.py"
STATEFUL = "tests/kernel/test_stateful.py"
SETS, PORTS = "tests/unit/test_ipset.py", "tests/unit/test_port_sets.py"
TREES = "tests/unit/test_tree.py"
TESTS = (ORACLE, PROOF, STATEFUL, SETS, PORTS, TREES)

NFT_ONLY = ("-k", "not legacy")
"""The faults are above the backends; both were proved by the tests themselves."""


@dataclass(frozen=True)
class Mutant:
    """A fault, where it goes, and the tests that must find it."""

    fault: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...] = (ORACLE,)


POLICY, COMPILER = "reyes/policy.py", "reyes/netfilter/compiler.py"
MATCHING, IPTABLES = "reyes/matching.py", "reyes/netfilter/iptables.py"
IPSET, TREE = "reyes/netfilter/ipset.py", "reyes/netfilter/tree.py"
ENTRIES, DIVISION, PORT_SETS, REACHES = (
    "reyes/netfilter/entries.py",
    "reyes/netfilter/division.py",
    "reyes/netfilter/port_sets.py",
    "reyes/netfilter/reaches.py",
)

MUTANTS = (
    Mutant(
        "ports begin one later",
        IPTABLES,
        "--dport {first}:{last}",
        "--dport {min(first + 1, last)}:{last}",
        (PROOF,),
    ),
    Mutant(
        "ports end one later",
        IPTABLES,
        "--dport {first}:{last}",
        "--dport {first}:{min(last + 1, 65535)}",
        (PROOF,),
    ),
    Mutant(
        "a member is forgotten",
        POLICY,
        "addresses=self._members[group_id],",
        "addresses=self._members[group_id][1:],",
    ),
    Mutant(
        "members of the wrong family",
        "reyes/net.py",
        "wanted = family is Family.V6",
        "wanted = family is Family.V4",
    ),
    Mutant(
        "icmp rules in the wrong family",
        "reyes/net.py",
        'case Icmp(protocol="icmp"):',
        'case Icmp(protocol="icmpv6"):',
    ),
    Mutant(
        "established connections are known only behind the drop",
        COMPILER,
        "(*ingress, *first.rules)",
        "(*ingress[1:], *first.rules, _established_rule(host))",
        (STATEFUL,),
    ),
    Mutant(
        "--pol ipsec is left out",
        IPTABLES,
        'return "-m policy --dir in --pol ipsec"',
        'return ""',
        (PROOF,),
    ),
    Mutant(
        "the own VPC is judged",
        COMPILER,
        "yield from self._own_vpc_rules()",
        "yield from ()",
    ),
    Mutant(
        "/0 is not split",
        IPSET,
        " or str(family.everywhere) in ordered:",
        ":",
        (SETS,),
    ),
    Mutant(
        "the ICMP code is ignored",
        IPTABLES,
        "number = str(kind) if code == -1 else",
        "number = str(kind) if code < 256 else",
        (PROOF,),
    ),
    Mutant(
        "groups called default are matched by name",
        MATCHING,
        'return None if group.name == "default" else group.name',
        "return group.name",
    ),
    Mutant(
        "an empty tag matches",
        MATCHING,
        "return group.tag",
        "return group.tag or 'none'",
    ),
    Mutant(
        "a stale reference is resolved",
        MATCHING,
        "if reference.peering is not None:",
        "if False:",
    ),
    Mutant(
        "an excluded group is mirrored",
        MATCHING,
        "return group.name in self._excluded",
        "return False",
    ),
    Mutant(
        "the log rule ends the walk",
        IPTABLES,
        """return f'-j LOG --log-prefix "{prefix} "'""",
        "return '-j DROP'",
        (PROOF,),
    ),
    Mutant(
        "another interface's rules are the primary's",
        COMPILER,
        "ingress += self._ways_to(own, sharing)",
        "ingress += []",
    ),
    Mutant(
        "interfaces of other groups have the primary's rules",
        COMPILER,
        "lambda each: each.interface.groups)",
        "lambda each: ())",
    ),
    Mutant(
        "interfaces of equal groups lose all addresses but the first one's",
        COMPILER,
        "for each in sharing for part in each.parts]",
        "for each in sharing[:1] for part in each.parts]",
    ),
    Mutant(
        "an address of two interfaces is not the first one's",
        COMPILER,
        "taken = list(primary.addresses)",
        "taken: list[Network] = []",
    ),
    Mutant(
        "failsafe peers are judged",
        COMPILER,
        "yield _failsafe_rule(entry)",
        "yield from ()",
    ),
    Mutant(
        "the last port of a service is forgotten",
        DIVISION,
        "meeting = [s for s in (*meeting, *beginning[first]) if first <= s.last]",
        "meeting = [s for s in (*meeting, *beginning[first]) if first < s.last]",
    ),
    Mutant(
        "a source may use the ports behind its last",
        ENTRIES,
        "--bytes-lt {LAST_PORT - last + 1}",
        "--bytes-lt {LAST_PORT + 1}",
        (PROOF,),
    ),
    Mutant(
        "sources of one service may use its neighbours' ports",
        REACHES,
        "if found and first <= found[-1][1] + 1:",
        "if found:",
        (PORTS,),
    ),
    Mutant(
        "a way takes the first ports of the next one",
        TREE,
        "part_of(way.ports, 0, way.ports.last)",
        "part_of(way.ports, 0, way.ports.last + 1)",
    ),
    Mutant(
        "a source of several groups may use the ports of the first one alone",
        REACHES,
        "for number in named",
        "for number in named[:1]",
    ),
    Mutant(
        "sources are looked up more often than they may be",
        PORT_SETS,
        "earlier[-lookups] > found[-1]",
        "earlier[-lookups] > found[-1] + 1",
        (PORTS,),
    ),
    Mutant(
        "a stretch has a rule for its first look-up alone",
        TREE,
        "for match in matches[stretch.ports]:",
        "for match in matches[stretch.ports][:1]:",
        (TREES,),
    ),
    Mutant(
        "a port that is open to everybody is told by groups",
        TREE,
        "return not stretch.for_all and any(",
        "return any(",
        (TREES,),
    ),
    Mutant(
        "a set of ports tells those of others beside",
        TREE,
        "next(self._matches_in(beside)) in self._matches_in(told)",
        "True",
        (TREES,),
    ),
    Mutant(
        "a set of ports tells those behind a gap",
        TREE,
        "low.last + 1 == high.first and not beside.for_all",
        "not beside.for_all",
        (TREES,),
    ),
    Mutant(
        "a union forgets a source",
        TREE,
        "union(self._make_set, members_of_all(sources))",
        "union(self._make_set, members_of_all(sources[1:]))",
    ),
    Mutant(
        "a type of ICMP is open when one of its codes is",
        ENTRIES,
        "if code == -1 else (code,)",
        "if code < 256 else (code,)",
    ),
    Mutant(
        "a set tells protocols whose packets have ports",
        ENTRIES,
        "{1, 6, 17, 58, 132, 136}",
        "{6, 17}",
        (PROOF,),
    ),
    Mutant(
        "sets hold the first half of their members",
        IPSET,
        "for member in entry.members)",
        "for member in entry.members[: (len(entry.members) + 1) // 2])",
        (PROOF,),
    ),
)


def main() -> int:
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(os.cpu_count()) as pool:
        sound = copied(ROOT, Path(directory, "sound"))
        jobs = [(mutant, Path(directory, str(n))) for n, mutant in enumerate(MUTANTS)]
        baseline = pool.submit(failed_test, sound, TESTS)
        killers = pool.map(lambda job: killer(job[0], copied(sound, job[1])), jobs)
        if failure := baseline.result():
            click.echo(f"the tests fail without any fault: {failure}")
            return 1
        width = max(len(mutant.fault) for mutant in MUTANTS)
        alive = 0
        for mutant, by in zip(MUTANTS, killers, strict=True):
            alive += by is None
            click.echo(f"{mutant.fault:{width}}  {by or 'SURVIVES ' + ' '.join(mutant.tests)}")
    click.echo(f"{len(MUTANTS) - alive} of {len(MUTANTS)} mutants killed")
    return 1 if alive else 0


def killer(mutant: Mutant, directory: Path) -> str | None:
    """Put a fault into a copy, and return the test that finds it."""
    path = directory / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.before) != 1:
        sys.exit(f"{mutant.fault}: not once in {mutant.file}, mend the mutant: {mutant.before}")
    path.write_text(text.replace(mutant.before, mutant.after), encoding="utf-8")
    by = failed_test(directory, mutant.tests)
    shutil.rmtree(directory)
    return by


def copied(source: Path, directory: Path) -> Path:
    """Copy what the tests need; the checkout itself is never touched."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("reyes", "tests"):
        shutil.copytree(source / name, directory / name, ignore=ignored)
    shutil.copy(source / "pyproject.toml", directory)
    return directory


def failed_test(directory: Path, tests: tuple[str, ...]) -> str | None:
    """Run tests on a copy until one fails, and name it."""
    argv = [sys.executable, "-m", "pytest", "-q", "-x", "-rf", "--no-header", "--tb=no"]
    environment = {**os.environ, "PYTHONPATH": str(directory), "REYES_REQUIRE_KERNEL": "1"}
    options = ["--hypothesis-profile=unshrunk", "-p", "no:cacheprovider", *NFT_ONLY]
    done = subprocess.run(
        [*argv, *options, *tests],
        cwd=directory,
        env=environment,
        capture_output=True,
        check=False,
        text=True,
    )
    if done.returncode == 0:
        return None
    failed = re.search(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    if done.returncode != 1 or failed is None:
        sys.exit(f"pytest could not tell: {done.stdout}{done.stderr}")
    return failed[1]


if __name__ == "__main__":
    sys.exit(main())
