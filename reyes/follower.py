"""One follower pass: fetch, admit, resolve, compile, commit.

What it keeps to:

* Admit, then remember, then apply: a crash in between applies the same ruleset again.
* Nothing is written before the ruleset is admitted, and nothing is tried live that was refused.
* An unchanged ruleset is admitted again all the same: it may have expired, and the kernel may
  have been changed by others.

The world is reached through the ports below; `reyes.cli.follower` wires them.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, Protocol

from msgspec import Struct
from msgspec.structs import replace

from reyes.config import Config
from reyes.cutover import Guard, UnhealthyError, changes_rules, cut_over
from reyes.envelope import Envelope, SignatureReport
from reyes.errors import ConfigError, ExpiredError, ImplausibleError, SignatureError, SourceError
from reyes.host import Host
from reyes.net import Family
from reyes.netfilter.compiler import Dataplane, compile_policy
from reyes.netfilter.ipset import create_text
from reyes.netfilter.iptables import render_chain
from reyes.netfilter.live import LiveKernel, LiveTable
from reyes.netfilter.plan import CommitPlan, FilterTable, payload, plan_commit, plan_removal
from reyes.policy import HostPolicy, resolve
from reyes.state import Hold, State
from reyes.trust import Accepted, Expectation, Genuine, VerifiedRuleset, admit, authenticate

MEMBERS_CHECK_SECONDS = 3600
"""How often the members of all sets are read back; names and counts are checked each time."""

IMPLAUSIBLE_PATIENCE = 3
"""So many different rulesets that look implausible are a world that has changed."""

Outcome = Literal["unchanged", "applied", "repaired", "held"]
"""What became of a pass that did not fail."""

log = logging.getLogger(__name__)


class Source(Protocol):
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

    def generation(self) -> LiveKernel | None:
        """Return the rules that were in force before the last commit that changed them."""

    def keep_generation(self, live: LiveKernel) -> None:
        """Keep the rules that are in force before a commit changes them."""

    def held_generation(self) -> LiveKernel | None:
        """Return the rules that a rollback brought back."""

    def hold_generation(self, live: LiveKernel) -> None:
        """Keep the rules that a rollback brought back."""


class KernelPort(Protocol):
    """The packet filter of this host."""

    def read(self) -> LiveKernel:
        """Return what is in force."""

    def read_members(self) -> Mapping[str, tuple[str, ...]]:
        """Return the members of our sets."""

    def execute(self, plan: CommitPlan) -> None:
        """Execute a plan, or undo what was done of it."""

    def revert(self, before: LiveKernel, filter_table: FilterTable) -> None:
        """Bring the rules of another time back."""


class Prepared(Struct, frozen=True, kw_only=True):
    """All that is known before a commit."""

    verified: VerifiedRuleset
    policy: HostPolicy
    dataplane: Dataplane
    live: LiveKernel
    plan: CommitPlan
    members: Mapping[str, tuple[str, ...]] | None
    fingerprint: str


class Follower(Struct, frozen=True, kw_only=True):
    """A follower pass in steps, and its ports."""

    config: Config
    source: Source
    verifier: Verifier
    memory: Memory
    kernel: KernelPort
    now: Callable[[], float]

    def obtain(self, *, force: bool = False, remember: bool = True) -> VerifiedRuleset:
        """Fetch and admit the ruleset; remember it as the highest that was accepted.

        Raises:
            SourceError: the source does not answer.
            ExpiredError, SignatureError, ReplayError, ImplausibleError: as in `trust`.
        """
        state = self.memory.load()
        kept = self.memory.last_good() if state.etag else None
        envelope, genuine = self._newest(state, kept)
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
        after = replace(
            state,
            accepted=Accepted(serial=header.serial, digest=genuine.digest, counts=header.counts),
            etag=envelope.etag,
            not_after=header.not_after,
            implausible=(),
        )
        if remember and envelope.blob != kept:
            self.memory.keep(envelope.blob)
        if remember and after != state:
            self.memory.save(after)
        return verified

    def prepare(self, verified: VerifiedRuleset, host: Host, live: LiveKernel) -> Prepared:
        """Compile the ruleset for this host and plan the way there from the live kernel.

        Raises:
            HostUnknownError: the ruleset does not know this host.
        """
        policy = resolve(verified, host)
        dataplane = compile_policy(policy)
        members = self._members_if_due(live)
        drifted = frozenset(
            entry.name
            for entry in dataplane.sets
            if members and members.get(entry.name, entry.members) != entry.members
        )
        plan = plan_commit(dataplane, live, self.config.follower.filter_table, drifted)
        return Prepared(
            verified=verified,
            policy=policy,
            dataplane=dataplane,
            live=live,
            plan=plan,
            members=members,
            fingerprint=_fingerprint(dataplane),
        )

    def commit(self, prepared: Prepared, guard: Guard, *, force: bool = False) -> Outcome:
        """Put a prepared dataplane in force, and say what that was.

        Raises:
            KernelError: the kernel refused, or the host did not prove healthy; the rules before
                are in force.
        """
        state = self.memory.load()
        if self._is_held(state, prepared):
            return "held"
        if not force and changes_rules(prepared.plan) and state.unhealthy == prepared.fingerprint:
            raise UnhealthyError(
                "these rules cost the host its health before: they are not tried again",
                "--force tries them all the same",
            )
        self._cut_over(prepared, guard, state)
        after = replace(state, applied=prepared.fingerprint, unhealthy=None, hold=None)
        if prepared.members is not None:
            after = replace(after, members_checked_at=int(self.now()))
        if after != state:
            self.memory.save(after)
        if not prepared.plan.steps:
            return "unchanged"
        return "repaired" if state.applied == prepared.fingerprint else "applied"

    def _cut_over(self, prepared: Prepared, guard: Guard, state: State) -> None:
        if changes_rules(prepared.plan) and state.applied != prepared.fingerprint:
            self.memory.keep_generation(prepared.live)
        try:
            cut_over(
                prepared.dataplane,
                prepared.plan,
                prepared.live,
                self.config.follower.filter_table,
                kernel=self.kernel,
                guard=guard,
            )
        except UnhealthyError:
            self.memory.save(replace(state, unhealthy=prepared.fingerprint))
            raise

    def _is_held(self, state: State, prepared: Prepared) -> bool:
        """Tell whether a rollback still holds; what it brought back is repaired if need be."""
        hold = state.hold
        if hold is None or prepared.verified.ruleset.header.serial > hold.serial:
            return False
        if hold.until and hold.until <= self.now():
            return False
        held = self.memory.held_generation()
        if held is not None:
            self.kernel.revert(held, self.config.follower.filter_table)
        return True

    def roll_back(self, until: int) -> None:
        """Bring the generation before back and stay there; `until` is a time, 0 for no end.

        Raises:
            ConfigError: no generation is remembered.
            KernelError: the kernel refused.
        """
        before = self.memory.generation()
        state = self.memory.load()
        if before is None or state.accepted is None:
            raise ConfigError(
                "there is no generation to go back to",
                "one is kept at each commit that changes rules",
            )
        now = self.kernel.read()
        self.kernel.revert(before, self.config.follower.filter_table)
        self.memory.hold_generation(before)
        self.memory.keep_generation(now)
        hold = Hold(serial=state.accepted.serial, until=until)
        self.memory.save(replace(state, hold=hold, applied=None))

    def remove(self) -> CommitPlan:
        """Take all of Reyes out of the kernel; return what was done."""
        plan = plan_removal(self.kernel.read())
        self.kernel.execute(plan)
        state = self.memory.load()
        if state.applied is not None:
            self.memory.save(replace(state, applied=None))
        return plan

    def _newest(self, state: State, kept: bytes | None) -> tuple[Envelope, Genuine]:
        envelope = self._fetch(state, state.etag if kept else None)
        if envelope is None and kept is not None:
            known = self._known(Envelope(kept, state.etag), state)
            if known:
                return known
            log.warning("the last good ruleset is damaged: fetching it anew")
            envelope = self._fetch(state, None)
        if envelope is None:
            raise SourceError("the store says `unchanged` where nothing is known to it")
        return envelope, self._authenticate(envelope)

    def _known(self, envelope: Envelope, state: State) -> tuple[Envelope, Genuine] | None:
        """Return a kept object if it still is the one that was accepted."""
        try:
            genuine = self._authenticate(envelope)
        except SignatureError:
            return None
        same = state.accepted is not None and genuine.digest == state.accepted.digest
        return (envelope, genuine) if same else None

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

    def _members_if_due(self, live: LiveKernel) -> Mapping[str, tuple[str, ...]] | None:
        if not live.sets:
            return None
        since = abs(self.now() - self.memory.load().members_checked_at)
        return self.kernel.read_members() if since >= MEMBERS_CHECK_SECONDS else None


def nothing_live(families: Iterable[Family]) -> LiveKernel:
    """Stand in for a kernel that may not be read: empty tables, no sets."""
    return LiveKernel(tuple(LiveTable(family) for family in families))


def payload_text(prepared: Prepared, filter_table: FilterTable) -> str:
    """Write everything that this host's kernel would be fed: all sets, and each family's rules."""
    by_family = {table.family: table for table in prepared.live.tables}
    parts = ["# ipset restore\n" + create_text(prepared.dataplane.sets)]
    parts += [
        f"# {'iptables' if table.family is Family.V4 else 'ip6tables'}-restore\n"
        + payload(table, by_family[table.family], filter_table)
        for table in prepared.dataplane.tables
        if table.family in by_family
    ]
    return "\n".join(parts)


def _fingerprint(dataplane: Dataplane) -> str:
    digest = hashlib.sha256()
    for entry in dataplane.sets:
        digest.update(entry.name.encode())
    for table in dataplane.tables:
        for chain in table.chains:
            for identity, _ in render_chain(chain, table.family):
                digest.update(identity.encode())
    return digest.hexdigest()
