"""The queue before the network: a bounded number of images, and one thread that takes those that fit together."""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import math
import time
import typing

from keras_maskrcnn.serve.errors import RequestError

RECENT = 0.1  # weight of the last batch in the mean of seconds per image


class Computed(typing.NamedTuple):
    """What the network found in an image.

    Attributes:
        found: `heads.outputs.Detections`.
        queue: seconds that the image waited.
        network: seconds that its batch took.
        batch: number of images in the batch.
    """

    found: dict
    queue: float
    network: float
    batch: int


@dataclasses.dataclass(eq=False)
class _Job:
    detect: typing.Callable
    key: typing.Hashable
    image: object
    answer: asyncio.Future
    since: float


class Batcher:
    """Runs detection in one thread. All methods belong to the event loop, so that nothing needs a lock.

    Args:
        places: images that may be in the service at a time.
        most: maximum number of images in a batch.
    """

    def __init__(self, places, most):
        self._places, self._most = places, most
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "network")
        self._waiting, self._running, self._closed, self.taken = [], False, False, 0
        self._seconds = 0.0  # per image, a mean of the recent ones

    @property
    def waiting(self):
        """Number of images that wait for the network."""
        return len(self._waiting)

    def check(self, count=1):
        """Raises a `RequestError` of status 429 unless `count` places are free."""
        if self.taken + count > self._places:
            seconds = max(1, math.ceil(self._seconds * self.taken))
            reason = f"the queue is full ({self.taken} of {self._places} places are taken)"
            raise RequestError(429, reason, {"Retry-After": str(seconds)})

    @contextlib.contextmanager
    def places(self, count):
        """Context in which `count` places are taken; a `RequestError` of status 429 if they are not free."""
        self.check(count)
        self.taken += count
        try:
            yield
        finally:
            self.taken -= count

    def keep(self, work):
        """Takes one place, free or not, until a future is done."""
        self.taken += 1
        work.add_done_callback(self._free)

    def _free(self, work):
        self.taken -= 1
        if not work.cancelled():
            work.exception()  # nobody waits for it

    async def detect(self, detect, key, image):
        """Detects in an image, together with others that wait. If it is cancelled while it waits, nothing is computed.

        Args:
            detect: function of a list of images to a list of results; it runs in the thread.
            key: images with equal keys can be in one batch, by the function of the first of them.
            image: the image.

        Returns:
            `Computed`.

        Raises:
            RequestError: 503 after `close`.
            Exception: that of `detect`; images of a batch that fails are tried again one by one.
        """
        if self._closed:
            raise _stopping()
        answer = asyncio.get_running_loop().create_future()
        job = _Job(detect, key, image, answer, time.perf_counter())
        self._waiting.append(job)
        self._start()
        try:
            return await answer
        finally:
            if job in self._waiting:
                self._waiting.remove(job)

    def close(self):
        """Lets the thread end after the batch that it computes; images that wait get a `RequestError` of status 503."""
        self._closed = True
        for job in self._waiting:
            _settle(job, error=_stopping())
        self._waiting.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _start(self):
        if self._running or self._closed or not self._waiting:
            return
        first = self._waiting[0]
        jobs = [job for job in self._waiting if job.key == first.key][: self._most]
        self._waiting = [job for job in self._waiting if job not in jobs]
        self._running = True
        running = asyncio.get_running_loop().run_in_executor(self._thread, _computed, jobs)
        running.add_done_callback(lambda running: self._finish(jobs, running))

    def _finish(self, jobs, running):
        self._running = False
        error = _stopping() if running.cancelled() else running.exception()
        if error is None:
            results = running.result()
            seconds = results[0].network / len(jobs)
            self._seconds += (seconds - self._seconds) * (RECENT if self._seconds else 1)
            for job, result in zip(jobs, results, strict=True):
                _settle(job, result)
        elif len(jobs) == 1 or self._closed:
            for job in jobs:
                _settle(job, error=error)
        else:
            self._separate(jobs)
        self._start()

    def _separate(self, jobs):
        """Puts the images of a batch that failed before all others, each in a batch of its own."""
        jobs = [job for job in jobs if not job.answer.done()]
        for job in jobs:
            job.key = object()
        self._waiting[:0] = jobs


def _settle(job, result=None, error=None):
    """Gives a job its result or error, unless its request has been cancelled."""
    if job.answer.done():
        return
    if error is None:
        job.answer.set_result(result)
    else:
        job.answer.set_exception(error)


def _stopping():
    return RequestError(503, "the service is stopping", {"Connection": "close"})


def _computed(jobs):
    begin = time.perf_counter()
    found = jobs[0].detect([job.image for job in jobs])
    seconds = time.perf_counter() - begin
    return [Computed(each, begin - job.since, seconds, len(jobs)) for job, each in zip(jobs, found, strict=True)]
