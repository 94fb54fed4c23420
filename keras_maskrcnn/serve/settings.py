"""The limits of the service."""

import dataclasses
import math

from PIL import Image

from keras_maskrcnn.heads.detection import check_count
from keras_maskrcnn.options import Options

REQUESTS_PER_PLACE = 4  # requests whose body may be arriving at a time, per place in the queue


@dataclasses.dataclass(frozen=True)
class Settings(Options):
    """Limits of the service; a request beyond them is refused.

    Attributes:
        max_bytes: of the body of a request.
        max_pixels: of an image; at most `PIL.Image.MAX_IMAGE_PIXELS`.
        timeout: seconds for the body of a request to arrive, and again for its answer.
        queue: images that are decoded, wait, are in the network or are encoded at a time.
        batch: maximum number of images that go through the network together. Those that wait already do; none waits
            for another.
        score: minimum score of requests that state none; None takes the model's option, or 0.5.

    Raises:
        ValueError: for a value outside its range.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 40_000_000
    timeout: float = 30.0
    queue: int = 16
    batch: int = 1
    score: float | None = None

    def __post_init__(self):
        super().__post_init__()
        for name in ("max_bytes", "max_pixels", "queue", "batch"):
            check_count(name, getattr(self, name))
        if Image.MAX_IMAGE_PIXELS is not None and self.max_pixels > Image.MAX_IMAGE_PIXELS:
            raise ValueError(f"max_pixels={self.max_pixels} is more than PIL.Image.MAX_IMAGE_PIXELS")
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout={self.timeout!r} must be a positive number of seconds")
        if self.score is not None and not 0 <= self.score <= 1:
            raise ValueError(f"score={self.score!r} must be a number from 0 to 1")

    @property
    def files(self):
        """Files that a form may have: half of the queue, so that it is accepted while others are in the service."""
        return max(1, self.queue // 2)

    @property
    def requests(self):
        """Requests that may be open at a time, those whose body is arriving included."""
        return REQUESTS_PER_PLACE * self.queue
