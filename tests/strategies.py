"""Hypothesis strategies for documents that a leader could write."""

from collections.abc import Callable
from ipaddress import ip_network
from typing import TypeVar

from hypothesis import strategies as st

from reyes.net import Everything, Icmp, Ports, Protocol, Service, canonical
from reyes.ruleset import (
    Content,
    GroupReference,
    Header,
    Ingress,
    Interface,
    PrefixList,
    Region,
    SecurityGroup,
    Vpc,
    count,
)

T = TypeVar("T")

ACCOUNTS = st.sampled_from(["111111111111", "222222222222"])
REGIONS = ["eu-west-1", "us-east-1", "us-west-2"]
NAMES = st.one_of(
    st.sampled_from(["web", "db", "default", "vpn-allow-all"]),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=12),
)


def identifiers(prefix: str) -> st.SearchStrategy[str]:
    """Few enough that references often meet what they name."""
    return st.integers(0, 7).map(lambda number: f"{prefix}-{number:08x}")


def networks() -> st.SearchStrategy[str]:
    """Canonical networks of both families."""
    return st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).flatmap(
        lambda address: st.integers(0, address.max_prefixlen).map(
            lambda prefix: canonical(ip_network(f"{address}/{prefix}", strict=False))
        )
    )


def services() -> st.SearchStrategy[Service]:
    ports = st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(sorted)
    return st.one_of(
        st.builds(
            lambda protocol, pair: Ports(protocol=protocol, first=pair[0], last=pair[1]),
            st.sampled_from(["tcp", "udp"]),
            ports,
        ),
        st.builds(
            Icmp,
            protocol=st.sampled_from(["icmp", "icmpv6"]),
            type=st.integers(-1, 255),
            code=st.integers(-1, 255),
        ),
        st.builds(Protocol, number=st.integers(0, 255)),
        st.just(Everything()),
    )


def headers(content: Content) -> st.SearchStrategy[Header]:
    """Headers that are true of `content`."""
    return st.builds(
        lambda environment, seconds, validity, sources: Header(
            environment=environment,
            serial=seconds * 1000 + 7,
            generated_at=seconds,
            not_after=seconds + validity,
            generator="leader-a reyes/2.0.0",
            counts=count(content, sources),
        ),
        st.sampled_from(["production", "staging"]),
        st.integers(1, 2**33),
        st.integers(60, 86_400),
        st.integers(1, 4),
    )


def contents() -> st.SearchStrategy[Content]:
    return st.builds(
        Content,
        group_matching=st.sampled_from(["name", "id", "tag:role"]),
        excluded_group_names=_sorted(NAMES),
        regions=_each(st.sampled_from(REGIONS), _region),
    )


def _region(name: str) -> st.SearchStrategy[Region]:
    return st.builds(
        Region,
        name=st.just(name),
        vpcs=_each(identifiers("vpc"), _vpc),
        groups=_each(identifiers("sg"), _group),
        interfaces=_each(identifiers("eni"), _interface),
        prefix_lists=_each(identifiers("pl"), _prefix_list),
    )


def _vpc(identifier: str) -> st.SearchStrategy[Vpc]:
    return st.builds(Vpc, id=st.just(identifier), account=ACCOUNTS, cidrs=_sorted(networks()))


def _group(identifier: str) -> st.SearchStrategy[SecurityGroup]:
    return st.builds(
        SecurityGroup,
        id=st.just(identifier),
        name=NAMES,
        vpc=identifiers("vpc"),
        account=ACCOUNTS,
        tag=st.none() | NAMES,
        ingress=_sorted(_ingress()),
    )


def _ingress() -> st.SearchStrategy[Ingress]:
    reference = st.builds(
        GroupReference,
        id=identifiers("sg"),
        account=st.none() | ACCOUNTS,
        peering=st.none() | st.just("deleted"),
    )
    return st.builds(
        Ingress,
        service=services(),
        cidrs=_sorted(networks()),
        prefix_lists=_sorted(identifiers("pl")),
        groups=_sorted(reference),
    )


def _interface(identifier: str) -> st.SearchStrategy[Interface]:
    held_by_instance = st.tuples(identifiers("i"), st.integers(0, 3))
    return st.builds(
        lambda vpc, holder, addresses, groups: Interface(
            id=identifier,
            vpc=vpc,
            instance=holder[0],
            device=holder[1],
            addresses=addresses,
            groups=groups,
        ),
        identifiers("vpc"),
        held_by_instance | st.just((None, None)),
        _sorted(networks()),
        _sorted(identifiers("sg")),
    )


def _prefix_list(identifier: str) -> st.SearchStrategy[PrefixList]:
    return st.builds(PrefixList, id=st.just(identifier), cidrs=_sorted(networks()))


def _sorted(values: st.SearchStrategy[T]) -> st.SearchStrategy[tuple[T, ...]]:
    return st.lists(values, max_size=3, unique=True).map(
        lambda some: tuple(sorted(some, key=repr))
    )


def _each(
    names: st.SearchStrategy[str], build: Callable[[str], st.SearchStrategy[T]]
) -> st.SearchStrategy[tuple[T, ...]]:
    """One value for each of a few different names, sorted by name."""
    return st.lists(names, max_size=3, unique=True).flatmap(
        lambda some: st.tuples(*(build(name) for name in sorted(some)))
    )
