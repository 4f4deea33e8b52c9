"""Metrics for Prometheus: live runs, and the history's counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from .exposition_last import LastRuns
from .history import Row, State
from .runs import Running

_LABELS = ("scenario", "target")


@dataclass(frozen=True, slots=True)
class Kept:
    """
    What there is to tell beside the runs that go on.

    `last` are the last ended runs, one for a scenario on a target; `targets` whether each answers,
    None where nobody knows; `due` when each schedule is due, None where it cannot start.
    """

    counts: Mapping[str, int]
    last: Sequence[Row]
    targets: Mapping[str, bool | None]
    due: Mapping[str, float | None]


def exposed(running: Iterable[Running], kept: Kept, watchers: int) -> bytes:
    """Return the metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Now(list(running), kept.counts, watchers))
    registry.register(LastRuns(kept.last))
    registry.register(_Surroundings(kept))
    return generate_latest(registry)


class _Surroundings:
    """A collector of targets and schedules."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        up = GaugeMetricFamily(
            "async_loader_target_up", "Whether the target answered last.", labels=("target",)
        )
        for name, is_up in self._kept.targets.items():
            if is_up is not None:
                up.add_metric((name,), float(is_up))
        can = GaugeMetricFamily(
            "async_loader_schedule_up",
            "Whether the schedule can start its scenario.",
            labels=("scenario",),
        )
        following = GaugeMetricFamily(
            "async_loader_schedule_next_timestamp_seconds",
            "When the schedule is due.",
            labels=("scenario",),
        )
        for name, at in self._kept.due.items():
            can.add_metric((name,), float(at is not None))
            if at is not None:
                following.add_metric((name,), at)
        yield from (up, can, following)


class _Now:
    """A collector of what there is now."""

    def __init__(self, running: list[Running], counts: Mapping[str, int], watchers: int) -> None:
        self._running = running
        self._counts = counts
        self._watchers = watchers

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        history = GaugeMetricFamily(
            "async_loader_history_runs", "Runs in the history.", labels=("state",)
        )
        for state in get_args(State):
            history.add_metric((state,), self._counts.get(state, 0))
        yield history
        watchers = GaugeMetricFamily("async_loader_watchers", "Who watches runs.")
        watchers.add_metric((), self._watchers)
        yield watchers
        yield from self._live()

    def _live(self) -> Iterator[Metric]:
        done = CounterMetricFamily(
            "async_loader_run_operations",
            "Operations of the run that goes on, by how they ended.",
            labels=(*_LABELS, "outcome"),
        )
        seconds = GaugeMetricFamily(
            "async_loader_run_duration_seconds", "How long the run goes on.", labels=_LABELS
        )
        rate = GaugeMetricFamily(
            "async_loader_run_throughput_operations_per_second",
            "Operations that ended well in the last second.",
            labels=_LABELS,
        )
        # A quantile is a summary's. Its sum is not among what a run tells, and may be left out.
        latency = Metric(
            "async_loader_run_latency_seconds", "Latency over the run so far.", "summary"
        )
        connections = GaugeMetricFamily(
            "async_loader_run_connections", "Connections in use.", labels=_LABELS
        )
        waiting = GaugeMetricFamily(
            "async_loader_run_connection_waiters", "Who waits for a connection.", labels=_LABELS
        )
        for run in self._running:
            labels, now = (run.scenario, run.target), run.live.snapshot
            if now is None:
                continue
            for outcome, field in (("done", "completed"), ("bad", "bad"), ("dropped", "dropped")):
                done.add_metric((*labels, outcome), now[field])
            seconds.add_metric(labels, now["seconds"])
            rate.add_metric(labels, now["rate"])
            for sample, quantile, value in _summary(now):
                named = dict(zip(_LABELS, labels, strict=True)) | quantile
                latency.add_sample(f"{latency.name}{sample}", named, value)
            for gauge, field in ((connections, "in_use"), (waiting, "waiting")):
                if now[field] is not None:
                    gauge.add_metric(labels, now[field])
        yield from (done, seconds, rate, latency, connections, waiting)


def _summary(now: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield the samples of a summary of latencies: what its name ends in, its quantile, a value."""
    for quantile, field in (("0.5", "p50_ms"), ("0.95", "p95_ms"), ("0.99", "p99_ms")):
        if now[field] is not None:
            yield "", {"quantile": quantile}, now[field] / 1e3
    yield "_count", {}, now["completed"]
