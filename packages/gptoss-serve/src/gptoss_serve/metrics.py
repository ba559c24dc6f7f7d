"""Counters for Prometheus, in its text format, without a library."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

from gptoss_harmony import Engine
from gptoss_serve.limits import Admission

# Upper bounds in seconds.
_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """What a server counts.

    Args:
        engine: its statistics are shown as they are.
        admission: the queue.
    """

    def __init__(self, engine: Engine, admission: Admission) -> None:
        self._engine = engine
        self._admission = admission
        self._requests: Counter[tuple[str, int]] = Counter()
        self._buckets: Counter[float] = Counter()
        self._seconds = 0.0

    def count(self, route: str, status: int, seconds: float) -> None:
        """A request is over; `route` is the pattern, not the path, so that labels stay few."""
        self._requests[route, status] += 1
        self._seconds += seconds
        for bound in _BUCKETS:
            if seconds <= bound:
                self._buckets[bound] += 1

    def text(self) -> str:
        """Everything, for a scrape."""
        lines = [
            "# HELP gptoss_requests_total Requests by route and status.",
            "# TYPE gptoss_requests_total counter",
        ]
        for (route, status), count in sorted(self._requests.items()):
            lines.append(f'gptoss_requests_total{{route="{route}",status="{status}"}} {count}')
        total = sum(self._requests.values())
        lines += [
            "# HELP gptoss_request_seconds How long requests took, streams to their end.",
            "# TYPE gptoss_request_seconds histogram",
            *(
                f'gptoss_request_seconds_bucket{{le="{bound}"}} {self._buckets[bound]}'
                for bound in _BUCKETS
            ),
            f'gptoss_request_seconds_bucket{{le="+Inf"}} {total}',
            f"gptoss_request_seconds_sum {self._seconds:.6f}",
            f"gptoss_request_seconds_count {total}",
        ]
        lines += self._gauges()
        return "\n".join(lines) + "\n"

    def _gauges(self) -> list[str]:
        values = {
            "gptoss_answers_running": self._admission.running,
            "gptoss_answers_waiting": self._admission.waiting,
            "gptoss_clients_waiting": self._admission.clients_waiting,
            "gptoss_draining": int(self._admission.draining),
        }
        stats = self._engine.stats()
        for entry in fields(stats):
            values[f"gptoss_engine_{entry.name}"] = getattr(stats, entry.name)
        lines = []
        for name, value in values.items():
            lines += [f"# TYPE {name} gauge", f"{name} {value}"]
        return lines
