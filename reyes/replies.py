"""What is read of EC2's replies, in boto3's form: these fields, and no others.

The adapter has all other fields cut away before they are parsed, most of what EC2 says: what is
not here is in no reply. A field is Required where EC2 always says it.
"""

from collections.abc import Sequence
from typing import Required, TypedDict


class CidrState(TypedDict):
    """How far the association of a CIDR has come."""

    State: str


class CidrAssociation(TypedDict, total=False):
    """An IPv4 CIDR of a VPC."""

    CidrBlock: str
    CidrBlockState: Required[CidrState]


class Ipv6CidrAssociation(TypedDict, total=False):
    """An IPv6 CIDR of a VPC."""

    Ipv6CidrBlock: str
    Ipv6CidrBlockState: Required[CidrState]


class Vpc(TypedDict, total=False):
    """A VPC with all its CIDRs."""

    VpcId: Required[str]
    OwnerId: Required[str]
    CidrBlockAssociationSet: Sequence[CidrAssociation]
    Ipv6CidrBlockAssociationSet: Sequence[Ipv6CidrAssociation]


class Tag(TypedDict):
    """A tag of a group."""

    Key: str
    Value: str


class IpRange(TypedDict, total=False):
    """An IPv4 network that a permission is open to."""

    CidrIp: str


class Ipv6Range(TypedDict, total=False):
    """An IPv6 network that a permission is open to."""

    CidrIpv6: str


class PrefixListId(TypedDict):
    """A prefix list that a permission is open to."""

    PrefixListId: str


class UserIdGroupPair(TypedDict, total=False):
    """A group that a permission is open to."""

    GroupId: str
    UserId: str
    PeeringStatus: str


class IpPermission(TypedDict, total=False):
    """What a group opens to whom; ports are types and codes for ICMP."""

    IpProtocol: Required[str]
    FromPort: int | None
    ToPort: int | None
    IpRanges: Sequence[IpRange]
    Ipv6Ranges: Sequence[Ipv6Range]
    PrefixListIds: Sequence[PrefixListId]
    UserIdGroupPairs: Sequence[UserIdGroupPair]


class SecurityGroup(TypedDict, total=False):
    """A group with its inbound rules; those of EC2-Classic have no VPC."""

    GroupId: Required[str]
    GroupName: Required[str]
    OwnerId: Required[str]
    VpcId: str
    Tags: Sequence[Tag]
    IpPermissions: Sequence[IpPermission]


class InterfaceAttachment(TypedDict, total=False):
    """What an interface is attached to; where AWS holds it there is no instance."""

    InstanceId: str
    DeviceIndex: int


class PrivateAddress(TypedDict, total=False):
    """A primary or secondary address of an interface."""

    PrivateIpAddress: str


class Ipv6Address(TypedDict, total=False):
    """An IPv6 address of an interface."""

    Ipv6Address: str


class Ipv4Prefix(TypedDict, total=False):
    """A network that is delegated to an interface."""

    Ipv4Prefix: str


class Ipv6Prefix(TypedDict, total=False):
    """An IPv6 network that is delegated to an interface."""

    Ipv6Prefix: str


class GroupIdentifier(TypedDict):
    """A group that an interface carries."""

    GroupId: str


class NetworkInterface(TypedDict, total=False):
    """An interface: whose it is, its addresses and its groups."""

    NetworkInterfaceId: Required[str]
    VpcId: Required[str]
    Attachment: InterfaceAttachment
    PrivateIpAddress: str
    PrivateIpAddresses: Sequence[PrivateAddress]
    Ipv6Addresses: Sequence[Ipv6Address]
    Ipv4Prefixes: Sequence[Ipv4Prefix]
    Ipv6Prefixes: Sequence[Ipv6Prefix]
    Groups: Sequence[GroupIdentifier]


class InstanceState(TypedDict):
    """Whether an instance runs."""

    Name: str


class Instance(TypedDict):
    """An instance, of which only its end counts."""

    InstanceId: str
    State: InstanceState


class Reservation(TypedDict, total=False):
    """Instances that were launched together."""

    Instances: Sequence[Instance]


class PrefixListEntry(TypedDict, total=False):
    """A network of a prefix list."""

    Cidr: str
