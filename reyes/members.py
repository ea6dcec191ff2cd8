"""Which addresses a reference to a group stands for.

Left out are, in scope `vpc`, those whose packets are never judged: inside the host's own VPCs, and
outside the filtered networks. Of a VPC that is judged as a whole no address is looked at for that.
"""

from collections.abc import Iterable, Mapping, Sequence

from reyes.errors import SignatureError
from reyes.matching import GroupKey
from reyes.net import (
    Network,
    Span,
    canonical,
    check_networks,
    in_order,
    is_within,
    parse_network,
    span,
)
from reyes.ruleset import Content, Region, Vpc

_Takers = list[list[str]]
"""The lists that take a group's members: those of each reference that means the group."""


class JudgedSenders:
    """The addresses whose packets a host judges by its rules, as far as addresses decide that.

    Without networks that are `filtered` they do not, and it may judge all.
    """

    def __init__(self, own: Iterable[Network], filtered: Iterable[Network] | None) -> None:
        self._own = [span(canonical(network)) for network in own]
        self._filtered = None if filtered is None else [span(canonical(n)) for n in filtered]

    def judges(self, member: Span) -> bool:
        """Tell whether packets from a member can be judged at all."""
        if self._filtered is None:
            return True
        if any(is_within(member, own) for own in self._own):
            return False
        return any(is_within(member, f) or is_within(f, member) for f in self._filtered)

    def judges_all(self, vpc: Vpc) -> bool:
        """Tell whether packets from all of a VPC are judged; its members need no look then."""
        if self._filtered is None:
            return True
        check_addresses(vpc.cidrs)
        cidrs = [span(cidr) for cidr in vpc.cidrs]
        return bool(cidrs) and all(
            any(is_within(cidr, filtered) for filtered in self._filtered)
            and not any(is_within(cidr, own) or is_within(own, cidr) for own in self._own)
            for cidr in cidrs
        )


def members_of(
    content: Content, meant: Mapping[str, Iterable[GroupKey]], judged: JudgedSenders
) -> dict[str, tuple[str, ...]]:
    """Return the judged members of all the groups that each reference means, sorted as text.

    Raises:
        SignatureError: one of them is no address.
    """
    members: dict[str, list[str]] = {reference: [] for reference in meant}
    takers: dict[str, dict[str, _Takers]] = {region.name: {} for region in content.regions}
    for reference, groups in meant.items():
        for region_name, group in groups:
            takers[region_name].setdefault(group, []).append(members[reference])
    for region in content.regions:
        if takers[region.name]:
            _add_members(region, takers[region.name], judged)
    return {reference: _in_order(found) for reference, found in members.items()}


def _add_members(region: Region, takers: Mapping[str, _Takers], judged: JudgedSenders) -> None:
    """Add the judged addresses of a region's interfaces to what takes their groups' members."""
    judged_whole = {vpc.id for vpc in region.vpcs if judged.judges_all(vpc)}
    used: list[str] = []
    partly_judged: list[tuple[tuple[str, ...], _Takers]] = []
    for interface in region.interfaces:
        wanted_by = [taker for group in interface.groups for taker in takers.get(group, ())]
        if not wanted_by:
            continue
        used += interface.addresses
        if interface.vpc not in judged_whole:
            partly_judged.append((interface.addresses, wanted_by))
            continue
        for taker in wanted_by:
            taker.extend(interface.addresses)
    check_addresses(used)
    for addresses, wanted_by in partly_judged:
        for address in addresses:
            if judged.judges(span(address)):
                for taker in wanted_by:
                    taker.append(address)


def _in_order(addresses: list[str]) -> tuple[str, ...]:
    """Sort addresses as text; some may be there twice, where VPCs overlap or groups share one."""
    addresses.sort()
    return tuple(addresses if in_order(addresses) else dict.fromkeys(addresses))


def network_of(text: str) -> Network:
    """Read a network that the ruleset holds; SignatureError if it is none."""
    check_addresses((text,))
    return parse_network(text)


def check_addresses(texts: Sequence[str]) -> None:
    """Refuse the ruleset if one of these, whose own text goes into payloads, is no network.

    Raises:
        SignatureError: one is none, or is not written canonically.
    """
    try:
        check_networks(texts)
    except ValueError as error:
        raise SignatureError(f"the ruleset holds a bad address: {error}") from error
