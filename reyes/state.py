"""What a follower remembers from one run to the next."""

from typing import Literal

from msgspec import Struct

from reyes.trust import Accepted

KeptGeneration = Literal["previous", "trial", "held"]
"""Which generation is kept: that before the last commit that changed rules, that before rules on
trial, and that which stays in force, after a rollback or instead of blamed rules."""


class Hold(Struct, frozen=True, kw_only=True):
    """An operator's word to stay with the generation that a rollback brought back.

    It ends with a ruleset of a higher serial and another content (leaders publish the same content
    again and again, to keep it valid), or at `until` (0: never).
    """

    serial: int
    content_sha256: str
    until: int

    def ended(self, now: float) -> bool:
        """Tell whether its time is over; a ruleset may have ended it before."""
        return 0 < self.until <= now


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

    `content_sha256` and `etag` (the store's tag) are those of what was accepted.
    `applied` is the digest of the dataplane that was put in force, `unhealthy` that of one that
    cost the host its health. `implausible` are the serials that were refused as such. Times are
    in seconds since the epoch.
    """

    accepted: Accepted | None = None
    content_sha256: str = ""
    etag: str | None = None
    not_after: int = 0
    implausible: tuple[int, ...] = ()
    applied: str | None = None
    unhealthy: str | None = None
    hold: Hold | None = None
    identity: Identity | None = None
    members_checked_at: int = 0
