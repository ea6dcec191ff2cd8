"""The configuration file: one YAML mapping in, one value out, or every problem at once.

`examples/config.yaml` documents each option. Each problem names its key by path and says what was
expected. What depends on this machine (do the files exist, may we read them) is not checked here
but where the files are used, and by `reyes check-config`.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta, Struct

from reyes.errors import ConfigError
from reyes.net import PortNumber, parse_address, parse_network
from reyes.ruleset import InstanceId, RegionName, VpcId
from reyes.strict_yaml import convert, load

MAX_VALIDITY = 7 * 86_400
"""The longest `validity` in seconds that a leader writes and a follower believes."""

MAX_CONFIG_CHARACTERS = 256 * 1024
"""Thirty sources with two hundred VPCs each fit."""

_MAX_PROBLEMS = 20


Cidr = Annotated[
    str,
    Meta(
        description="a network such as 10.0.0.0/8, without host bits",
        extra={"check": parse_network},
    ),
]
AbsolutePath = Annotated[str, Meta(pattern=r"^/", description="an absolute path")]
Fingerprint = Annotated[
    str,
    Meta(
        pattern=r"^[0-9A-Fa-f]{40}\Z",
        description="the 40 hexadecimal digits of a primary key's fingerprint (put it in quotes)",
    ),
]
Seconds = Annotated[int, Meta(ge=1, le=3600)]
InterfaceName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_.@-]{1,14}[A-Za-z0-9_.@+-]?\Z",
        description="an interface name of at most 15 characters, such as wg0 or tun+",
    ),
]


def _check_probe(text: str) -> None:
    host, _, port = text.rpartition(":")
    if host.startswith("["):
        parse_address(host[1:-1])
    else:
        host.encode("idna")  # or getaddrinfo does, and ends in a traceback
    if int(port) not in range(1, 65536):
        raise ValueError(f"there is no port {port}")


Probe = Annotated[
    str,
    Meta(
        pattern=r"^(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}\Z",
        description="a TCP service such as 10.0.0.2:22 or [2001:db8::2]:22",
        extra={"check": _check_probe},
    ),
]


class S3Config(Struct, frozen=True, kw_only=True):
    """Where the signed ruleset lies."""

    bucket: Annotated[
        str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z", description="an S3 bucket name")
    ]
    key: Annotated[
        str, Meta(pattern=r"^[^\s/].{0,899}\Z", description="an object key without leading slash")
    ]
    region: RegionName


class SigningConfig(Struct, frozen=True, kw_only=True):
    """Whose signature counts, and where the keys are."""

    keyring_directory: AbsolutePath
    signing_key: Fingerprint
    trusted_keys: tuple[Fingerprint, ...] = ()

    @property
    def pins(self) -> frozenset[str]:
        """The primary fingerprints a follower accepts, in capitals."""
        return frozenset(key.upper() for key in self.trusted_keys or (self.signing_key,))


class SourceConfig(Struct, frozen=True, kw_only=True):
    """One region of one account that the leader reads."""

    region: RegionName
    vpcs: Annotated[tuple[VpcId, ...], Meta(min_length=1, max_length=200)] | None = None
    role_arn: (
        Annotated[
            str,
            Meta(
                pattern=r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/\S+\Z",
                description="a role's ARN such as arn:aws:iam::123456789012:role/reyes-leader",
            ),
        ]
        | None
    ) = None


class LeaderConfig(Struct, frozen=True, kw_only=True):
    """What the leader reads, and what it makes of it."""

    sources: Annotated[tuple[SourceConfig, ...], Meta(min_length=1)]
    excluded_group_names: tuple[str, ...] = ()
    group_matching: Annotated[
        str, Meta(pattern=r"^(name|id|tag:.{1,128})\Z", description="name, id or tag:KEY")
    ] = "name"
    validity: Annotated[int, Meta(ge=60, le=MAX_VALIDITY)] = 3600
    max_shrink: Annotated[float, Meta(ge=0, le=1)] = 0.3
    deadline: Seconds = 600
    metrics_file: AbsolutePath | None = None


class FailsafeConfig(Struct, frozen=True, kw_only=True):
    """Packets that are let through whatever the ruleset says."""

    cidr: Cidr
    protocol: Literal["tcp", "udp", "icmp", "icmpv6", "all"] = "all"
    port: PortNumber | None = None


class FollowerConfig(Struct, frozen=True, kw_only=True):
    """What this host judges, and how."""

    traffic: Literal["vpc", "ipsec", "interface"] = "vpc"
    interfaces: tuple[InterfaceName, ...] = ()
    filtered_cidrs: tuple[Cidr, ...] = ("10.0.0.0/8",)
    filter_table: Literal["shared", "exclusive"] = "shared"
    denied: Literal["drop", "reject"] = "drop"
    enforce: bool = True
    established: Literal["aws", "strict"] = "aws"
    failsafe: tuple[FailsafeConfig, ...] = ()
    rehearsal: bool = True
    probes: tuple[Probe, ...] = ()
    confirm_timeout: Seconds = 20
    disable_file: AbsolutePath = "/etc/reyes/disabled"
    state_directory: AbsolutePath = "/var/lib/reyes"
    instance_id: InstanceId | None = None
    region: RegionName | None = None
    nf_conntrack_max: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    deadline: Seconds = 60
    metrics_file: AbsolutePath | None = None
    log_accept: bool = False
    log_drop: bool = False


_DEFAULTS = FollowerConfig()


class Config(Struct, frozen=True, kw_only=True):
    """The whole file; `leader` is None where the file has no such section."""

    environment: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9._:/-]{1,64}\Z",
            description="a name of at most 64 letters, digits and ._:/-",
        ),
    ]
    s3: S3Config
    signing: SigningConfig
    leader: LeaderConfig | None = None
    follower: FollowerConfig = _DEFAULTS

    @property
    def has_follower_section(self) -> bool:
        """Whether the file has a `follower` section: a leader's needs none."""
        return self.follower is not _DEFAULTS


def parse_config(text: str, name: str) -> Config:
    """Read a configuration; ConfigError lists the problems of the file called `name`."""
    if len(text) > MAX_CONFIG_CHARACTERS:
        raise ConfigError(f"{name} has more than {MAX_CONFIG_CHARACTERS} characters")
    try:
        raw = load(text)
    except ValueError as error:
        raise ConfigError(f"{name} is not YAML: {error}") from error
    config, problems = convert(Config, raw)
    if config is not None:
        problems += _contradictions(config)
    if problems:
        raise ConfigError(
            f"{name}: " + "; ".join(_shortened(problems)),
            "examples/config.yaml documents every option",
        )
    return config  # type: ignore[no-any-return]  # it is of the type that was asked for


def _shortened(problems: list[str]) -> list[str]:
    more = len(problems) - _MAX_PROBLEMS
    return [*problems[:_MAX_PROBLEMS], f"and {more} more"] if more > 0 else problems


def _contradictions(config: Config) -> Iterator[str]:
    """Find values that are each possible but not together."""
    sources = config.leader.sources if config.leader else ()
    seen: set[tuple[str, str | None]] = set()
    for index, source in enumerate(sources):
        if (source.region, source.role_arn) in seen:
            yield f"leader.sources[{index}]: region {source.region} is there twice"
        seen.add((source.region, source.role_arn))
    follower = config.follower
    if follower.traffic == "interface" and not follower.interfaces:
        yield "follower.interfaces: expected at least one name with traffic: interface"
    if follower.traffic != "interface" and follower.interfaces:
        yield f"follower.interfaces: has no meaning with traffic: {follower.traffic}"
    if follower.traffic == "vpc" and not follower.filtered_cidrs:
        yield "follower.filtered_cidrs: expected at least one network with traffic: vpc"
    for index, entry in enumerate(follower.failsafe):
        if entry.port is not None and entry.protocol not in ("tcp", "udp"):
            yield f"follower.failsafe[{index}].port: has no meaning for protocol {entry.protocol}"
        version = parse_network(entry.cidr).version
        if (entry.protocol, version) in (("icmp", 6), ("icmpv6", 4)):
            yield (
                f"follower.failsafe[{index}].protocol: {entry.protocol} does not exist in"
                f" {entry.cidr}"
            )
