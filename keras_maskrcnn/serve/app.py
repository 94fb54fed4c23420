"""The routes of the service, as a FastAPI application."""

import asyncio
import concurrent.futures
import contextlib
import functools
import json
import os
import typing

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from keras_maskrcnn.serve import answers, images, page, schemas, uploads
from keras_maskrcnn.serve.batching import Batcher
from keras_maskrcnn.serve.docs_page import docs_page
from keras_maskrcnn.serve.errors import ClientGoneError, RequestError
from keras_maskrcnn.serve.logs import Watched
from keras_maskrcnn.serve.metrics import CONTENT_TYPE, Metrics
from keras_maskrcnn.serve.served import Served
from keras_maskrcnn.serve.settings import Settings

PNG = "image/png"
Asked = typing.Annotated[schemas.Asked, Query()]


def create_app(models, settings=None):
    """The service as an ASGI application.

    Args:
        models: dict from names to models, each an `inference.predictor.Detector`; the first is the default.
        settings: `Settings`; None takes the defaults.

    Returns:
        `fastapi.FastAPI`, with the `Service` as its `state.service`.
    """
    service = Service(models, settings or Settings())
    app = FastAPI(
        title="keras-maskrcnn",
        description="Detection and segmentation of objects in images.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # the address would repeat the request's host, and fail for a query that is no UTF-8
        lifespan=service.lifespan,
    )
    app.state.service = service
    _add_routes(app, service)
    app.add_middleware(Watched, metrics=service.metrics)
    for kind in (RequestError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _error)
    return app


def _add_routes(app, service):
    get = functools.partial(app.add_api_route, methods=["GET"])
    for path, answer in page.answers().items():
        get(path, functools.partial(_constant, answer), include_in_schema=False)
    get("/docs", lambda: HTMLResponse(docs_page(app.openapi())), include_in_schema=False)
    get("/health", service.health, response_model=schemas.Health, responses={503: {"model": schemas.Health}})
    get("/metrics", service.measured, response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    get("/v1/models", service.models, response_model=list[schemas.Model])
    for path, predict in (("/v1/predict", service.predict), ("/v1/models/{name}/predict", service.predict_named)):
        app.add_api_route(
            path, predict, methods=["POST"], responses=schemas.ANSWERS, openapi_extra=schemas.BODY, response_model=None
        )


async def _constant(answer):
    return answer


async def _error(request, error):
    """An error as one line of JSON."""
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        error = RequestError(400, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    elif isinstance(error, HTTPException):
        error = RequestError(error.status_code, error.detail, error.headers)
    request.state.log["error"] = error.reason
    return JSONResponse({"error": error.reason}, error.status, error.headers)


class Service:
    """The handlers of the routes, and what they share.

    Args:
        models: as for `create_app`.
        settings: `Settings`.

    Attributes:
        stopping: whether new requests are refused.
    """

    def __init__(self, models, settings):
        self.settings, self.stopping = settings, False
        self._served = {name: Served(name, model, settings.score, settings.batch) for name, model in models.items()}
        self._batcher = Batcher(settings.queue, settings.batch)
        threads = min(self.settings.queue, 1 + (os.cpu_count() or 1))
        self._threads = concurrent.futures.ThreadPoolExecutor(threads, "images")
        self._open = 0  # requests whose body arrives or is answered
        self.metrics = Metrics(self._batcher, lambda: self._open)

    @property
    def names(self):
        """Names of the models."""
        return list(self._served)

    def warm_up(self):
        """Runs every model once."""
        for served in self._served.values():
            served.warm_up()

    @contextlib.asynccontextmanager
    async def lifespan(self, app):
        """Ends the thread of the network with the application."""
        del app
        yield
        self.stopping = True
        self._batcher.close()

    async def health(self):
        """Whether the service takes requests."""
        status = "stopping" if self.stopping else "ok"
        return JSONResponse({"status": status, "models": self.names}, 503 if self.stopping else 200)

    async def measured(self):
        """Figures for Prometheus."""
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def models(self):
        """The models and their classes."""
        return [served.described(position == 0) for position, served in enumerate(self._served.values())]

    async def predict(self, request: Request, asked: Asked):
        """Detects objects with the default model. The body is an image, or a multipart form of images."""
        return await self._predict(next(iter(self._served.values())), request, asked)

    async def predict_named(self, name: str, request: Request, asked: Asked):
        """Detects objects with the model of this name. The body is an image, or a multipart form of images."""
        if name not in self._served:
            raise RequestError(404, f"there is no model {name[:100]!r}; the models are {', '.join(self.names)}")
        return await self._predict(self._served[name], request, asked)

    async def _predict(self, served, request, asked):
        request.state.log["model"] = served.name
        served.check(asked.max_detections)
        with self._opened():
            files, is_form = await self._files(request)
            as_png = _wants_png(request, asked)
            if as_png and len(files) > 1:
                raise RequestError(400, "an overlay is drawn of one image, and the request has several")
            make = functools.partial(self._overlay if as_png else self._result, served, asked)
            work = self._many(make, files) if is_form and not as_png else self._one(make, files[0])
            try:
                async with asyncio.timeout(self.settings.timeout):
                    answer, objects = await _unless_gone(request.receive, work)
            except TimeoutError:
                reason = f"the answer is not ready after {self.settings.timeout:g} seconds"
                raise RequestError(504, reason) from None
            request.state.log["objects"] = objects
            return answer

    async def _files(self, request):
        """The contents of the files in a request, and whether it is a form."""
        is_form = uploads.content_type(request) == uploads.MULTIPART
        self._batcher.check()  # before the body arrives
        content = await uploads.body(request, self.settings.max_bytes, self.settings.timeout)
        request.state.log["bytes"] = len(content)
        return await uploads.files(request, content, self.settings.files) if is_form else [content], is_form

    @contextlib.contextmanager
    def _opened(self):
        """Context of a request that may have a body; a `RequestError` while too many are open, or the service stops."""
        if self.stopping:
            raise RequestError(503, "the service is stopping", {"Connection": "close"})
        if self._open >= self.settings.requests:
            raise RequestError(429, f"{self._open} requests are open", {"Retry-After": "1"})
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def _one(self, make, content):
        """The answer to a request of one image, and its number of objects."""
        with self._batcher.places(1):
            return await make(content)

    async def _many(self, make, files):
        """The answer to a request of several images, and their number of objects."""

        async def attempt(content):
            try:
                return await make(content)
            except RequestError as refused:
                return _json({"error": refused.reason}), 0

        with self._batcher.places(len(files)):
            tasks = [asyncio.create_task(attempt(content)) for content in files]
            try:
                done = await asyncio.gather(*tasks)
            finally:
                for task in tasks:  # those that still wait when one fails
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        body = b'{"results":[' + b",".join(response.body for response, _ in done) + b"]}"
        return Response(body, media_type="application/json"), sum(count for _, count in done)

    async def _result(self, served, asked, content):
        image, computed = await self._computed(served, asked, content)
        make = functools.partial(answers.result, served, image.shape[:2], computed, asked.masks)
        return await self._in_thread(lambda: _json(make())), _count(computed)

    async def _overlay(self, served, asked, content):
        image, computed = await self._computed(served, asked, content)
        drawn = await self._in_thread(answers.overlay, image, computed.found, served.class_names)
        return Response(drawn, media_type=PNG), _count(computed)

    async def _in_thread(self, work, *arguments):
        """The result of a function in a thread. When the request ends before it, a place stays taken until it ends."""
        running = self._threads.submit(work, *arguments)
        result = asyncio.wrap_future(running)
        try:
            return await asyncio.shield(result)
        except asyncio.CancelledError:
            if not running.cancel():
                self._batcher.keep(result)
            raise

    async def _computed(self, served, asked, content):
        """The image in a file, and its `batching.Computed`."""
        limits = asked.score, asked.max_detections
        image = await self._in_thread(images.decoded, content, served.image_type, self.settings.max_pixels)
        computed = await self._batcher.detect(served.detector(*limits), served.key(image, *limits), image)
        self.metrics.computed(served.name, computed)
        return image, computed


def _count(computed):
    return len(computed.found.get("labels", ()))


def _json(content):
    return Response(json.dumps(content, separators=(",", ":"), allow_nan=False), media_type="application/json")


def _wants_png(request, asked):
    if asked.format is not None:
        return asked.format == "png"
    return request.headers.get("accept", "").partition(",")[0].partition(";")[0].strip().lower() == PNG


async def _unless_gone(receive, work):
    """Awaits a coroutine, or cancels it and raises `ClientGoneError` when the client closes the connection."""

    async def gone():
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.create_task(work), asyncio.create_task(gone())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientGoneError
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
