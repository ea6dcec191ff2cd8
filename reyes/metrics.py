"""What Prometheus gets to know, as values: one list for followers, one for leaders.

docs/operations.md describes each of them.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from msgspec import Struct
from msgspec.structs import asdict

from reyes.findings import SEVERITIES, Finding
from reyes.net import Family
from reyes.netfilter.counters import Packets
from reyes.ruleset import Header
from reyes.status import REASONS, AcceptedRuleset, Applied, Run, Status


class Sample(Struct, frozen=True):
    """A number, and the labels that tell it from the others of its metric."""

    value: float
    labels: Mapping[str, str] = {}


class Metric(Struct, frozen=True):
    """A metric and its samples; a counter's name ends in `_total`."""

    name: str
    documentation: str
    samples: tuple[Sample, ...]

    @property
    def kind(self) -> Literal["gauge", "counter"]:
        """What Prometheus calls its type."""
        return "counter" if self.name.endswith("_total") else "gauge"


def follower_metrics(
    status: Status, packets: Mapping[Family, Packets] | None = None
) -> tuple[Metric, ...]:
    """Say what a follower knows after a pass."""
    counters = status.counters
    held = status.hold is not None and not status.hold.ended(status.run.at)
    metrics = [
        *_run_metrics("reyes", status.run, status.last_success),
        Metric(
            "reyes_refused_total",
            "Passes that failed, by reason.",
            tuple(
                Sample(counters.refused.get(reason, 0), {"reason": reason})
                for reason in REASONS.values()
            ),
        ),
        _one(
            "reyes_repaired_total", "Passes that found drift and repaired it.", counters.repaired
        ),
        _one(
            "reyes_rolled_back_total",
            "Rollbacks, and commits that failed their trial.",
            counters.rolled_back,
        ),
        _one("reyes_disabled", "1 while the disable file exists.", status.disabled),
        _one("reyes_held", "1 while a rollback holds.", held),
        _one("reyes_omitted", "Parts of rules that allow nothing here.", len(status.omitted)),
    ]
    if status.ruleset:
        metrics += _ruleset_metrics(status.ruleset)
    if status.applied:
        metrics += _applied_metrics(status.applied)
    if packets:
        metrics.append(_packet_metric(packets))
    return tuple(metrics)


def leader_metrics(
    run: Run, header: Header | None = None, findings: Iterable[Finding] = ()
) -> tuple[Metric, ...]:
    """Say what a leader knows after a pass; `header` is what it published, if it did."""
    metrics = [
        *_run_metrics("reyes_leader", run, None if run.exit_code else run.at),
        _one(
            "reyes_leader_superseded",
            "1 if another leader published during the last pass.",
            run.outcome == "superseded",
        ),
    ]
    if header:
        found = [finding.severity for finding in findings]
        metrics += [
            Metric(
                "reyes_leader_ruleset_serial",
                "The serial that was published last.",
                (Sample(header.serial, {"environment": header.environment}),),
            ),
            Metric(
                "reyes_leader_counted",
                "How large the world is that was published last, by kind.",
                tuple(
                    Sample(number, {"kind": kind})
                    for kind, number in asdict(header.counts).items()
                ),
            ),
            Metric(
                "reyes_leader_findings",
                "What is doubtful about it, by severity.",
                tuple(
                    Sample(found.count(severity), {"severity": severity})
                    for severity in SEVERITIES
                ),
            ),
        ]
    return tuple(metrics)


def updated(before: Iterable[Metric], after: Iterable[Metric]) -> tuple[Metric, ...]:
    """Put new metrics in the place of old ones of the same names, and keep the others."""
    by_name = {metric.name: metric for metric in (*before, *after)}
    return tuple(by_name.values())


def _run_metrics(prefix: str, run: Run, last_success: int | None) -> list[Metric]:
    metrics = [
        _one(f"{prefix}_last_run_timestamp_seconds", "When the last pass ended.", run.at),
        _one(f"{prefix}_last_run_seconds", "How long the last pass took.", run.seconds),
        _one(
            f"{prefix}_last_exit_code", "What it would exit with, 0 if all is well.", run.exit_code
        ),
    ]
    if last_success is not None:
        name = f"{prefix}_last_success_timestamp_seconds"
        metrics.append(_one(name, "When the last pass without failure ended.", last_success))
    return metrics


def _ruleset_metrics(ruleset: AcceptedRuleset) -> list[Metric]:
    metrics = [
        Metric(
            "reyes_ruleset_serial",
            "The serial that was accepted last.",
            (Sample(ruleset.serial, {"environment": ruleset.environment}),),
        ),
        _one(
            "reyes_ruleset_generated_timestamp_seconds",
            "When that ruleset was made.",
            ruleset.generated_at,
        ),
        _one(
            "reyes_ruleset_not_after_timestamp_seconds",
            "When that ruleset expires.",
            ruleset.not_after,
        ),
    ]
    if ruleset.key_expires_at is not None:
        name = "reyes_signing_key_expires_timestamp_seconds"
        metrics.append(_one(name, "When the key expires that signed it.", ruleset.key_expires_at))
    return metrics


def _applied_metrics(applied: Applied) -> list[Metric]:
    return [
        _one("reyes_applied_timestamp_seconds", "When rules or sets changed last.", applied.at),
        _one("reyes_apply_duration_seconds", "How long that commit took.", applied.seconds),
        _one("reyes_rules", "Rules in force, of both families.", applied.rules),
        _one("reyes_ipsets", "Sets in force.", len(applied.sets)),
        _one("reyes_ipset_members", "Members of all sets in force.", applied.members),
        _one("reyes_enforced", "0 in audit mode, where nothing is denied.", applied.enforced),
    ]


def _packet_metric(packets: Mapping[Family, Packets]) -> Metric:
    return Metric(
        "reyes_packets_total",
        "New packets, by family and verdict, as the kernel counts them.",
        tuple(
            Sample(number, {"family": f"ipv{family.value}", "verdict": verdict})
            for family, counted in packets.items()
            for verdict, number in (("accepted", counted.accepted), ("denied", counted.denied))
        ),
    )


def _one(name: str, documentation: str, value: float) -> Metric:
    return Metric(name, documentation, (Sample(float(value)),))
