"""What a leader needs besides a store: a configuration, an EC2 of any size, a signer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from reyes.config import Config, LeaderConfig, S3Config, SigningConfig, SourceConfig
from reyes.envelope import Envelope, SignatureReport
from reyes.inventory import Inventory, View, view
from reyes.leader import Reader

KEY = "0123456789ABCDEF0123456789ABCDEF01234567"
FOREIGN_KEY = "F" * 40


@dataclass
class PaperSigner:
    """Signs by writing the key in front."""

    key: str = KEY
    key_expires_at: int | None = None

    def sign(self, payload: bytes) -> Envelope:
        return Envelope(signed(payload, self.key))

    def inspect(self, envelope: Envelope) -> SignatureReport:
        key, _, payload = envelope.blob.partition(b"\n")
        is_signed = key in (KEY.encode(), FOREIGN_KEY.encode())
        return SignatureReport(
            payload=payload if is_signed else b"",
            valid=is_signed,
            returncode=0 if is_signed else 2,
            status="signature valid" if is_signed else "no signature",
            key_status=None,
            problems=0,
            signatures=int(is_signed),
            primary_fingerprint=key.decode() if is_signed else None,
            key_expires_at=self.key_expires_at,
        )


def signed(payload: bytes, key: str = KEY) -> bytes:
    return key.encode() + b"\n" + payload


def configuration(**leader: Any) -> Config:
    return Config(
        environment="production",
        s3=S3Config(bucket="acme-reyes", key="production/ruleset.gpg", region="us-west-2"),
        signing=SigningConfig(keyring_directory="/nowhere", signing_key=KEY),
        leader=LeaderConfig(sources=(SourceConfig(region="us-west-2"),), **leader),
    )


def fleet(
    instances: int, name: str = "web", cidrs: Sequence[str] = ("10.8.0.0/24",)
) -> list[Inventory]:
    """So many instances of one group, which is open to these networks."""
    group: Any = {
        "GroupId": "sg-0000000a",
        "GroupName": name,
        "VpcId": "vpc-0a1b2c3d",
        "OwnerId": "123456789012",
        "IpPermissions": [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": cidr} for cidr in cidrs]}],
    }
    interfaces: list[Any] = [
        {
            "NetworkInterfaceId": f"eni-{number:08x}",
            "VpcId": "vpc-0a1b2c3d",
            "PrivateIpAddress": f"10.1.0.{number}",
            "Groups": [{"GroupId": "sg-0000000a"}],
            "Attachment": {"InstanceId": f"i-{number:08x}", "DeviceIndex": 0},
        }
        for number in range(instances)
    ]
    return [Inventory(region="us-west-2", groups=[group], interfaces=interfaces)]


def reader_of(begin: Callable[[], Sequence[Inventory]]) -> Reader:
    """A reading that finds all at the moment when it begins."""

    @contextmanager
    def read() -> Iterator[Callable[[], list[View]]]:
        views = [view(inventory, "name", ()) for inventory in begin()]
        yield lambda: views

    return read
