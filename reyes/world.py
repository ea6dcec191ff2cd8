"""What a follower's pass needs of the world, as protocols; the real things are adapters."""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from reyes.envelope import Envelope, SignatureReport
from reyes.netfilter.compiler import Dataplane
from reyes.netfilter.live import Generation, LiveKernel
from reyes.netfilter.plan import CommitPlan, FilterTable
from reyes.netfilter.settled import Settled
from reyes.state import KeptGeneration, State


class RulesetSource(Protocol):
    """Where signed rulesets come from."""

    def fetch(self, etag: str | None = None) -> Envelope | None:
        """Return the object, or None if it still is the one of this tag."""


class Verifier(Protocol):
    """What tells facts about signatures."""

    def inspect(self, envelope: Envelope) -> SignatureReport:
        """Return what gpg says of an envelope."""


class Memory(Protocol):
    """What outlives a run."""

    def load(self) -> State:
        """Return what is remembered."""

    def save(self, state: State) -> None:
        """Remember a state."""

    def last_good(self) -> bytes | None:
        """Return the signed object that was accepted last."""

    def keep(self, blob: bytes) -> None:
        """Keep a signed object as the last good one."""

    def settled(self) -> Settled | None:
        """Return what the kernel showed after the last good pass."""

    def keep_settled(self, settled: Settled) -> None:
        """Keep what the kernel shows after a good pass."""

    def generation(self, which: KeptGeneration) -> Generation | None:
        """Return a generation, if it is kept."""

    def keep_generation(self, which: KeptGeneration, generation: Generation) -> None:
        """Keep a generation."""

    def end_trial(self, *, proved: bool) -> None:
        """Forget that rules are on trial; those before `proved` ones are the generation before."""


class Kernel(Protocol):
    """The packet filter of this host."""

    def read(self, *, strict: bool = True) -> LiveKernel:
        """Return what is in force; a way out does not ask whether other tables are in order."""

    def read_members(self, names: Collection[str] | None = None) -> Mapping[str, tuple[str, ...]]:
        """Return the members of our sets, or of those of them that are named."""

    def execute(self, plan: CommitPlan) -> None:
        """Execute a plan, or undo what was done of it."""

    def revert(self, before: LiveKernel, filter_table: FilterTable) -> None:
        """Bring earlier rules back."""


class Guard(Protocol):
    """What keeps a commit from locking anybody out."""

    def rehearse(self, dataplane: Dataplane, live: LiveKernel) -> None:
        """Load what is new to the live kernel where nobody is hurt; KernelError if refused."""

    def armed(self, go_back: Callable[[], None]) -> AbstractContextManager[None]:
        """Take the way back from another process unless the block ends well."""

    def trouble(self) -> str | None:
        """Say what this host does not reach any more; None as soon as it reaches all."""

    def is_well(self) -> bool:
        """Tell whether the host reaches, at this moment, what it reached before."""
