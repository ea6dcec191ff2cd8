"""Worlds for tests: a small one, documents of it, and the pieces to build others from."""

from typing import Any

from msgspec.structs import replace

from reyes.net import Everything, Icmp, Ports, Service
from reyes.ruleset import (
    Content,
    GroupReference,
    Header,
    Ingress,
    Interface,
    PrefixList,
    Region,
    Ruleset,
    SecurityGroup,
    Vpc,
    count,
    encode,
)
from reyes.trust import Genuine, VerifiedRuleset, admit

ACCOUNT = "123456789012"
WEST_VPC = "vpc-0a1b2c3d"
EU_VPC = "vpc-0e0e0e0e"


def small_world() -> Content:
    """Two regions: `web` in each, `db` open to `web`, a load balancer without instance."""
    west = Region(
        name="us-west-2",
        vpcs=(Vpc(id=WEST_VPC, account=ACCOUNT, cidrs=("10.1.0.0/16",)),),
        groups=(
            SecurityGroup(
                id="sg-0000000a",
                name="web",
                vpc=WEST_VPC,
                account=ACCOUNT,
                ingress=(
                    Ingress(
                        service=Ports(protocol="tcp", first=443, last=443),
                        cidrs=("0.0.0.0/0", "::/0"),
                    ),
                ),
            ),
            SecurityGroup(
                id="sg-0000000b",
                name="db",
                vpc=WEST_VPC,
                account=ACCOUNT,
                ingress=(
                    Ingress(
                        service=Icmp(protocol="icmp", type=8, code=-1),
                        prefix_lists=("pl-0000000a",),
                    ),
                    Ingress(
                        service=Ports(protocol="tcp", first=5432, last=5433),
                        groups=(GroupReference(id="sg-0000000a"),),
                    ),
                    Ingress(
                        service=Everything(),
                        groups=(
                            GroupReference(id="sg-0000000c", account="210987654321"),
                            GroupReference(id="sg-0000000d", peering="deleted"),
                        ),
                    ),
                ),
            ),
        ),
        interfaces=(
            Interface(
                id="eni-0000000a",
                vpc=WEST_VPC,
                instance="i-0000000a",
                device=0,
                addresses=("10.1.0.10", "2001:db8::10"),
                groups=("sg-0000000a",),
            ),
            Interface(
                id="eni-0000000b",
                vpc=WEST_VPC,
                instance="i-0000000b",
                device=0,
                addresses=("10.1.0.11", "10.1.16.0/28"),
                groups=("sg-0000000b",),
            ),
            Interface(
                id="eni-0000000c",
                vpc=WEST_VPC,
                addresses=("10.1.0.12",),
                groups=("sg-0000000a",),
            ),
        ),
        prefix_lists=(PrefixList(id="pl-0000000a", cidrs=("192.0.2.0/24", "198.51.100.7")),),
    )
    eu = Region(
        name="eu-west-1",
        vpcs=(Vpc(id=EU_VPC, account=ACCOUNT, cidrs=("10.2.0.0/16",)),),
        groups=(SecurityGroup(id="sg-0000000e", name="web", vpc=EU_VPC, account=ACCOUNT),),
        interfaces=(
            Interface(
                id="eni-0000000e",
                vpc=EU_VPC,
                instance="i-0000000e",
                device=0,
                addresses=("10.2.0.10",),
                groups=("sg-0000000e",),
            ),
        ),
    )
    return Content(
        group_matching="name", excluded_group_names=("vpn-allow-all",), regions=(eu, west)
    )


def header_for(content: Content, now: int, **changes: Any) -> Header:
    """A header as a leader writes it at `now`, with some fields changed."""
    header = Header(
        environment="production",
        serial=now * 1000,
        generated_at=now,
        not_after=now + 3600,
        generator="leader-a reyes/2.0.0",
        counts=count(content, sources=2),
    )
    return replace(header, **changes)


def document(now: int, content: Content | None = None, **changes: Any) -> bytes:
    """The canonical text of a world, by default the small one."""
    content = content or small_world()
    return encode(header_for(content, now, **changes), content)


def shrunk(content: Content) -> Content:
    """The same world with all interfaces gone but a load balancer's."""
    regions = tuple(
        replace(region, interfaces=tuple(i for i in region.interfaces if i.instance is None))
        for region in content.regions
    )
    return replace(content, regions=regions)


def tcp(first: int, last: int | None = None) -> Ports:
    return Ports(protocol="tcp", first=first, last=first if last is None else last)


def udp(first: int, last: int | None = None) -> Ports:
    return Ports(protocol="udp", first=first, last=first if last is None else last)


def icmp(kind: int = -1, code: int = -1) -> Icmp:
    return Icmp(protocol="icmp", type=kind, code=code)


def icmpv6(kind: int = -1, code: int = -1) -> Icmp:
    return Icmp(protocol="icmpv6", type=kind, code=code)


def allow(service: Service, *open_to: str | GroupReference) -> Ingress:
    """A rule; whom it is open to is told by the looks of each word."""
    words = [word for word in open_to if isinstance(word, str)]
    references = [word for word in open_to if isinstance(word, GroupReference)]
    references += [GroupReference(id=word) for word in words if word.startswith("sg-")]
    return Ingress(
        service=service,
        cidrs=tuple(word for word in words if not word.startswith(("sg-", "pl-"))),
        prefix_lists=tuple(word for word in words if word.startswith("pl-")),
        groups=tuple(references),
    )


def vpc(identifier: str, *cidrs: str) -> Vpc:
    return Vpc(id=identifier, account=ACCOUNT, cidrs=cidrs)


def group(identifier: str, name: str, *ingress: Ingress, **fields: Any) -> SecurityGroup:
    defaults = {"vpc": WEST_VPC, "account": ACCOUNT}
    return SecurityGroup(id=identifier, name=name, ingress=ingress, **{**defaults, **fields})


def interface(
    number: str, addresses: str, groups: str, instance: str | None = None, **fields: Any
) -> Interface:
    """An interface `eni-NUMBER`; addresses and groups are words with blanks between them."""
    return Interface(
        id=f"eni-{number}",
        instance=instance,
        addresses=tuple(addresses.split()),
        groups=tuple(groups.split()),
        **{"vpc": WEST_VPC, "device": 0 if instance else None, **fields},
    )


def world(*regions: Region, **fields: Any) -> Content:
    """A content of these regions, by default with the gem's matching by name."""
    defaults = {"group_matching": "name", "excluded_group_names": ()}
    return Content(regions=regions, **{**defaults, **fields})


def verified(content: Content, now: int = 1_795_000_000) -> VerifiedRuleset:
    """A content as it comes through the one door, whatever is in it."""
    signed = Genuine(
        ruleset=Ruleset(header=header_for(content, now), content_sha256="", content=content),
        digest="0" * 64,
        signer="0" * 40,
        key_expires_at=None,
    )
    return admit(signed, environment="production", now=now, accepted=None, force=True)
