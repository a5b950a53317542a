"""Counts and times for Prometheus, of one application."""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from maskrcnn.distribution import own_version

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """What `/metrics` shows.

    Args:
        stages: Names of the stages whose seconds are observed.
        build: What is served: labels of `maskrcnn_build_info`.
    """

    def __init__(self, stages: Iterable[str], build: Mapping[str, str]) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("maskrcnn_requests", "Requests for a prediction", ["status"], registry=registry)
        self._detections = Counter("maskrcnn_detections", "Detections in answers", registry=registry)
        seconds = Histogram("maskrcnn_seconds", "Seconds of an image", ["stage"], registry=registry, buckets=_SECONDS)
        self._seconds = {stage: seconds.labels(stage) for stage in stages}
        self._batches = Histogram(
            "maskrcnn_batch_size", "Images in a run of the engine", registry=registry, buckets=(1, 2, 4, 8, 16, 32)
        )
        self._waiting = Gauge("maskrcnn_waiting", "Images in hand", registry=registry)
        info = Gauge("maskrcnn_build_info", "What is served", ["version", *build], registry=registry)
        info.labels(version=own_version(), **build).set(1)

    def answered(self, status: int) -> None:
        """Count a request."""
        self._requests.labels(str(status)).inc()

    def detected(self, count: int) -> None:
        """Count detections."""
        self._detections.inc(count)

    def ran(self, size: int) -> None:
        """Observe a run of the engine."""
        self._batches.observe(size)

    def took(self, seconds: Mapping[str, float]) -> None:
        """Observe the times of an image."""
        for stage, value in seconds.items():
            self._seconds[stage].observe(value)

    def text(self, waiting: int) -> bytes:
        """Return everything in Prometheus' text format."""
        self._waiting.set(waiting)
        return generate_latest(self._registry)
