"""botocore's model of EC2, cut down to what the leader reads.

botocore looks in a reply for each member that its model knows of, and keeps what it finds: most
of what EC2 says, and most of a leader's time and memory, is for fields that nobody reads.
"""

import logging
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints, is_typeddict

from botocore.session import Session
from msgspec import Struct

from reyes import replies

Shapes = dict[str, dict[str, Any]]


class Items(Struct, frozen=True):
    """The member of a call's reply that is read, and the fields that are read of each item."""

    member: str
    reply: Any


CALLS: Mapping[str, Items] = {
    "DescribeVpcs": Items("Vpcs", replies.Vpc),
    "DescribeSecurityGroups": Items("SecurityGroups", replies.SecurityGroup),
    "DescribeNetworkInterfaces": Items("NetworkInterfaces", replies.NetworkInterface),
    "DescribeInstances": Items("Reservations", replies.Reservation),
    "GetManagedPrefixListEntries": Items("Entries", replies.PrefixListEntry),
}
"""All calls to EC2: clients have no others."""

log = logging.getLogger(__name__)


def cut_model(session: Session) -> None:
    """Let all EC2 clients that a session will make look for the fields of `replies` alone.

    The loader loads a model once, so that every client is made of this one.
    """
    model = session.get_component("data_loader").load_service_model("ec2", "service-2")
    try:
        model.update(cut(model))
    except KeyError as missing:
        log.warning("botocore's model of EC2 has no %s: replies are parsed whole", missing)


def cut(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the operations and shapes that are left of a model; KeyError if it lacks one."""
    whole: Shapes = model["shapes"]
    operations = {call: model["operations"][call] for call in CALLS}
    parsed: Shapes = {}
    entire: Shapes = {}
    for call, items in CALLS.items():
        _keep_all(whole, operations[call]["input"]["shape"], entire)
        page = operations[call]["output"]["shape"]
        parsed[page] = whole[page]
        others = dict(whole[page]["members"])
        _keep_fields(whole, others.pop(items.member)["shape"], items.reply, parsed)
        for other in others.values():
            _keep_all(whole, other["shape"], entire)
    return {"operations": operations, "shapes": {**parsed, **entire}}


def _keep_all(whole: Shapes, name: str, kept: Shapes) -> None:
    """Keep a shape with all that it is made of."""
    if name in kept:
        return
    shape = kept[name] = whole[name]
    parts = [shape[part] for part in ("member", "key", "value") if part in shape]
    for part in (*parts, *shape.get("members", {}).values()):
        _keep_all(whole, part["shape"], kept)


def _keep_fields(whole: Shapes, name: str, reply: Any, kept: Shapes) -> None:
    """Keep of a shape those members that the type of a reply, or of a list of them, has."""
    shape = whole[name]
    if not is_typeddict(reply):
        kept[name] = shape
    elif shape["type"] == "list":
        kept[name] = shape
        _keep_fields(whole, shape["member"]["shape"], reply, kept)
    else:
        fields = get_type_hints(reply)
        members = {field: shape["members"][field] for field in fields}
        # Two types may read different fields of one shape.
        others = kept[name]["members"] if name in kept else {}
        kept[name] = {**shape, "members": {**others, **members}}
        for field, hint in fields.items():
            inner = (*get_args(hint), hint)[0]
            _keep_fields(whole, members[field]["shape"], inner, kept)
