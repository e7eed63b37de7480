"""What /metrics tells Prometheus: vLLM's names, with the prefix "fastgpt:"."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fastgpt_c.generation.completion import Completion

if TYPE_CHECKING:
    from fastgpt_c.batching.live_engine import Event, LiveEngine

PREFIX = "fastgpt:"
disable_created_metrics()  # type: ignore[no-untyped-call]
SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


class Metrics:
    """Counters and histograms of a server; its methods are for the event loop."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.refused = self._counter("request_rejected", "Requests that were refused because too much was waiting.")
        self.answers = Counter(
            PREFIX + "http_requests", "Answers by path and status.", ["path", "status"], registry=self.registry
        )
        self._success = Counter(
            PREFIX + "request_success", "Texts by what ended them.", ["finished_reason"], registry=self.registry
        )
        self._failed = self._counter("request_failure", "Texts that ended with an error.")
        self._first = self._histogram("time_to_first_token_seconds", "From arrival to the first token.", SECONDS)
        self._between = self._histogram("inter_token_latency_seconds", "Between two tokens of a stream.", SECONDS)
        self._whole = self._histogram("e2e_request_latency_seconds", "From arrival to the end of a text.", SECONDS)
        self._prefill = self._histogram("request_prefill_time_seconds", "From a slot to the first token.", SECONDS)
        self._decode = self._histogram("request_decode_time_seconds", "From the first token to the last.", SECONDS)
        self._n_prompt = self._histogram("request_prompt_tokens", "Tokens of a prompt.", TOKENS)
        self._n_new = self._histogram("request_generation_tokens", "Tokens of a text.", TOKENS)
        self._latest: dict[object, float] = {}  # of each text at work that streams, when its latest token came

    def watch(self, engine: LiveEngine) -> None:
        """Reads the state of an engine whenever somebody asks."""
        self.registry.register(_EngineState(engine))

    def text(self) -> bytes:
        """In Prometheus' format."""
        return generate_latest(self.registry)

    def note_events(self, events: Iterable[Event]) -> None:
        """What a step did."""
        now = time.monotonic()
        for event in events:
            group, _ = event.job.request.tag
            if event.token is None:
                self._note_end(event, now - group.begun)
                continue
            before = self._latest.get(event.job)
            if before is None:
                self._first.observe(now - group.begun)
            else:
                self._between.observe(now - before)
            self._latest[event.job] = now

    def _note_end(self, event: Event, seconds: float) -> None:
        self._latest.pop(event.job, None)
        if not isinstance(event.end, Completion):
            self._failed.inc()
            return
        completion = event.end
        self._success.labels(completion.finish_reason).inc()
        self._whole.observe(seconds)
        self._prefill.observe(completion.prefill_seconds)
        self._decode.observe(completion.decode_seconds)
        self._n_prompt.observe(completion.n_prompt)
        self._n_new.observe(len(completion.tokens))

    def _counter(self, name: str, about: str) -> Counter:
        return Counter(PREFIX + name, about, registry=self.registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(PREFIX + name, about, buckets=buckets, registry=self.registry)


class _EngineState(Collector):
    """What an engine says of itself."""

    def __init__(self, engine: LiveEngine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        stats = self._engine.stats()
        used = stats.cache_used / stats.cache_total if stats.cache_total else 0.0
        for name, about, level in (
            ("num_requests_running", "Texts with a slot.", stats.n_at_work),
            ("step_rows", "Texts in the latest step.", stats.n_rows),
            ("num_requests_waiting", "Texts that wait for a slot.", stats.n_waiting),
            ("kv_cache_usage_perc", "Share of the KV caches in use; 1 is all.", used),
            ("tokens_per_second", "Tokens read and drawn in the latest seconds at work.", stats.rate),
        ):
            yield GaugeMetricFamily(PREFIX + name, about, value=level)
        for name, about, count in (
            ("prompt_tokens", "Tokens of prompts that were read.", stats.tokens_in),
            ("generation_tokens", "Tokens that were drawn.", stats.tokens_out),
            ("prefix_cache_queries", "Tokens of prompts that were looked up in KV caches.", stats.prefix_queries),
            ("prefix_cache_hits", "Tokens of prompts that were in a KV cache.", stats.prefix_hits),
            ("iterations", "Steps of the engine.", stats.n_steps),
        ):
            yield CounterMetricFamily(PREFIX + name, about, value=count)
        ops = CounterMetricFamily(PREFIX + "op_seconds", "Seconds of the engine's steps by op.", labels=["phase", "op"])
        for labels, seconds in stats.op_seconds.items():
            ops.add_metric(labels, seconds)
        yield ops
