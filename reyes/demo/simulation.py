"""The simulated AWS: moto's server, and the world made in it by the ordinary API calls."""

import logging
from typing import TYPE_CHECKING

import boto3
from moto.server import ThreadedMotoServer

from reyes.demo.story import (
    GROUPS,
    INSTANCES,
    OPEN_GROUP,
    SITES,
    Permission,
    Site,
    Station,
    open_permissions,
)
from reyes.net import Everything, Icmp, Ports, Service

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import IpPermissionTypeDef

PORT = 5000
BUCKET, KEY = "reyes-demo", "demo/ruleset.gpg"
STORE_REGION = SITES[0].region

_IMAGE = "ami-12c6146b"
"""One of those that moto knows."""


class Simulation:
    """EC2 and S3 on an address of the calling thread's namespace.

    `names` translates identifiers of EC2 to the demo's names.
    """

    def __init__(self, address: str) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        ThreadedMotoServer(address, PORT, verbose=False).start()
        self.names: dict[str, str] = {}
        self.instances: dict[str, str] = {}
        self.vpcs: dict[Site, str] = {}
        self._interfaces: dict[str, str] = {}
        self._groups: dict[tuple[Site, str], str] = {}
        self._store = boto3.client("s3", STORE_REGION)
        self._store.create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": STORE_REGION}
        )
        for site in SITES:
            self._build(site)

    def leave_group(self, station: str, group: str) -> None:
        """Take an instance out of a group."""
        site = next(instance.site for instance in INSTANCES if instance.name == station)
        assert site is not None  # noqa: S101 - every instance has one
        ec2 = boto3.client("ec2", site.region)
        instance, interface = self.instances[station], self._interfaces[station]
        reply = ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])
        kept = [entry["GroupId"] for entry in reply["NetworkInterfaces"][0]["Groups"]]
        kept.remove(self._groups[site, group])
        # For EC2 these are the same; moto keeps two lists and shows their union.
        ec2.modify_instance_attribute(InstanceId=instance, Groups=kept)
        ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, Groups=kept)

    def published(self) -> bytes:
        """Return the object that the leader published last."""
        blob: bytes = self._store.get_object(Bucket=BUCKET, Key=KEY)["Body"].read()
        return blob

    def replace_published(self, blob: bytes) -> None:
        """Do what a thief of the bucket's keys can: put another object in its place."""
        self._store.put_object(Bucket=BUCKET, Key=KEY, Body=blob)

    def _build(self, site: Site) -> None:
        ec2 = boto3.client("ec2", site.region)
        vpc = ec2.create_vpc(CidrBlock=site.cidr)["Vpc"]["VpcId"]
        self.vpcs[site] = vpc
        self.names[vpc] = site.name
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=site.cidr)["Subnet"]["SubnetId"]
        all_groups = {**GROUPS, OPEN_GROUP: open_permissions(site)}
        for group in all_groups:
            made = ec2.create_security_group(GroupName=group, Description=group, VpcId=vpc)
            self._groups[site, group] = made["GroupId"]
            self.names[made["GroupId"]] = group
        for group, permissions in all_groups.items():
            ec2.authorize_security_group_ingress(
                GroupId=self._groups[site, group],
                IpPermissions=[self._permission(site, permission) for permission in permissions],
            )
        for station in INSTANCES:
            if station.site == site and station.group is not None:
                groups = [self._groups[site, station.group], self._groups[site, OPEN_GROUP]]
                self._run(ec2, station, subnet, groups)

    def _run(self, ec2: "EC2Client", station: Station, subnet: str, groups: list[str]) -> None:
        instance = ec2.run_instances(
            ImageId=_IMAGE,
            MinCount=1,
            MaxCount=1,
            SubnetId=subnet,
            PrivateIpAddress=station.address,
            SecurityGroupIds=groups,
        )["Instances"][0]
        interface = instance["NetworkInterfaces"][0]["NetworkInterfaceId"]
        self.instances[station.name] = instance["InstanceId"]
        self._interfaces[station.name] = interface
        self.names[interface] = station.name

    def _permission(self, site: Site, permission: Permission) -> "IpPermissionTypeDef":
        wanted = _service(permission.service)
        if permission.cidr is not None:
            wanted["IpRanges"] = [{"CidrIp": permission.cidr}]
        if permission.group is not None:
            wanted["UserIdGroupPairs"] = [{"GroupId": self._groups[site, permission.group]}]
        return wanted


def _service(service: Service) -> "IpPermissionTypeDef":
    match service:
        case Ports(protocol, first, last):
            return {"IpProtocol": protocol, "FromPort": first, "ToPort": last}
        case Icmp(protocol, kind, code):
            return {"IpProtocol": protocol, "FromPort": kind, "ToPort": code}
        case Everything():
            return {"IpProtocol": "-1"}
        case _:
            raise ValueError(f"the demo has no use for {service}")
