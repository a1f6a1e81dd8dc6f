"""What the server did -> numbers that Prometheus reads."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)


class Meters:
    """The counters of one server; each has its own, so that tests can run several in one process.

    Example:
        >>> meters = Meters()
        >>> meters.requests.labels("/v1/predict", "200").inc()
        >>> 'pronk_requests_total{route="/v1/predict",status="200"} 1.0' in meters.text().decode()
        True
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        # Routes are those of the description, never addresses as typed: strangers would fill the memory with labels.
        self.requests = Counter("pronk_requests", "Requests answered", ["route", "status"], registry=self._registry)
        self.seconds = Histogram(
            "pronk_request_seconds", "Time per request", ["route"], buckets=SECONDS, registry=self._registry
        )
        self.photos = Counter("pronk_photos", "Photos answered", ["outcome"], registry=self._registry)
        self.busy = Gauge("pronk_requests_in_progress", "Requests under way", registry=self._registry)
        self.ready = Gauge("pronk_ready", "Whether a model answers", registry=self._registry)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """Return all numbers in Prometheus's text form."""
        return generate_latest(self._registry)
