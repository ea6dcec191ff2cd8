"""What a pass leaves behind for `reyes status`, `reyes check` and Prometheus.

Nothing here makes a pass fail: what cannot be written is logged.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from msgspec import field

from reyes.adapters import clock
from reyes.adapters.kernel import Kernel
from reyes.adapters.state import StateDirectory
from reyes.cli.options import is_disabled
from reyes.config import FollowerConfig
from reyes.cutover import BlamedError, UnhealthyError
from reyes.errors import ReyesError, exit_code_of
from reyes.follower import Outcome
from reyes.prepared import Prepared
from reyes.state import State
from reyes.status import Applied, Pass, Run, Status, after_pass, applied_dataplane

log = logging.getLogger(__name__)


class Record(Pass, kw_only=True):
    """A pass on its way.

    `answered` tells whether the store has answered, be it by a refusal, and `failed_trial` why a
    changed configuration did not come in force.
    """

    outcome: str = "failed"
    answered: bool = False
    failed_trial: str | None = None
    started: float = field(default_factory=time.monotonic)
    prepared: Prepared | None = None
    prepared_at: float = 0

    def note(self, prepared: Prepared, at: float | None = None) -> Prepared:
        """Take note of what is to be committed, and of when it was prepared, by default now."""
        self.prepared, self.prepared_at = prepared, at or time.monotonic()
        self.omitted = prepared.policy.omitted
        return prepared

    def end(self, outcome: Outcome) -> Outcome:
        """Take note of how the commit has ended."""
        if outcome == "held anew":
            self.repaired, outcome = True, "held"
        self.outcome = outcome
        return outcome

    def take(self, error: BlamedError) -> None:
        """Take note of what stands instead of rules that are blamed: it is in force again."""
        self.without_rules = False
        self.repaired = self.repaired or error.repaired

    def in_force(self, now: int) -> Applied | None:
        """Describe what is in force if the pass succeeds."""
        if self.prepared is None:
            return None
        return applied_dataplane(
            self.prepared.dataplane,
            at=now,
            seconds=time.monotonic() - self.prepared_at,
            enforced=self.prepared.policy.host.enforce,
        )


@contextmanager
def recording(config: FollowerConfig, memory: StateDirectory) -> Iterator[Record]:
    """Leave the status of the pass in the block behind, whichever way it ends.

    An answer of no from a person is no end of a pass.
    """
    record = Record()
    try:
        yield record
    except click.Abort:
        raise
    except Exception as error:
        if isinstance(error, BlamedError):
            record.take(error)
        elif isinstance(error, UnhealthyError):
            record.rolled_back = True
        _leave(config, memory, record, error)
        raise
    record.rolled_back = record.outcome == "rolled back"
    _leave(config, memory, record, None)


def record_outcome(
    config: FollowerConfig, memory: StateDirectory, outcome: str, started: float | None = None
) -> None:
    """Leave the status behind of what is no pass, or of a pass that did nothing.

    `started` is when it was begun, by the monotonic clock; by default now.
    """
    with recording(config, memory) as record:
        record.outcome = outcome
        record.started = started or record.started


def _leave(
    config: FollowerConfig, memory: StateDirectory, record: Record, error: Exception | None
) -> None:
    now = int(clock.now())
    record.applied = record.in_force(now)
    run = Run(
        at=now,
        seconds=time.monotonic() - record.started,
        exit_code=exit_code_of(error) if error else 0,
        outcome="failed" if error else record.outcome,
        message=_message(error, record.failed_trial),
    )
    record.hold = _state(memory).hold
    record.disabled = is_disabled(config)
    status = after_pass(None, run, record)
    try:
        status = after_pass(memory.status(), run, record)
        memory.save_status(status)
    except ReyesError as problem:
        log.warning("the status of this pass is not written: %s", problem.message)
    if config.metrics_file is not None:
        _write_metrics(Path(config.metrics_file), status)


def _message(error: Exception | None, failed_trial: str | None) -> str | None:
    """Return the first line of an error, as those behind it show what a command was fed."""
    lines = str(error).splitlines() if error else []
    said = lines[:1] + ([failed_trial] if failed_trial else [])
    return "; ".join(said) or None


def _state(memory: StateDirectory) -> State:
    """Return what is remembered; the pass itself complains if that cannot be read."""
    try:
        return memory.as_read_only().load()
    except ReyesError:
        return State()


def _write_metrics(path: Path, status: Status) -> None:
    from reyes.adapters.metrics import write_metrics
    from reyes.metrics import follower_metrics

    try:
        packets = Kernel().read_packets()
    except ReyesError as problem:
        log.warning("packets are not counted: %s", problem.message)
        packets = {}
    try:
        write_metrics(path, follower_metrics(status, packets))
    except ReyesError as problem:
        log.warning("the metrics of this pass are not written: %s", problem.message)
