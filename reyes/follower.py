"""One follower pass, from an accepted ruleset to the kernel: resolve, compile, commit.

What it keeps to:

* What `acceptance` returns is remembered already: a crash applies the same ruleset again.
* Nothing is tried live that was refused in the rehearsal.
* A ruleset that says nothing new is admitted all the same, and the kernel is looked at whatever
  the ruleset says: others may have changed it.

The world is reached through the protocols of `reyes.world`; `reyes.cli.wiring` wires them.
"""

import hashlib
import logging
from collections.abc import Callable
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from reyes.acceptance import Acceptance
from reyes.config import Config
from reyes.cutover import BlamedError
from reyes.errors import ConfigError, ReyesError
from reyes.host import Host
from reyes.netfilter.compiler import Dataplane, compile_policy
from reyes.netfilter.ipset import IPSet
from reyes.netfilter.iptables import Log
from reyes.netfilter.live import Generation, LiveKernel
from reyes.netfilter.plan import (
    CommitPlan,
    DestroySets,
    FilterTable,
    drifted_sets,
    plan_commit,
    shows,
)
from reyes.netfilter.settled import settle
from reyes.policy import resolve
from reyes.prepared import Prepared
from reyes.rollback import OTHERS_STAY_AWAY, Return, bring_back, is_held, stay
from reyes.settling import Settling
from reyes.state import State
from reyes.trial import Trial
from reyes.trust import VerifiedRuleset
from reyes.world import Guard, Kernel, Memory, RulesetSource, Verifier

Outcome = Literal["unchanged", "applied", "repaired", "held", "held anew"]
"""What became of a pass that did not fail; `held anew`: what is held was repaired."""

log = logging.getLogger(__name__)


class Follower(Struct, frozen=True, kw_only=True):
    """A follower pass in steps, and its ports."""

    config: Config
    source: RulesetSource
    verifier: Verifier
    memory: Memory
    kernel: Kernel
    now: Callable[[], float]

    @property
    def acceptance(self) -> Acceptance:
        """How the ruleset is got."""
        return Acceptance(
            config=self.config,
            source=self.source,
            verifier=self.verifier,
            memory=self.memory,
            now=self.now,
        )

    @property
    def settling(self) -> Settling:
        """Whether there is anything to do."""
        return Settling(config=self.config, memory=self.memory, now=self.now)

    def prepare(
        self, verified: VerifiedRuleset, host: Host, live: LiveKernel, *, thorough: bool = False
    ) -> Prepared:
        """Compile the ruleset for this host and plan the way there from the live kernel.

        Members of sets are read if it is time for that, or if asked to be `thorough`.

        Raises:
            HostUnknownError: the ruleset does not know this host.
        """
        policy = resolve(verified, host)
        dataplane = compile_policy(policy)
        filter_table, state = self.config.follower.filter_table, self.memory.load()
        fingerprint = _fingerprint(dataplane, filter_table)
        previous = self.memory.generation("previous")
        # It stays the way back until this commit has proved healthy, and so do its sets.
        spared = previous.referenced_sets if previous else frozenset()
        stays = fingerprint == state.unhealthy or self._is_held(state, verified)
        strange = not stays and _names_strange_sets(dataplane, live, spared)
        thorough = thorough or strange or self.settling.members_due(live)
        drifted = drifted_sets(self.kernel.read_members()) if thorough else None
        plan = plan_commit(dataplane, live, filter_table, drifted or frozenset(), spared)
        return Prepared(
            verified=verified,
            policy=policy,
            dataplane=dataplane,
            live=live,
            plan=plan,
            drifted=drifted,
            fingerprint=fingerprint,
        )

    def prepare_repair(
        self, host: Host, live: LiveKernel, *, reconfigure: bool = False
    ) -> Prepared | None:
        """Prepare to repair what is in force from what was accepted last.

        For a pass that has nothing newer to go by, and for one that is about to replace rules that
        somebody has changed: they are its way back. With `reconfigure` a changed configuration
        comes in force as well.

        Returns None if nothing is to be repaired, or nothing is known of what is in force.

        Raises:
            SignatureError, ReplayError: what is kept is not what was accepted.
        """
        state, settling = self.memory.load(), self.settling
        is_right = (
            not state.hold
            and settling.is_shown_by(live)
            and not settling.members_due(live)
            and not (reconfigure and settling.configuration_changed(host))
        )
        nothing_known = state.applied is None and not state.hold
        # What was accepted last is in force on trial then: `return_from_trial` is the way back.
        before = self.memory.generation("trial")
        on_trial = before is not None and not shows(live, before)
        if is_right or nothing_known or on_trial or self.memory.last_good() is None:
            return None
        return self.prepare(self.acceptance.last_good(), host, live)

    def commit(
        self,
        prepared: Prepared,
        guard: Guard | None,
        *,
        force: bool = False,
        confirm: bool = False,
    ) -> Outcome:
        """Put a prepared dataplane in force, and say what that was.

        Without a guard no new rules are: what is in force is repaired, and what is held. A repair
        is on trial only if a person is to `confirm` it.

        Raises:
            KernelError: the kernel refused, or the host did not prove healthy; the rules before
                are in force, unless the way back was refused as well.
        """
        state = self.memory.load()
        if not force and self._is_held(state, prepared.verified):
            return self._stay(prepared, state)
        # They may stand though they are blamed, where the way back was refused.
        if not force and state.unhealthy == prepared.fingerprint:
            raise BlamedError(repaired=self._stay(prepared, state) == "held anew")
        is_repair = state.applied == prepared.fingerprint
        # As Reyes left them, and others are wanted that mean the same: more or less is logged.
        changes_logging = (
            is_repair and prepared.plan.changes_rules and self.settling.is_shown_by(prepared.live)
        )
        if prepared.plan.changes_rules and (confirm or not is_repair):
            if guard is None:
                return self._stay_if_held(prepared, state)
            Trial(
                prepared=prepared,
                state=state,
                memory=self.memory,
                kernel=self.kernel,
                guard=guard,
                filter_table=self.config.follower.filter_table,
                now=self.now,
            ).run(confirm=confirm)
        else:
            # Rules that have proved healthy here are not on trial again: the way back would lead
            # to what somebody else has made of them.
            self.kernel.execute(prepared.plan)
        try:
            self._conclude(prepared)
        except ConfigError as error:
            # The rules are in force: a disk that is full now must not make that a failure.
            log.warning("the rules are in force, but not remembered: %s", error.message)
        if not prepared.plan.steps:
            return "unchanged"
        return "repaired" if is_repair and not changes_logging else "applied"

    def return_from_trial(self, host: Host) -> Outcome | None:
        """Bring the rules before back if those of the last commit have not proved healthy.

        The run that tried them has failed, or was killed together with its dead man's switch: the
        rules may still be in force, or the machine was restarted. Those that the rehearsal has
        refused never were, and what stands instead is repaired.

        Returns None if all have proved healthy.

        Raises:
            KernelError: the kernel refused.
        """
        before = self.memory.generation("trial")
        if before is None:
            return None
        live = self.kernel.read()
        if before.replaced and shows(live, before):
            return "held"
        back = self._bring_back(before, host, live)
        if before.replaced:
            log.warning("the rules before are back: those of the last run did not prove healthy")
        elif back.changed:
            log.warning("repaired what is in force, as the rehearsal has refused newer rules")
            return "repaired"
        return "held"

    def return_to_earlier(self, host: Host | None, live: LiveKernel) -> None:
        """Bring remembered rules in force on a host without any: the newest that were good.

        For a boot that cannot have the ruleset that was accepted last, or does not know its host:
        no rules let in whomever AWS does. Where nobody knows the members of a set any more it is
        empty.

        Raises:
            KernelError: the kernel refused.
        """
        state = self.memory.load()
        held = self.memory.generation("held") if state.hold or state.unhealthy else None
        earlier = self.memory.generation("trial") or held or self.memory.generation("previous")
        if live.judges:
            return
        if earlier is not None and earlier.kernel.judges:
            self._bring_back(earlier, host, live)
            log.warning("rules of an earlier time are in force: those accepted last cannot be")
        else:
            log.warning("no rules are in force: none of an earlier time are remembered")

    def _bring_back(self, rules: Generation, host: Host | None, live: LiveKernel) -> Return:
        known = self._known_sets(rules, host, live) if host else ()
        filter_table = self.config.follower.filter_table
        back = bring_back(rules, self.kernel, filter_table, frozenset(), known)
        _tell(back, "the set %s is empty: nobody remembers its members")
        return back

    def _known_sets(self, rules: Generation, host: Host, live: LiveKernel) -> tuple[IPSet, ...]:
        """Return the sets of the ruleset that was accepted last, if others are not enough."""
        if rules.referenced_sets <= rules.members.keys() | live.sets.keys():
            return ()
        try:
            return self.prepare(self.acceptance.last_good(), host, live).dataplane.sets
        except ReyesError as error:
            log.warning("what was accepted last tells no members of sets: %s", error.message)
            return ()

    def _stay_if_held(self, prepared: Prepared, state: State) -> Outcome:
        """Look after what is in force instead of other rules, as far as anybody remembers it."""
        instead = state.hold is not None or state.unhealthy is not None
        if not instead or self.memory.generation("held") is None:
            return "unchanged"
        return self._stay(prepared, state)

    def _is_held(self, state: State, verified: VerifiedRuleset) -> bool:
        return is_held(state.hold, verified.ruleset, self.now())

    def _stay(self, prepared: Prepared, state: State) -> Outcome:
        """Look after the rules that are held instead."""
        filter_table = self.config.follower.filter_table
        drifted, known = prepared.drifted or frozenset(), prepared.dataplane.sets
        back = stay(self.memory, self.kernel, filter_table, drifted, known)
        _tell(back, "the members of the set %s are wrong, and nobody remembers them")
        if back.changed:
            log.warning("repaired what is held")
        try:
            if prepared.drifted is not None:
                self.memory.save(replace(state, members_checked_at=int(self.now())))
        except ConfigError as error:
            log.warning("that members were read is not remembered: %s", error.message)
        return "held anew" if back.changed else "held"

    def _conclude(self, prepared: Prepared) -> None:
        """Remember what is in force now, and destroy what nothing needs any more."""
        state = self.memory.load()
        after = prepared.proved(state)
        # Where no member is to be read the ruleset was verified, which is all that the check asks.
        if prepared.drifted is not None or not prepared.dataplane.sets:
            after = replace(after, members_checked_at=int(self.now()))
        if after != state:
            self.memory.save(after)
        self.memory.end_trial(proved=False)
        self._tidy(prepared)
        content_sha256 = prepared.verified.ruleset.content_sha256
        key = self.settling.key_of(content_sha256, prepared.policy.host)
        until = prepared.verified.key_expires_at
        self.memory.keep_settled(settle(prepared.dataplane, key, content_sha256, until))

    def _tidy(self, prepared: Prepared) -> None:
        """Destroy the sets that neither these rules nor the way back need."""
        surplus = set(prepared.live.sets).difference(e.name for e in prepared.dataplane.sets)
        previous = self.memory.generation("previous") if surplus else None
        if previous:
            surplus -= previous.referenced_sets
        if surplus:
            self.kernel.execute(CommitPlan((DestroySets(tuple(sorted(surplus))),)))


def _tell(back: Return, unknown: str) -> None:
    """Log what did not come back; `unknown` is what to say of a set without members."""
    for name in back.unknown:
        log.warning(unknown, name)
    if back.refused:
        log.warning(OTHERS_STAY_AWAY, back.refused)


def _names_strange_sets(dataplane: Dataplane, live: LiveKernel, known: frozenset[str]) -> bool:
    """Tell whether sets are to be used that are there for no rule: who knows who filled them."""
    found = (live.sets.get(entry.name) for entry in dataplane.sets if entry.name not in known)
    return any(one is not None and one.references == 0 for one in found)


def _fingerprint(dataplane: Dataplane, filter_table: FilterTable) -> str:
    """Stand for what becomes of packets; how much of it is logged does not count."""
    digest = hashlib.sha256(filter_table.encode())
    for table in dataplane.tables:
        for chain in table.chains:
            for rule, identity in zip(chain.rules, table.identities[chain.name], strict=True):
                if not isinstance(rule.target, Log):
                    digest.update(identity.encode())
    return digest.hexdigest()
