"""Real packets between namespaces, and what became of them."""

import secrets
import socket
import struct
from enum import Enum

from reyes.demo.namespaces import Namespace
from reyes.net import Icmp, Ports, Service

_PATIENCE = 0.5
"""Seconds after which no answer is to be expected: here they take less than a thousandth."""


class Outcome(Enum):
    """What the sender saw, for UDP what the receiver saw."""

    REACHED = "reached"
    NO_ANSWER = "no answer"
    REFUSED = "refused"


def listen(namespace: Namespace, service: Service) -> socket.socket | None:
    """Open a service on all addresses of a host; None for ICMP, which the kernel answers."""
    if not isinstance(service, Ports):
        return None
    kind = socket.SOCK_STREAM if service.protocol == "tcp" else socket.SOCK_DGRAM
    listener = namespace.call(socket.socket, socket.AF_INET, kind)
    listener.bind(("0.0.0.0", service.first))  # noqa: S104 - all addresses of a private namespace
    if kind == socket.SOCK_STREAM:
        listener.listen()
    listener.settimeout(_PATIENCE)
    return listener


def send(
    namespace: Namespace, address: str, service: Service, listener: socket.socket | None
) -> Outcome:
    """Send one probe from a namespace to an address, where `listener` waits for it."""
    match service:
        case Ports(protocol="tcp", first=port):
            with namespace.call(socket.socket, socket.AF_INET, socket.SOCK_STREAM) as sender:
                return _connect(sender, (address, port), listener)
        case Ports(first=port) if listener is not None:
            with namespace.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as sender:
                return _send_datagram(sender, (address, port), listener)
        case Icmp():
            with namespace.call(
                socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP
            ) as sender:
                return _ping(sender, address)
        case _:
            raise ValueError(f"no way to probe {service}")


def _connect(
    sender: socket.socket, target: tuple[str, int], listener: socket.socket | None
) -> Outcome:
    sender.settimeout(_PATIENCE)
    try:
        sender.connect(target)
    except ConnectionRefusedError:
        return Outcome.REFUSED
    except OSError:
        return Outcome.NO_ANSWER
    if listener is not None:
        listener.accept()[0].close()
    return Outcome.REACHED


def _send_datagram(
    sender: socket.socket, target: tuple[str, int], listener: socket.socket
) -> Outcome:
    token = secrets.token_bytes(8)
    sender.sendto(token, target)
    try:
        while listener.recv(64) != token:
            continue
    except TimeoutError:
        return Outcome.NO_ANSWER
    return Outcome.REACHED


def _ping(sender: socket.socket, address: str) -> Outcome:
    """Send an ICMP echo request (RFC 792) and wait for its reply."""
    sender.settimeout(_PATIENCE)
    token = secrets.token_bytes(8)
    total = (8 << 8) + sum(struct.unpack("!4H", token))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    sender.sendto(struct.pack("!BBH", 8, 0, total ^ 0xFFFF) + token, (address, 0))
    try:
        while (reply := sender.recv(256)[20:])[:2] != b"\0\0" or not reply.endswith(token):
            continue
    except TimeoutError:
        return Outcome.NO_ANSWER
    return Outcome.REACHED
