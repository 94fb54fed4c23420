"""Bad input, full queues, slow clients and clients that leave: one line of JSON, and the service goes on."""

import asyncio
import concurrent.futures
import io
import struct
import threading
import time
import typing
import zlib

import numpy as np
import pytest
import tifffile
from serving import PNG, SIDE, Model, encoded, square

from keras_maskrcnn.inference.exported import Batches
from keras_maskrcnn.inference.graph import CANVAS
from keras_maskrcnn.serve import Settings, create_app, images


def png_header(width, height):
    """The bytes of a PNG file of this size without its pixels."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def in_a_tile(channels):
    """The bytes of a TIFF file of 16 × 16 pixels in one tile of more than a million."""
    stream, options = io.BytesIO(), {"photometric": "rgb", "planarconfig": "contig"}
    image = np.zeros((16, 16, channels), np.uint8)
    tifffile.imwrite(stream, image, tile=(1040, 1040), compression="zlib", **options)
    return stream.getvalue()


def of_two_widths(tag):
    """The bytes of a TIFF file of six channels, the width of its image (tag 256) or of its tiles (322) two numbers."""
    stream, options = io.BytesIO(), {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(stream, np.zeros((32, 32, 6), np.uint8), tile=(16, 16), **options)
    width = struct.pack("<HHI", tag, 4, 1)  # tag, type of its values, and their number: a long one, then two short ones
    assert stream.getvalue().count(width) == 1
    return stream.getvalue().replace(width, struct.pack("<HHI", tag, 3, 2))


BAD = {
    "empty": (b"", PNG, {}, 400, "the body is empty"),
    "no image": (b"no image", PNG, {}, 400, "no image in a format that is read"),
    "truncated": (encoded(square())[:60], PNG, {}, 400, "cannot be read as an image"),
    "a bomb": (png_header(50_000, 50_000), PNG, {}, 413, "more than 1000000 pixels"),
    "many pixels": (png_header(7_000, 7_000), PNG, {}, 413, "7000 x 7000 pixels"),
    "a large tile": (in_a_tile(3), PNG, {}, 413, "1040 x 1040 pixels"),
    "a large tile of many channels": (in_a_tile(6), PNG, {}, 413, "1040 x 1040 pixels"),
    "two widths": (of_two_widths(256), PNG, {}, 400, "the TIFF file cannot be read"),
    "two widths of tiles": (of_two_widths(322), PNG, {}, 400, "the TIFF file cannot be read"),
    "many bytes": (b"x" * 300_001, PNG, {}, 413, "more than 300000 bytes"),
    "text": (b"text", {"content-type": "text/plain"}, {}, 415, "'text/plain'"),
    "a form of nothing": (b"x", {"content-type": "multipart/form-data"}, {}, 400, "multipart"),
    "a cut form": (b"--x\r\n", {"content-type": "multipart/form-data; boundary=x"}, {}, 400, "multipart"),
    "score": (encoded(square()), PNG, {"score": 2}, 400, "score"),
    "score of no number": (encoded(square()), PNG, {"score": "nan"}, 400, "score"),
    "masks": (encoded(square()), PNG, {"masks": "png"}, 400, "masks"),
    "an unknown parameter": (encoded(square()), PNG, {"file": "/etc/passwd"}, 400, "file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_line(start, model, case):
    content, headers, query, status, reason = BAD[case]
    client = start(model, max_bytes=300_000, max_pixels=1_000_000)
    response = client.post("/v1/predict", content=content, headers=headers, params=query)
    assert response.status_code == status, response.text
    (error,) = response.json().values()
    assert reason in error and "\n" not in error and "0x" not in error
    assert client.post("/v1/predict", content=encoded(square()), headers=PNG).status_code == 200


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/predict", 405), ("GET", "/etc/passwd", 404)])
def test_other_routes_are_answered_in_json(client, method, path, status):
    response = client.request(method, path)
    assert response.status_code == status and set(response.json()) == {"error"}


def test_a_query_that_is_no_text_is_answered(model):
    """Starlette would redirect from a path with a slash at its end, and fail at the query."""
    sent = []

    async def ask():
        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/predict/", "query_string": b"\xff=1", "headers": []}
        await create_app({"squares": model}, Settings())({**scope, "root_path": "", "scheme": "http"}, None, send)

    asyncio.run(ask())
    assert sent[0]["status"] == 404 and b"error" in sent[1]["body"]


def test_a_form_has_at_most_half_as_many_files_as_the_queue_has_places(start, model):
    client = start(model, queue=5)
    for count, status in ((2, 200), (3, 413), (9, 413)):
        response = client.post("/v1/predict", files=[("file", ("a", encoded(square())))] * count)
        assert response.status_code == status, response.text


def test_a_failure_of_the_model_is_an_error_without_its_details(start, model):
    client = start(model, batch=1, queue=6)
    model.network.error = RuntimeError("secret")
    response = client.post("/v1/predict", content=encoded(square()), headers=PNG)
    assert response.status_code == 500 and response.json() == {"error": "internal error"}
    several = client.post("/v1/predict", files=[("file", ("a", encoded(square())))] * 3)
    assert several.status_code == 500 and Figures(client.service).waiting == 0
    model.network.error = None
    assert client.post("/v1/predict", content=encoded(square()), headers=PNG).status_code == 200


def test_more_objects_than_the_file_of_a_model_has_are_refused(start, model):
    content = {"batch": 1, "max_detections": 7, "placement": {"image_size": [SIDE, SIDE]}}

    def engine(inputs):
        return model.network({"images": inputs[CANVAS[0]]}, Limits(inputs["score_threshold"]))

    model.predictor.network = Batches(content, engine)
    client = start(model)
    for most, status in ((8, 400), (7, 200)):
        response = client.post("/v1/predict", content=encoded(square()), headers=PNG, params={"max_detections": most})
        assert response.status_code == status, response.text
        if status == 400:
            assert response.json() == {"error": "max_detections: the model squares finds at most 7 objects per image"}


# Several clients at a time -------------------------------------------------------------------------------------------


class Limits(typing.NamedTuple):
    score_threshold: float


class Caller:
    """An ASGI client that decides when its body is complete, and when it leaves."""

    def __init__(self, app, body=b"", headers=()):
        self.messages, self.sent = asyncio.Queue(), []
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/v1/predict",
            "raw_path": b"/v1/predict",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", b"image/png"), *headers],
        }
        if body:
            self.give(body, more=False)
        self.task = asyncio.create_task(app(scope, self.messages.get, self.send))

    async def send(self, message):
        self.sent.append(message)

    def give(self, body, more):
        self.messages.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def leave(self):
        self.messages.put_nowait({"type": "http.disconnect"})

    @property
    def status(self):
        return self.sent[0]["status"] if self.sent else None


class Figures:
    """What `/metrics` states of a service at this moment."""

    def __init__(self, service):
        self._metrics = service.metrics

    def _value(self, name):
        (line,) = (line for line in self._metrics.text().decode().splitlines() if line.startswith(f"{name} "))
        return float(line.split()[1])

    @property
    def waiting(self):
        return self._value("keras_maskrcnn_waiting_images")

    @property
    def taken(self):
        return self._value("keras_maskrcnn_places_taken")

    @property
    def opened(self):
        return self._value("keras_maskrcnn_open_requests")


async def until(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the condition is not met in time")


def run(scenario, model, **settings):
    """Runs a coroutine function of the application, and lets the network go on at its end."""
    app = create_app({"squares": model}, Settings(**settings))

    async def whole():
        async with app.router.lifespan_context(app):
            try:
                await scenario(app, Figures(app.state.service))
            finally:
                model.network.gate.set()

    asyncio.run(whole())


def test_a_full_queue_is_answered_429_and_says_when_to_come_again(model):
    async def scenario(app, figures):
        model.network.gate.clear()
        callers = [Caller(app, encoded(square())) for _ in range(2)]
        await until(lambda: model.network.entered.is_set() and figures.waiting == 1)
        third = Caller(app, encoded(square()))
        await third.task
        assert third.status == 429 and int(dict(third.sent[0]["headers"])[b"retry-after"]) >= 1
        model.network.gate.set()
        await asyncio.gather(*(caller.task for caller in callers))
        assert [caller.status for caller in callers] == [200, 200]
        assert figures.taken == 0

    run(scenario, model, queue=2)


def test_a_client_that_leaves_frees_its_place_and_its_image_is_not_computed(model):
    async def scenario(app, figures):
        model.network.gate.clear()
        first, second = Caller(app, encoded(square())), Caller(app, encoded(square()))
        await until(lambda: model.network.entered.is_set() and figures.waiting == 1)
        second.leave()
        await second.task
        assert (figures.waiting, figures.taken, second.sent) == (0, 1, [])
        third = Caller(app, encoded(square()))
        await until(lambda: figures.waiting == 1)
        model.network.gate.set()
        await asyncio.gather(first.task, third.task)
        assert (first.status, third.status) == (200, 200)
        assert sum(model.network.batches) == 2

    run(scenario, model, queue=2)


@pytest.mark.parametrize("leaves", [True, False])
def test_a_place_is_taken_until_the_decoder_ends_even_if_its_request_does_not_wait(model, monkeypatch, leaves):
    entered, gate, decoded = threading.Event(), threading.Event(), images.decoded

    def slow(*arguments):
        entered.set()
        assert gate.wait(20)
        return decoded(*arguments)

    monkeypatch.setattr(images, "decoded", slow)

    async def scenario(app, figures):
        first = Caller(app, encoded(square()))
        await until(entered.is_set)
        if leaves:
            first.leave()
        await first.task
        assert first.status == (None if leaves else 504) and (figures.opened, figures.taken) == (0, 1)
        second = Caller(app, encoded(square()))
        await second.task
        assert second.status == 429
        gate.set()
        await until(lambda: figures.taken == 0)
        third = Caller(app, encoded(square()))
        await third.task
        assert third.status == 200

    run(scenario, model, queue=1, timeout=20.0 if leaves else 3.0)


def test_an_image_that_fails_does_not_fail_those_in_its_batch(model):
    network = model.network.__call__

    class Failing:
        dynamic = True

        def __call__(self, inputs, limits):
            found = network(inputs, limits)
            if (found["boxes"][:, 0, 0] == 20).any():
                raise RuntimeError("this image")
            return found

    model.predictor.network = Failing()

    async def scenario(app, figures):
        model.network.gate.clear()
        callers = [Caller(app, encoded(square()))]
        await until(model.network.entered.is_set)
        callers += [Caller(app, encoded(square(x=x))) for x in (4, 20, 8)]
        await until(lambda: figures.waiting == 3)
        model.network.gate.set()
        await asyncio.gather(*(caller.task for caller in callers))
        assert [caller.status for caller in callers] == [200, 200, 500, 200]
        assert model.network.batches == [1, 3, 1, 1, 1]

    run(scenario, model, batch=4)


def test_images_that_wait_when_the_application_ends_are_answered_503(model):
    app = create_app({"squares": model}, Settings())

    async def statuses():
        model.network.gate.clear()
        async with app.router.lifespan_context(app):
            callers = [Caller(app, encoded(square())) for _ in range(3)]
            await until(lambda: Figures(app.state.service).waiting == 2)
        model.network.gate.set()
        callers.append(Caller(app, encoded(square())))
        await asyncio.gather(*(caller.task for caller in callers))
        return [caller.status for caller in callers]

    assert sorted(asyncio.run(statuses())) == [200, 503, 503, 503]


def test_a_request_that_is_cancelled_has_the_status_499(model):
    async def scenario(app, figures):
        caller = Caller(app)
        await until(lambda: figures.opened == 1)
        caller.task.cancel()
        await asyncio.gather(caller.task, return_exceptions=True)
        text = app.state.service.metrics.text().decode()
        assert 'path="/v1/predict",status="499"} 1.0' in text and 'status="None"' not in text

    run(scenario, model)


def test_a_client_that_leaves_during_its_body_is_forgotten(model):
    async def scenario(app, figures):
        caller = Caller(app)
        caller.give(b"begin", more=True)
        caller.leave()
        await caller.task
        assert caller.sent == [] and figures.taken == 0 and figures.opened == 0

    run(scenario, model)


@pytest.mark.parametrize("size", [1, 2000])
def test_a_slow_body_is_answered_408_or_413_and_does_not_delay_others(model, size):
    async def scenario(app, figures):
        slow = Caller(app)
        slow.give(b"x" * size, more=True)
        quick = Caller(app, encoded(square()))
        await quick.task
        assert quick.status == 200 and not slow.task.done() and figures.taken == 0
        await slow.task
        assert slow.status == (408 if size == 1 else 413)
        assert dict(slow.sent[0]["headers"])[b"connection"] == b"close"

    run(scenario, model, timeout=1.0, max_bytes=1000)


def test_an_answer_that_takes_too_long_is_504_and_frees_its_place(model):
    async def scenario(app, figures):
        model.network.gate.clear()
        callers = [Caller(app, encoded(square())) for _ in range(2)]
        await asyncio.gather(*(caller.task for caller in callers))
        assert [caller.status for caller in callers] == [504, 504] and figures.taken == 0
        model.network.gate.set()
        later = Caller(app, encoded(square()))
        await later.task
        assert later.status == 200 and sum(model.network.batches) == 2  # the one that was running, and the later one

    run(scenario, model, timeout=0.5)


def test_open_requests_are_bounded(model):
    async def scenario(app, figures):
        slow = [Caller(app) for _ in range(4)]
        await until(lambda: figures.opened == 4)
        fifth = Caller(app, encoded(square()))
        await fifth.task
        assert fifth.status == 429
        for caller in slow:
            caller.leave()
        await asyncio.gather(*(caller.task for caller in slow))

    run(scenario, model, queue=1)


@pytest.mark.parametrize(("batch", "sizes"), [(1, [1, 1, 1, 1, 1]), (3, [1, 3, 1])])
def test_images_that_wait_are_computed_together(model, batch, sizes):
    async def scenario(app, figures):
        model.network.gate.clear()
        first = Caller(app, encoded(square()))
        await until(model.network.entered.is_set)
        others = [Caller(app, encoded(square())) for _ in range(4)]
        await until(lambda: figures.waiting == 4)
        model.network.gate.set()
        await asyncio.gather(*(caller.task for caller in (first, *others)))
        assert model.network.batches == sizes

    run(scenario, model, batch=batch)


def test_only_requests_of_equal_thresholds_and_models_share_a_batch(start):
    models = {"one": Model(), "two": Model()}
    client = start(models, batch=8)
    models["one"].network.gate.clear()
    calls = [("one", 0.5), ("one", 0.5), ("one", 0.2), ("two", 0.5)]

    def call(name, score):
        path = f"/v1/models/{name}/predict"
        return client.post(path, content=encoded(square()), headers=PNG, params={"score": score}).status_code

    service = client.service
    with concurrent.futures.ThreadPoolExecutor(5) as threads:
        done = [threads.submit(call, "one", 0.5)]
        assert models["one"].network.entered.wait(10)
        done += [threads.submit(call, *each) for each in calls]
        end = time.monotonic() + 10
        while Figures(service).waiting < 4 and time.monotonic() < end:
            time.sleep(0.01)
        models["one"].network.gate.set()
        assert [each.result() for each in done] == [200] * 5
    first, *later = models["one"].network.batches
    assert (first, sorted(later), models["two"].network.batches) == (1, [1, 2], [1])  # requests arrive in any order


def test_clients_in_threads_get_their_own_objects(start, model):
    client = start(model, batch=4, queue=64)
    barrier = threading.Barrier(8)

    def call(number):
        x, score = number % 20, 0.5 + number / 100
        barrier.wait(10)
        content = encoded(square(x=x, score=score))
        (thing,) = client.post("/v1/predict", content=content, headers=PNG).json()["objects"]
        return abs(thing["score"] - score) < 0.005 and thing["box"][0] == x

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert all(threads.map(call, range(40)))
