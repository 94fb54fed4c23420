"""The figures of the service in Prometheus' text format."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client import generate_latest as generate

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Counters of one application.

    Args:
        batcher: `batching.Batcher`, whose queue is measured.
        opened: function that returns the number of requests whose body arrives or is answered.
    """

    def __init__(self, batcher, opened):
        self._registry = registry = CollectorRegistry()
        prefix = {"namespace": "keras_maskrcnn", "registry": registry}
        self.requests = Counter("requests", "Requests by route and status.", ("method", "path", "status"), **prefix)
        self.seconds = Histogram("request_seconds", "Duration of requests.", ("path",), buckets=SECONDS, **prefix)
        self.images = Counter("images", "Images that went through the network.", ("model",), **prefix)
        self.objects = Counter("objects", "Objects that were found.", ("model",), **prefix)
        self.queue = Histogram("queue_seconds", "Time of images in the queue.", ("model",), buckets=SECONDS, **prefix)
        self.network = Histogram("network_seconds", "Time of batches.", ("model",), buckets=SECONDS, **prefix)
        self.batch = Histogram("batch_images", "Images per batch.", ("model",), buckets=(1, 2, 4, 8, 16), **prefix)
        waiting = Gauge("waiting_images", "Images that wait for the network.", **prefix)
        waiting.set_function(lambda: batcher.waiting)
        taken = Gauge("places_taken", "Places of the queue that are taken.", **prefix)
        taken.set_function(lambda: batcher.taken)
        Gauge("open_requests", "Requests whose body arrives or is answered.", **prefix).set_function(opened)
        ProcessCollector(registry=registry)

    def computed(self, name, computed):
        """Counts an image that went through the network of a model. `computed` is a `batching.Computed`."""
        self.images.labels(name).inc()
        self.objects.labels(name).inc(len(computed.found.get("labels", ())))
        for histogram, value in ((self.queue, computed.queue), (self.network, computed.network)):
            histogram.labels(name).observe(value)
        self.batch.labels(name).observe(computed.batch)

    def answered(self, method, path, status, seconds):
        """Counts a request; `path` is that of the route, so that clients cannot add label values."""
        self.requests.labels(method, path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def text(self):
        """All figures as bytes."""
        return generate(self._registry)
