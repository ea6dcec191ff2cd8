"""What a commit is to do, worked out before anything is changed."""

from msgspec import Struct
from msgspec.structs import replace

from reyes.netfilter.compiler import Dataplane
from reyes.netfilter.live import LiveKernel
from reyes.netfilter.plan import CommitPlan
from reyes.policy import HostPolicy
from reyes.state import State
from reyes.trust import VerifiedRuleset


class Prepared(Struct, frozen=True, kw_only=True):
    """All that is known before a commit.

    `drifted` names the sets whose members are wrong; None if none were read.
    """

    verified: VerifiedRuleset
    policy: HostPolicy
    dataplane: Dataplane
    live: LiveKernel
    plan: CommitPlan
    drifted: frozenset[str] | None
    fingerprint: str

    def proved(self, state: State) -> State:
        """Return what to remember once these rules have proved good."""
        return replace(state, applied=self.fingerprint, unhealthy=None, hold=None)
