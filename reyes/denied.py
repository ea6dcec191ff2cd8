"""Denied packets as the log tells of them: equal ones together, each with its explanation."""

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from reyes.explain import Explanation, explain
from reyes.host import IpsecScope
from reyes.netfilter.compiler import Dataplane
from reyes.netfilter.evaluate import Packet
from reyes.netfilter.log import LoggedPacket
from reyes.policy import HostPolicy
from reyes.ruleset import Content


class Denial(Struct, frozen=True, kw_only=True):
    """Equal packets of the log: how many, when the last one came, and what becomes of them now.

    `audit` says that they were let through all the same.
    """

    packet: Packet
    audit: bool
    count: int
    last: float | None


class Tally:
    """Counts equal packets."""

    def __init__(self) -> None:
        self._denials: dict[tuple[Packet, bool], Denial] = {}

    def add(self, logged: LoggedPacket) -> Denial:
        """Count a packet, and return what is known of those like it."""
        key = (logged.packet, logged.audit)
        # The newest stands last.
        before = self._denials.pop(key, None)
        denial = Denial(
            packet=logged.packet,
            audit=logged.audit,
            count=before.count + 1 if before else 1,
            last=logged.at,
        )
        self._denials[key] = denial
        return denial

    def newest_first(self) -> Iterator[Denial]:
        """Yield all, the one that was logged last first."""
        return reversed(self._denials.values())


def explain_denial(
    policy: HostPolicy, dataplane: Dataplane, content: Content, denial: Denial
) -> Explanation:
    """Say what becomes of such a packet under this policy, which may be younger than the log.

    What a rule omits is left out: it is the same for all packets.
    """
    # The log does not tell, but what was not in scope never came to be denied.
    from_ipsec = isinstance(policy.host.scope, IpsecScope)
    packet = replace(denial.packet, from_ipsec=from_ipsec)
    return replace(explain(policy, dataplane, content, packet), omitted=())
