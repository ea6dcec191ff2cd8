"""The published document: its fields, its one canonical text, and the way back.

Rules it keeps (docs/ruleset-format.md is the specification for readers):

* A document has exactly one text. `decode` encodes what it understood and refuses any text that
  differs, so duplicate, unknown, reordered or omitted keys cannot carry a second meaning.
* Identifiers have AWS's form, because they end in chain names and rule comments.
* Leaders write collections sorted and without duplicates, so that the same world gives the same
  bytes. `decode` does not ask for that; it refuses what is described twice by one identifier.
* `content_sha256` covers `content` alone: it does not change when only time moves.

Whether the text is genuine, fresh and meant for us is not decided here but in `trust`.
Whether an address is one is found when it is used, in `members`: a host uses few of them.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from itertools import filterfalse
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import asdict

from reyes.net import Service

FORMAT_VERSION = 3
"""The gem published version 2; the two have nothing in common but the number's meaning."""

# \Z, because $ would also match before a final newline.
RegionName = Annotated[
    str, Meta(pattern=r"^[a-z0-9-]{1,32}\Z", description="a region's name such as us-west-2")
]
AccountId = Annotated[str, Meta(pattern=r"^[0-9]{12}\Z")]
_VPC_ID = r"^vpc-[0-9a-f]{8,17}\Z"
_GROUP_ID = r"^sg-[0-9a-f]{8,17}\Z"
_INTERFACE_ID = r"^eni-[0-9a-f]{8,17}\Z"
_INSTANCE_ID = r"^i-[0-9a-f]{8,17}\Z"
VpcId = Annotated[str, Meta(pattern=_VPC_ID, description="a VPC's id such as vpc-0a1b2c3d")]
GroupId = Annotated[str, Meta(pattern=_GROUP_ID)]
InstanceId = Annotated[
    str, Meta(pattern=_INSTANCE_ID, description="an instance's id such as i-0a1b2c3d")
]
PrefixListId = Annotated[str, Meta(pattern=r"^pl-[0-9a-f]{8,17}\Z")]
Moment = Annotated[int, Meta(ge=0, le=2**62)]

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises on text that is not what it should be."""


class DocumentError(ValueError):
    """The bytes are not a document of this format."""


class Vpc(Struct, frozen=True, kw_only=True):
    """A VPC with every CIDR that is associated with it, of both families."""

    id: VpcId
    account: AccountId
    cidrs: tuple[str, ...]


class GroupReference(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A rule's reference to another group of its region.

    `account` is the referenced group's owner where that is not the rule's own account, and
    `peering` the state of the peering connection where that is not `active`: such a reference
    is stale and matches nobody.
    """

    id: GroupId
    account: AccountId | None = None
    peering: str | None = None


class Ingress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One inbound permission: a service and everyone it is open to.

    `cidrs` are canonical networks of both families.
    """

    service: Service
    cidrs: tuple[str, ...] = ()
    prefix_lists: tuple[PrefixListId, ...] = ()
    groups: tuple[GroupReference, ...] = ()


class SecurityGroup(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A security group; `tag` is its value of the matching tag, if groups are matched by one."""

    id: GroupId
    name: str
    vpc: VpcId
    account: AccountId
    tag: str | None = None
    ingress: tuple[Ingress, ...] = ()


class Interface(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A network interface: its private addresses and delegated prefixes, and its groups.

    `instance` and `device` (its index there, 0 is the primary) are left out where AWS itself
    holds the interface, as for a load balancer. The form of its identifiers is checked for all
    interfaces together, by `decode`: they are most of a document, and that is quicker.
    """

    id: str
    vpc: str
    instance: str | None = None
    device: int | None = None
    addresses: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


class PrefixList(Struct, frozen=True, kw_only=True):
    """A managed prefix list with the entries of its current version."""

    id: PrefixListId
    cidrs: tuple[str, ...]


class Region(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was read of one region; identifiers are unique within it."""

    name: RegionName
    vpcs: tuple[Vpc, ...] = ()
    groups: tuple[SecurityGroup, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    prefix_lists: tuple[PrefixList, ...] = ()


class Content(Struct, frozen=True, kw_only=True):
    """What the world looks like, without a word on when it was looked at."""

    group_matching: str
    excluded_group_names: tuple[str, ...]
    regions: tuple[Region, ...]


class Counts(Struct, frozen=True, kw_only=True):
    """How large the world is: yardsticks for people and for the guard against shrinking.

    `members` counts the addresses and prefixes of every interface once for each of its groups.
    """

    sources: int
    vpcs: int
    groups: int
    rules: int
    interfaces: int
    instances: int
    members: int


class Header(Struct, frozen=True, kw_only=True):
    """When, where and by whom a document was made.

    `serial` is in milliseconds and rises with every publication; `generated_at` and `not_after`
    are in seconds since the epoch.
    """

    environment: str
    serial: Moment
    generated_at: Moment
    not_after: Moment
    generator: str
    counts: Counts


class Ruleset(Struct, frozen=True, kw_only=True):
    """A whole document, understood."""

    header: Header
    content_sha256: str
    content: Content


class _Document(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format_version: int
    environment: str
    serial: Moment
    generated_at: Moment
    not_after: Moment
    generator: str
    content_sha256: str
    counts: Counts
    content: msgspec.Raw


class _Version(Struct, frozen=True):
    format_version: int


def encode(header: Header, content: Content) -> bytes:
    """Write the document's canonical text: compact UTF-8 JSON, keys as the fields stand."""
    raw = msgspec.json.encode(content)
    return msgspec.json.encode(
        _Document(
            format_version=FORMAT_VERSION,
            content_sha256=hashlib.sha256(raw).hexdigest(),
            content=msgspec.Raw(raw),
            **asdict(header),
        )
    )


def decode(text: bytes) -> Ruleset:
    """Read a document's canonical text; DocumentError for any other bytes."""
    try:
        document = msgspec.json.decode(text, type=_Document)
        content = msgspec.json.decode(document.content, type=Content)
        _check_interfaces([i for region in content.regions for i in region.interfaces])
    except UNREADABLE as error:
        raise DocumentError(_other_version(text) or f"not a ruleset: {error}") from error
    if document.format_version != FORMAT_VERSION:
        raise DocumentError(_other_version(text))
    header = Header(**{name: getattr(document, name) for name in Header.__struct_fields__})
    _check_unique(content)
    if encode(header, content) != text:
        raise DocumentError(
            "not a ruleset: the text is not the canonical form of what it says"
            " (duplicate or unknown keys, blanks, another order, or a wrong content_sha256)"
        )
    return Ruleset(header=header, content_sha256=document.content_sha256, content=content)


def _other_version(text: bytes) -> str:
    """Say that a text is of another version, nothing if it is not or cannot be told."""
    try:
        version = msgspec.json.decode(text, type=_Version).format_version
    except UNREADABLE:
        return ""
    if version == FORMAT_VERSION:
        return ""
    return f"format_version is {version}, and this Reyes reads {FORMAT_VERSION}"


def count(content: Content, sources: int) -> Counts:
    """Count what a content holds; `sources` is the number of sources it was read from."""
    regions = content.regions
    return Counts(
        sources=sources,
        vpcs=sum(len(region.vpcs) for region in regions),
        groups=sum(len(region.groups) for region in regions),
        rules=sum(len(group.ingress) for region in regions for group in region.groups),
        interfaces=sum(len(region.interfaces) for region in regions),
        instances=sum(len({i.instance for i in r.interfaces if i.instance}) for r in regions),
        members=sum(
            len(interface.groups) * len(interface.addresses)
            for region in regions
            for interface in region.interfaces
        ),
    )


def _check_interfaces(interfaces: Sequence[Interface]) -> None:
    for pattern, found in (
        (_INTERFACE_ID, [interface.id for interface in interfaces]),
        (_INSTANCE_ID, [each.instance for each in interfaces if each.instance is not None]),
        (_VPC_ID, {interface.vpc for interface in interfaces}),
        (_GROUP_ID, set().union(*(interface.groups for interface in interfaces))),
    ):
        for identifier in filterfalse(re.compile(pattern).match, found):
            raise msgspec.ValidationError(f"an interface has {identifier[:40]!r}, not {pattern}")


def _check_unique(content: Content) -> None:
    _unique("region", (region.name for region in content.regions))
    for region in content.regions:
        _unique("vpc", (vpc.id for vpc in region.vpcs))
        _unique("group", (group.id for group in region.groups))
        _unique("interface", (interface.id for interface in region.interfaces))
        _unique("prefix list", (prefix_list.id for prefix_list in region.prefix_lists))


def _unique(what: str, identifiers: Iterable[str]) -> None:
    seen: set[str] = set()
    for identifier in identifiers:
        if identifier in seen:
            raise DocumentError(f"not a ruleset: {what} {identifier} is there twice")
        seen.add(identifier)
