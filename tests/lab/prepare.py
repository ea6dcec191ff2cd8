"""What the lab needs before its kernel runs: a key, two signed rulesets and the configurations.

Made outside, because starting Python and gpg costs thirty times more inside.
"""

import subprocess
import time
from pathlib import Path

from reyes.adapters.keyring import make_keyrings
from reyes.net import Ports
from reyes.ruleset import (
    Content,
    GroupReference,
    Header,
    Ingress,
    Interface,
    Region,
    SecurityGroup,
    Vpc,
    count,
    encode,
)
from tests.gnupg_home import gpg_in
from tests.lab.places import (
    FAR_NETWORKS,
    FILES,
    MEMBER,
    OPEN_PORT,
    STRANGER,
    TUNNEL,
    WEB,
    WEST,
    WEST_NETWORKS,
    Place,
)

_ACCOUNT = "123456789012"
_WEST_VPC, _FAR_VPC = "vpc-00000001", "vpc-00000002"
_APP, _CLIENT, _FAR_CLIENT, _FAR_OTHER = (f"sg-{number:08x}" for number in range(1, 5))
_WEST_INSTANCE, _WEB_INSTANCE, _MEMBER_INSTANCE, _STRANGER_INSTANCE = (
    f"i-{number:08x}" for number in range(1, 5)
)

_CONFIGURATION = """\
environment: lab
s3: {{bucket: unused, key: unused, region: us-west-2}}
signing: {{keyring_directory: {files}/keys/follower, signing_key: "{key}"}}
follower:
  instance_id: {instance}
  state_directory: {files}/state-{instance}
  {scope}
"""
_SCOPES = {
    "west-ipsec": (_WEST_INSTANCE, "traffic: ipsec"),
    "west-interface": (_WEST_INSTANCE, f"traffic: interface\n  interfaces: [{TUNNEL}]"),
    "web-vpc": (_WEB_INSTANCE, "filtered_cidrs: [10.0.0.0/8, '2001:db8::/32']"),
}


def prepare(directory: Path) -> None:
    """Write all files to a directory whose path is short, as gpg's sockets need it."""
    key = make_keyrings(directory / "keys", "lab", "0")
    leader = directory / "keys" / "leader"
    try:
        gpg = gpg_in(leader, key)
        now = int(time.time())
        for number, (name, ingress) in enumerate(_rulesets().items()):
            envelope = gpg.sign(_document(ingress, now, number))
            (directory / f"{name}.gpg").write_bytes(envelope.blob)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(leader), "--kill", "all"], check=True)
    for name, (instance, scope) in _SCOPES.items():
        text = _CONFIGURATION.format(files=FILES, key=key, instance=instance, scope=scope)
        (directory / f"{name}.yaml").write_text(text, encoding="utf-8")


def _rulesets() -> dict[str, tuple[Ingress, ...]]:
    """Return what the group `app` lets in, in the order of their serials."""
    port = Ports(protocol="tcp", first=OPEN_PORT, last=OPEN_PORT)
    return {
        "nothing": (),
        "client": (Ingress(service=port, groups=(GroupReference(id=_CLIENT),)),),
    }


def _document(ingress: tuple[Ingress, ...], now: int, number: int) -> bytes:
    west = Region(
        name="us-west-2",
        vpcs=(Vpc(id=_WEST_VPC, account=_ACCOUNT, cidrs=WEST_NETWORKS),),
        groups=(
            _group(_APP, "app", _WEST_VPC, ingress),
            _group(_CLIENT, "client", _WEST_VPC),
        ),
        interfaces=(
            _interface(WEST, _WEST_VPC, _WEST_INSTANCE, _APP),
            _interface(WEB, _WEST_VPC, _WEB_INSTANCE, _APP),
        ),
    )
    far = Region(
        name="eu-west-1",
        vpcs=(Vpc(id=_FAR_VPC, account=_ACCOUNT, cidrs=FAR_NETWORKS),),
        groups=(
            _group(_FAR_CLIENT, "client", _FAR_VPC),
            _group(_FAR_OTHER, "other", _FAR_VPC),
        ),
        interfaces=(
            _interface(MEMBER, _FAR_VPC, _MEMBER_INSTANCE, _FAR_CLIENT),
            _interface(STRANGER, _FAR_VPC, _STRANGER_INSTANCE, _FAR_OTHER),
        ),
    )
    content = Content(group_matching="name", excluded_group_names=(), regions=(far, west))
    header = Header(
        environment="lab",
        serial=now * 1000 + number,
        generated_at=now,
        not_after=now + 3600,
        generator="lab",
        counts=count(content, sources=2),
    )
    return encode(header, content)


def _group(identity: str, name: str, vpc: str, ingress: tuple[Ingress, ...] = ()) -> SecurityGroup:
    return SecurityGroup(id=identity, name=name, vpc=vpc, account=_ACCOUNT, ingress=ingress)


def _interface(place: Place, vpc: str, instance: str, group: str) -> Interface:
    return Interface(
        id=instance.replace("i-", "eni-"),
        vpc=vpc,
        instance=instance,
        device=0,
        addresses=place.addresses,
        groups=(group,),
    )
