"""Counts and times for Prometheus; every request is counted once, so that they add up."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What has happened since the start.

    `requests` over all statuses equals the count of `seconds`; `images` equals the sum of `batches`.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        mine = {"registry": self.registry, "namespace": "msresnet"}
        self.requests = Counter("requests", "Requests by status; 499: the client went away", ["status"], **mine)
        self.seconds = Histogram("request_seconds", "From the headers to the answer", buckets=SECONDS, **mine)
        self.active = Gauge("requests_active", "Requests that are being answered", **mine)
        self.waiting = Gauge("queue_images", "Images that wait for their batch", ["model"], **mine)
        self.images = Counter("images", "Images that were computed", ["model"], **mine)
        self.batches = Histogram("batch_images", "Images in a batch", ["model"], buckets=SIZES, **mine)
        self.computing = Histogram("batch_seconds", "Computing a batch", ["model"], buckets=SECONDS, **mine)
        self.replaced = Counter("workers_replaced", "Worker processes that died", ["model"], **mine)
        self.loads = Counter("model_loads", "Loads of a model, by whether it is served now", ["model", "good"], **mine)

    def counted(self, status: int, seconds: float) -> None:
        """A request has ended."""
        self.requests.labels(str(status)).inc()
        self.seconds.observe(seconds)

    def computed(self, model: str, images: int, seconds: float) -> None:
        """A batch has been computed."""
        self.images.labels(model).inc(images)
        self.batches.labels(model).observe(images)
        self.computing.labels(model).observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
