"""What docs/operations.md and the alerts say of metrics and exit codes."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from reyes.metrics import follower_metrics, leader_metrics
from reyes.net import Family
from reyes.netfilter.counters import Packets
from reyes.status import REASONS, Run, Status
from tests.machine import NOW
from tests.statuses import GOOD
from tests.unit.test_documents import anchors
from tests.worlds import header_for, small_world

ROOT = Path(__file__).parents[2]
OPERATIONS = ROOT / "docs/operations.md"
PAGE = OPERATIONS.read_text(encoding="utf-8")
ALERTS = yaml.safe_load((ROOT / "packaging/prometheus/reyes-alerts.yaml").read_text("utf-8"))
RULES: list[dict[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]


def metrics() -> dict[str, set[str]]:
    """All metrics that there are, and their labels."""
    assert GOOD.ruleset
    status = replace(GOOD, ruleset=replace(GOOD.ruleset, key_expires_at=NOW))
    header = header_for(small_world(), NOW)
    found = (
        *follower_metrics(status, {Family.V4: Packets()}),
        *leader_metrics(GOOD.run, header),
    )
    return {metric.name: set(metric.samples[0].labels) for metric in found}


def test_the_table_of_metrics_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| `(reyes_\w+)` \| (.+) \|$", PAGE, re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(metrics())
    for name, text in rows:
        assert all(f"`{label}`" in text for label in metrics()[name])


def test_every_exit_code_has_its_part_of_the_runbook() -> None:
    headings = re.findall(r"^### (\d+): (\w+)$", PAGE, re.MULTILINE)
    assert [(int(code), reason) for code, reason in headings] == list(REASONS.items())


def test_alerts_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names)) > 10


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_is_whole(rule: dict[str, Any]) -> None:
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"] in ({"severity": "warning"}, {"severity": "critical"})
    assert re.fullmatch(r"\d+[mhd]", rule.get("for", "0m"))
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert page == "docs/operations.md"
    assert anchor in anchors(OPERATIONS)
    assert "$labels.instance" in rule["annotations"]["summary"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_metrics_and_labels_that_exist(rule: dict[str, Any]) -> None:
    expression = rule["expr"]
    named = re.findall(r"(reyes_\w+)(?:\{(\w+)=~?\"([^\"]+)\"\})?", expression)
    assert named
    for name, label, values in named:
        assert name in metrics()
        if label:
            assert label in metrics()[name]
        if label == "reason":
            assert set(values.split("|")) <= set(REASONS.values())
    for code in re.findall(r"exit_code == (\d+)", expression):
        assert int(code) in REASONS
    assert expression.count("(") == expression.count(")")


@pytest.mark.parametrize("prefix", ["reyes", "reyes_leader"])
def test_who_never_had_a_success_wakes_somebody(prefix: str) -> None:
    """The metric of the last success is not there then, and nothing can be said of its age."""
    failed = Run(at=NOW, seconds=1, exit_code=75, outcome="failed")
    never = (*follower_metrics(Status(run=failed)), *leader_metrics(failed))
    run, success = (f"{prefix}_last_{what}_timestamp_seconds" for what in ("run", "success"))
    names = {metric.name for metric in never}
    assert (run in names, success in names) == (True, False)
    (rule,) = (rule for rule in RULES if rule["expr"] == f"{run} unless {success}")
    assert rule["for"] == "15m"


def test_all_that_must_wake_somebody_is_there() -> None:
    expressions = " ".join(rule["expr"] for rule in RULES)
    for name in (
        "reyes_last_run_timestamp_seconds",
        "reyes_last_success_timestamp_seconds",
        "reyes_ruleset_generated_timestamp_seconds",
        "reyes_ruleset_serial",
        "reyes_refused_total",
        "reyes_signing_key_expires_timestamp_seconds",
        "reyes_disabled",
    ):
        assert name in expressions
