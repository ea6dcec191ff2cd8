"""Who this host is, and which of its traffic is judged: facts, not branches."""

from typing import Literal

from msgspec import Struct

from reyes.config import FailsafeConfig, FollowerConfig
from reyes.net import LAST_PORT, Everything, Icmp, Network, Ports, Service, parse_network


class VpcScope(Struct, frozen=True):
    """Judge what comes from these networks and not from the host's own VPC."""

    filtered: tuple[Network, ...]


class IpsecScope(Struct, frozen=True):
    """Judge what this host itself took out of IPsec."""


class InterfaceScope(Struct, frozen=True):
    """Judge what arrives on these interfaces; a trailing + matches any ending."""

    names: tuple[str, ...]


Scope = VpcScope | IpsecScope | InterfaceScope


class Failsafe(Struct, frozen=True):
    """Packets that are let through before anything is judged."""

    network: Network
    service: Service


class Host(Struct, frozen=True, kw_only=True):
    """What the configuration and the metadata service say of this host.

    Its addresses, groups and VPCs come from the ruleset.
    """

    instance_id: str
    region: str | None
    scope: Scope
    failsafe: tuple[Failsafe, ...] = ()
    denied: Literal["drop", "reject"] = "drop"
    enforce: bool = True
    established: Literal["aws", "strict"] = "aws"
    log_accept: bool = False
    log_drop: bool = False


def configured_host(config: FollowerConfig, instance_id: str, region: str | None) -> Host:
    """Describe the host of a configuration; `region` is None where nobody knows it."""
    return Host(
        instance_id=instance_id,
        region=region,
        scope=scope_of(config),
        failsafe=tuple(
            Failsafe(parse_network(entry.cidr), _failsafe_service(entry))
            for entry in config.failsafe
        ),
        denied=config.denied,
        enforce=config.enforce,
        established=config.established,
        log_accept=config.log_accept,
        log_drop=config.log_drop,
    )


def filtered_networks(scope: Scope) -> tuple[Network, ...] | None:
    """Return the networks whose packets are judged; None if a scope does not ask for them."""
    return scope.filtered if isinstance(scope, VpcScope) else None


def scope_of(config: FollowerConfig) -> Scope:
    """Return which packets are judged by a configuration."""
    match config.traffic:
        case "vpc":
            return VpcScope(tuple(parse_network(cidr) for cidr in config.filtered_cidrs))
        case "ipsec":
            return IpsecScope()
        case "interface":
            return InterfaceScope(config.interfaces)


def _failsafe_service(entry: FailsafeConfig) -> Service:
    match entry.protocol:
        case "tcp" | "udp" as protocol:
            first, last = (0, LAST_PORT) if entry.port is None else (entry.port, entry.port)
            return Ports(protocol=protocol, first=first, last=last)
        case "icmp" | "icmpv6" as protocol:
            return Icmp(protocol=protocol, type=-1, code=-1)
        case "all":
            return Everything()
