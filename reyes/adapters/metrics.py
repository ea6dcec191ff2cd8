"""The file that Prometheus's node exporter collects: whole or not there, readable by all.

Not `prometheus_client.write_to_textfile`: under a service's umask the exporter's user could not
read what it writes.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from reyes.adapters.files import write_atomically
from reyes.metrics import Metric, Sample


def write_metrics(path: Path, metrics: Iterable[Metric]) -> None:
    """Write a metrics file; ConfigError if it cannot be written."""
    write_atomically(path, generate_latest(_Values(metrics)), 0o644, durable=False)


def read_metrics(path: Path) -> tuple[Metric, ...]:
    """Return what an earlier pass wrote; nothing if that is missing or cannot be understood."""
    try:
        families = list(text_string_to_metric_families(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return ()
    return tuple(
        Metric(
            family.samples[0].name,
            family.documentation,
            tuple(Sample(sample.value, sample.labels) for sample in family.samples),
        )
        for family in families
        if family.samples
    )


class _Values(Collector):
    """Metrics that are known already, in the form that a registry collects."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = tuple(metrics)

    def collect(self) -> Iterator[MetricFamily]:
        """Yield each metric."""
        for metric in self._metrics:
            labels = list(metric.samples[0].labels)
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(metric.name, metric.documentation, labels=labels)
            for sample in metric.samples:
                family.add_metric(list(sample.labels.values()), sample.value)
            yield family
