"""What a follower remembers from one run to the next."""

from msgspec import Struct

from reyes.trust import Accepted


class Hold(Struct, frozen=True, kw_only=True):
    """An operator's word to stay with the generation that a rollback brought back.

    It ends with a ruleset of a higher serial, or at `until` (0: never).
    """

    serial: int
    until: int


class Identity(Struct, frozen=True, kw_only=True):
    """Who this host is, for the time before the network is up; `machine` is the hardware's id.

    An image that was taken of a host carries its state to other machines: they must not believe
    to be that host.
    """

    instance_id: str
    region: str | None
    machine: str


class State(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a follower remembers: `accepted` is about trust, `applied` about the kernel.

    `applied` is the digest of the dataplane that was put in force, `etag` the store's tag of the
    object that was accepted, `implausible` the serials that were refused as such, `unhealthy` the
    digest of a dataplane that cost the host its health. Times are in seconds since the epoch.
    """

    accepted: Accepted | None = None
    etag: str | None = None
    not_after: int = 0
    implausible: tuple[int, ...] = ()
    applied: str | None = None
    unhealthy: str | None = None
    hold: Hold | None = None
    identity: Identity | None = None
    members_checked_at: int = 0
