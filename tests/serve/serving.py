"""A model whose network is a few lines of NumPy, and the service around it in this process."""

import asyncio
import contextlib
import io
import threading

import httpx
import numpy as np
from PIL import Image

from keras_maskrcnn.heads.detection import OUTPUTS, Detection
from keras_maskrcnn.heads.outputs import Output
from keras_maskrcnn.inference.placement import Placement, Resize
from keras_maskrcnn.inference.predictor import Detector, Predictor
from keras_maskrcnn.serve import Settings, create_app

SIDE = 32  # pixels of the canvas, and of most images here
MASKS = Output("masks", "box_masks")


class BrightSquare:
    """The network: one object per image, around its pixels above 128; its score is the red of the top left pixel.

    Attributes:
        gate: the network waits until it is set.
        batches: sizes of the batches that were computed.
    """

    dynamic = True

    def __init__(self):
        self.gate, self.entered, self.batches, self.error = threading.Event(), threading.Event(), [], None
        self.gate.set()

    def __call__(self, inputs, limits):
        self.entered.set()
        assert self.gate.wait(20)
        if self.error:
            raise self.error
        images = inputs["images"]
        self.batches.append(len(images))
        boxes = np.stack([_box(image) for image in images])[:, None]
        scores = images[:, :1, 0, 0] / 255
        valid = (boxes[..., 2] > boxes[..., 0]) & (scores > limits.score_threshold)
        masks = np.ones((len(images), 1, 28, 28), "float32")
        return {"boxes": boxes, "labels": valid.astype("int32"), "scores": scores, "masks": masks, "valid": valid}


def _box(image):
    rows, columns = np.nonzero((image > 128).all(axis=-1))
    if not rows.size:
        return np.zeros(4, "float32")
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], "float32")


class Model(Detector):
    """A model for the service, which finds a bright square."""

    def __init__(self, names=("square",), schema=(*OUTPUTS, MASKS)):
        self.class_names, self.network, self.schema = list(names), BrightSquare(), schema
        self.placement = Placement((SIDE, SIDE), Resize(), 1)
        self.image_type = self.placement.image_type
        self.predictor = Predictor(self.network, self.placement, self.schema, Detection())


def square(x=8, y=8, side=8, score=0.8, size=(SIDE, SIDE)):
    """An image with a white square, uint8 [H, W, 3]."""
    image = np.zeros((*size, 3), np.uint8)
    image[0, 0, 0] = round(score * 255)
    image[y : y + side, x : x + side] = 255
    return image


def encoded(image, kind="PNG", **options):
    """The bytes of an image file."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **options)
    return stream.getvalue()


class Client:
    """A client of the service in this process, for threads: the event loop runs in a thread of its own."""

    def __init__(self, models, **settings):
        self.app = create_app(models, Settings(**settings))
        self.service = self.app.state.service
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._opened = contextlib.AsyncExitStack()
        self._client = self._run(self._open())

    async def _open(self):
        await self._opened.enter_async_context(self.app.router.lifespan_context(self.app))
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return await self._opened.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://test"))

    def _run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def request(self, method, path, **options):
        """The response to a request."""
        return self._run(self._client.request(method, path, timeout=60, **options))

    def get(self, path):
        """The response to a GET request."""
        return self.request("GET", path)

    def post(self, path, **options):
        """The response to a POST request."""
        return self.request("POST", path, **options)

    def close(self):
        """Stops the service."""
        self._run(self._opened.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


PNG = {"content-type": "image/png"}
