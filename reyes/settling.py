"""Whether things are as Reyes left them, so that a pass has little or nothing to do."""

import hashlib
from collections.abc import Callable

from msgspec import Struct

import reyes
from reyes.config import Config
from reyes.envelope import Envelope
from reyes.host import Host
from reyes.netfilter.live import LiveKernel
from reyes.netfilter.plan import shows
from reyes.trust import VerifiedRuleset, refuse_expired
from reyes.world import Memory

MEMBERS_CHECK_SECONDS = 3600
"""How often the members of all sets are read back; names and counts are checked each time.

The signature of what is in force is verified then, too, also where there are no sets.
"""


class Settling(Struct, frozen=True, kw_only=True):
    """What the last good pass left, beside what a pass finds."""

    config: Config
    memory: Memory
    now: Callable[[], float]

    def is_settled(self, fetched: Envelope | None, host: Host, live: LiveKernel) -> bool:
        """Tell whether the ruleset, this host and the kernel are what the last good pass left.

        Raises:
            ExpiredError: the ruleset is the same, and has expired.
        """
        if fetched is not None or not self.is_as_left(host, live):
            return False
        refuse_expired(self.memory.load().not_after, int(self.now()))
        return True

    def is_as_left(self, host: Host, live: LiveKernel) -> bool:
        """Tell whether what was accepted last is in force here as the last good pass left it."""
        state, settled = self.memory.load(), self.memory.settled()
        return not (
            settled is None
            or state.applied is None  # a rollback came last
            or state.unhealthy is not None
            or self.members_due(live)
            or settled.key != self.key_of(state.content_sha256, host)
            or (settled.until is not None and settled.until <= int(self.now()))
            or not settled.shown_by(live, self.config.follower.filter_table)
        )

    def says_nothing_new(self, verified: VerifiedRuleset, host: Host) -> bool:
        """Tell whether a ruleset says just what the last good pass has put in force.

        Leaders publish the same content again and again, to keep it valid.
        """
        settled = self.memory.settled()
        return (
            settled is not None
            and settled.key == self.key_of(verified.ruleset.content_sha256, host)
            and settled.until == verified.key_expires_at
        )

    def accepted_is_applied(self) -> bool:
        """Tell whether the ruleset that was accepted last was also put in force last."""
        state, settled = self.memory.load(), self.memory.settled()
        return (
            settled is not None
            and settled.content_sha256 == state.content_sha256
            and state.applied is not None  # else a rollback came last
        )

    def configuration_changed(self, host: Host) -> bool:
        """Tell whether the configuration has changed since the last good pass."""
        settled = self.memory.settled()
        return settled is not None and settled.key != self.key_of(settled.content_sha256, host)

    def is_shown_by(self, live: LiveKernel) -> bool:
        """Tell whether a kernel shows what the last good pass left."""
        settled = self.memory.settled()
        return settled is not None and settled.shown_by(live, self.config.follower.filter_table)

    def members_due(self, live: LiveKernel) -> bool:
        """Tell whether it is time to read all members back."""
        state = self.memory.load()
        in_force = bool(live.sets) or state.applied is not None
        return in_force and abs(self.now() - state.members_checked_at) >= MEMBERS_CHECK_SECONDS

    def key_of(self, content_sha256: str, host: Host) -> str:
        """Stand for all that a dataplane is compiled from, and for who may have a say in it."""
        config = self.config
        believed = (config.environment, *sorted(config.signing.pins))
        filter_table = config.follower.filter_table
        origin = (reyes.__version__, content_sha256, host, filter_table, believed)
        return hashlib.sha256(repr(origin).encode()).hexdigest()


def is_intact(memory: Memory, live: LiveKernel) -> bool:
    """Tell whether our rules in a kernel are as Reyes left them, by a pass or by a rollback.

    Before the first ones they are, whatever is there, and where nobody remembers them a jump in
    its place has to do.
    """
    state = memory.load()
    if state.applied is None and not state.hold:
        return True
    held = memory.generation("held") if state.hold else None
    if held and shows(live, held):
        return True
    settled = memory.settled()
    if settled:
        return settled.rules_shown_by(live)
    return all(table.jump_in_place for table in live.tables)
