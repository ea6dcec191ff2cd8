"""One follower pass: fetch, admit, resolve, compile, commit.

What it keeps to:

* Admit, then remember, then apply: a crash in between applies the same ruleset again.
* Nothing is written before the ruleset is admitted, and nothing is tried live that was refused.
* A ruleset that says nothing new is admitted all the same, and the kernel is looked at whatever
  the ruleset says: others may have changed it.

The world is reached through the protocols of `reyes.world`; `reyes.cli.passes` wires them.
"""

import hashlib
import logging
from collections.abc import Callable
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

import reyes
from reyes.config import Config
from reyes.cutover import UnhealthyError, changes_rules, cut_over
from reyes.envelope import Envelope
from reyes.errors import (
    ConfigError,
    ExpiredError,
    ImplausibleError,
    ReyesError,
    SignatureError,
    SourceError,
)
from reyes.host import Host
from reyes.netfilter.compiler import Dataplane, compile_policy
from reyes.netfilter.iptables import Log
from reyes.netfilter.live import LiveKernel
from reyes.netfilter.plan import (
    CommitPlan,
    DestroySets,
    FilterTable,
    drifted_sets,
    plan_commit,
)
from reyes.netfilter.settled import settle
from reyes.policy import HostPolicy, check_known, resolve
from reyes.rollback import is_held, is_intact, remembered, stay
from reyes.state import State
from reyes.trust import (
    Accepted,
    Expectation,
    Genuine,
    VerifiedRuleset,
    admit,
    authenticate,
    readmit,
    refuse_expired,
)
from reyes.world import Guard, Kernel, Memory, Source, Verifier

MEMBERS_CHECK_SECONDS = 3600
"""How often the members of all sets are read back; names and counts are checked each time."""

IMPLAUSIBLE_PATIENCE = 3
"""So many different rulesets that look implausible are a world that has changed."""

Outcome = Literal["unchanged", "applied", "repaired", "held"]
"""What became of a pass that did not fail."""

log = logging.getLogger(__name__)


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


class Follower(Struct, frozen=True, kw_only=True):
    """A follower pass in steps, and its ports."""

    config: Config
    source: Source
    verifier: Verifier
    memory: Memory
    kernel: Kernel
    now: Callable[[], float]

    def ask(self) -> Envelope | None:
        """Fetch the ruleset's object; None if it still is the one that is kept here.

        Raises:
            SourceError: the source does not answer.
            ExpiredError: nor is what is kept valid any more.
        """
        state = self.memory.load()
        return self._fetch(state, state.etag if self.memory.last_good() else None)

    def is_settled(self, answer: Envelope | None, host: Host, live: LiveKernel) -> bool:
        """Tell whether the ruleset, this host and the kernel are what the last good pass left.

        Raises:
            ExpiredError: the ruleset is the same, and has expired.
        """
        if answer is not None or not self.is_as_left(host, live):
            return False
        refuse_expired(self.memory.load().not_after, int(self.now()))
        return True

    def is_as_left(self, host: Host, live: LiveKernel) -> bool:
        """Tell whether what was accepted last is in force here as the last good pass left it."""
        state, settled = self.memory.load(), self.memory.settled()
        return not (
            settled is None
            or state.applied is None
            or state.unhealthy is not None
            or state.hold
            or self._members_due(live)
            or settled.key != self._key(state.content_sha256, host)
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
            and settled.key == self._key(verified.ruleset.content_sha256, host)
            and settled.until == verified.key_expires_at
        )

    def obtain(
        self, answer: Envelope | None, host: Host, *, force: bool = False, remember: bool = True
    ) -> VerifiedRuleset:
        """Admit what `ask` has returned, and remember it as the highest that was accepted.

        One that does not know this host is not: the one before is what repairs go by, and the
        next boot.

        Raises:
            SourceError: what is kept is not good any more, and the source does not answer.
            ExpiredError, SignatureError, ReplayError, ImplausibleError: as in `trust`.
            HostUnknownError: the ruleset does not know this host.
        """
        state = self.memory.load()
        kept = self.memory.last_good()
        envelope, genuine = self._newest(answer, state, kept)
        header = genuine.ruleset.header
        implausible = tuple(sorted({*state.implausible, header.serial}))
        expectation = Expectation(
            environment=self.config.environment,
            now=int(self.now()),
            accepted=state.accepted,
            force=force or len(implausible) >= IMPLAUSIBLE_PATIENCE,
        )
        try:
            verified = admit(genuine, expectation)
        except ImplausibleError:
            if remember:
                self.memory.save(replace(state, implausible=implausible))
            raise
        check_known(verified.ruleset.content, host)
        after = replace(
            state,
            accepted=Accepted(serial=header.serial, digest=genuine.digest, counts=header.counts),
            content_sha256=genuine.ruleset.content_sha256,
            etag=envelope.etag,
            not_after=header.not_after,
            implausible=(),
        )
        if remember and envelope.blob != kept:
            self.memory.keep(envelope.blob)
        if remember and after != state:
            self.memory.save(after)
        return verified

    def last_good(self) -> VerifiedRuleset:
        """Return the ruleset that was accepted last, verified anew, even if it has expired.

        Raises:
            SourceError: none is kept.
            SignatureError, ReplayError: what is kept is not what was accepted.
        """
        blob = self.memory.last_good()
        if blob is None:
            raise SourceError(
                "no ruleset is kept", "the first run that reaches the store keeps its ruleset"
            )
        genuine = self._authenticate(Envelope(blob))
        return readmit(genuine, self.config.environment, self.memory.load().accepted)

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
        previous = self.memory.generation()
        # It stays the way back until this commit has proved healthy, and so do its sets.
        spared = previous.referenced_sets if previous else frozenset()
        stays = fingerprint == state.unhealthy or self._is_held(state, verified)
        strange = not stays and _names_strange_sets(dataplane, live, spared)
        thorough = thorough or strange or self._members_due(live)
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

    def keeps_what_is_in_force(self) -> bool:
        """Tell whether the ruleset that was accepted last was also put in force last."""
        settled = self.memory.settled()
        return settled is not None and (
            settled.content_sha256 == self.memory.load().content_sha256
        )

    def prepare_repair(
        self, host: Host, live: LiveKernel, *, configured: bool = False
    ) -> Prepared | None:
        """Prepare to repair what is in force from what was accepted last; None if it is right.

        For a pass that has nothing newer to go by, and for one that is about to replace rules that
        somebody has changed: they are its way back. With `configured` it is not right either if
        the configuration has changed since.

        Raises:
            SignatureError, ReplayError: what is kept is not what was accepted.
        """
        state, settled = self.memory.load(), self.memory.settled()
        is_right = (
            settled is not None
            and settled.shown_by(live, self.config.follower.filter_table)
            and not self._members_due(live)
            and not (configured and settled.key != self._key(state.content_sha256, host))
        )
        nothing_known = state.applied is None and not state.hold
        if (is_right and not state.hold) or nothing_known or self.memory.last_good() is None:
            return None
        return self.prepare(self.last_good(), host, live)

    def commit(
        self, prepared: Prepared, guard: Guard | None, *, force: bool = False, asked: bool = False
    ) -> Outcome:
        """Put a prepared dataplane in force, and say what that was.

        Without a guard no new rules are: what is in force is repaired, and what is held. A repair
        is on trial only if a person is `asked` what he thinks of it.

        Raises:
            KernelError: the kernel refused, or the host did not prove healthy; the rules before
                are in force.
        """
        state = self.memory.load()
        if not force and self._is_held(state, prepared.verified):
            self._stay(prepared, state)
            return "held"
        # They may stand though they are blamed, where the way back was refused.
        if not force and state.unhealthy == prepared.fingerprint:
            self._stay(prepared, state)
            raise UnhealthyError(
                "these rules cost the host its health before, or were not agreed to:"
                " they are not tried again",
                "--force tries them all the same",
            )
        is_repair = state.applied == prepared.fingerprint
        # Nobody has changed anything where other rules mean the same: more or less is logged.
        logs = is_repair and changes_rules(prepared.plan) and self._shows_settled(prepared.live)
        if changes_rules(prepared.plan) and (asked or not is_repair):
            if guard is None:
                return "unchanged"
            self._cut_over(prepared, guard, state, asked=asked)
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
        return "repaired" if is_repair and not logs else "applied"

    def _is_held(self, state: State, verified: VerifiedRuleset) -> bool:
        return is_held(state.hold, verified.ruleset, self.now())

    def _stay(self, prepared: Prepared, state: State) -> None:
        """Look after the rules that are held instead."""
        filter_table = self.config.follower.filter_table
        drifted, known = prepared.drifted or frozenset(), prepared.dataplane.sets
        for name in stay(self.memory, self.kernel, filter_table, drifted, known):
            log.warning("the members of the set %s are wrong, and nobody remembers them", name)
        if prepared.drifted is None:
            return
        try:
            self.memory.save(replace(state, members_checked_at=int(self.now())))
        except ConfigError as error:
            log.warning("that members were read is not remembered: %s", error.message)

    def _conclude(self, prepared: Prepared) -> None:
        """Remember what is in force now, and destroy what nothing needs any more."""
        state = self.memory.load()
        after = replace(state, applied=prepared.fingerprint, unhealthy=None, hold=None)
        if prepared.drifted is not None:
            after = replace(after, members_checked_at=int(self.now()))
        if after != state:
            self.memory.save(after)
        self._tidy(prepared)
        content_sha256 = prepared.verified.ruleset.content_sha256
        key = self._key(content_sha256, prepared.policy.host)
        until = prepared.verified.key_expires_at
        self.memory.keep_settled(settle(prepared.dataplane, key, content_sha256, until))

    def _cut_over(self, prepared: Prepared, guard: Guard, state: State, *, asked: bool) -> None:
        """Cut over; a commit that fails does not cost the way back of the one before."""
        previous = self.memory.generation()
        # What somebody else has made of our rules is nothing to go back to, and nothing to hold.
        is_new = state.applied != prepared.fingerprint
        intact = is_new and is_intact(self.memory, prepared.live)
        try:
            if intact and asked:
                self._blame(prepared, state)  # whatever cuts the question off is a no
            if intact:
                staying = {entry.name for entry in prepared.dataplane.sets}
                self.memory.keep_generation(remembered(prepared.live, self.kernel, staying))
            cut_over(
                prepared.dataplane,
                prepared.plan,
                prepared.live,
                self.config.follower.filter_table,
                kernel=self.kernel,
                guard=guard,
            )
        except BaseException as error:
            unhealthy = isinstance(error, UnhealthyError)
            if intact and unhealthy and not asked:
                self._blame(prepared, state)
            if intact and asked and isinstance(error, ReyesError) and not unhealthy:
                self.memory.save(state)  # it was not the answer
            self.memory.keep_generation(previous)
            if unhealthy and not intact:
                hint = "nothing better is there to stay with: the next run tries again"
                raise UnhealthyError(str(error), hint) from error
            raise

    def _blame(self, prepared: Prepared, state: State) -> None:
        """Hold the rules before: whatever becomes of the kernel, they stay until better ones."""
        # What a rollback brought back is held already, as it was before anybody changed it.
        if not (state.hold and self.memory.held_generation()):
            self.memory.hold_generation(remembered(prepared.live, self.kernel))
        self.memory.save(replace(state, unhealthy=prepared.fingerprint))

    def _tidy(self, prepared: Prepared) -> None:
        """Destroy the sets that neither these rules nor the way back need."""
        surplus = set(prepared.live.sets).difference(e.name for e in prepared.dataplane.sets)
        previous = self.memory.generation() if surplus else None
        if previous:
            surplus -= previous.referenced_sets
        if surplus:
            self.kernel.execute(CommitPlan((DestroySets(tuple(sorted(surplus))),)))

    def _newest(
        self, answer: Envelope | None, state: State, kept: bytes | None
    ) -> tuple[Envelope, Genuine]:
        if answer is None and kept is not None:
            known = self._known(Envelope(kept, state.etag), state)
            if known:
                return known
            log.warning("the last good ruleset is not good any more: fetching it anew")
            answer = self._fetch(state, None)
        if answer is None:
            raise SourceError("the store says `unchanged`, and was told of no version")
        return answer, self._authenticate(answer)

    def _known(self, envelope: Envelope, state: State) -> tuple[Envelope, Genuine] | None:
        """Return a kept object if it still is the one that was accepted."""
        try:
            genuine = self._authenticate(envelope)
        except SignatureError:
            return None
        return (envelope, genuine) if genuine.digest == state.digest else None

    def _fetch(self, state: State, etag: str | None) -> Envelope | None:
        try:
            return self.source.fetch(etag)
        except SourceError as error:
            if state.not_after and state.not_after < self.now():
                raise ExpiredError(
                    f"the last good ruleset has expired, and no other is to be had: {error}",
                    error.hint,
                ) from error
            raise

    def _authenticate(self, envelope: Envelope) -> Genuine:
        return authenticate(self.verifier.inspect(envelope), self.config.signing.pins)

    def _shows_settled(self, live: LiveKernel) -> bool:
        """Tell whether a kernel shows what the last good pass left."""
        settled = self.memory.settled()
        return settled is not None and settled.shown_by(live, self.config.follower.filter_table)

    def _members_due(self, live: LiveKernel) -> bool:
        """Tell whether it is time to read all members back."""
        since = abs(self.now() - self.memory.load().members_checked_at)
        return bool(live.sets) and since >= MEMBERS_CHECK_SECONDS

    def _key(self, content_sha256: str, host: Host) -> str:
        """Stand for all that a dataplane is compiled from, and for who may have a say in it."""
        config = self.config
        believed = (config.environment, *sorted(config.signing.pins))
        filter_table = config.follower.filter_table
        origin = (reyes.__version__, content_sha256, host, filter_table, believed)
        return hashlib.sha256(repr(origin).encode()).hexdigest()


def _names_strange_sets(dataplane: Dataplane, live: LiveKernel, known: frozenset[str]) -> bool:
    """Tell whether sets are to be used that are there for no rule: who knows who filled them."""
    found = (live.sets.get(entry.name) for entry in dataplane.sets if entry.name not in known)
    return any(one is not None and one.references == 0 for one in found)


def _fingerprint(dataplane: Dataplane, filter_table: FilterTable) -> str:
    """Stand for what becomes of packets; how much of it is logged does not count."""
    digest = hashlib.sha256(filter_table.encode())
    for entry in dataplane.sets:
        digest.update(entry.name.encode())
    for table in dataplane.tables:
        for chain in table.chains:
            for rule, identity in zip(chain.rules, table.identities[chain.name], strict=True):
                if not isinstance(rule.target, Log):
                    digest.update(identity.encode())
    return digest.hexdigest()
