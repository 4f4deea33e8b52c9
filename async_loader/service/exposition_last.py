"""Metrics of runs that have ended: the last one of each scenario on each target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

from prometheus_client.core import GaugeMetricFamily, Metric

from .history import ACTIVE, Row, State

_LABELS = ("scenario", "target")
_ENDS = tuple(state for state in get_args(State) if state not in ACTIVE)


class LastRuns:
    """A collector of what the history has of them: it is there after a restart, too."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        ended = _gauge("end_timestamp_seconds", "When the last run ended.")
        state = _gauge("state", "1 for the verdict on the last run, 0 for the others.", "state")
        rate = _gauge("throughput_operations_per_second", "Operations that ended well.")
        errors = _gauge("error_ratio", "The share of its operations that failed.")
        lasted = _gauge("duration_seconds", "How long the last run was measured.")
        # A quantile is a summary's; its sum is not kept, and may be left out.
        latency = Metric(
            "async_loader_last_run_latency_seconds", "Latency over the last run.", "summary"
        )
        done = _gauge("operations", "Its operations, by how they ended.", "outcome")
        for row in self._rows:
            labels, figures = (row["scenario"], row["target"]), row["figures"]
            ended.add_metric(labels, row["ended_at"])
            for each in _ENDS:
                state.add_metric((*labels, each), float(row["state"] == each))
            if figures is None:
                continue
            rate.add_metric(labels, figures["throughput"])
            errors.add_metric(labels, figures["error_rate"])
            lasted.add_metric(labels, figures["seconds"])
            for outcome in ("completed", "failed", "indeterminate", "dropped"):
                done.add_metric((*labels, outcome), figures[outcome])
            for quantile, name in (("0.5", "p50_ms"), ("0.95", "p95_ms"), ("0.99", "p99_ms")):
                if figures[name] is not None:
                    of = dict(zip(_LABELS, labels, strict=True)) | {"quantile": quantile}
                    latency.add_sample(latency.name, of, figures[name] / 1e3)
        yield from (ended, state, rate, errors, lasted, latency, done)


def _gauge(name: str, text: str, *more: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"async_loader_last_run_{name}", text, labels=(*_LABELS, *more))
