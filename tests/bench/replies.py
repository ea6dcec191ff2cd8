"""A region of a world as EC2 says it: pages of the Query API's XML, ready to be sent.

Instances and interfaces carry the fields that EC2 always sends, needed or not: reading them is
what costs a leader most.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar
from xml.sax.saxutils import escape

from reyes.net import Ports
from reyes.ruleset import Ingress, Interface, Region, SecurityGroup, Vpc
from tests.bench.generator import ACCOUNT
from tests.fakes.ec2_server import ITEM_LISTS

PAGE_SIZE = 1000

Entry = TypeVar("Entry")
Pages = dict[str, list[bytes]]


def render_region(region: Region) -> Pages:
    """Return the pages of each call; the token of a page is its number."""
    instances = [interface for interface in region.interfaces if interface.instance]
    return {
        "DescribeVpcs": _pages("DescribeVpcs", region.vpcs, _vpc),
        "DescribeSecurityGroups": _pages("DescribeSecurityGroups", region.groups, _group),
        "DescribeNetworkInterfaces": _pages(
            "DescribeNetworkInterfaces", region.interfaces, _interface
        ),
        "DescribeInstances": _pages("DescribeInstances", instances, _reservation),
    }


def _pages(call: str, entries: Sequence[Entry], write: Callable[[Entry], str]) -> list[bytes]:
    starts = range(0, len(entries), PAGE_SIZE) or range(1)
    return [
        _page(call, "".join(map(write, entries[start : start + PAGE_SIZE])), number, len(starts))
        for number, start in enumerate(starts)
    ]


def _page(call: str, items: str, number: int, count: int) -> bytes:
    token = f"<nextToken>{number + 1}</nextToken>" if number + 1 < count else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<{call}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
        "<requestId>00000000-0000-0000-0000-000000000000</requestId>"
        f"<{ITEM_LISTS[call]}>{items}</{ITEM_LISTS[call]}>{token}</{call}Response>"
    ).encode()


def _vpc(vpc: Vpc) -> str:
    associated = "".join(
        f"<item><associationId>vpc-cidr-assoc-{vpc.id[4:]}</associationId>"
        f"<cidrBlock>{cidr}</cidrBlock>"
        "<cidrBlockState><state>associated</state></cidrBlockState></item>"
        for cidr in vpc.cidrs
    )
    return (
        f"<item><vpcId>{vpc.id}</vpcId><ownerId>{vpc.account}</ownerId><state>available</state>"
        f"<cidrBlock>{vpc.cidrs[0]}</cidrBlock>"
        f"<cidrBlockAssociationSet>{associated}</cidrBlockAssociationSet>"
        "<dhcpOptionsId>dopt-0a1b2c3d</dhcpOptionsId><instanceTenancy>default</instanceTenancy>"
        "<isDefault>false</isDefault></item>"
    )


def _group(group: SecurityGroup) -> str:
    rules = "".join(map(_permission, group.ingress))
    return (
        f"<item><ownerId>{group.account}</ownerId><groupId>{group.id}</groupId>"
        f"<groupName>{escape(group.name)}</groupName><groupDescription>bench</groupDescription>"
        f"<vpcId>{group.vpc}</vpcId><ipPermissions>{rules}</ipPermissions>"
        "<ipPermissionsEgress><item><ipProtocol>-1</ipProtocol><groups/>"
        "<ipRanges><item><cidrIp>0.0.0.0/0</cidrIp></item></ipRanges><ipv6Ranges/>"
        "<prefixListIds/></item></ipPermissionsEgress></item>"
    )


def _permission(rule: Ingress) -> str:
    if not isinstance(rule.service, Ports):
        raise TypeError(f"the generator makes no rule of {rule.service}")
    pairs = "".join(
        f"<item><userId>{ACCOUNT}</userId><groupId>{reference.id}</groupId></item>"
        for reference in rule.groups
    )
    ranges = "".join(f"<item><cidrIp>{cidr}</cidrIp></item>" for cidr in rule.cidrs)
    return (
        f"<item><ipProtocol>{rule.service.protocol}</ipProtocol>"
        f"<fromPort>{rule.service.first}</fromPort><toPort>{rule.service.last}</toPort>"
        f"<groups>{pairs}</groups><ipRanges>{ranges}</ipRanges><ipv6Ranges/><prefixListIds/></item>"
    )


def _groups(interface: Interface) -> str:
    return "".join(
        f"<item><groupId>{group}</groupId><groupName>{group[-4:]}-app</groupName></item>"
        for group in interface.groups
    )


def _addresses(interface: Interface) -> str:
    return "".join(
        f"<item><privateIpAddress>{address}</privateIpAddress>"
        f"<privateDnsName>ip-{address.replace('.', '-')}.ec2.internal</privateDnsName>"
        f"<primary>{'true' if number == 0 else 'false'}</primary></item>"
        for number, address in enumerate(interface.addresses)
    )


def _attachment(interface: Interface) -> str:
    return (
        f"<attachment><attachmentId>eni-attach-{interface.id[4:]}</attachmentId>"
        f"<instanceId>{interface.instance}</instanceId>"
        f"<instanceOwnerId>{ACCOUNT}</instanceOwnerId>"
        f"<deviceIndex>{interface.device}</deviceIndex><networkCardIndex>0</networkCardIndex>"
        "<status>attached</status><attachTime>2026-01-01T00:00:00.000Z</attachTime>"
        "<deleteOnTermination>true</deleteOnTermination></attachment>"
    )


def _interface(interface: Interface) -> str:
    return (
        f"<item><networkInterfaceId>{interface.id}</networkInterfaceId>"
        "<subnetId>subnet-0a1b2c3d4e5f60718</subnetId>"
        f"<vpcId>{interface.vpc}</vpcId><availabilityZone>us-east-1a</availabilityZone>"
        f"<description/><ownerId>{ACCOUNT}</ownerId><requesterManaged>false</requesterManaged>"
        "<status>in-use</status><macAddress>02:00:00:00:00:01</macAddress>"
        f"<privateIpAddress>{interface.addresses[0]}</privateIpAddress>"
        "<privateDnsName>ip-10-0-0-1.ec2.internal</privateDnsName>"
        f"<sourceDestCheck>true</sourceDestCheck><groupSet>{_groups(interface)}</groupSet>"
        f"{_attachment(interface)}<tagSet/>"
        f"<privateIpAddressesSet>{_addresses(interface)}</privateIpAddressesSet>"
        "<ipv6AddressesSet/><interfaceType>interface</interfaceType></item>"
    )


def _reservation(interface: Interface) -> str:
    return (
        f"<item><reservationId>r-{interface.id[4:]}</reservationId><ownerId>{ACCOUNT}</ownerId>"
        f"<groupSet/><instancesSet><item><instanceId>{interface.instance}</instanceId>"
        "<imageId>ami-0a1b2c3d4e5f60718</imageId>"
        "<instanceState><code>16</code><name>running</name></instanceState>"
        "<privateDnsName>ip-10-0-0-1.ec2.internal</privateDnsName><dnsName/><reason/>"
        "<keyName>fleet</keyName><amiLaunchIndex>0</amiLaunchIndex><productCodes/>"
        "<instanceType>m5.large</instanceType><launchTime>2026-01-01T00:00:00.000Z</launchTime>"
        "<placement><availabilityZone>us-east-1a</availabilityZone><groupName/>"
        "<tenancy>default</tenancy></placement><monitoring><state>disabled</state></monitoring>"
        f"<subnetId>subnet-0a1b2c3d4e5f60718</subnetId><vpcId>{interface.vpc}</vpcId>"
        f"<privateIpAddress>{interface.addresses[0]}</privateIpAddress>"
        f"<sourceDestCheck>true</sourceDestCheck><groupSet>{_groups(interface)}</groupSet>"
        "<architecture>x86_64</architecture><rootDeviceType>ebs</rootDeviceType>"
        "<rootDeviceName>/dev/xvda</rootDeviceName><blockDeviceMapping><item>"
        "<deviceName>/dev/xvda</deviceName><ebs><volumeId>vol-0a1b2c3d4e5f60718</volumeId>"
        "<status>attached</status><attachTime>2026-01-01T00:00:00.000Z</attachTime>"
        "<deleteOnTermination>true</deleteOnTermination></ebs></item></blockDeviceMapping>"
        "<virtualizationType>hvm</virtualizationType><clientToken/><tagSet>"
        "<item><key>Name</key><value>app</value></item>"
        "<item><key>team</key><value>platform</value></item></tagSet>"
        "<hypervisor>xen</hypervisor><networkInterfaceSet><item>"
        f"<networkInterfaceId>{interface.id}</networkInterfaceId>"
        f"<subnetId>subnet-0a1b2c3d4e5f60718</subnetId><vpcId>{interface.vpc}</vpcId>"
        f"<ownerId>{ACCOUNT}</ownerId><status>in-use</status>"
        f"<privateIpAddress>{interface.addresses[0]}</privateIpAddress>"
        f"<groupSet>{_groups(interface)}</groupSet>{_attachment(interface)}"
        f"<privateIpAddressesSet>{_addresses(interface)}</privateIpAddressesSet>"
        "<interfaceType>interface</interfaceType></item></networkInterfaceSet>"
        "<iamInstanceProfile><arn>arn:aws:iam::123456789012:instance-profile/app</arn>"
        "<id>AIPA0123456789ABCDEFG</id></iamInstanceProfile><ebsOptimized>false</ebsOptimized>"
        "<enaSupport>true</enaSupport><cpuOptions><coreCount>1</coreCount>"
        "<threadsPerCore>2</threadsPerCore></cpuOptions><capacityReservationSpecification>"
        "<capacityReservationPreference>open</capacityReservationPreference>"
        "</capacityReservationSpecification><hibernationOptions><configured>false</configured>"
        "</hibernationOptions><enclaveOptions><enabled>false</enabled></enclaveOptions>"
        "<metadataOptions><state>applied</state><httpTokens>required</httpTokens>"
        "<httpPutResponseHopLimit>1</httpPutResponseHopLimit><httpEndpoint>enabled</httpEndpoint>"
        "</metadataOptions></item></instancesSet></item>"
    )
