"""New rules on trial: the way back is kept, they go live, and are proved good or blamed."""

import logging
from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from reyes.cutover import UnhealthyError, cut_over
from reyes.errors import ConfigError, ReyesError
from reyes.netfilter.live import Generation
from reyes.netfilter.plan import FilterTable
from reyes.prepared import Prepared
from reyes.rollback import is_held, snapshot
from reyes.settling import is_intact
from reyes.state import State
from reyes.world import Guard, Kernel, Memory

log = logging.getLogger(__name__)


class Trial(Struct, frozen=True, kw_only=True):
    """One commit of new rules; a trial that fails does not cost the way back of the one before.

    Until these rules have proved healthy those before are kept as the way back: the next run goes
    it (`Follower.return_from_trial`) if this one and its dead man's switch are both ended.
    `state` is what was remembered before.
    """

    prepared: Prepared
    state: State
    memory: Memory
    kernel: Kernel
    guard: Guard
    filter_table: FilterTable
    now: Callable[[], float]

    def run(self, *, confirm: bool) -> None:
        """Put the rules in force for good, or leave those before in force.

        Raises:
            KernelError: the kernel refused, or the host did not prove healthy.
        """
        prepared = self.prepared
        # What somebody else has made of our rules is nothing to go back to, and nothing to hold.
        is_new = self.state.applied != prepared.fingerprint
        has_way_back = is_new and is_intact(self.memory, prepared.live)
        try:
            if has_way_back and confirm:
                self._blame()  # whatever cuts the question off is a no
            self._rehearse(has_way_back=has_way_back)
            if has_way_back:
                self._keep_before()
            cut_over(
                prepared.plan,
                prepared.live,
                self.filter_table,
                kernel=self.kernel,
                guard=self.guard,
                approve=lambda: self._approve(on_trial=has_way_back),
            )
        except UnhealthyError as error:
            if not has_way_back:
                hint = "nothing better is there to stay with: the next run tries again"
                raise UnhealthyError(str(error), hint) from error
            self._try_to_blame(confirm=confirm)
            raise
        except ReyesError:
            with suppress(ConfigError):
                if self.memory.load() != self.state:
                    # A failure is no answer: nothing is to blame, or good.
                    self.memory.save(self.state)
            raise

    def _rehearse(self, *, has_way_back: bool) -> None:
        """Rehearse; what a refusal leaves in force is looked after by later passes and boots."""
        try:
            self.guard.rehearse(self.prepared.dataplane, self.prepared.live)
        except ReyesError:
            if has_way_back and self.prepared.live.judges:
                self._keep_in_force()
            raise

    def _keep_in_force(self) -> None:
        """Keep the rules that stay; those of a trial before are what a rollback goes back to."""
        try:
            trial = self.memory.generation("trial")
            was_replaced = trial is not None and trial.replaced
            kept = replace(self._snapshot(), replaced=was_replaced)
            self.memory.keep_generation("trial", kept)
        except ConfigError as error:
            log.warning("the rules in force are not remembered: %s", error.message)

    def _keep_before(self) -> None:
        """Keep the rules before, without members of sets that the new ones have as well."""
        staying = {entry.name for entry in self.prepared.dataplane.sets}
        before = snapshot(self.prepared.live, self.kernel, staying)
        self.memory.keep_generation("trial", before)

    def _approve(self, *, on_trial: bool) -> None:
        """Take a blame or a hold back that is on record: the next pass would go by it."""
        state, prepared = self.memory.load(), self.prepared
        held = is_held(state.hold, prepared.verified.ruleset, self.now())
        if held or state.unhealthy == prepared.fingerprint:
            self.memory.save(prepared.proved(state))
        if on_trial:
            self.memory.end_trial(proved=True)

    def _try_to_blame(self, *, confirm: bool) -> None:
        """Blame rules whose failure must be told whatever becomes of that; a no has done so."""
        try:
            if not confirm:
                self._blame()
            self.memory.end_trial(proved=False)  # what is held is what to go by
        except ConfigError as error:
            log.warning("that these rules are to blame is not remembered: %s", error.message)

    def _blame(self) -> None:
        """Hold the rules before: whatever becomes of the kernel, they stay until better ones."""
        # What a rollback brought back is held already, as it was before anybody changed it.
        if not (self.state.hold and self.memory.generation("held")):
            self.memory.keep_generation("held", self._snapshot())
        self.memory.save(replace(self.state, unhealthy=self.prepared.fingerprint))

    def _snapshot(self) -> Generation:
        """Return the rules before, without members where the kernel cannot be asked for them."""
        try:
            return snapshot(self.prepared.live, self.kernel)
        except ReyesError as error:
            log.warning("the members of the sets before are not remembered: %s", error.message)
            return Generation(self.prepared.live)
