"""What a leader's pass leaves behind: log lines of findings, and metrics for Prometheus.

A leader has no state directory: what a failed pass does not know stays in the metrics file as the
pass before wrote it.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from reyes.adapters import clock
from reyes.config import Config
from reyes.errors import ReyesError, exit_code_of
from reyes.findings import Finding, find_for
from reyes.leader import Outcome
from reyes.plausible import NAMED
from reyes.ruleset import Header
from reyes.status import Run

log = logging.getLogger(__name__)


def recorded(config: Config, make_pass: Callable[[], Outcome], *, leaves_traces: bool) -> Outcome:
    """Make a pass, log what is doubtful about the ruleset that it makes, and write its metrics.

    A dry run leaves no traces: it writes none.
    """
    started = time.monotonic()
    try:
        outcome = make_pass()
    except Exception as error:
        if leaves_traces:
            _write(config, started, "failed", exit_code_of(error))
        raise
    findings = find_for(config, outcome.ruleset.content)
    if outcome.status != "superseded":
        for one in [one for one in findings if one.severity == "critical"][:NAMED]:
            log.error("critical: %s: %s: %s", one.kind, one.where, one.message)
        log.info("findings: %s", _counts_text(findings))
    if leaves_traces:
        header = outcome.ruleset.header if outcome.status == "published" else None
        code = outcome.not_archived.exit_code if outcome.not_archived else 0
        _write(config, started, outcome.status, code, header=header, findings=findings)
    return outcome


def _counts_text(findings: tuple[Finding, ...]) -> str:
    counts = Counter[str](finding.severity for finding in findings)
    said = [
        f"{counts[severity]} {severity}{'s' if plural and counts[severity] > 1 else ''}"
        for severity, plural in (("critical", False), ("warning", True), ("note", True))
        if counts[severity]
    ]
    return f"{', '.join(said)}; see reyes check-ruleset" if said else "none"


def _write(
    config: Config,
    started: float,
    outcome: str,
    exit_code: int,
    *,
    header: Header | None = None,
    findings: tuple[Finding, ...] = (),
) -> None:
    if config.leader is None or config.leader.metrics_file is None:
        return
    from reyes.adapters.metrics import read_metrics, write_metrics
    from reyes.metrics import leader_metrics, updated

    path, seconds = Path(config.leader.metrics_file), time.monotonic() - started
    run = Run(at=int(clock.now()), seconds=seconds, exit_code=exit_code, outcome=outcome)
    try:
        new = leader_metrics(run, header, findings)
        write_metrics(path, updated(read_metrics(path), new))
    except ReyesError as problem:
        log.warning("the metrics of this pass are not written: %s", problem.message)
