"""What Prometheus reads at /metrics: the engine's and the tree's own counts, and the requests over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from ramet.engine import Histogram
from ramet.engine.runtime import Runtime

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """One server's metrics, in a registry of its own."""

    def __init__(self, runtime: Runtime) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_State(runtime))
        self._requests = Counter(
            "ramet_http_requests", "Requests answered.", ["endpoint", "status"], registry=self._registry
        )

    def answered(self, endpoint: str, status: int) -> None:
        """Count an answer."""
        self._requests.labels(endpoint, str(status)).inc()

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _State:
    """Reads engine and tree when Prometheus asks; nothing is counted twice."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def collect(self) -> Iterator[Metric]:
        """Every metric that the engine and the tree keep."""
        engine = self._runtime.engine.stats()
        yield GaugeMetricFamily("ramet_running", "Replies in progress.", engine.running)
        yield GaugeMetricFamily("ramet_waiting", "Requests in the queue.", engine.waiting)
        yield GaugeMetricFamily(
            "ramet_following", "Replies waiting for a prefix that another computes.", engine.following
        )
        yield CounterMetricFamily("ramet_requests", "Requests accepted by the engine.", engine.requests)
        finished = CounterMetricFamily("ramet_replies", "Replies finished, by reason.", labels=["reason"])
        for reason, count in sorted(engine.finished.items()):
            finished.add_metric([reason], count)
        yield finished
        yield CounterMetricFamily("ramet_steps", "Engine steps.", engine.steps)
        yield CounterMetricFamily("ramet_prompt_tokens", "Tokens of all admitted prompts.", engine.prompt_tokens)
        yield CounterMetricFamily("ramet_computed_tokens", "Prompt tokens that were run.", engine.computed_tokens)
        yield CounterMetricFamily("ramet_reused_tokens", "Prompt tokens that were not run.", engine.reused_tokens)
        yield CounterMetricFamily("ramet_reply_tokens", "Tokens sampled.", engine.reply_tokens)
        yield CounterMetricFamily("ramet_pictures_encoded", "Runs of the vision tower.", engine.pictures_encoded)
        yield CounterMetricFamily("ramet_drafted_tokens", "Tokens guessed ahead.", engine.drafted_tokens)
        yield CounterMetricFamily("ramet_accepted_tokens", "Guesses that came true.", engine.accepted_tokens)
        yield _histogram("ramet_step_seconds", "Time of an engine step.", engine.step_seconds)
        yield _histogram("ramet_queue_seconds", "Time in the queue.", engine.queue_seconds)
        yield _histogram(
            "ramet_first_token_seconds", "Time from submission to the first token.", engine.first_token_seconds
        )
        tree = self._runtime.tree.stats()
        yield GaugeMetricFamily("ramet_tree_nodes", "Nodes in the tree.", tree.nodes)
        yield GaugeMetricFamily("ramet_tree_sessions", "Live sessions.", tree.sessions)
        yield GaugeMetricFamily("ramet_tree_ram_bytes", "Memory held by rows and states.", tree.ram_bytes)
        yield GaugeMetricFamily("ramet_tree_ram_budget_bytes", "Memory that they may hold.", tree.ram_budget)
        yield GaugeMetricFamily("ramet_tree_ram_states", "Saved states in memory.", tree.ram_states)
        yield GaugeMetricFamily("ramet_tree_pinned_nodes", "Nodes kept in memory while a tool runs.", tree.pinned_nodes)
        yield CounterMetricFamily("ramet_tree_pages_copied", "Pages copied on write.", tree.pages_copied)
        yield CounterMetricFamily(
            "ramet_tree_states_evicted", "Saved states that left the memory.", tree.states_evicted
        )
        yield GaugeMetricFamily("ramet_tree_disk_bytes", "Bytes of rows and states on disk.", tree.disk_bytes)
        yield GaugeMetricFamily("ramet_tree_disk_states", "Saved states on disk.", tree.disk_states)
        yield CounterMetricFamily("ramet_tree_states_restored", "States read back from disk.", tree.states_restored)
        yield CounterMetricFamily("ramet_tree_damaged", "Pages and states found damaged, and dropped.", tree.damaged)
        yield GaugeMetricFamily(
            "ramet_tree_disk_trouble", "1 while the disk cannot be written.", int(tree.trouble is not None)
        )


def _histogram(name: str, help: str, histogram: Histogram) -> HistogramMetricFamily:
    total, buckets = 0, []
    for bound, count in zip([*map(str, histogram.bounds), "+Inf"], histogram.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return HistogramMetricFamily(name, help, buckets=buckets, sum_value=histogram.total)
