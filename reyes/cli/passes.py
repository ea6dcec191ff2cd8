"""A follower's passes, with all their adapters."""

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import click
from msgspec.structs import replace

from reyes.adapters import clock
from reyes.adapters.commands import COMMAND_SECONDS
from reyes.adapters.deadline import deadline
from reyes.adapters.guard import CommitGuard
from reyes.adapters.state import StateDirectory
from reyes.adapters.threads import side_by_side
from reyes.cli.identity import known_host, machine_id, remembered_host
from reyes.cli.options import is_disabled
from reyes.cli.recording import Record, record_outcome, recording
from reyes.cli.sources import FileSource, StoreSource
from reyes.cli.tracking import tracking
from reyes.cli.wiring import Options, echo_changes, follower_of, with_logging
from reyes.cli.words import say
from reyes.config import Config, FollowerConfig
from reyes.cutover import BlamedError, UnhealthyError
from reyes.errors import ConfigError, ExpiredError, KernelError, ReyesError, UnreachableError
from reyes.follower import Outcome
from reyes.host import Host
from reyes.netfilter.changes import describe_changes
from reyes.netfilter.live import LiveKernel
from reyes.netfilter.plan import CommitPlan
from reyes.prepared import Prepared
from reyes.state import Identity
from reyes.status import accepted_ruleset
from reyes.text import moment_text

log = logging.getLogger(__name__)

_NOT_REPAIRED = "what is in force could not be looked after: %s"


class _ChangedSinceError(click.Abort):
    """What a person has agreed to is not what a commit would do any more."""


class FollowerPass:
    """One host's pass with all it needs, to be run once or again and again."""

    def __init__(self, config: Config, options: Options) -> None:
        self._config = config = with_logging(config, options)
        self._settings = config.follower
        self._options = options
        self._memory = StateDirectory(Path(config.follower.state_directory))
        self._store = StoreSource(config)
        source = FileSource(options.ruleset) if options.ruleset else self._store
        self._follower = follower_of(config, self._memory, source)
        self._host: Host | None = None

    def __call__(self) -> None:
        """Fetch, admit and compile the ruleset, and put it in force."""
        if self._skips_as_disabled():
            return
        started = time.monotonic()
        try:
            with deadline(self._settings.deadline):
                host = self._known_host()
        except ReyesError:
            with self._recorded():
                self._memory.load()  # nobody else sets a corrupt one aside
                raise
        seconds = max(1, self._settings.deadline - (time.monotonic() - started))
        _wait_for_turn(host.instance_id, self._options.splay)
        while True:
            agreed = self._agreed(host) if self._options.interactive else None
            try:
                with tracking(self._settings):
                    self._commit(host, seconds, agreed)
                break
            except _ChangedSinceError:
                say("the ruleset or the kernel has changed meanwhile", err=True)

    def _commit(self, host: Host, seconds: float, agreed: CommitPlan | None) -> None:
        """Prepare and commit within the lock.

        `seconds` are left to prepare, and `agreed` is what a person has said yes to.
        """
        started = time.monotonic()
        with self._recorded() as record:
            record.instance, record.region = host.instance_id, host.region
            try:
                with deadline(seconds):
                    unproved = self._return_from_trial(host)
                    record.repaired = unproved == "repaired"
                    prepared = self._prepare(record, host)
                    guard = self._guard() if prepared and prepared.plan.steps else None
            except ReyesError:
                self._repair_instead(record, host)
                raise
            if prepared is None:
                if unproved:
                    self._memory.end_trial(proved=False)  # they are not wanted any more
                record.outcome = "unchanged"
                serial = f" serial={record.ruleset.serial}" if record.ruleset else ""
                log.info("unchanged%s, in %.2f s", serial, time.monotonic() - started)
                return
            if agreed is not None and prepared.plan != agreed:
                raise _ChangedSinceError
            if is_disabled(self._settings):
                say(f"disabled by {self._settings.disable_file}: nothing is touched")
                record.outcome = "disabled"
                return
            changes = self._changes(prepared)
            outcome = self._follower.commit(
                prepared,
                guard,
                force=self._options.force,
                confirm=self._options.confirm is not None,
            )
            if record.repaired and outcome == "unchanged":
                outcome = "repaired"
            outcome = record.end(outcome)
            for line in changes if outcome in ("applied", "repaired") else ():
                log.debug("%s", line)
            if outcome == "held" and self._follower.settling.configuration_changed(host):
                log.warning(
                    "the configuration, or Reyes itself, is not that of the last good pass: what"
                    " that changes in the rules waits for the end of the hold"
                )
            self._remember(host)
        _log_outcome(prepared, outcome, time.monotonic() - started)

    def _changes(self, prepared: Prepared) -> tuple[str, ...]:
        """Say what a commit changes to who asks for details, as all members are read for that."""
        if not (prepared.plan.steps and log.isEnabledFor(logging.DEBUG)):
            return ()
        members = self._follower.kernel.read_members()
        table = self._settings.filter_table
        return describe_changes(prepared.dataplane, prepared.live, members, table)

    def _return_from_trial(self, host: Host) -> Outcome | None:
        """Bring the rules before back; who forces the newest ones needs no others first."""
        try:
            return self._follower.return_from_trial(host)
        except KernelError as error:
            if not self._options.force:
                raise
            log.warning("the rules before do not come back: %s", error.message)
            return "held"

    def _remember(self, host: Host) -> None:
        """Remember who this host is; its rules are in force all the same if that fails."""
        machine = machine_id()
        identity = Identity(instance_id=host.instance_id, region=host.region, machine=machine)
        try:
            self._memory.remember_identity(identity)
        except ConfigError as error:
            log.warning("who this host is is not remembered: %s", error.message)

    def _prepare(self, record: Record, host: Host) -> Prepared | None:
        """Prepare the commit; None if all is, and should be, as the last good pass left it."""
        follower = self._follower
        # While commands read the kernel, this process makes a client, the dearest thing it does.
        reading = side_by_side([follower.kernel.read])
        try:
            fetched = follower.acceptance.fetch()
            record.answered = True
        except ReyesError as error:
            record.answered = _is_answer(error)
            reading()  # a kernel that cannot be read is told first
            raise
        (live,) = reading()
        record.without_rules = not live.judges
        if not self._options.force and follower.settling.is_settled(fetched, host, live):
            return None
        as_left = not self._options.force and follower.settling.is_as_left(host, live)
        replaced = fetched is not None and fetched.blob != self._memory.last_good()
        if replaced and self._repair_first(record, host, live):
            live = follower.kernel.read()
        verified = follower.acceptance.accept(fetched, host, force=self._options.force)
        record.ruleset = accepted_ruleset(verified)
        if as_left and follower.settling.says_nothing_new(verified, host):
            return None
        return record.note(follower.prepare(verified, host, live, thorough=self._options.force))

    def _repair_first(self, record: Record, host: Host, live: LiveKernel) -> bool:
        """Repair what is in force, so that a commit leaves behind what Reyes has put there.

        Tell whether the kernel may have changed by that.
        """
        if not self._may_repair():
            return False
        try:
            prepared = self._follower.prepare_repair(host, live)
            if prepared is None:
                return False
            self._commit_repair(record, prepared, None)
        except ReyesError as error:
            log.warning(_NOT_REPAIRED, error.message)
        return True  # where no rule changed, sets that nothing needs may be gone

    def _repair_instead(self, record: Record, host: Host) -> None:
        """Repair what is in force where no newer ruleset comes.

        A changed configuration comes in force as well: nobody remembers the one before.
        """
        if not self._may_repair():
            return
        follower = self._follower
        try:
            reconfigure = self._options.confirm is None and follower.settling.accepted_is_applied()
            with deadline(self._settings.deadline):
                live = follower.kernel.read()
                record.without_rules = not live.judges
                prepared = follower.prepare_repair(host, live, reconfigure=reconfigure)
                if prepared is None:
                    return
                guard = self._guard(answered=record.answered) if reconfigure else None
            self._commit_repair(record, prepared, guard)
        except ReyesError as error:
            log.warning(_NOT_REPAIRED, error.message)

    def _may_repair(self) -> bool:
        """Who is shown all that a commit changes is shown what others have changed, too."""
        return not (self._options.interactive or is_disabled(self._settings))

    def _commit_repair(
        self, record: Record, prepared: Prepared, guard: CommitGuard | None
    ) -> None:
        """Commit a repair, and record what became of it beside the end of the pass."""
        prepared_at = time.monotonic()
        try:
            outcome = self._follower.commit(prepared, guard)
        except BlamedError as error:
            record.take(error)
            if guard is None:
                return  # only what stands instead was to be repaired
            record.failed_trial = error.message
            raise
        except ReyesError as error:
            if guard is not None:
                record.rolled_back = isinstance(error, UnhealthyError)
                record.failed_trial = error.message
            raise
        if outcome == "unchanged":
            return
        record.without_rules = False
        record.repaired = record.repaired or outcome in ("repaired", "held anew")
        if outcome == "repaired":
            log.warning("repaired what is in force, from the ruleset that was accepted last")
        if outcome == "applied":
            record.note(prepared, prepared_at)
            record.configured = record.in_force(int(clock.now()))
            log.warning("put the configuration in force, with the ruleset that was accepted last")

    def _agreed(self, host: Host) -> CommitPlan:
        """Return what a person agreed to; nobody is kept out while he thinks."""
        follower = replace(self._follower, memory=self._memory.as_read_only())
        try:
            with deadline(self._settings.deadline):
                verified = follower.acceptance.accept(
                    follower.acceptance.fetch(), host, force=self._options.force, remember=False
                )
                prepared = follower.prepare(
                    verified, host, follower.kernel.read(), thorough=self._options.force
                )
        except ReyesError:
            with self._recorded():
                raise
        if prepared.plan.steps:
            echo_changes(prepared, follower.kernel.read_members(), self._settings)
            click.confirm("Commit this?", abort=True, err=True)
        return prepared.plan

    def boot(self) -> None:
        """Put the ruleset in force that was accepted last, before the network is up."""
        if self._skips_as_disabled():
            return
        follower, started = self._follower, time.monotonic()
        with (
            tracking(self._settings),
            self._recorded() as record,
            self._earlier_rules_if_it_fails(record),
        ):
            verified = follower.acceptance.last_good()
            record.ruleset = accepted_ruleset(verified)
            host = remembered_host(self._config, self._memory.load().identity)
            record.instance, record.region = host.instance_id, host.region
            not_after = record.ruleset.not_after
            if not_after < clock.now():
                log.warning(
                    "the last good ruleset has expired (not_after %s)", moment_text(not_after)
                )
            on_trial = follower.return_from_trial(host)
            record.repaired = on_trial == "repaired"
            if on_trial and not self._options.force:
                # Nothing tells at boot whether a host is well: its first pass tries them.
                log.warning("held: what was accepted last has not proved healthy here")
                record.outcome = "held"
                return
            prepared = record.note(follower.prepare(verified, host, follower.kernel.read()))
            guard = None if self._waits_for_a_pass() else self._guard(answered=False)
            committed = follower.commit(prepared, guard, force=self._options.force)
            outcome = record.end(committed)
        _log_outcome(prepared, outcome, time.monotonic() - started)

    def _waits_for_a_pass(self) -> bool:
        """Tell whether a boot leaves it to the first pass to try other rules than blamed ones.

        Nobody can tell at boot whether a host is well, and those before them are as good as held.
        """
        blames = self._memory.load().unhealthy is not None and not self._options.force
        held = self._memory.generation("held") if blames else None
        return held is not None and held.kernel.judges

    @contextmanager
    def _earlier_rules_if_it_fails(self, record: Record) -> Iterator[None]:
        """Let a boot that fails leave no host without rules that remembers some."""
        try:
            yield
        except ReyesError:
            try:
                live = self._follower.kernel.read()
                record.without_rules = not live.judges
                self._follower.return_to_earlier(self._remembered_host(), live)
            except ReyesError as error:
                log.warning("no earlier rules come in force either: %s", error.message)
            raise

    def _remembered_host(self) -> Host | None:
        """Return who this host is; None if the state that tells it is lost."""
        identity = self._memory.load().identity
        if identity is None and self._settings.instance_id is None:
            return None
        return remembered_host(self._config, identity)

    def _skips_as_disabled(self) -> bool:
        """Tell whether Reyes is disabled here, and if so say and record that nothing is done."""
        if not is_disabled(self._settings):
            return False
        say(f"disabled by {self._settings.disable_file}: nothing is touched")
        record_outcome(self._settings, self._memory, "disabled")
        return True

    @contextmanager
    def _recorded(self) -> Iterator[Record]:
        """Hold the lock, and leave the status of the pass behind; another run leaves its own."""
        to_record = recording(self._settings, self._memory)
        with ExitStack() as stack:
            try:
                stack.enter_context(self._memory.lock())
            except ConfigError:
                with to_record:
                    raise
            yield stack.enter_context(to_record)

    def _known_host(self) -> Host:
        """Ask who this host is, once."""
        if self._host is None:
            self._host = known_host(self._config, self._memory.as_read_only())
        return self._host

    def _guard(self, *, answered: bool = True) -> CommitGuard:
        """Look at the host's health before the commit.

        A store must answer after it that has `answered` before, whatever the answer was.
        """
        asks = answered and self._options.ruleset is None
        ask = partial(self._store.fetch_anew, self._memory.load().etag) if asks else None
        return CommitGuard(self._settings, ask, self._options.confirm)


def _is_answer(error: ReyesError) -> bool:
    """Tell whether it is the store that refuses: there is a way to it then."""
    said = error.__cause__ if isinstance(error, ExpiredError) else error
    return not isinstance(said, UnreachableError | ConfigError)


def longest_pass(settings: FollowerConfig) -> int:
    """Return how many seconds an honest pass may take: to get a ruleset, and to commit it.

    In vain it waits for the ruleset, and then once more for the kernel.
    """
    return 2 * settings.deadline + settings.confirm_timeout + COMMAND_SECONDS


def _wait_for_turn(instance_id: str, splay: int) -> None:
    """Spread hosts over the splay, each always at the same place."""
    digest = hashlib.sha256(instance_id.encode()).digest()
    time.sleep(splay * int.from_bytes(digest[:8]) / 2**64)


def _log_outcome(prepared: Prepared, outcome: Outcome, seconds: float) -> None:
    dataplane = prepared.dataplane
    for omitted in prepared.policy.omitted:
        log.debug("omitted %s", omitted)
    serial = prepared.verified.ruleset.header.serial
    if outcome == "held":  # other rules than these are in force
        log.warning("held against serial=%d seconds=%.2f", serial, seconds)
        return
    log.log(
        logging.WARNING if outcome == "repaired" else logging.INFO,
        "%s serial=%d rules=%d sets=%d members=%d omitted=%d seconds=%.2f",
        outcome,
        serial,
        dataplane.rule_count,
        len(dataplane.sets),
        sum(len(entry.members) for entry in dataplane.sets),
        len(prepared.policy.omitted),
        seconds,
    )
