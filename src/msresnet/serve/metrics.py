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
        self.registry = mine = CollectorRegistry()
        texts = {
            "requests": "Requests by status; 499: the client went away",
            "request_seconds": "From a request's headers to its answer",
            "requests_active": "Requests that are being answered",
            "queue_images": "Images that wait for their answer",
            "images": "Images that were computed",
            "batch_images": "Images in a batch",
            "batch_seconds": "Computing a batch",
            "workers_replaced": "Worker processes that died",
            "model_loads": "Loads of a model, by whether they were good",
        }
        names = {short: (f"msresnet_{short}", text) for short, text in texts.items()}
        self.requests = Counter(*names["requests"], ["status"], registry=mine)
        self.seconds = Histogram(*names["request_seconds"], buckets=SECONDS, registry=mine)
        self.active = Gauge(*names["requests_active"], registry=mine)
        self.waiting = Gauge(*names["queue_images"], ["model"], registry=mine)
        self.images = Counter(*names["images"], ["model"], registry=mine)
        self.batches = Histogram(*names["batch_images"], ["model"], buckets=SIZES, registry=mine)
        self.computing = Histogram(*names["batch_seconds"], ["model"], buckets=SECONDS, registry=mine)
        self.replaced = Counter(*names["workers_replaced"], ["model"], registry=mine)
        self.loads = Counter(*names["model_loads"], ["model", "good"], registry=mine)

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
